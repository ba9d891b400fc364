"""The preview window on a screen of its own, with PyAV and OpenCV in one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgan import testing

TOOLS = [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(bool(TOOLS), reason=f"needs {', '.join(TOOLS)} (Debian: xvfb, xdotool)")

PLUGIN = """
from streamgan import api

class Negative(api.Translator):
    def translate(self, images):
        return 255 - images

@api.hookimpl
def register_translators(register):
    register("negated", Negative)
"""


@pytest.fixture
def screen() -> Iterator[dict[str, str]]:
    """The environment of a program on a fresh virtual screen."""
    read, write = os.pipe()
    arguments = ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    server = subprocess.Popen(arguments, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as reader:
        number = reader.readline().strip()
    yield os.environ | {"DISPLAY": f":{number}"}
    server.terminate()
    server.wait(10)


def press(screen: dict[str, str], key: str) -> None:
    """Presses a key."""
    subprocess.run(["xdotool", "key", key], env=screen, check=True, capture_output=True)


def test_s_takes_a_picture_and_q_ends(tmp_path: Path, screen: dict[str, str]) -> None:
    testing.make_clip(tmp_path / "clip.mp4", frames=600)
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "negated.yaml").write_text("title: negated\ntranslator: negated\n")
    arguments = [sys.executable, "-m", "streamgan", "--plugin", "plugin.py", "live", "clip.mp4", "-p", "negated.yaml"]
    program = subprocess.Popen(arguments, cwd=tmp_path, env=screen, stderr=subprocess.PIPE, text=True)
    search = ["xdotool", "search", "--sync", "--name", "^streamgan$"]
    window = subprocess.run(search, env=screen, capture_output=True, text=True, timeout=60).stdout.split()[0]
    subprocess.run(["xdotool", "windowfocus", window], env=screen, capture_output=True)
    until = time.monotonic() + 30
    while not list(tmp_path.glob("*.png")) and time.monotonic() < until:
        press(screen, "s")
        time.sleep(0.2)
    press(screen, "q")
    _, errors = program.communicate(timeout=30)
    assert program.returncode == 0, errors
    assert list(tmp_path.glob("streamgan-*.png"))
