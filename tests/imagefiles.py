"""Image files for the tests: numbered pictures written and read."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import cv2
from clips import picture

from streamgan.api import Frame, Selection, Sink, VideoInfo
from streamgan.images import ImageFiles

SIZE = (64, 48)


def save(path: Path, index: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """A numbered picture in a file."""
    cv2.imwrite(str(path), picture(index, size)[..., ::-1])
    return path


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG, by the specification."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def read(location: object, selection: Selection | None = None) -> list[Frame]:
    with ImageFiles(str(location), selection or Selection()) as source:
        return list(source.frames())


def indices(frames: list[Frame]) -> list[int]:
    """Which numbered pictures these are."""
    return [round((int(frame.image[0, 0, 2]) - 16) / 4) for frame in frames]


def write(sink: Sink, count: int = 1, rate: int = 25, size: tuple[int, int] = SIZE) -> Sink:
    """Writes numbered pictures through a sink."""
    with sink:
        sink.open(VideoInfo(*size, Fraction(1, rate), Fraction(rate)))
        for index in range(count):
            sink.write(Frame(picture(index, size), index, Fraction(1, rate), 1))
    return sink
