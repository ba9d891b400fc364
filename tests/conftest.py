"""Fixtures of the core's tests."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from streamgan import api, plugins

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import clips: pytest's importlib mode adds no path

from clips import Clip, write_clip, write_model

# What is measured once a machine is measured once a test run, and leaves nothing in the user's cache.
os.environ["STREAMGAN_CACHE"] = tempfile.mkdtemp(prefix="streamgan-tests-")

# OpenCV's own FFmpeg reads this once, when it is used first: tests that use it must not make it talk in others.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# Run in the background or under nohup, these signals are ignored, and so they would be by what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """Writes a clip into the test's folder and returns its path; arguments as the fields of `Clip`."""
    return lambda **fields: write_clip(tmp_path / fields.get("name", "clip.mp4"), Clip(**fields))


@pytest.fixture
def negative_model(tmp_path: Path) -> Path:
    """A model file that inverts."""
    return write_model(tmp_path / "negative.onnx", -1.0, 255.0)


@pytest.fixture
def make_preset(tmp_path: Path) -> Callable[..., str]:
    """Writes a preset and returns its path; options as keywords."""

    def make(translator: str, **options: object) -> str:
        path = tmp_path / "trial.yaml"
        lines = "".join(f"  {key}: {value}\n" for key, value in options.items())
        path.write_text(f"title: A trial\ntranslator: {translator}\n" + (f"options:\n{lines}" if lines else ""))
        return str(path)

    return make


class Identity(api.Translator):
    """Gives back what it gets."""

    def translate(self, images: api.Images) -> api.Images:
        return images


@pytest.fixture
def registry() -> plugins.Registry:
    """What streamgan brings, and the translator ``identity``."""
    loaded = plugins.load()
    loaded.translators["identity"] = plugins.Provided("identity", Identity, "tests")
    return loaded
