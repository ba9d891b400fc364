"""From the size of a film to the size that a model sees, and back with the details of the full picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Image: TypeAlias = npt.NDArray[np.uint8]
"""One picture: ``(H, W, 3)`` uint8 RGB."""
Room: TypeAlias = npt.NDArray[np.int16]
"""Memory to work in: int16, two arrays of the shape of a picture."""

UNIT = 4096
"""A gain of 1."""
_RADIUS, _EPSILON, _STEEPEST = 3, (0.04 * 255) ** 2, 7.0
_STRIP = 3 << 16
_EXACT, _BLURRED, _HALVED, _WINDOW = 1.5, 2.5, 4.0, 3


def fit(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """The (width, height) that the model sees of pictures of `size`: never enlarged, the shape kept.

    Example:
        >>> fit((1280, 720), 360)
        (640, 360)
    """
    if not 0 < short_side < min(size):
        return size
    scale = short_side / min(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def pad(image: Image, multiple_of: int) -> Image:
    """Repeats the last row and column until height and width are multiples of `multiple_of`."""
    height, width = image.shape[:2]
    down, right = -height % multiple_of, -width % multiple_of
    if not down and not right:
        return image
    return np.asarray(cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE), dtype=np.uint8)


def shrink(image: Image, size: tuple[int, int]) -> Image:
    """A smaller picture, nearly the mean over the area of each of its pixels, so that fine patterns do not shimmer.

    OpenCV has the exact mean, but takes four times as long for it where the scale is no whole number: 4.4 ms from
    1280x720 to 398x224, against 1.1. What is left out is worth 0.3 levels in the mean there.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        size: (width, height), neither larger than the picture's.

    Returns:
        ``(h, w, 3)`` uint8 RGB; the picture itself if it has this size.
    """
    if size == image.shape[1::-1]:
        return image
    while _scale(image, size) >= _HALVED and not image.shape[0] % 2 and not image.shape[1] % 2:
        image = _area(image, (image.shape[1] // 2, image.shape[0] // 2))
    scale = _scale(image, size)
    if scale < _EXACT:
        return _area(image, size)
    if scale > _BLURRED:
        blurred = cv2.blur(image, (_WINDOW, _WINDOW))
        return np.asarray(cv2.resize(blurred, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    twice = cv2.resize(image, (2 * size[0], 2 * size[1]), interpolation=cv2.INTER_LINEAR)
    return _area(np.asarray(twice, dtype=np.uint8), size)


def _scale(image: Image, size: tuple[int, int]) -> float:
    """How many times as large a picture is, along the side where it is less so."""
    return float(min(image.shape[1] / size[0], image.shape[0] / size[1]))


def _area(image: Image, size: tuple[int, int]) -> Image:
    """Means over areas: quick if they are 2x2 pixels each."""
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def enlarge_bilinear(made: Image, seen: Image, image: Image, room: Room | None = None) -> Image:
    """Enlarges a translation to the size of `image` without regard to what is in it."""
    return np.asarray(cv2.resize(made, image.shape[1::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def enlarge_guided(made: Image, seen: Image, image: Image, room: Room | None = None) -> Image:
    """Enlarges a translation with the details and edges of the full picture.

    A fast guided filter (He and Sun 2015, arXiv 1505.00996): around every pixel the translation is taken for a linear
    function of the source, ``made = a * seen + b``, whose gain `a` is fitted at the small size and applied at the full
    one. Unlike theirs, `b` is not smoothed: it is all that the gain leaves unexplained. So what the model invents, such
    as a lamp in a flat wall, stays as sharp as the model made it; shrunk again, the result is the translation itself.

    Args:
        made: translation, ``(h, w, 3)`` uint8 RGB.
        seen: what the model saw, ``(h, w, 3)`` uint8 RGB.
        image: the source, ``(H, W, 3)`` uint8 RGB.
        room: ``(2, H, W, 3)`` int16 to work in; kept from frame to frame, it saves getting the memory anew.

    Returns:
        ``(H, W, 3)`` uint8 RGB.
    """
    # 16-bit integers, with gains in steps of 1/4096: half the memory traffic of floats.
    gain = fit_gain(seen, made)  # (h / 2, w / 2, 3) int16
    near = cv2.resize(gain, seen.shape[1::-1])
    rest = cv2.subtract(made.astype(np.int16), cv2.multiply(near, seen.astype(np.int16), scale=1 / UNIT))
    size, (gains, rests) = image.shape[1::-1], make_room(image.shape) if room is None else room
    cv2.resize(gain, size, dst=gains)
    cv2.resize(rest, size, dst=rests)
    result = np.empty(image.shape, np.uint8)
    apply_gain(image, gains, rests, result)
    return result


def make_room(shape: tuple[int, ...]) -> Room:
    """Memory to enlarge to pictures of this shape in."""
    return np.empty((2, *shape), np.int16)


def apply_gain(
    samples: npt.NDArray[np.uint8],
    gains: npt.NDArray[np.int16],
    rests: npt.NDArray[np.int16],
    into: npt.NDArray[np.uint8],
    limits: tuple[int, int] = (0, 255),
) -> None:
    """Writes ``gain * samples + rest``, all arrays of one shape, strip by strip.

    Args:
        samples: of the source.
        gains: in steps of 1 / `UNIT`.
        rests: what the gains leave unexplained.
        into: for the result.
        limits: the least and the largest value of the result.
    """
    least, most = np.int16(limits[0]), np.int16(limits[1])
    for rows in _strips(samples.shape):
        values = samples[rows].astype(np.int16)
        cv2.multiply(gains[rows], values, dst=values, scale=1 / UNIT)
        cv2.add(values, rests[rows], dst=values)
        np.clip(values, least, most, out=values)
        np.copyto(into[rows], values, casting="unsafe")


def _strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows that are worked on together: what a strip needs stays in the processor's cache."""
    rows = max(1, _STRIP // max(1, math.prod(shape[1:])))
    return (slice(top, min(top + rows, shape[0])) for top in range(0, shape[0], rows))


def fit_gain(seen: Image, made: Image) -> npt.NDArray[np.int16]:
    """The smoothed slope `a` of equations 5 and 8 of the paper, each channel by itself, fitted at half the size.

    Where the small picture is flat there is nothing to fit, and the paper's gain is 0, which would wipe out what is too
    fine to be seen at that size. There the gain tends to the ratio of brightness instead, as of a surface whose light
    changes; unless the translation runs against the source, as a negative does.
    """
    size = (max(1, seen.shape[1] // 2), max(1, seen.shape[0] // 2))
    guide, target = (_area(each, size).astype(np.float32) for each in (seen, made))
    mean_guide, mean_target = _mean(guide), _mean(target)
    covariance, variance = _mean(cv2.multiply(guide, target)), _mean(cv2.multiply(guide, guide))
    covariance -= mean_guide * mean_target
    variance -= mean_guide * mean_guide
    mean_guide += 1
    mean_target /= mean_guide
    ratio = np.minimum(mean_target, np.float32(1), out=mean_target)
    ratio *= covariance >= 0
    ratio *= _EPSILON
    covariance += ratio
    variance += _EPSILON
    slope = _mean(np.divide(covariance, variance, out=covariance))
    return (slope.clip(-_STEEPEST, _STEEPEST) * UNIT).astype(np.int16)


def _mean(values: cv2.typing.MatLike) -> npt.NDArray[np.float32]:
    """The mean over a square of ``2 * _RADIUS + 1`` pixels."""
    side = 2 * _RADIUS + 1
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT), dtype=np.float32)
