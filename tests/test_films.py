"""The command ``run`` with one film or many: what it prints, how it ends, and what it leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
import pytest

from streamgan import pipeline, plugins, testing
from streamgan.cli import progress
from streamgan.cli.program import execute
from streamgan.cli.run import command

PLUGIN = """
from streamgan import api

class Inverted(api.Translator):
    def translate(self, images):
        return 255 - images

@api.hookimpl
def register_translators(register):
    register("inverted", Inverted)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two clips of 12 frames, a broken one between them, a plugin, and a preset of it."""
    monkeypatch.chdir(tmp_path)
    Path("clips/deep").mkdir(parents=True)
    for name in ("clips/a.mp4", "clips/deep/c.mkv"):
        testing.make_clip(Path(name))
    Path("clips/b.mp4").write_bytes(b"no film" * 100)
    Path("plugin.py").write_text(PLUGIN)
    Path("inverted.yaml").write_text("title: Inverted\ntranslator: inverted\n")
    return tmp_path


def run(*arguments: str) -> int:
    """The exit code of ``streamgan --plugin plugin.py run -p inverted.yaml ARGUMENTS``."""
    return execute(["--plugin", "plugin.py", "run", "-p", "inverted.yaml", *arguments])


def films(folder: str) -> list[str]:
    """The files below a folder that are not hidden."""
    paths = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
    return sorted(str(path) for path in paths if not str(path.parent).endswith(".streamgan"))


def test_one_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clips", "-o", "out/") == 1
    assert films("out") == ["a.mp4", "deep/c.mp4"]
    out, err = capsys.readouterr()
    first, third, total = out.splitlines()
    assert first.startswith("1/3 out/a.mp4: 12 frames in ") and third.startswith("3/3 out/deep/c.mp4: 12 frames in ")
    assert total.startswith("3 films: 2 made, 1 failed; 24 frames in ")
    told = "clips/b.mp4: cannot be read as a video (Invalid data found when processing input)"
    assert err.splitlines() == [
        f"2/3 failed: {told}",
        f"failed: {told}",
        "streamgan: error: 1 of 3 films failed; run again with --skip-existing for the rest",
    ]
    testing.make_clip(Path("clips/b.mp4"))
    assert run("clips", "-o", "out/", "--skip-existing") == 0
    out, err = capsys.readouterr()
    assert "1/3 out/a.mp4: complete already, skipped\n2/3 out/b.mp4: 12 frames" in out and not err
    assert out.splitlines()[-1].startswith("3 films: 1 made, 2 skipped; 12 frames in ")


def test_fail_fast(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clips", "-o", "out/", "--fail-fast") == 1
    assert films("out") == ["a.mp4"]
    assert "3 films: 1 made, 1 failed, 1 not done; 12 frames" in capsys.readouterr().err


def test_quiet_names_only_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clips", "-o", "out/", "-q") == 1
    out, err = capsys.readouterr()
    assert not out and [line.split(":")[0] for line in err.splitlines()] == ["failed", "streamgan"]
    Path("clips/b.mp4").unlink()
    assert run("clips", "-o", "out/", "-q", "--skip-existing") == 0
    assert capsys.readouterr() == ("", "")


def test_an_interruption_stops_all(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real, begun = pipeline.run, list[str]()

    def interrupted(plan: pipeline.Plan, *rest: Any) -> pipeline.Report:
        begun.append(plan.output)
        if plan.output.endswith("c.mp4"):
            raise pipeline.Interrupted(5, 12)
        return real(plan, *rest)

    monkeypatch.setattr(pipeline, "run", interrupted)
    assert run("clips/a.mp4", "clips/deep/c.mkv", "clips/b.mp4", "-o", "out/") == 130
    assert begun == ["out/a.mp4", "out/deep/c.mp4"] or begun == ["out/a.mp4", "out/c.mp4"]
    totals, last = capsys.readouterr().err.splitlines()
    assert totals.startswith("3 films: 1 made, 2 not done; 12 frames") and last.startswith("streamgan: interrupted")


def test_a_dry_run_of_many_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    assert run("clips", "-o", "out/new/", "--dry-run") == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "1/3 clips/a.mp4 (h264 64x48 30 fps) -> out/new/a.mp4",
        "3/3 clips/deep/c.mkv (h264 64x48 30 fps) -> out/new/deep/c.mp4",
    ]
    assert "2/3 would fail: clips/b.mp4: cannot be read" in err and "1 of 3 films would fail" in err
    assert sorted(folder.rglob("*")) == before


def test_a_dry_run_opens_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.onnx").write_bytes(b"no model")
    Path("model.yaml").write_text("title: x\ntranslator: model\noptions: {model: model.onnx}\n")
    for name, message in (("model.onnx", "not an ONNX model"), ("none.onnx", "no such model file")):
        assert execute(["run", "clips/a.mp4", "-p", "model.yaml", "--set", f"model={name}", "--dry-run"]) == 1
        assert f"{name}: {message}" in capsys.readouterr().err
    testing.make_model(Path("model.onnx"))
    assert execute(["run", "clips/a.mp4", "-p", "model.yaml", "--dry-run"]) == 0


def test_a_single_film_into_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clips/a.mp4", "-o", "out/deep/") == 0
    assert films("out") == ["deep/a.mp4"]
    assert run("clips/a.mp4", "-o", "out/deep/") == 2
    assert "out/deep/a.mp4: exists already; use --overwrite" in capsys.readouterr().err
    assert run("clips/a.mp4", "-o", "out/deep", "--skip-existing") == 0
    assert capsys.readouterr().out == "out/deep/a.mp4: complete already, skipped\n"
    assert run("clips/a.mp4", "-o", "out/deep", "--skip-existing", "--dry-run") == 0
    assert "complete already: would be skipped" in capsys.readouterr().out
    assert run("clips/a.mp4", "-o", "out/deep", "--skip-existing", "--strength", "0.5") == 2
    assert "exists already, but it was made from another input, or with other settings" in capsys.readouterr().err


def test_a_film_that_fails_leaves_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("plugin.py").write_text(PLUGIN.replace("return 255 - images", "raise ValueError('broken')"))
    assert run("clips/a.mp4", "-o", "out/deep/") == 1
    assert "failed while it translated frame 0" in capsys.readouterr().err and not Path("out").exists()


@pytest.mark.parametrize("output", ["plugin.py/deep/", f"{'x' * 300}/"])
def test_a_folder_that_cannot_be_made(capsys: pytest.CaptureFixture[str], output: str) -> None:
    assert run("clips/a.mp4", "-o", output) == 1
    assert f"{output}a.mp4: its folder cannot be made (" in capsys.readouterr().err


def test_a_film_of_one_name_leaves_no_receipt(folder: Path) -> None:
    assert run("clips/a.mp4", "-o", "x.mp4") == 0
    assert run("clips/a.mp4", "-o", "y/%02d.png", "--frames", "2") == 0
    assert films("y") == ["01.png", "02.png"] and not list(folder.rglob(".streamgan"))


def test_a_manifest_and_its_shards(capsys: pytest.CaptureFixture[str]) -> None:
    Path("clips/list.txt").write_text('a.mp4\n{"input": "deep/c.mkv", "output": "../mine/c.mov"}\n')
    for number in range(3):
        assert run("--manifest", "clips/list.txt", "-o", "out/", "--shard", f"{number}/3") == 0
    assert films("out") == ["a.mp4"] and films("mine") == ["c.mov"]
    assert "--shard 0/3: nothing to do, 2 films are fewer than the parts" in capsys.readouterr().out


def test_images_keep_their_names_and_say_what_means_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clips/a.mp4", "-o", "shots/%d.png", "--frames", "2", "--codec", "hevc", "--audio", "copy") == 0
    assert "note: shots/%d.png: --codec, --audio have no meaning for images" in capsys.readouterr().err
    assert run("shots/1.png", "shots/2.png", "-o", "out/") == 0
    assert films("out") == ["1.png", "2.png"]
    assert "no meaning" not in capsys.readouterr().err
    assert run("shots", "-o", "again/") == 0
    assert films("again") == ["000001.png", "000002.png"]


def test_the_summary_leaves_the_standard_output_to_the_film(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = pipeline.Report("-", 12, 1.0, {"decode": 0.5})
    plan = pipeline.build(pipeline.Request.of(input="clips/a.mp4", preset="day2night", output="null:"), plugins.load())
    monkeypatch.setattr(pipeline, "build", lambda *_: dataclasses.replace(plan, output="-"))
    monkeypatch.setattr(pipeline, "run", lambda *_: report)
    assert run("clips/a.mp4", "-o", "-") == 0
    out, err = capsys.readouterr()
    assert not out and err.startswith("-: 12 frames in 1.0 s")


def test_every_option_of_run_is_in_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    named = [name for names in command.groups.values() for name in names]
    shown = [param.name for param in command.params if isinstance(param, click.Option) and not param.hidden]
    assert sorted(named) == sorted([*shown, "help"])
    assert execute(["run", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{title}:\n" in text for title in command.groups)
    for param in command.params:
        for option in param.opts if isinstance(param, click.Option) else ():
            assert text.count(f"{option} ") + text.count(f"{option}\n") + text.count(f"{option},") >= 1, option


def test_progress_says_which_film(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown(False, "3/12 film.mp4") as on_progress:
        assert on_progress is not None
        on_progress(pipeline.Progress(120, 900, 4.0))
    assert capsys.readouterr().err == "3/12 film.mp4: 120/900 frames, 30.0 fps, 0:26 left\n"
