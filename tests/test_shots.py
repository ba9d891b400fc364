"""Cuts are found as frames come, and nothing else is taken for one."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from streamgan.motion.shots import CONTEXT, CutDetector

VIDEOS = Path(__file__).parent.parent.parent / "shared" / "data" / "videos"
Image = npt.NDArray[np.uint8]


def scene(seed: int, side: int = 12, size: tuple[int, int] = (160, 90)) -> Image:
    """A picture of soft blots, ``(H, W, 3)``: one like no other."""
    blots = np.random.default_rng(seed).integers(0, 255, (side, side, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(blots, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def noisy(image: Image, seed: int) -> Image:
    """As a camera would see it once more."""
    noise = np.random.default_rng(seed).normal(0, 4, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def pan(seed: int, step: int, frames: int) -> list[Image]:
    """A view that moves sideways over a wide picture by `step` pixels a frame."""
    wide = scene(seed, 24, (160 + step * frames, 90))
    return [wide[:, number * step : number * step + 160] for number in range(frames)]


def cuts(frames: list[Image]) -> list[int]:
    """The numbers of the frames that a new detector calls the first of a shot."""
    detector = CutDetector()
    return [number for number, frame in enumerate(frames) if detector.is_cut(frame)]


def test_cuts_between_scenes() -> None:
    lengths = (5, 2, 9, 3, 30)
    frames = [noisy(scene(seed), number) for seed, length in enumerate(lengths) for number in range(length)]
    assert cuts(frames) == [5, 7, 16, 19]


@pytest.mark.parametrize("step", [1, 4, 12, 25])
def test_a_pan_is_no_cut(step: int) -> None:
    assert cuts(pan(1, step, 20)) == []


def test_a_dissolve_and_a_fade_are_no_cuts() -> None:
    one, other, black = scene(1), scene(2), np.zeros((90, 160, 3), np.uint8)
    for first, second in ((one, other), (one, black), (black, one)):
        still = [noisy(first, seed) for seed in range(5)]
        mixed = [cv2.addWeighted(first, 1 - share, second, share, 0) for share in np.linspace(0, 1, 25)]
        assert cuts([*still, *(np.asarray(image, np.uint8) for image in mixed)]) == []


def test_a_flash_is_one_cut_at_most() -> None:
    frames = [noisy(scene(1), number) for number in range(12)]
    frames[6] = np.full_like(frames[6], 255)
    assert cuts(frames) == [6]


def test_what_lies_before_a_cut_does_not_matter() -> None:
    frames = [*pan(1, 25, 9), *pan(2, 1, 9), *(noisy(scene(3), number) for number in range(9)), *pan(4, 4, 9)]
    found = cuts(frames)
    assert found == [9, 18, 27]
    for start in found:
        assert cuts(frames[start:]) == [number - start for number in found if number > start]


def test_so_many_frames_before_decide() -> None:
    before = [noisy(scene(1), number) for number in range(20)]
    after = [scene(2)] * 2
    assert cuts([*before[-CONTEXT:], *after]) == [CONTEXT]
    assert cuts([*pan(5, 40, 20), *before, *after])[-1] == 20 + len(before)


def test_the_size_of_the_picture_does_not_matter() -> None:
    for size in ((640, 360), (90, 160), (3, 2), (1, 1)):
        frames = [cv2.resize(scene(seed), size, interpolation=cv2.INTER_AREA) for seed in (1, 1, 1, 2, 2)]
        assert len(cuts([np.asarray(frame, np.uint8) for frame in frames])) <= 1


@pytest.mark.skipif(not VIDEOS.is_dir(), reason=f"{VIDEOS} is not there")
def test_real_clips() -> None:
    clips = {}
    for path in [*sorted(VIDEOS.glob("*.mp4")), *sorted(VIDEOS.glob("webcam/*.mkv"))[:4]]:
        film, frames = cv2.VideoCapture(str(path)), []
        while len(frames) < 60 and (read := film.read())[0]:
            frames.append(np.asarray(cv2.resize(read[1], (192, 108), interpolation=cv2.INTER_AREA), np.uint8))
        film.release()
        clips[path.stem] = frames
    choose, found, false, total = random.Random(3), 0, 0, 0
    for _ in range(5):
        film_frames: list[Image] = []
        true: set[int] = set()
        for name in choose.sample(sorted(clips), len(clips)):
            true |= {len(film_frames)} if film_frames else set()
            length = choose.randint(4, 40)
            start = choose.randint(0, max(0, len(clips[name]) - length))
            film_frames += clips[name][start : start + length]
        called = set(cuts(film_frames))
        found, false, total = found + len(called & true), false + len(called - true), total + len(true)
    assert found >= 0.95 * total and false <= 0.05 * total  # a zoom at a jerk is taken for a cut
