"""The record of a run: complete, true, atomic, and readable later."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import pytest
from clips import read_pts

import streamgan
from streamgan import api, pipeline, plugins, record
from streamgan.cli.program import execute

Make = Callable[..., Path]
Preset = Callable[..., str]


def sha256(path: Path) -> str:
    """As sha256sum has it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def run(make_clip: Make, make_preset: Preset, negative_model: Path, registry: plugins.Registry) -> Callable[..., Path]:
    """Translates a clip of 20 frames with a model and a record; returns the folder."""

    def go(**fields: Any) -> Path:
        source = make_clip(name="in.mkv", audio=True, title="A film")
        given = {
            "input": str(source),
            "preset": make_preset("model", model=negative_model.name),
            "output": str(source.with_name("out.mp4")),
            "report": str(source.with_name("run.json")),
        }
        pipeline.run(pipeline.build(pipeline.Request.of(**given | fields), registry))
        return source.parent

    return go


def test_a_record_says_what_was_done_with_what(run: Callable[..., Path]) -> None:
    folder = run(start=0.2, backend="onnxruntime", strength=0.5, crf=30, threads=2)
    content = json.loads((folder / "run.json").read_text())
    assert content["input"]["sha256"] == sha256(folder / "in.mkv")
    assert content["input"]["bytes"] == (folder / "in.mkv").stat().st_size
    assert content["output"]["sha256"] == sha256(folder / "out.mp4")
    assert [each["sha256"] for each in content["models"]] == [sha256(folder / "negative.onnx")]
    assert content["preset"]["sha256"] == sha256(folder / "trial.yaml")
    none = dict.fromkeys(("dropped", "lost", "repeated", "resumed"), 0)
    assert content["frames"] == {"in": 15, "out": len(read_pts(folder / "out.mp4"))} | none
    assert set(content["seconds"]) == {"total", "decode", "translate", "encode"}
    assert all(0 < seconds < 60 for seconds in content["seconds"].values())
    settings = content["settings"]
    assert (settings["strength"], settings["crf"], settings["start"], settings["end"]) == (0.5, 30, 0.2, None)
    assert settings["options"]["model"] == "negative.onnx" and settings["backend"] == "onnxruntime"
    assert {"streamgan", "av", "ffmpeg", "onnxruntime", "numpy"} <= set(content["versions"])
    assert content["versions"]["streamgan"] == streamgan.__version__
    assert sorted(os.listdir(folder)) == ["in.mkv", "negative.onnx", "out.mp4", "run.json", "trial.yaml"]


def changes(path: Path) -> float:
    """Mean squared change between the frames of a film, of values in [0, 1]."""
    with av.open(str(path)) as container:
        images = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]) / 255
    return float(np.square(np.diff(images, axis=0)).mean())


def test_the_flicker_of_input_and_output_is_in_it(run: Callable[..., Path]) -> None:
    folder = run()
    measured = json.loads((folder / "run.json").read_text())["warping_error"]
    # The clip stands still but for its blue, which over a gradient looks a little like motion; the model inverts it.
    given, made = changes(folder / "in.mkv"), changes(folder / "out.mp4")
    assert given / 2 < measured["input"] < given * 2
    assert measured["output"] / measured["input"] == pytest.approx(made / given, rel=0.3)
    assert measured["contrast_ratio"] == pytest.approx(1, abs=0.05) and measured["pairs"] == 12
    fair = measured["output"] / measured["input"] / measured["contrast_ratio"] ** 2
    assert measured["ratio_over_squared_contrast"] == pytest.approx(fair) and 0 < measured["followed"] <= 1


@pytest.mark.parametrize("fields", [{"compare": True}, {"output": "null:"}, {"output": "out.gif"}, {"end": 0.04}])
def test_what_is_no_film_to_a_film_is_not_measured(
    run: Callable[..., Path], fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads((run(**fields) / "run.json").read_text())["warping_error"] is None


def test_notes_are_in_it(run: Callable[..., Path]) -> None:
    folder = run(codec="vp9", output=None)  # beside the input, as MP4
    assert json.loads((folder / "run.json").read_text())["notes"] == []
    (folder / "run.json").unlink()
    run(codec="vp9", output=str(folder / "out.webm"))
    (note,) = json.loads((folder / "run.json").read_text())["notes"]
    assert "aac" in note and "left out" in note


@pytest.mark.parametrize(
    ("report", "kind", "message"),
    [
        ("run.txt", api.UsageError, "expected a name that ends in .json"),
        ("taken.json", api.UsageError, "exists already; use --overwrite"),
        ("nowhere/run.json", api.SinkError, "a folder that exists"),
        ("x" * 300 + ".json", api.SinkError, "name too long"),
    ],
)
def test_refusals_come_before_any_work(
    run: Callable[..., Path], tmp_path: Path, report: str, kind: type[Exception], message: str
) -> None:
    (tmp_path / "taken.json").write_text("precious")
    with pytest.raises(kind, match=message):
        run(report=str(tmp_path / report))
    assert not (tmp_path / "out.mp4").exists() and (tmp_path / "taken.json").read_text() == "precious"


def test_a_record_that_exists_is_replaced_when_asked(run: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("old")
    run(overwrite=True)
    assert record.read(tmp_path / "run.json")["frames"]["out"] == 20


def test_a_record_that_cannot_be_written_leaves_the_film(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", _only_json(Path.write_text, full))
    with pytest.raises(api.SinkError, match=r"No space left on device\); .*out.mp4 is complete"):
        run()
    assert len(read_pts(tmp_path / "out.mp4")) == 20 and not [name for name in os.listdir(tmp_path) if "json" in name]


def _only_json(usual: Callable[..., int], instead: Callable[..., int]) -> Callable[..., int]:
    """Writes texts as usual, but those of JSON files as told."""

    def write(path: Path, *arguments: Any, **options: Any) -> int:
        return (instead if path.suffix == ".json" else usual)(path, *arguments, **options)

    return write


def test_a_failed_run_has_none(run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(api.SourceError):
        run(start=100)
    assert not (tmp_path / "run.json").exists()


def test_frames_that_the_viewer_did_not_want_are_dropped() -> None:
    report = record.Report("window:", 7, 1.0, {"decode": 0.5}, (), decoded=10)
    assert report.fps == 7 and report.decoded - report.frames == 3


def test_show_prints_it(run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(start=Fraction(1, 5))
    assert execute(["show", str(folder / "run.json")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for wanted in (
        ["run"],
        ["sha256", sha256(folder / "in.mkv")],
        ["sha256", sha256(folder / "negative.onnx")],
        ["out", "15", *["written", "to", "the", "output"]],
        ["lost", "0", *["could", "not", "be", "decoded,", "and", "were", "left", "out"]],
        ["start", "0.2"],
        ["end", "-"],
        ["compare", "no"],
        ["options.model", "negative.onnx"],
        ["notes:", "none"],
    ):
        assert wanted in lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "not JSON; expected a record"),
        ("[" * 100_000, "not JSON"),
        ("\xff\x00", "not JSON"),
        ("[1]", "has format None, this streamgan reads 1"),
        ('{"format": 2, "frames": {}}', "has format 2"),
        ('{"format": 1}', "expected a record"),
    ],
)
def test_show_refuses_what_is_no_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text, encoding="latin-1")
    assert execute(["show", str(tmp_path / "run.json")]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert message in line and captured.out == ""


def test_show_prints_the_record_of_an_older_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older = {"format": 1, "frames": {"in": 3, "out": 3, "dropped": 0}, "notes": []}
    (tmp_path / "run.json").write_text(json.dumps(older))
    assert execute(["show", str(tmp_path / "run.json")]) == 0
    printed = capsys.readouterr().out
    assert "written to the output" in printed and "lost" not in printed and "warping" not in printed


@pytest.mark.parametrize(("error", "words"), [(None, "-  not measured"), (0.000123, "0.000123  mean squared change")])
def test_show_says_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: float | None, words: str
) -> None:
    measured = None if error is None else {"input": error, "output": 2 * error}
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "frames": {}, "warping_error": measured}))
    assert execute(["show", str(tmp_path / "run.json")]) == 0
    assert words in capsys.readouterr().out


def test_show_prints_whatever_a_record_may_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = {"format": 1, "frames": {"in": None}, "new": {"deep": {"deeper": [1, True]}}, "list": [[1], "a\nb"], "x": 1.5}
    (tmp_path / "run.json").write_text(json.dumps(odd))
    assert execute(["show", str(tmp_path / "run.json")]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert {"in  -  decoded from the input", "deep.deeper  [1, True]", "[1]", "a b", "x  1.5"} <= set(lines)
