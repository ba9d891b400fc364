"""Settings: what parses, and what the errors say."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest

from streamgan import api, settings


@dataclasses.dataclass(frozen=True)
class Folder:
    path: str
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Loop:
    iterations: int = 10
    rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    precision: Literal["fp32", "bf16"] = "fp32"
    flip: bool = True


@dataclasses.dataclass(frozen=True)
class Recipe:
    name: str
    folders: tuple[Folder, ...] = ()
    more: list[Folder] = dataclasses.field(default_factory=list)
    by_name: dict[str, Folder] = dataclasses.field(default_factory=dict)
    extra: Folder | None = None
    loop: Loop = Loop()
    size: tuple[int, int] | None = None
    start: Fraction = Fraction(0)
    file: Path = Path()
    amount: float = api.option(0.5, minimum=0, maximum=1)
    mode: str = api.option("soft", choices=("soft", "hard"))
    made: str = dataclasses.field(default="", metadata=settings.NOT_A_KEY)

    def __post_init__(self) -> None:
        if self.name == "both":
            raise ValueError("name and loop do not go together")


def parse(**keys: Any) -> Recipe:
    return settings.parse(Recipe, {"name": "x"} | keys, "r.yaml")


def test_defaults_and_nesting() -> None:
    recipe = parse(
        folders=[{"path": "a", "weight": "2"}],
        more=[{"path": "b"}],
        by_name={"c": {"path": "c"}},
        extra={"path": "d"},
        loop={"rate": "1e-3", "betas": [0, 1], "flip": "no"},
        size=[256, 144],
        start="1.5",
        file="x/y",
    )
    assert recipe.folders == (Folder("a", 2.0),)
    assert (recipe.more, recipe.by_name, recipe.extra) == ([Folder("b")], {"c": Folder("c")}, Folder("d"))
    assert recipe.loop == Loop(rate=1e-3, betas=(0.0, 1.0), flip=False)
    assert (recipe.size, recipe.start, recipe.file) == ((256, 144), Fraction(3, 2), Path("x/y"))
    assert parse() == Recipe("x")
    assert parse(extra=None).extra is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"folder": []}, "r.yaml: unknown key 'folder'; did you mean 'folders'? (allowed: name, folders,"),
        ({"made": "x"}, "r.yaml: unknown key 'made'"),
        ({"loop": {"iteration": 1}}, "r.yaml: loop: unknown key 'iteration'; did you mean 'iterations'?"),
        ({"folders": [{"path": "a"}, {"pth": "b"}]}, "r.yaml: folders.1: unknown key 'pth'; did you mean 'path'?"),
        ({"folders": [{}]}, "r.yaml: folders.0: the key 'path' is missing"),
        ({"by_name": {"c": {"path": 3}}}, "r.yaml: by_name.c.path: 3 (int) given, expected text"),
        ({"loop": {"iterations": "many"}}, "r.yaml: loop.iterations: 'many' (str) given, expected a whole number"),
        ({"loop": {"iterations": 1.5}}, "r.yaml: loop.iterations: 1.5 (float) given, expected a whole number"),
        ({"loop": {"iterations": True}}, "r.yaml: loop.iterations: True (bool) given, expected a whole number"),
        ({"loop": {"betas": [1]}}, "r.yaml: loop.betas: [1] (list) given, expected [a number, a number]"),
        ({"loop": {"betas": [1, "x"]}}, "r.yaml: loop.betas.1: 'x' (str) given, expected [a number, a number]"),
        ({"loop": {"precision": "fp8"}}, "r.yaml: loop.precision: 'fp8' (str) given, expected one of fp32, bf16"),
        ({"loop": None}, "r.yaml: loop: None (NoneType) given, expected keys (iterations,"),
        ({"size": 3}, "r.yaml: size: 3 (int) given, expected [a whole number, a whole number] or nothing"),
        ({"extra": 3}, "r.yaml: extra: 3 (int) given"),
        ({"amount": 2}, "r.yaml: amount: 2.0 given, expected 0 to 1"),
        ({"amount": float("nan")}, "r.yaml: amount: nan given, expected 0 to 1"),
        ({"mode": "sotf"}, "r.yaml: mode: 'sotf' (str) given, expected one of soft, hard; did you mean 'soft'?"),
        ({"name": "both"}, "r.yaml: name and loop do not go together"),
    ],
)
def test_errors(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(api.PresetError) as caught:
        parse(**keys)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_missing_key() -> None:
    with pytest.raises(api.PresetError, match="r: the key 'name' is missing"):
        settings.parse(Recipe, {}, "r")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "broken.yaml:3: broken YAML: "),
        ("a: 1\na: 2\n", "broken.yaml:2: broken YAML: the key 'a' stands twice"),
        ("a:\n  b: 1\n  b: 2\n", "broken.yaml:3: broken YAML: the key 'b' stands twice"),
        ("- 1\n", "broken.yaml: [1] (list) found, expected 'key: value' lines"),
        ("", "broken.yaml: None (NoneType) found, expected 'key: value' lines"),
        ("a: !!python/object:os.system {}\n", "broken.yaml:1: broken YAML: could not determine a constructor"),
        ("a: \x00\n", "broken.yaml: broken YAML: "),
    ],
)
def test_broken_yaml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(api.PresetError) as caught:
        settings.read_yaml(path)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(caught.value)


def test_unreadable_yaml(tmp_path: Path) -> None:
    with pytest.raises(api.PresetError, match="no such file"):
        settings.read_yaml(tmp_path / "missing.yaml")
    with pytest.raises(api.PresetError, match="cannot be read"):
        settings.read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(api.PresetError, match="cannot be read"):
        settings.read_yaml(tmp_path / "latin.yaml")


def test_merge_keys_are_no_repetition(tmp_path: Path) -> None:
    path = tmp_path / "merge.yaml"
    path.write_text("base: &base {a: 1}\nmore:\n  <<: *base\n  a: 2\n")
    assert settings.read_yaml(path)["more"] == {"a": 2}


def test_nearest() -> None:
    assert settings.nearest("day2nigth", ["day2night", "summer2winter"]) == "; did you mean 'day2night'?"
    assert settings.nearest("xyz", ["day2night"]) == ""


@pytest.mark.parametrize(
    ("kind", "value", "made"),
    [
        (str, "a", "a"),
        (int, 3, 3),
        (float, 3, settings._MORE),
        (bool, 1, settings._MORE),
        (int, True, settings._MORE),
        (tuple[str, ...], ["a", "b"], ("a", "b")),
        (tuple[str, ...], [], ()),
        (tuple[str, ...], ["a", 1], settings._MORE),
        (tuple[int, int], [1, 2], (1, 2)),
        (tuple[int, int], [1, 2, 3], settings._MORE),
        (tuple[tuple[int, int], ...], [[1, 2], [3, 4]], ((1, 2), (3, 4))),
        (dict[str, float], {"a": 1.5}, {"a": 1.5}),
        (dict[str, float], {"a": 1}, settings._MORE),
        (dict[str, float], {1: 1.5}, settings._MORE),
        (str | None, "a", "a"),
        (str | None, None, None),
        (str | None, 1, settings._MORE),
        (float | None, 1, settings._MORE),
        (float | int, 1, 1),
        (tuple[int, ...] | None, [1, 2], (1, 2)),
        (Any, None, None),
        (dict[str, Any], {"a": None}, {"a": None}),
        (list[int], [1], settings._MORE),
        (tuple, [1], settings._MORE),
    ],
)
def test_what_needs_no_conversion_is_what_pydantic_would_make_of_it(kind: Any, value: Any, made: Any) -> None:
    assert settings._as_it_is(kind, value) == made
    if made is not settings._MORE:
        assert made == pydantic.TypeAdapter(kind).validate_python(value)
        assert type(made) is type(pydantic.TypeAdapter(kind).validate_python(value))


def test_a_preset_and_a_card_need_no_pydantic() -> None:
    code = (
        "import sys; from pathlib import Path; from streamgan import model, preset\n"
        "model.read_card(preset.Preset.load(Path('presets/day2night.yaml')).path.with_name('day2night.onnx'))\n"
        "assert 'pydantic' not in sys.modules, 'it costs a tenth of a second at the start'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
