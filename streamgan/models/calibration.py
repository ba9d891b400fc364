"""Pictures to try a model on, made on the spot: what films show, without a film."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from streamgan.api import Images

_TEXT = ("STREAM 0123456789", "the quick brown fox", "jumps over 13 lazy dogs")
_ZENITH, _HORIZON, _GROUND = (90, 150, 225), (235, 230, 215), (105, 100, 95)
_LIGHT = (1.0, 0.55, 0.2)
"""How bright the scenes are: noon, a dull day, dusk."""
_LARGE = 500_000
"""Pixels of a picture from which on one scene is enough: on a CPU, each costs about a second."""
_DRAWN = 640
"""Pixels of the longer side that a scene is drawn with at most: a larger one is enlarged."""


def pictures(size: tuple[int, int]) -> Images:
    """Scenes in three lights (large ones in one), then a black and a white picture; the same for the same size.

    A scene has what networks are known to differ over: smooth skies, noise at all scales, hard edges, thin lines,
    small type, saturated colours.

    Args:
        size: (width, height) in pixels.

    Returns:
        ``(N, height, width, 3)`` uint8 RGB, read-only.

    Example:
        >>> pictures((64, 48)).shape
        (5, 48, 64, 3)
    """
    width, height = size
    less, lights = max(1.0, max(size) / _DRAWN), _LIGHT if width * height < _LARGE else _LIGHT[:1]
    drawn = max(1, round(width / less)), max(1, round(height / less))
    scenes = [cv2.resize(_scene(drawn, number, light), size) for number, light in enumerate(lights)]
    images = np.stack([*scenes, np.zeros((height, width, 3), np.uint8), np.full((height, width, 3), 255, np.uint8)])
    images.setflags(write=False)
    return images


def _scene(size: tuple[int, int], seed: int, light: float) -> npt.NDArray[np.uint8]:
    """A street under a sky: ``(height, width, 3)`` uint8 RGB."""
    width, height = size
    random = np.random.default_rng(seed)
    ground = max(1, height * 3 // 5)
    image = np.empty((height, width, 3), np.float32)
    fall = np.linspace(0, 1, ground, dtype=np.float32)[:, None, None]
    image[:ground] = (1 - fall) * np.array(_ZENITH, np.float32) + fall * np.array(_HORIZON, np.float32)
    image[ground:] = _GROUND
    image += 45 * _texture(size, random)
    drawn = np.clip(image, 0, 255).astype(np.uint8)
    for _ in range(6):
        _house(drawn, ground, random)
    middle, line = (width // 2, ground), max(1, width // 200)
    for foot in (width // 8, width // 2, width * 7 // 8):
        cv2.line(drawn, middle, (foot, height - 1), (240, 235, 200), line, cv2.LINE_AA)
    for number, text in enumerate(_TEXT):
        place = (width // 16, ground + (number + 1) * max(4, height // 12))
        cv2.putText(drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, max(0.2, height / 500), (250, 250, 250), 1)
    noise = random.normal(0, 2, drawn.shape)
    return np.clip(drawn * light + noise, 0, 255).astype(np.uint8)


def _texture(size: tuple[int, int], random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Noise at all scales, as strong at each, as in natural scenes: ``(height, width, 3)``, mostly from -1 to 1."""
    width, height = size
    total, scales = np.zeros((height, width, 3), np.float32), (64, 32, 16, 8, 4, 2)
    for scale in scales:
        grid = random.normal(0, 1, (max(2, height // scale), max(2, width // scale), 3)).astype(np.float32)
        total += cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    return total / np.float32(len(scales))


def _house(image: npt.NDArray[np.uint8], ground: int, random: np.random.Generator) -> None:
    """Draws a house on the ground, with rows of windows."""
    height, width = image.shape[:2]
    wide, tall = width // 8 + int(random.integers(width // 8 + 1)), ground // 4 + int(random.integers(ground // 2 + 1))
    left = int(random.integers(max(1, width - wide)))
    color = [int(value) for value in random.integers(40, 230, 3)]
    cv2.rectangle(image, (left, ground - tall), (left + wide, ground + height // 20), color, cv2.FILLED)
    step = max(4, height // 24)
    for top in range(ground - tall + step // 2, ground - step, step):
        for start in range(left + step // 2, left + wide - step // 2, step):
            glass = [int(value) for value in random.integers(0, 255, 3)]
            cv2.rectangle(image, (start, top), (start + step // 2, top + step // 2), glass, cv2.FILLED)
