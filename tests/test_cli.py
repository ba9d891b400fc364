"""The command line: what it prints, how it ends, and that errors are one line and leave nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import pytest

import streamgan
from streamgan import pipeline, plugins, testing
from streamgan.api import UsageError
from streamgan.cli import options, progress
from streamgan.cli.program import execute, program

PLUGIN = """
from streamgan import api

class Inverted(api.Translator):
    def translate(self, images):
        return 255 - images

@api.hookimpl
def register_translators(register):
    register("inverted", Inverted)
"""
HEAVY = ("torch", "av", "cv2", "onnxruntime", "openvino", "pydantic", "rich")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a clip of 12 frames, a plugin, and a preset of it."""
    monkeypatch.chdir(tmp_path)
    testing.make_clip(Path("clip.mp4"))
    Path("plugin.py").write_text(PLUGIN)
    Path("inverted.yaml").write_text("title: Inverted\ntranslator: inverted\n")
    return tmp_path


def run(*arguments: str) -> int:
    """The exit code of ``streamgan --plugin plugin.py run ARGUMENTS``."""
    return execute(["--plugin", "plugin.py", "run", *arguments])


def test_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clip.mp4", "--preset", "inverted.yaml") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"clip\.inverted\.mp4: 12 frames in [\d.]+ s, [\d.]+ fps; "
        r"decode [\d.]+ s, translate [\d.]+ s, encode [\d.]+ s; bottleneck: (decode|translate|encode)",
        line,
    )
    assert (folder / "clip.inverted.mp4").stat().st_size > 0


def test_quiet_says_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clip.mp4", "--preset", "inverted.yaml", "--quiet", "-o", "out.mkv") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_dry_run_prints_the_plan_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    assert run("clip.mp4", "--preset", "inverted.yaml", "--dry-run", "--start", "0:00:00.1", "--strength", "0.5") == 0
    plan = capsys.readouterr().out
    for word in ("clip.mp4", "inverted", "0.1", "0.5", "clip.inverted.mp4", "h264"):
        assert word in plan
    assert sorted(folder.iterdir()) == before


def test_verbose_prints_the_plan_beside_the_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clip.mp4", "--preset", "inverted.yaml", "-v", "--end", "0.2") == 0
    captured = capsys.readouterr()
    assert "backend" in captured.err and "6 frames" in captured.out


def _prepare_errors(folder: Path) -> None:
    """The files that the errors below are about."""
    model = testing.make_model(folder / "card.onnx")
    import onnx

    bare = onnx.load(str(model))
    del bare.metadata_props[:]
    onnx.save(bare, str(folder / "bare.onnx"))
    texts = {
        "notes.txt": "no video\n",
        "broken.yaml": "title: [\ntranslator: model\n",
        "unknown-key.yaml": "titel: x\ntranslator: model\n",
        "unknown-option.yaml": "title: x\ntranslator: model\noptions: {modle: card.onnx}\n",
        "no-translator.yaml": "title: x\ntranslator: invertd\n",
        "bare.yaml": "title: x\ntranslator: model\noptions: {model: bare.onnx}\n",
        "complex-key.yaml": "? {a: 1}\n: b\n",
        "tiny.yaml": "title: x\ntranslator: model\noptions: {model: card.onnx}\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "taken.mp4").write_bytes(b"precious")
    (folder / "empty").mkdir()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("missing.mp4 -p inverted.yaml", 1, "missing.mp4: no such file"),
        ("notes.txt -p inverted.yaml", 1, "notes.txt"),
        ("clip.mp4 -p day2nigth", 2, "no preset is called 'day2nigth'"),
        ("clip.mp4 -p broken.yaml", 2, r"broken.yaml:\d: broken YAML"),
        ("clip.mp4 -p unknown-key.yaml", 2, "unknown-key.yaml: unknown key 'titel'; did you mean 'title'?"),
        ("clip.mp4 -p unknown-option.yaml", 2, "unknown key 'modle'; did you mean 'model'?"),
        ("clip.mp4 -p no-translator.yaml", 2, "no translator is called 'invertd'; did you mean 'inverted'?"),
        ("clip.mp4 -p bare.yaml", 1, "bare.onnx: an ONNX file without a streamgan card"),
        ("clip.mp4 -p tiny.yaml --set size=big", 2, r"size: 'big' \(str\) given, expected a whole number"),
        ("clip.mp4 -p tiny.yaml --set sizes=8", 2, "unknown key 'sizes'; did you mean 'size'?"),
        ("clip.mp4 -p tiny.yaml --set size", 2, "--set size: expected key=value"),
        ("clip.mp4 -p tiny.yaml --set size=[1", 2, "does not read as a YAML list"),
        ("clip.mp4 -p tiny.yaml --backend onnxruntim", 2, "did you mean 'onnxruntime'?"),
        ("clip.mp4 -p inverted.yaml --size 64", 2, "--size 64"),
        ("clip.mp4 -p inverted.yaml --strength 2", 2, "'--strength': 2.0 is not in the range"),
        ("clip.mp4 -p inverted.yaml --start noon", 2, "'noon' is no time"),
        ("clip.mp4 -p inverted.yaml --start 2 --end 1", 2, "--end 1"),
        ("clip.mp4 -p inverted.yaml --audio mp3", 2, "'mp3' is not one of 'copy', 'aac', 'none'"),
        ("clip.mp4 -p inverted.yaml --report taken.mp4", 2, "--report taken.mp4: expected a name that ends in .json"),
        ("clip.mp4 -p inverted.yaml --report nowhere/run.json", 1, "--report nowhere/run.json: cannot be written"),
        ("clip.mp4 -p inverted.yaml --codec mp3", 2, "'mp3' is not one of 'h264'"),
        ("clip.mp4 -p inverted.yaml --presett x", 2, r"No such option.*--presett"),
        ("clip.mp4", 2, r"Missing option.*--preset"),
        ("clip.mp4 -p inverted.yaml -o taken.mp4", 2, "taken.mp4: exists already"),
        ("clip.mp4 -p inverted.yaml -o nowhere/out.mp4", 1, "nowhere"),
        ("clip.mp4 -p inverted.yaml -o notes.txt/out.mp4", 1, "notes.txt"),
        ("clip.mp4 -p inverted.yaml --output=", 2, "-o: is empty"),
        ("empty -p inverted.yaml", 1, "empty: a folder, not a video file"),
        ("clip.mp4 empty -p inverted.yaml", 1, "empty: a folder with neither films nor images"),
        ("-p inverted.yaml", 2, "Missing argument 'INPUT...'"),
        ("clip.mp4 taken.mp4 -p inverted.yaml -o x.mp4", 2, "-o x.mp4: one output for several inputs"),
        ("clip.mp4 taken.mp4 -p inverted.yaml --report x.json", 2, "--report x.json: one record for 2 films"),
        ("clip.mp4 -p inverted.yaml --shard 3/2", 2, "--shard 3/2: expected I/N"),
        ("--manifest none.txt -p inverted.yaml", 2, r"none.txt: cannot be read \(No such file"),
        ("notes.txt -p inverted.yaml -o new/", 1, "notes.txt"),
        ("/dev/null -p inverted.yaml -o out.mp4", 1, "/dev/null: not a video file"),
        ("clip.mp4 -p complex-key.yaml", 2, "complex-key.yaml:1: broken YAML: a key must be a word, not a mapping"),
        ("clip.mp4 -p inverted.yaml --start 99999999999999999999999999", 1, "no frame from 1e.26 s"),
        ("clip.mp4 -p inverted.yaml --crf 63", 2, "--crf 63: h264 takes 0"),
        ("clip.mp4 -p inverted.yaml --encoder-preset slwo", 2, "did you mean 'slow'?"),
        ("clip.mp4 -p inverted.yaml -o out.webm", 2, "out.webm: cannot hold h264; choose --codec vp9 or av1"),
        (f"{'x' * 300}.mp4 -p inverted.yaml", 1, "no such file"),
        (f"{'x' * 300}.mp4 -p inverted.yaml -o out.mp4", 1, "File name too long"),
        (f"clip.mp4 -p inverted.yaml -o {'x' * 300}.mp4", 1, "File name too long"),
        (f"clip.mp4 -p tiny.yaml --set model={'x' * 300}", 1, "no such model file"),
    ],
)
def test_errors_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, code: int, message: str
) -> None:
    _prepare_errors(folder)
    before = sorted(folder.rglob("*"))
    assert run(*arguments.split()) == code
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("streamgan: error: ")
    assert re.search(message, line)
    assert captured.out == ""
    assert sorted(folder.rglob("*")) == before
    assert (folder / "taken.mp4").read_bytes() == b"precious"


def test_debug_shows_the_traceback_wherever_it_stands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--debug", "presets", "show", "x"], ["presets", "show", "x", "--debug"]):
        assert execute(arguments) == 2
        error = capsys.readouterr().err
        assert "Traceback" in error and "no preset is called 'x'" in error


def test_unexpected_error_asks_for_a_report(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(pipeline, "run", fail)
    assert run("clip.mp4", "-p", "inverted.yaml") == 1
    expected = "streamgan: error: unexpected KeyError: 'surprise'; run with --debug for the traceback; please report\n"
    assert capsys.readouterr().err == expected


def test_what_the_machine_refuses_is_no_report(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(pipeline, "run", fail)
    assert run("clip.mp4", "-p", "inverted.yaml") == 1
    assert capsys.readouterr().err == "streamgan: error: somewhere: No space left on device\n"


def test_a_plugin_that_failed_is_mentioned(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--plugin", "missing.py", "--plugin", "plugin.py", "run", "clip.mp4", "-p", "inverted.yaml"]) == 0
    assert "note: the plugin missing.py failed and is not used: missing.py: no such file" in capsys.readouterr().err


def test_an_empty_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("", "-p", "inverted.yaml") == 2
    assert capsys.readouterr().err == "streamgan: error: INPUT: is empty; name a file or a URL\n"


@pytest.mark.parametrize("error", [pipeline.Interrupted(5, 12), KeyboardInterrupt()])
def test_interruption(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupt(*_: Any) -> None:
        raise error

    monkeypatch.setattr(pipeline, "run", interrupt)
    assert run("clip.mp4", "-p", "inverted.yaml") == 130
    assert "streamgan: interrupted" in capsys.readouterr().err


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["rnu"]) == 2
    assert "no command is called 'rnu'; did you mean 'run'?" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"streamgan {streamgan.__version__}\n"
    assert execute(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in plugins.BUILT_IN_COMMANDS)
    assert execute([]) == 2
    assert "Usage: streamgan" in capsys.readouterr().err


@pytest.mark.parametrize("name", plugins.BUILT_IN_COMMANDS)
def test_every_command_and_option_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = program.get_command(click.Context(program), name)
    assert command is not None and command.help
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, f"{name} {parameter.name}"
    assert execute([name, "--help"]) == 0


def test_presets_plugins_doctor(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _prepare_errors(folder)
    assert execute(["--plugin", "plugin.py", "plugins"]) == 0
    listed = capsys.readouterr().out
    assert "translator inverted" in listed and "backend onnxruntime" in listed
    assert execute(["--plugin", "missing.py", "doctor"]) == 0
    report = capsys.readouterr().out
    assert "<- used" in report and "libx264" in report and "missing.py: no such file" in report
    assert execute(["presets"]) == 0
    assert "presets" in capsys.readouterr().out
    assert execute(["presets", "show", "tiny.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "streamgan.testing" in shown and "CC0-1.0" in shown and "short side" in shown


def test_plugin_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "import click\nfrom streamgan import api\n@click.command('greet')\ndef greet():\n    click.echo('hello')\n"
    hook = "@api.hookimpl\ndef register_commands(register):\n    register(greet)\n"
    Path("greet.py").write_text(text + hook)
    assert execute(["--plugin", "greet.py", "greet"]) == 0
    assert capsys.readouterr().out == "hello\n"
    assert execute(["--plugin", "greet.py", "--help"]) == 0
    assert "greet" in capsys.readouterr().out


def test_live_and_bench(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--plugin", "plugin.py"]
    assert execute([*common, "live", "clip.mp4", "-p", "inverted.yaml", "--dry-run"]) == 0
    assert "inverted" in capsys.readouterr().out
    bench = [
        *common,
        "bench",
        "-p",
        "inverted.yaml",
        "clip.mp4",
        "--frames",
        "4",
        "--resolution",
        "64x36",
        "--repeat",
        "1",
    ]
    assert execute(bench) == 0
    table = capsys.readouterr().out
    assert "synthetic.mp4" in table and "clip.mp4" in table and "efficiency" in table
    for resolution in ("big", "1x1", "100000x100000"):
        assert execute([*common, "bench", "-p", "inverted.yaml", "--resolution", resolution]) == 2


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["rnu"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from streamgan.cli.program import execute; "
        f"execute({arguments!r}); print(*[name for name in {HEAVY!r} if name in sys.modules], sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.splitlines()) & set(HEAVY)


def test_module_and_closed_output(folder: Path) -> None:
    module = [sys.executable, "-m", "streamgan"]
    assert subprocess.run([*module, "--version"], capture_output=True, check=True).stdout.startswith(b"streamgan ")
    child = subprocess.Popen([*module, "plugins"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.close()  # nobody reads
    _, errors = child.communicate()
    assert b"Traceback" not in errors and b"Exception ignored" not in errors


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12.5", "12.5"), ("90", "90"), ("1:30", "90"), ("01:02:03.250", "3723.25"), (".5", "0.5"), ("0.1", "1/10")],
)
def test_times(text: str, seconds: str) -> None:
    assert options.Time().convert(text, None, None) == Fraction(seconds)


@pytest.mark.parametrize("text", ["", "-1", "1:2:3:4", "1h", "nan", "1:"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter):
        options.Time().convert(text, None, None)


def test_assignments() -> None:
    assert options.assignments(["a=1", "b= x=y", "c=[1, 2]"]) == {"a": "1", "b": " x=y", "c": [1, 2]}
    with pytest.raises(UsageError):
        options.assignments(["=1"])


def test_progress_words() -> None:
    assert progress.words(pipeline.Progress(120, 900, 4.0)) == "120/900 frames, 30.0 fps, 0:26 left"
    assert progress.words(pipeline.Progress(100, 36_110, 10.0)) == "100/36110 frames, 10.0 fps, 1:00:01 left"
    assert progress.words(pipeline.Progress(10, None, 4.0)) == "10 frames, 2.5 fps"
    assert progress.words(pipeline.Progress(0, 900, 0.0)) == "0/900 frames, 0.0 fps"
