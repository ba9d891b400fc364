"""Cameras of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import cv2
import numpy as np

from streamgan.api import Frame, Selection, Source, SourceError, VideoInfo, hookimpl

_WHOLE = Selection()
_MICROSECOND = Fraction(1, 1_000_000)


class Camera(Source):
    """A camera of this machine, by its number or its device file."""

    live = True

    def __init__(self, location: str, selection: Selection = _WHOLE) -> None:
        self._location = location
        self._capture = _open_camera(location)
        # First of all settings: uncompressed modes, which OpenCV would prefer, give 5 fps over USB 2 at 1080p.
        self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._began = time.monotonic()

    @classmethod
    def accepts(cls, location: str) -> bool:
        """A number, or a device file such as ``/dev/video0``."""
        return location.isdecimal() or location.startswith("/dev/video")

    @property
    def info(self) -> VideoInfo:
        """What the camera says of itself; its frame rate is not to be relied on."""
        read: Callable[[int], float] = self._capture.get
        width, height = int(read(cv2.CAP_PROP_FRAME_WIDTH)), int(read(cv2.CAP_PROP_FRAME_HEIGHT))
        rate = Fraction(read(cv2.CAP_PROP_FPS)).limit_denominator(1001) or None
        return VideoInfo(width, height, _MICROSECOND, rate, description=f"camera {self._location} {width}x{height}")

    def frames(self) -> Iterator[Frame]:
        """Yields frames as they come, until the camera is gone.

        Raises:
            SourceError: if the camera gives no picture at all.
        """
        count = 0
        while True:
            came, image = self._capture.read()
            now = time.monotonic()
            if not came:
                break
            rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
            yield Frame(rgb, round((now - self._began) * 1e6), _MICROSECOND, captured_at=now)
            count += 1
        if not count:
            raise SourceError(f"camera {self._location}: opened, but gives no picture; try another program or cable")

    def close(self) -> None:
        """Gives the camera back."""
        self._capture.release()


def _open_camera(location: str) -> cv2.VideoCapture:
    """Opens a camera; what OpenCV and its FFmpeg write to the terminal if there is none is many lines, ours is one."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(int(location) if location.isdecimal() else location)
        opened = capture.isOpened()
    except cv2.error:  # a number larger than a C int
        opened = False
    finally:
        cv2.utils.logging.setLogLevel(before)
    if not opened:
        raise SourceError(f"camera {location}: cannot be opened; is it plugged in, and not in use elsewhere?")
    return capture


@hookimpl
def register_sources(register: Callable[[str, type[Source]], None]) -> None:
    """Brings cameras."""
    register("camera", Camera)
