"""The runtime's warping error and the training's are the same measure."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamgan.motion import flicker
from streamgan_training.measuring import metrics


def test_both_packages_measure_the_same() -> None:
    random = np.random.default_rng(5)
    field = cv2.GaussianBlur(random.integers(0, 256, (120, 200, 3), np.uint8), (0, 0), 3).astype(np.float32)
    field = (field - field.mean()) * 3 + 128
    pairs = []
    for index in range(6):
        moved = field[2 * index : 2 * index + 90, 3 * index : 3 * index + 140]
        noise = random.normal(0, 4, (2, *moved.shape))
        frames = [
            (contrast * moved + each).clip(0, 255).astype(np.uint8)
            for contrast, each in zip((1, 0.6), noise, strict=True)
        ]
        pairs.append((frames[0], frames[1]))
    found, expected = flicker.flicker([pairs]), metrics.flicker(pairs)
    assert found is not None and found.pairs == 5
    assert found.input == pytest.approx(expected.source, rel=1e-6)
    assert found.output == pytest.approx(expected.output, rel=1e-6)
    assert found.followed == pytest.approx(expected.followed, rel=1e-6)
    assert found.contrast_ratio == pytest.approx(expected.contrast_ratio, rel=1e-3)
