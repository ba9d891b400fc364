"""Presets: the files, and those that are shipped."""

from pathlib import Path

import pytest

from streamgan import api, plugins, preset, settings
from streamgan.preset import Preset

SHIPPED = sorted(preset.shipped_folder().glob("*.yaml"))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_load(tmp_path: Path) -> None:
    path = write(tmp_path / "dusk.yaml", "title: Dusk\ntranslator: model\noptions: {model: dusk.onnx}\nstrength: 0.5\n")
    assert Preset.load(path) == Preset(
        title="Dusk", translator="model", name="dusk", options={"model": "dusk.onnx"}, strength=0.5, path=path
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("titel: x\ntranslator: model\n", "unknown key 'titel'; did you mean 'title'?"),
        ("title: x\n", "the key 'translator' is missing"),
        ("title: x\ntranslator: model\nstrength: strong\n", "strength: 'strong' .* expected a number"),
        ("title: x\ntranslator: model\nstrength: 1.5\n", "strength: 1.5 given, expected 0 to 1"),
        ("title: x\ntranslator: model\npath: /etc\n", "unknown key 'path'"),
        ("title: x\ntranslator: [\n", "broken.yaml:3: broken YAML"),
        ("title: x\ntranslator: model\ntemporal: 0.5\n", "temporal: 0.5 .* expected 'key: value' lines"),
        ("title: x\ntranslator: model\ntemporal: {smooth: high}\n", "temporal.smooth: 'high' given, expected a stren"),
        ("title: x\ntranslator: model\ntemporal: {smooth: true}\n", "temporal.smooth: True given, expected a strength"),
        ("title: x\ntranslator: model\ntemporal: {smooth:}\n", "temporal.smooth: None given, expected a strength"),
    ],
)
def test_errors_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(api.PresetError, match=message) as caught:
        Preset.load(write(tmp_path / "broken.yaml", text))
    assert str(tmp_path / "broken.yaml") in str(caught.value)


def test_a_number_alone_is_the_strength_of_a_filter(tmp_path: Path) -> None:
    text = "title: x\ntranslator: model\ntemporal: {smooth: 0.7, other: {lines: 90}, third: 1}\n"
    temporal = Preset.load(write(tmp_path / "calm.yaml", text)).temporal
    assert temporal == {"smooth": {"strength": 0.7}, "other": {"lines": 90}, "third": {"strength": 1}}
    assert list(temporal) == ["smooth", "other", "third"]  # the order in which they work


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_presets_are_complete(path: Path) -> None:
    loaded = Preset.load(path)
    assert loaded.title and loaded.description
    translator = plugins.load().translator(loaded.translator)
    options = settings.parse(translator.Options, loaded.options, str(path))
    model = getattr(options, "model", None)
    assert model is None or (path.parent / model).is_file()


def test_name_or_path() -> None:
    registry = plugins.load()
    assert registry.preset_path("./mine.yaml") == Path("mine.yaml")
    assert registry.preset_path("mine.yml") == Path("mine.yml")
    for path in SHIPPED:
        assert registry.preset_path(path.stem) == path
