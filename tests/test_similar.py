"""Which frames are taken for the same."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from streamgan.motion.similar import MARGIN, is_similar

Image = npt.NDArray[np.uint8]


def scene(width: int = 320, height: int = 192) -> Image:
    """A smooth picture without black or white."""
    coarse = np.random.default_rng(0).integers(40, 210, (6, 10, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def noisy(image: Image, spread: float) -> Image:
    """The same under noise of this standard deviation."""
    noise = np.random.default_rng(1).normal(0, spread, image.shape)
    return np.rint(image + noise).clip(0, 255).astype(np.uint8)


def psnr(image: Image, other: Image) -> float:
    """Peak signal-to-noise ratio in dB, in doubles."""
    return float(10 * np.log10(255**2 / np.square(image.astype(float) - other).mean()))


@pytest.mark.parametrize("size", [(320, 192), (333, 191), (7, 5), (1, 1)])
def test_a_frame_is_similar_to_itself(size: tuple[int, int]) -> None:
    image = scene(*size)
    assert is_similar(image, image.copy(), 100)
    assert not is_similar(image, 255 - image, 40)


def test_the_threshold_is_the_psnr() -> None:
    image = scene()
    other = noisy(image, 2)
    truth = psnr(image, other)
    assert is_similar(image, other, truth - 0.3)
    assert not is_similar(image, other, truth + 0.3)


@pytest.mark.parametrize(("left", "top"), [(0, 0), (150, 77), (304, 176)])
@pytest.mark.parametrize("size", [(320, 192), (333, 191)])
def test_a_small_thing_that_moves_is_not_lost(left: int, top: int, size: tuple[int, int]) -> None:
    image = scene(*size)
    other = image.copy()
    other[top : top + 8, left : left + 8] ^= 128
    assert psnr(image, other) > 30
    assert not is_similar(image, other, 30)


def test_a_block_may_be_worse_than_the_picture_by_the_margin() -> None:
    image = np.full((160, 160, 3), 100, np.uint8)
    for levels, alike in ((7, True), (9, False)):  # 31.2 and 29.0 dB in the block, 51 and 49 in the picture
        other = image.copy()
        other[32:48, 64:80] += np.uint8(levels)
        assert is_similar(image, other, 36 if MARGIN == 6 else 0) == alike


def test_a_still_film_through_an_encoder_is_similar_and_a_pan_is_not() -> None:
    image = scene()
    coded = [cv2.imdecode(cv2.imencode(".jpg", noisy(image, 1), [1, each])[1], 1) for each in (92, 90)]
    assert is_similar(np.asarray(coded[0], np.uint8), np.asarray(coded[1], np.uint8), 38)
    assert not is_similar(image, np.roll(image, 4, axis=1), 38)


def test_another_size_is_another_picture() -> None:
    assert not is_similar(scene(), scene(160, 96), 0)
