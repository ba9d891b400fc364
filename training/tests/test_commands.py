"""The commands as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgan.cli.program import execute


def test_train_evaluate_export(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe_file.parent)
    assert execute(["train", "tiny.yaml", "--set", "train.iterations=3"]) == 0
    out = capsys.readouterr().out
    assert "runs/001-tiny" in out and "step 3/3" in out
    assert execute(["export", "runs/001-tiny", "-o", "tiny.onnx"]) == 0
    assert "bright to dark" in capsys.readouterr().out
    assert (recipe_file.parent / "tiny.onnx").is_file()


def test_a_dry_run_prints_every_value_and_counts_the_images(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["train", str(recipe_file), "--dry-run", "--set", "train.batch=7"]) == 0
    out = capsys.readouterr().out
    assert "batch: 7" in out and "lambda_cycle: 10.0" in out
    assert "# bright: 6 images to train on, 2 held out" in out
    assert not (recipe_file.parent / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "missing.yaml"], "missing.yaml: no such recipe"),
        (["train", "tiny.yaml", "--set", "train.batch=many"], "batch"),
        (["train", "tiny.yaml", "--set", "train.bach=2"], "did you mean 'batch'"),
        (["train", "tiny.yaml", "--set", "train"], "expected key=value"),
        (["train", "a", "--resume"], "recipe.yaml: no such recipe"),
        (["train", "tiny.yaml", "--set", "data.size=[50, 32]"], "multiples of 16"),
        (["train", "tiny.yaml", "--set", "name=../x"], "it names a folder"),
        (["train", "tiny.yaml", "--set", "train.batch=0"], "expected 1 to"),
        (["train", "tiny.yaml", "--set", "method.name=cyclgan"], "did you mean 'cyclegan'"),
        (["train", "tiny.yaml", "--set", "method.lambda_cicle=1"], "did you mean 'lambda_cycle'"),
        (["train", "tiny.yaml", "--set", "data.domains.third=[{path: a}]"], "3 domains given"),
        (["train", "tiny.yaml", "--set", "data.tree=."], "expected one of domains, tree and labels"),
        (["train", "tiny.yaml", "--set", "data.jitter.drak={hue: 0.1}"], "did you mean 'dark'"),
        (["train", "tiny.yaml", "--set", "temporal.kind=flow"], "consecutive frames"),
        (["train", "tiny.yaml", "--set", "terms.exposure_region=64"], "at most the side of a crop, 32"),
        (["train", "tiny.yaml", "--set", "data.domains.bright=[{path: .., exclude: ['*']}]"], "no image is left"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    recipe_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(recipe_file.parent)
    assert execute(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not list(recipe_file.parent.glob("runs/*"))


def test_a_folder_that_is_no_run_is_named(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe_file.parent)
    for arguments in (["export", "a", "-o", "x.onnx"], ["evaluate", "a"]):
        assert execute(arguments) == 1
        assert "not a run folder" in capsys.readouterr().err


METHOD = """
from streamgan import api
from streamgan_training.methods.cyclegan import CycleGan

class Louder(CycleGan):
    def turns(self, batch):
        for turn in super().turns(batch):
            yield type(turn)(turn.player, {name: 2 * value for name, value in turn.terms.items()}, turn.directions)

@api.hookimpl
def register_methods(register):
    register("louder", f"{__name__}:Louder")
"""


def test_a_plugin_brings_a_method(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe_file.parent)
    Path("louder.py").write_text(METHOD)
    plugin = ["--plugin", "louder.py"]
    changes = ["--set", "method.name=louder", "--set", "train.iterations=2"]
    assert execute([*plugin, "train", "tiny.yaml", *changes]) == 0
    assert execute([*plugin, "export", "runs/001-tiny", "-o", "tiny.onnx"]) == 0
    assert execute(["export", "runs/001-tiny", "-o", "tiny.onnx"]) == 2
    assert "no method is called 'louder'" in capsys.readouterr().err


def test_run_folders_are_numbered(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe_file.parent)
    for _ in range(2):
        assert execute(["train", "tiny.yaml", "--set", "train.iterations=1"]) == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["001-tiny", "002-tiny"]
