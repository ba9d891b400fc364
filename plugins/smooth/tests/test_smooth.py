"""The filter keeps the contract; it takes flicker away, and neither blurs nor leaves ghosts."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from streamgan import api
from streamgan.testing import FilterTests
from streamgan_smooth import smoothing
from streamgan_smooth.smoothing import Smooth

Image = npt.NDArray[np.uint8]


class TestSmooth(FilterTests):
    """All of the contract."""

    @pytest.fixture
    def filter_class(self) -> type[Smooth]:
        """What to test."""
        return Smooth


def texture(height: int, width: int, seed: int = 0) -> Image:
    """A picture with much to see: blots of several sizes, ``(height, width, 3)``."""
    random, picture = np.random.default_rng(seed), np.zeros((height, width, 3), np.float32)
    for side in (8, 24, 72):
        blots = random.normal(0, 25, (side * height // width + 2, side, 3)).astype(np.float32)
        picture += cv2.resize(blots, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture + 128, 0, 255).astype(np.uint8)


def smoothed(images: list[Image], made: list[Image], **options: Any) -> list[Image]:
    """What the filter makes of a film."""
    height, width = images[0].shape[:2]
    smooth = Smooth(Smooth.Options(**options))
    smooth.open(api.Context(api.VideoInfo(width, height, Fraction(1, 25)), lambda name: pytest.fail(name)))
    smooth.reset()
    return [smooth.apply(image[None], result[None])[0] for image, result in zip(images, made, strict=True)]


def pan(frames: int = 12, step: int = 3) -> list[Image]:
    """A view of 160x120 that moves over a texture."""
    wide = texture(120, 160 + step * frames)
    return [np.ascontiguousarray(wide[:, number * step : number * step + 160]) for number in range(frames)]


def flickering(images: list[Image]) -> tuple[list[Image], list[Image]]:
    """A steady translation, darker and flatter, and the same with a soft pattern that changes from frame to frame."""
    steady = [(image * 0.4 + 20).astype(np.uint8) for image in images]
    random = np.random.default_rng(5)
    made = []
    for image in steady:
        gain = cv2.resize(random.uniform(0.8, 1.2, (4, 5)).astype(np.float32), image.shape[1::-1])
        made.append(np.clip(np.rint(image * gain[..., None]), 0, 255).astype(np.uint8))
    return steady, made


def error(one: list[Image], other: list[Image], skip: int = 4) -> float:
    """Root of the mean squared difference, of the frames after the first few, in levels."""
    pairs = zip(one[skip:], other[skip:], strict=True)
    return float(np.sqrt(np.mean([np.square(a.astype(float) - b).mean() for a, b in pairs])))


@pytest.mark.parametrize("step", [0, 3])
def test_flicker_is_halved_while_the_view_moves(step: int) -> None:
    images = pan(step=step)
    steady, made = flickering(images)
    assert error(smoothed(images, made, strength=1), steady) < 0.6 * error(made, steady)


def test_more_strength_takes_more_away() -> None:
    images = pan()
    steady, made = flickering(images)
    errors = [error(smoothed(images, made, strength=strength), steady) for strength in (0, 0.4, 0.8)]
    assert errors[0] == error(made, steady)
    assert errors == sorted(errors, reverse=True)


def test_a_steady_translation_stays_as_it_is() -> None:
    images = pan()
    steady, _ = flickering(images)
    assert error(smoothed(images, steady, strength=1), steady) < 0.6


def test_nothing_is_blurred() -> None:
    images = pan(frames=20)
    _, made = flickering(images)
    result = smoothed(images, made, strength=1)
    before, after = (np.mean([cv2.Laplacian(image, cv2.CV_32F).var() for image in film]) for film in (made, result))
    assert 0.95 < after / before < 1.05


def test_a_moving_thing_leaves_no_trail() -> None:
    back, thing = texture(120, 160), texture(30, 30, seed=9)
    images, made = [], []
    for number in range(14):
        image = (back * 0.3 + 150).astype(np.uint8)
        result = (back * 0.3 + 10).astype(np.uint8)
        left = 8 + 8 * number
        image[40:70, left : left + 30] = thing // 3
        result[40:70, left : left + 30] = thing // 3 + 170
        images.append(image)
        made.append(result)
    for result, right in zip(smoothed(images, made, strength=1), made, strict=True):
        assert np.abs(result.astype(int) - right).max() <= 8
        assert np.abs(result.astype(int) - right).mean() < 0.2


def test_a_cut_without_a_reset_leaves_little_behind() -> None:
    images = [texture(120, 160)] * 4 + [texture(120, 160, seed=7)] * 2
    made = [np.full((120, 160, 3), 40, np.uint8)] * 4 + [np.full((120, 160, 3), 120, np.uint8)] * 2
    result = smoothed(images, made, strength=1)
    assert np.abs(result[4].astype(int) - made[4]).mean() < 1


def test_the_past_cannot_go_beyond_what_is_seen_now() -> None:
    images = [texture(120, 160)] * 3
    made = [np.full((120, 160, 3), level, np.uint8) for level in (200, 200, 20)]
    result = smoothed(images, made, strength=1)
    assert 20 < result[2].mean() <= 20 + smoothing._LEVELS


def test_strength_0_changes_nothing() -> None:
    images = pan(frames=3)
    _, made = flickering(images)
    assert all(np.array_equal(*pair) for pair in zip(smoothed(images, made, strength=0), made, strict=True))


def test_the_way_there_and_back_is_compared() -> None:
    there = np.zeros((2, 3, 2), np.float32)
    there[..., 0] = 4
    assert (smoothing.agreement(there, -there) == 1).all()
    assert (smoothing.agreement(there, there) == 0).all()


def test_the_coefficients_are_those_of_a_line() -> None:
    grey = np.asarray(cv2.cvtColor(texture(60, 80), cv2.COLOR_RGB2GRAY), np.uint8)
    made = np.stack([grey * gain + offset for gain, offset in ((0.5, 10), (1.0, 0), (-0.25, 90))], -1)
    gain, offset = smoothing.fit(grey, made.astype(np.float32))
    rebuilt = gain * grey[..., None] + offset
    assert np.abs(rebuilt - made).mean() < 2
    assert np.abs(gain.mean((0, 1)) - (0.5, 1.0, -0.25)).max() < 0.15
