"""Films to measure and to look at: read, translated frame by frame, and shown as a strip."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import cv2
import numpy as np

from streamgan.api import SourceError
from streamgan_training.measuring.metrics import Image

Translate = Callable[[Image], Image]
"""From frames ``(N, H, W, 3)`` uint8 RGB to their translations."""
CLIP_SIDE = 256
"""Films are measured at this short side, in pixels."""
STRIP, STRIP_SIDE = 5, 160
"""Frames of a strip, and their short side in pixels."""


def read_clip(path: Path, short_side: int | None = None, multiple_of: int = 16) -> Generator[Image, None, None]:
    """The frames of a film, reduced to a short side and cut to multiples of a number: ``(H, W, 3)`` uint8 RGB.

    Raises:
        SourceError: if it cannot be read.
    """
    film = cv2.VideoCapture(str(path))
    if not film.isOpened():
        raise SourceError(f"{path}: not a film that can be read")
    try:
        while True:
            more, frame = film.read()
            if not more:
                return
            height, width = frame.shape[:2]
            scale = 1.0 if short_side is None else short_side / min(height, width)
            height, width = (max(1, round(side * scale) // multiple_of) * multiple_of for side in (height, width))
            small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            yield np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        film.release()


def check_film(path: Path) -> None:
    """Refuses what is no film, before anything else is computed.

    Raises:
        SourceError: if no frame of it can be read.
    """
    frames = read_clip(path)
    if next(frames, None) is None:
        raise SourceError(f"{path}: not a film that can be read")
    frames.close()


def translated(path: Path, translate: Translate, multiple_of: int) -> Generator[tuple[Image, Image], None, None]:
    """(source, output) frames of a film."""
    for frame in read_clip(path, CLIP_SIDE, multiple_of):
        yield frame, translate(frame[None])[0]


def strip(path: Path, translate: Translate, multiple_of: int) -> Image:
    """Frames spread over a film, above their translations: ``(H, W, 3)`` uint8."""
    frames = list(read_clip(path, STRIP_SIDE, multiple_of))
    chosen = np.stack([frames[number * (len(frames) - 1) // (STRIP - 1)] for number in range(STRIP)])
    rows = [np.concatenate(list(row), axis=1) for row in (chosen, translate(chosen))]
    return np.asarray(np.concatenate(rows), np.uint8)
