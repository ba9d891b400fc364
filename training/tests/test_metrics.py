"""Measures on films whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from streamgan_training import metrics


def film(frames: int = 5, shift: int = 2) -> list[metrics.Image]:
    """A textured picture that moves to the right by whole pixels."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (20, 40, 3), dtype=np.uint8)
    wide = np.kron(coarse, np.ones((6, 6, 1), np.uint8)).astype(np.float32)
    for axis in (0, 1):
        wide = (np.roll(wide, 1, axis) + wide + np.roll(wide, -1, axis)) / 3
    return [wide[:96, 40 - shift * i : 168 - shift * i].astype(np.uint8).copy() for i in range(frames)]


def test_a_moving_film_does_not_flicker_and_one_with_pumping_brightness_does() -> None:
    source = film()
    steady = metrics.flicker((frame, frame) for frame in source)
    assert steady.ratio == 1.0 and steady.contrast_ratio == 1.0
    pumping = [np.clip(frame.astype(int) + 30 * (i % 2), 0, 255).astype(np.uint8) for i, frame in enumerate(source)]
    assert metrics.flicker(zip(source, pumping, strict=True)).output > steady.source + 0.008


def test_a_flatter_film_gains_nothing_in_the_fair_ratio() -> None:
    random = np.random.default_rng(1)
    source = [np.clip(frame + random.normal(0, 6, frame.shape), 0, 255).astype(np.uint8) for frame in film()]
    flat = [(frame // 2).astype(np.uint8) for frame in source]
    result = metrics.flicker(zip(source, flat, strict=True))
    assert result.ratio == pytest.approx(0.25, rel=0.05)
    assert result.fair_ratio == pytest.approx(1.0, rel=0.05)


def test_flicker_needs_two_frames() -> None:
    with pytest.raises(ValueError, match="two frames"):
        metrics.flicker([(film()[0], film()[0])])


def test_edge_correlation_is_one_for_a_darker_copy_and_low_for_noise() -> None:
    picture = film()[0]
    noise = np.random.default_rng(1).integers(0, 255, picture.shape, dtype=np.uint8)
    assert metrics.edge_correlation(picture, picture // 2) > 0.98
    assert abs(metrics.edge_correlation(picture, noise)) < 0.2


def test_sliced_wasserstein_orders_sets_by_distance() -> None:
    bright = np.stack(film(4))
    dark = bright // 3
    assert metrics.sliced_wasserstein(bright, bright) == 0
    assert metrics.sliced_wasserstein(dark // 2, dark) < metrics.sliced_wasserstein(bright, dark)
