"""``streamgan tune``, and what ``streamgan doctor`` says of what was measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamgan import plugins, testing
from streamgan.cli import tune
from streamgan.cli.program import execute
from streamgan.models.choice import Choice
from streamgan.models.loading import Setup
from streamgan.models.trials import Trial


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a preset that has a model and one that has none, an empty cache, and ONNX Runtime alone."""
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_installed", lambda: iter(()))
    testing.make_model(tmp_path / "tiny.onnx")
    (tmp_path / "tiny.yaml").write_text("title: Tiny\ntranslator: model\noptions: {model: tiny.onnx, size: 36}\n")
    (tmp_path / "none.yaml").write_text("title: None\ntranslator: model\n")
    return tmp_path


def test_tune_shows_every_trial_and_doctor_remembers(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert execute(["tune", "-p", "tiny.yaml", "--resolution", "640x360", "--threads", "2"]) == 0
    captured = capsys.readouterr()
    assert "measuring what runs tiny.onnx fastest here" in captured.err
    lines = captured.out.splitlines()
    assert lines[0] == "tiny at 64x36, 2 threads" and lines[1].split()[:3] == ["backend", "precision", "streams"]
    (used,) = [line for line in lines if line.endswith("<- used")]
    assert re.match(r"\s+onnxruntime\s+fp32\s+\d\s+[\d.]+\s+is the reference", used)
    why = r"the fastest of \d tried|as fast as onnxruntime fp32(, \d streams)?, within 5 %"  # as the trials went
    assert re.fullmatch(rf"tiny: onnxruntime fp32(, \d streams)? \(({why}): [\d.]+ frames/s\)", lines[-1])
    assert execute(["doctor"]) == 0
    report = capsys.readouterr().out
    (row,) = [line for line in report.splitlines() if "64x36" in line]
    assert row.split()[:4] == ["tiny", "64x36", "-", "onnxruntime"] and "frames/s" in row
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d", row) and str(folder / "cache") in report


def test_tune_measures_again(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    arguments = ["tune", "-p", "tiny.yaml", "--resolution", "64x48", "--backend", "onnxruntime", "--size", "24"]
    for _ in range(2):
        assert execute(arguments) == 0
        captured = capsys.readouterr()
        assert "measuring" in captured.err and "tiny at 32x24" in captured.out
    assert len(list((folder / "cache" / "choices").glob("*.json"))) == 1


def test_doctor_without_any_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor"]) == 0
    assert "measured choices (streamgan tune repeats them): none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-p none.yaml", "preset none.yaml: names no model file"),
        ("-p tiny.yaml --backend onnxruntim", "did you mean 'onnxruntime'"),
        ("-p tiny.yaml --resolution big", "--resolution big: expected WIDTHxHEIGHT"),
        ("-p tinny", "no preset is called 'tinny'"),
    ],
)
def test_errors_are_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["tune", *arguments.split()]) != 0
    assert message in capsys.readouterr().err


def test_rows() -> None:
    setup = Setup("gpu", "fp16", 2, 4)
    chosen = Choice(setup, "")
    assert tune.row(Trial(setup, 123.45, 61.2, 3, True), chosen) == (
        *("gpu", "fp16", "2", "123.5", "61.2 dB", "3", "<- used"),
    )
    other = Setup("gpu", "int8")
    assert tune.row(Trial(other, note="no int8"), chosen)[3:] == ("-", "-", "-", "no int8")
    assert tune.row(Trial(other, 0.0, 0.0, 255, False, "wrong"), chosen)[4:] == ("0.0 dB", "255", "wrong")
    assert tune.row(Trial(other, 10.0, None, None, True), chosen)[4:] == ("is the reference", "-", "right")
