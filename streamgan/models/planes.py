"""The way of `streamgan.models.scaling` for pictures that stay Y, Cb and Cr: no RGB at full size."""

from __future__ import annotations

import cv2
import numpy as np

from streamgan.api import Color
from streamgan.frames import color
from streamgan.frames.planar import Planes, draw
from streamgan.models.scaling import UNIT, Image, Room, apply_gain, fit_gain, shrink


def shrink_planes(planes: Planes, size: tuple[int, int]) -> Image:
    """A smaller picture in the codes of the large one; see `streamgan.models.scaling.shrink`.

    Args:
        planes: the large picture.
        size: (width, height), neither larger than the picture's; chroma is enlarged where it is smaller.

    Returns:
        ``(h, w, 3)`` uint8 Y, Cb and Cr.
    """
    small = []
    for samples in planes.samples:
        least = min(size[0], samples.shape[1]), min(size[1], samples.shape[0])
        part = shrink(samples, least)
        small.append(part if least == size else cv2.resize(part, size, interpolation=cv2.INTER_LINEAR))
    return np.asarray(cv2.merge(small), np.uint8)


def to_rgb(small: Image, meaning: Color) -> Image:
    """What a model sees: a small picture of Y, Cb and Cr as RGB, ``(h, w, 3)`` uint8."""
    return np.asarray(color.to_rgb(small, meaning.matrix, meaning.full_range, 8), np.uint8)


def enlarge_planes(made: Image, small: Image, planes: Planes, room: Room, guided: bool = True) -> Planes:
    """Enlarges a translation with the details and edges of the full picture, Y at full size, Cb and Cr at half.

    As `streamgan.models.scaling.enlarge_guided`, with one gain for all three: that of the light, black being 0. What
    becomes darker loses as much of its colour; the rest of a change of colour is what the gain leaves unexplained. On
    films of day2night and ukiyoe the result is within 50 to 54 dB of that in RGB, plane by plane.

    Args:
        made: translation, ``(h, w, 3)`` uint8 RGB.
        small: what the model saw, ``(h, w, 3)`` uint8 Y, Cb and Cr.
        planes: the source.
        room: ``(2, H, W)`` int16 to work in, kept from frame to frame.
        guided: False for an enlargement without regard to what is in the picture.

    Returns:
        A picture for an encoder, of the source's size and meaning.
    """
    meaning = planes.color
    black, white, strongest = (0, 255, 255) if meaning.full_range else (16, 235, 240)
    targets = color.from_rgb(np.left_shift(made, 8, dtype=np.uint16), 0, meaning, 8, (1, 1))
    guides = [np.ascontiguousarray(part) for part in cv2.split(small)]
    light = (np.maximum(part, black) - black for part in (guides[0], targets[0]))
    gain = fit_gain(*(part.astype(np.uint8) for part in light)) if guided else np.zeros((1, 1), np.int16)
    near = cv2.resize(gain, made.shape[1::-1])
    result = draw(planes.size, meaning)
    for number, (samples, into) in enumerate(zip(planes.samples, result.samples, strict=True)):
        guide, target = (part[number].astype(np.int16) for part in (guides, targets))
        gains, rests = (part.reshape(-1)[: samples.size].reshape(samples.shape) for part in room)
        if number < 2:  # Cr has the gains of Cb
            cv2.resize(near, samples.shape[::-1], dst=gains)
        cv2.resize(target - cv2.multiply(near, guide, scale=1 / UNIT), samples.shape[::-1], dst=rests)
        apply_gain(samples, gains, rests, into, (black, strongest if number else white))
    return result
