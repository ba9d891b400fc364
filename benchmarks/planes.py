"""A line of frames without RGB at full size: what it would save, and what it would change. Not part of the runtime.

The decoder's planes Y, U and V are shrunk for the model as they are; only that small picture becomes RGB. Its
translation goes back to planes at the small size, and the guided enlargement works on Y at full size and on U and V at
half: half the samples of an RGB picture, and no conversion on either side.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter

from streamgan.api import Color
from streamgan.frames import color
from streamgan.models import scaling

Samples: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[np.int16]

_UNIT, _STRIP, _MIDDLE = 4096, 1 << 17, 128


def planes(picture: av.VideoFrame) -> list[Samples]:
    """Y ``(H, W)``, U and V ``(H / 2, W / 2)`` of a ``yuv420p`` picture, in its own memory."""
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]  # type: ignore[call-overload]
        for plane in picture.planes
    ]


def seen(reformatter: VideoReformatter, picture: av.VideoFrame, size: tuple[int, int], meaning: Color) -> Samples:
    """What a model of this (width, height) sees, ``(h, w, 3)`` RGB, made without RGB at full size."""
    small = shrunk(reformatter, picture, size)
    return np.asarray(color.to_rgb(small, meaning.matrix, meaning.full_range, 8), np.uint8)


def shrunk(reformatter: VideoReformatter, picture: av.VideoFrame, size: tuple[int, int]) -> Samples:
    """Y, U and V of a picture at one small size, ``(h, w, 3)``, by FFmpeg's scaler; numbers keep their meaning."""
    small = reformatter.reformat(
        picture, *size, "yuv444p", src_color_range=2, dst_color_range=2, interpolation=Interpolation.AREA, threads=1
    )
    return np.asarray(cv2.merge(planes(small)), np.uint8)


def enlarged(made: Samples, small: Samples, picture: av.VideoFrame, meaning: Color, room: Words) -> av.VideoFrame:
    """A translation with the details of the full picture, as a picture for an encoder.

    Args:
        made: translation, ``(h, w, 3)`` RGB.
        small: what the model saw, ``(h, w, 3)`` Y, U and V.
        picture: the source, ``yuv420p``.
        meaning: of the numbers of source and result.
        room: ``(3, H, W)`` int16 to work in.
    """
    codes = color.from_rgb(np.left_shift(made, 8, dtype=np.uint16), 0, meaning, 8, (1, 1))
    black = 0 if meaning.full_range else 16
    was = [np.ascontiguousarray(part).astype(np.int16) for part in cv2.split(small)]
    # The gain of the brightness, with black at 0, serves the colours as well; what it leaves unexplained is added.
    pair = [cv2.subtract(each, black).clip(0).astype(np.uint8) for each in (was[0], codes[0].astype(np.int16))]
    gain = scaling._gain(*(each[..., None] for each in pair))
    near = cv2.resize(gain, small.shape[1::-1])
    result = av.VideoFrame(picture.width, picture.height, "yuv420p")
    for number, (source, target) in enumerate(zip(planes(picture), planes(result), strict=True)):
        zero = _MIDDLE if number else 0
        rest = codes[number].astype(np.int16) - cv2.multiply(near, was[number] - np.int16(zero), scale=1 / _UNIT)
        height, width = source.shape
        gains, rests = (part.reshape(-1)[: height * width].reshape(height, width) for part in room[:2])
        if number < 2:  # V has the gains of U
            cv2.resize(gain, (width, height), dst=gains)
        cv2.resize(rest, (width, height), dst=rests)
        _combine(source, gains, rests, zero, target)
    color.stamp(result, meaning)
    return result


def _combine(source: Samples, gains: Words, rests: Words, zero: int, target: Samples) -> None:
    """Writes ``gain * (source - zero) + rest`` into `target`, some rows at a time."""
    height, width = source.shape
    step = max(1, _STRIP // width)
    for top in range(0, height, step):
        rows = slice(top, top + step)
        values = source[rows].astype(np.int16)
        if zero:
            values -= np.int16(zero)
        cv2.multiply(gains[rows], values, dst=values, scale=1 / _UNIT)
        cv2.add(values, rests[rows], dst=values)
        np.clip(values, np.int16(0), np.int16(255), out=values)
        np.copyto(target[rows], values, casting="unsafe")
