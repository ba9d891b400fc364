"""A window on the screen that shows what is made."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from streamgan.api import Encoding, Frame, Sink, SinkError, VideoInfo, hookimpl

_DEFAULT = Encoding()


class Preview(Sink):
    """A window. ``q`` or closing it ends the run, ``s`` saves the picture as a PNG in the current folder.

    A window belongs to the thread that made it: `open`, `write` and `close` are called from the same one.
    """

    title: ClassVar[str] = "streamgan"

    def __init__(self, location: str = "window:", encoding: Encoding = _DEFAULT) -> None:
        self.notes: list[str] = []
        self.caption = ""
        """A line of text to show over the next pictures; a saved one is without it."""
        self._opened = False

    @classmethod
    def accepts(cls, location: str) -> bool:
        """The location ``window:``."""
        return location == "window:"

    def open(self, info: VideoInfo) -> None:
        """Opens the window.

        Raises:
            SinkError: if there is no screen.
        """
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise SinkError("cannot open a window: there is no screen (DISPLAY is not set); use -o FILE")
        try:
            cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(self.title, info.width, info.height)
        except cv2.error as error:
            raise SinkError(f"cannot open a window ({error.err}); use -o FILE") from None
        self._opened = True

    def write(self, frame: Frame) -> None:
        """Shows one frame and looks at the keyboard."""
        picture = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        cv2.imshow(self.title, overlay(frame.image, self.caption)[..., ::-1])
        key = cv2.waitKey(1) & 0xFF
        if key == ord("s"):
            name = f"streamgan-{time.strftime('%Y%m%d-%H%M%S')}.png"
            self.notes.append(f"saved {name}" if cv2.imwrite(name, picture) else f"could not save {name}")
        closed = cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        self.stopped = key == ord("q") or closed

    def close(self) -> None:
        """Closes the window."""
        if self._opened:
            self._opened = False
            cv2.destroyAllWindows()

    def abort(self) -> None:
        """Closes the window."""
        self.close()


def overlay(image: npt.NDArray[np.uint8], text: str) -> npt.NDArray[np.uint8]:
    """A copy of a picture with a line of text in its upper left corner.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        text: one line of ASCII.
    """
    scale = max(0.4, image.shape[0] / 900)
    margin, font, thickness = round(12 * scale), cv2.FONT_HERSHEY_SIMPLEX, max(1, round(scale))
    (width, height), below = cv2.getTextSize(text, font, scale, thickness)
    drawn = image.copy()
    drawn[: height + below + 2 * margin, : width + 2 * margin] //= 4  # text on a darker ground reads on any picture
    cv2.putText(drawn, text, (margin, margin + height), font, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return drawn


@hookimpl
def register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Brings the window."""
    register("window", Preview)
