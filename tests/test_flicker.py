"""The warping error of input and output, against cases whose value is known."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
import pytest

from streamgan.api import Selection
from streamgan.motion import flicker

Image = npt.NDArray[np.uint8]
TEXTURE = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (160, 260, 3), np.uint8), (0, 0), 4)
TEXTURE = ((TEXTURE.astype(np.float32) - TEXTURE.mean()) * 3 + 128).clip(30, 220).astype(np.uint8)


def cropped(x: int, y: int) -> Image:
    """A window of the texture: ``(96, 128, 3)``."""
    return TEXTURE[y : y + 96, x : x + 128]


def write(path: Path, images: list[Image], first: int = 0, step: int = 512) -> Path:
    """Writes a film that holds each picture exactly, of which every third is a key frame; AVI ticks once a frame."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264rgb", rate=25, options={"crf": "0", "g": "3", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = images[0].shape[1], images[0].shape[0], "rgb24"
        if path.suffix != ".avi":
            stream.codec_context.time_base = stream.time_base = Fraction(1, 12800)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base, frame.duration = first + index * step, Fraction(1, 12800), step
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def test_what_only_moves_does_not_flicker() -> None:
    moving = [cropped(10 + 3 * index, 8 + 2 * index) for index in range(6)]
    flat = [(image // 2).astype(np.uint8) for image in moving]
    found = flicker.flicker([list(zip(moving, flat, strict=True))])
    assert found is not None and found.pairs == 5 and found.followed > 0.8
    assert found.input < 5e-5  # the same film without the flow:
    still = np.mean([np.square((b.astype(float) - a) / 255).mean() for a, b in itertools.pairwise(moving)])
    assert still > 50 * found.input
    assert found.contrast_ratio == pytest.approx(0.5, rel=0.01)
    assert found.fair_ratio == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("change", [1, 20])
def test_alternating_brightness_has_the_exact_value(change: int) -> None:
    still = cropped(0, 0)
    made = [(still + (change if index % 2 else 0)).astype(np.uint8) for index in range(5)]
    found = flicker.flicker([[(still, each) for each in made]])
    assert found is not None
    assert (found.input, found.followed, found.pairs, found.fair_ratio) == (0, 1, 4, None)
    assert found.output == pytest.approx((change / 255) ** 2, rel=1e-6)


def test_pairs_across_a_cut_are_left_out() -> None:
    one, other = cropped(0, 0), 255 - cropped(100, 50)
    pieces = [[(image, image) for image in (one, one, other, other)]]
    found = flicker.flicker(pieces)
    assert found is not None and (found.pairs, found.input, found.output) == (2, 0, 0)


@pytest.mark.parametrize("shape", [(1, 1), (8, 64), (15, 300), (300, 15), (16, 300), (16, 16)])
def test_small_pictures_are_left_out_before_the_flow_can_crash(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    found = flicker.flicker([[(image, image) for image in images]])
    assert found is None or min(shape) >= 16


def test_nothing_to_compare() -> None:
    assert flicker.flicker([]) is None and flicker.flicker([[(cropped(0, 0), cropped(0, 0))]]) is None
    black = np.zeros((32, 32, 3), np.uint8)
    found = flicker.flicker([[(black, black), (black, black)]])
    assert found is not None and found.contrast_ratio is None and found.fair_ratio is None


def uneven(count: int) -> list[Image]:
    """A still picture whose brightness jumps about, so that no two pairs of frames differ by as much."""
    levels = np.random.default_rng(3).integers(0, 8, count)
    return [(cropped(0, 0) + level).astype(np.uint8) for level in levels]


@pytest.mark.parametrize(
    ("name", "part", "first"),
    [
        ("in.mkv", Selection(), 0),
        ("in.mp4", Selection(), 25600),
        ("in.avi", Selection(), 0),
        ("in.mkv", Selection(start=Fraction(13, 25)), 0),
        ("in.mkv", Selection(start=Fraction(1, 2), every=3), 6400),
    ],
)
def test_files_are_compared_frame_by_frame(tmp_path: Path, name: str, part: Selection, first: int) -> None:
    images = uneven(100)
    source = write(tmp_path / name, images, first)
    taken = images[13 if part.start else 0 :: part.every]
    output = write(tmp_path / "out.mp4", taken, 0 if part.start else first, 512 * part.every)
    found = flicker.measure(str(source), str(output), len(taken), part, threads=1)
    assert found is not None
    assert found.pairs == 2 * min(10, len(taken) // 3) and found.followed > 0.95
    assert found.input == pytest.approx(found.output, rel=1e-6) and found.input > 1e-5
    assert found.contrast_ratio == pytest.approx(1)


def test_a_frame_off_is_seen(tmp_path: Path) -> None:
    images = uneven(60)
    source, output = write(tmp_path / "in.mkv", images), write(tmp_path / "out.mkv", images[1:])
    found = flicker.measure(str(source), str(output), 59, Selection(), threads=1)
    assert found is not None and abs(found.input / found.output - 1) > 0.05


def test_films_that_do_not_fit_are_not_compared(tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.mkv", uneven(20)), write(tmp_path / "out.mkv", uneven(20), step=700)
    assert flicker.measure(str(source), str(output), 20, Selection(), threads=1) is None
    assert flicker.measure(str(source), str(tmp_path / "none.mkv"), 20, Selection()) is None


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_very_short_films(tmp_path: Path, count: int) -> None:
    source, output = write(tmp_path / "in.mkv", uneven(count)), write(tmp_path / "out.mkv", uneven(count))
    found = flicker.measure(str(source), str(output), count, Selection(), threads=1)
    assert (found is None) if count == 1 else (found is not None and found.pairs == min(2, count - 1))
