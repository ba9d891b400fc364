"""The benchmark of colours: its reference, its graph and both its lines agree with the runtime."""

from __future__ import annotations

import importlib
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from streamgan.frames.convert import FrameMaker
from streamgan.frames.pixels import views
from streamgan.models import scaling

pytest.importorskip("onnx")
FOLDER = Path(__file__).parents[1] / "benchmarks"
SMALL = (80, 60)


@pytest.fixture
def colour(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module benchmarks/colour.py."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "colour", raising=False)
    return importlib.import_module("colour")


@pytest.fixture
def picture() -> av.VideoFrame:
    """A smooth picture as a decoder gives it."""
    coarse = np.random.default_rng(3).integers(60, 190, (7, 9, 3), np.uint8)
    image = np.asarray(cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8)
    given = av.VideoFrame.from_ndarray(image, format="rgb24")
    made = VideoReformatter().reformat(given, format="yuv420p", dst_colorspace=1, dst_color_range=1)
    made.colorspace, made.color_range = 1, 1
    return made


def test_reference_graph_and_runtime_agree(colour: ModuleType, picture: av.VideoFrame) -> None:
    exact = colour.decoded(views(picture))
    for name, way in colour.ways_in(picture, 1).items():
        error = np.abs(way() - exact)
        if "in use" in name or "graph" in name:
            assert error.max() < 0.7, name


def test_what_goes_out_is_within_a_code(colour: ModuleType, picture: av.VideoFrame) -> None:
    image = FrameMaker(picture).make(picture, 0, Fraction(1, 25), 1).image
    exact, ways = colour.encoded(image), colour.ways_out(image)
    for made, wanted in zip(ways["to_picture (in use)"](), exact, strict=True):
        assert np.abs(made - wanted).max() < 0.7
    assert all([plane.shape for plane in way()] == [plane.shape for plane in exact] for way in ways.values())


def test_both_lines_show_the_same(colour: ModuleType, picture: av.VideoFrame) -> None:
    seen = scaling.shrink(FrameMaker(picture).make(picture, 0, Fraction(1, 25), 1).image, SMALL)
    made = (seen * np.array([0.3, 0.4, 0.6]) + 5).astype(np.uint8)
    ways = colour.lines(picture, made, SMALL)
    by_rgb, by_planes = ways["line by RGB"](), ways["line by planes"]()
    for one, other in zip(by_rgb, by_planes, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 1
