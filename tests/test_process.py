"""The program as a process: signals, impatience, closed streams, and two of it at once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from clips import read_pts

from streamgan import testing

PLUGIN = """
import sys, time
from pathlib import Path
from streamgan import api

class Slow(api.Translator):
    def translate(self, images):
        Path("works").touch()
        time.sleep(0.2)
        return images

class Hangs(Slow):
    def translate(self, images):
        Path("works").touch()
        time.sleep(1000)

class Exits(api.Translator):
    def translate(self, images):
        sys.exit(3)

@api.hookimpl
def register_translators(register):
    register("slow", Slow)
    register("hangs", Hangs)
    register("exits", Exits)
"""
PATIENT = "import streamgan.pipeline as p; p._PATIENCE = 0.5; from streamgan.cli.program import main; main()"
MODULE = ("-m", "streamgan")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a clip, the plugin above, and a preset for each of its translators."""
    testing.make_clip(tmp_path / "clip.mp4")
    (tmp_path / "plugin.py").write_text(PLUGIN)
    for name in ("slow", "hangs", "exits"):
        (tmp_path / f"{name}.yaml").write_text(f"title: {name}\ntranslator: {name}\n")
    return tmp_path


def start(folder: Path, command: str, program: Sequence[str] = MODULE) -> subprocess.Popen[str]:
    """The program with the plugin, as a child."""
    arguments = [sys.executable, *program, "--plugin", "plugin.py", *command.split()]
    return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_it_works(folder: Path) -> None:
    """Waits until the translator has got its first frame."""
    until = time.monotonic() + 60
    while not (folder / "works").exists() and time.monotonic() < until:
        time.sleep(0.02)


def outputs(folder: Path) -> list[str]:
    """Names of the output, complete or partial."""
    return [name for name in os.listdir(folder) if "out" in name or "partial" in name]


@pytest.mark.parametrize("signals", [["SIGINT"], ["SIGINT", "SIGINT"], ["SIGTERM"], ["SIGHUP"]])
def test_ended_from_outside_nothing_is_left(folder: Path, signals: list[str]) -> None:
    child = start(folder, "run clip.mp4 -p slow.yaml -o out.mp4")
    wait_until_it_works(folder)
    time.sleep(0.5)
    for name in signals:
        child.send_signal(getattr(signal, name))
        time.sleep(0.02)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    last = errors.splitlines()[-1]
    assert re.fullmatch(r"streamgan: interrupted after \d+ of 12 frames; nothing was written", last)
    assert outputs(folder) == []


def test_a_live_run_that_is_ended_is_completed(folder: Path) -> None:
    child = start(folder, "live clip.mp4 -p slow.yaml -o out.mp4 -q")
    wait_until_it_works(folder)
    time.sleep(0.3)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, "")
    assert outputs(folder) == ["out.mp4"] and read_pts(folder / "out.mp4")


def test_a_translator_that_hangs_is_given_up(folder: Path) -> None:
    child = start(folder, "run clip.mp4 -p hangs.yaml -o out.mp4", ("-c", PATIENT))
    wait_until_it_works(folder)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130 and "interrupted after 0 of 12 frames" in errors
    assert outputs(folder) == []


def test_a_translator_that_does_not_come_back_ends_the_run(folder: Path) -> None:
    child = start(folder, "run clip.mp4 -p hangs.yaml -o out.mp4 --timeout 1", ("-c", PATIENT))
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1 and "translator 'hangs' did not return for 1 s, after frame 0; --timeout" in errors
    assert errors.count("\n") == 1 and outputs(folder) == []


def test_a_translator_that_ends_the_program_is_named(folder: Path) -> None:
    child = start(folder, "run clip.mp4 -p exits.yaml -o out.mp4")
    _, errors = child.communicate(timeout=60)
    message = "translator 'exits' failed while it translated frame 0 (SystemExit: 3)"
    assert (child.returncode, errors) == (1, f"streamgan: error: {message}\n")


def test_of_two_at_once_one_wins(folder: Path) -> None:
    children = [start(folder, "run clip.mp4 -p slow.yaml -o out.mp4 -q") for _ in range(2)]
    errors = [child.communicate(timeout=60)[1] for child in children]
    lost = [error for child, error in zip(children, errors, strict=True) if child.returncode]
    assert len(lost) == 1 and ("another run is making it" in lost[0] or "exists already" in lost[0])
    assert outputs(folder) == ["out.mp4"] and len(read_pts(folder / "out.mp4")) == 12


def test_closed_streams(folder: Path) -> None:
    command = "-m streamgan --plugin plugin.py run clip.mp4 -p slow.yaml -o out.mp4 >&- 2>&-"
    done = subprocess.run(["bash", "-c", f"exec {sys.executable} {command}"], cwd=folder, check=False)
    assert done.returncode == 0 and len(read_pts(folder / "out.mp4")) == 12
