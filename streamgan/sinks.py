"""Where frames go: a video file, the network, a window, nowhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from streamgan import color, encoders
from streamgan.api import Encoding, Frame, Sink, SinkError, VideoInfo, hookimpl
from streamgan.muxing import Companion
from streamgan.outputs import check_target, partial_name, publish

DEFAULT = Encoding()
"""H.264 with nothing beside it."""
_KEEP_DURATION = 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: else the encoder forgets how long the last frame lasts


class VideoFileSink(Sink):
    """Encodes into a file, which appears under its name only when it is complete, or to a network address.

    Frames keep their times, tick for tick; with ``encoding.selection.start`` the first frame is moved to 0 and all that
    follows, audio too, by the same amount.
    """

    def __init__(self, location: str, encoding: Encoding = DEFAULT) -> None:
        """Checks all that can be checked before a frame is there.

        Raises:
            UsageError: if the name is no video's, the codec or its settings do not fit, the file exists, or it is the
                input.
            SinkError: if the folder does not take files.
        """
        self.notes: list[str] = []
        self._location, self._encoding = location, encoding
        self._network = "://" in location
        self._format = encoders.format_of(location)
        encoders.check(location, encoding)
        if not self._network:
            check_target(Path(location), encoding)
        self._partial: Path | None = None
        self._container: OutputContainer | None = None
        self._companion: Companion | None = None
        self._origin: int | None = None
        self._end = 0
        self._first: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()

    @classmethod
    def accepts(cls, location: str) -> bool:
        """Any location: this is the sink of last resort."""
        return True

    def open(self, info: VideoInfo) -> None:
        """Creates the output and writes its header.

        Raises:
            SinkError: if the output or its encoder cannot be opened.
        """
        self._color = info.color
        self._partial = None if self._network else partial_name(Path(self._location))
        with self._failures(f"; does {self._encoding.codec} take {info.width}x{info.height} pixels?"):
            self._container = av.open(
                self._location if self._partial is None else f"file:{self._partial}",
                "w",
                format=self._format,
                container_options=encoders.container_options(self._format, info.time_base),
            )
            self._stream = self._add_video(self._container, info)
            if self._encoding.copy_from is not None:
                self._companion = Companion(self._encoding.copy_from, self._container, self._encoding)
            self._container.start_encoding()

    def write(self, frame: Frame) -> None:
        """Encodes one frame, and takes over what the input has beside it up to its time.

        Raises:
            SinkError: if the output cannot be written, as on a full disk.
        """
        assert self._container is not None, "open comes before write"
        if self._origin is None:
            # No container shows what comes before 0, so a film that begins there is moved as one that is cut.
            self._origin = frame.pts if self._encoding.selection.start or frame.pts < 0 else 0
            if self._companion is not None:
                self._companion.begin(self._origin * frame.time_base)
        with self._failures():
            picture = color.from_rgb(self._reformatter, frame.image, self._color, self._stream.pix_fmt or "yuv420p")
            picture.pts, picture.time_base = frame.pts - self._origin, frame.time_base
            picture.duration = frame.duration
            self._end = picture.pts + frame.duration
            self._mux(self._stream.encode(picture))
            if self._companion is not None:
                self._companion.advance(frame.time)

    def close(self) -> None:
        """Completes the output and gives it its name.

        Raises:
            SinkError: if the output cannot be completed; nothing is left behind then.
        """
        if self._container is None:
            return
        try:
            with self._failures():
                self._mux(self._stream.encode(None), last=True)
                if self._companion is not None:
                    self._companion.advance(None)
                self._container.close()
                if self._partial is not None:
                    publish(self._partial, Path(self._location), self._encoding.overwrite)
            self._container = None
        finally:
            self.abort()

    def abort(self) -> None:
        """Leaves nothing behind."""
        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):
                container.close()
        if self._companion is not None:
            self.notes = self._companion.notes
            self._companion.close()
            self._companion = None
        if self._partial is not None:
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def _mux(self, packets: list[Packet[VideoStream]], last: bool = False) -> None:
        """Writes packets of the video.

        MP4 adds up durations in order of decoding, where the last packet need not be the last picture; so the last one
        is given what is missing to the end of the film.
        """
        assert self._container is not None
        if self._first is None and packets:
            self._first = (packets[0].pts or 0, packets[0].dts or 0)
        if last and packets and self._first is not None:
            first_pts, first_dts = self._first
            before = (packets[-1].dts or 0) - first_dts
            packets[-1].duration = max(packets[-1].duration or 0, self._end - first_pts - before)
        self._container.mux(packets)

    def _add_video(self, container: OutputContainer, info: VideoInfo) -> VideoStream:
        """The stream of the translated video, ready to be opened."""
        name = encoders.ENCODERS[self._encoding.codec]
        os.environ.setdefault("SVT_LOG", "0")  # else the AV1 encoder writes thirty lines to the terminal
        stream = container.add_stream(
            name, rate=info.frame_rate, options=encoders.options(self._encoding, self._network)
        )
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height = info.width, info.height
        context.pix_fmt = encoders.pixel_format(self._encoding, info)
        # Before opening, or the encoder's own clock of 1/rate rounds the times away.
        context.time_base = stream.time_base = info.time_base
        context.sample_aspect_ratio = info.sample_aspect_ratio
        context.thread_count = self._encoding.threads
        context.flags |= _KEEP_DURATION
        if self._network:
            context.gop_size = round(2 * (info.frame_rate or 25))
        if self._network or self._format in encoders.NO_REORDERING:
            context.max_b_frames = 0
        color.tag(context, info.color)
        return stream

    @contextlib.contextmanager
    def _failures(self, doubt: str = "") -> Iterator[None]:
        """Turns what FFmpeg and the file system raise into one line; `doubt` is added if FFmpeg does not say more."""
        try:
            yield
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if isinstance(error, SinkError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            reason += doubt if isinstance(error, av.error.ArgumentError) else ""
            raise SinkError(f"{self._location}: cannot be written ({reason})") from None


class NullSink(Sink):
    """Throws every frame away: for measuring all that comes before it."""

    def __init__(self, location: str = "null:", encoding: Encoding = DEFAULT) -> None:
        self.frames = 0
        """How many frames came."""

    @classmethod
    def accepts(cls, location: str) -> bool:
        """The location ``null:``."""
        return location == "null:"

    def open(self, info: VideoInfo) -> None:
        """Needs nothing."""

    def write(self, frame: Frame) -> None:
        """Counts the frame."""
        self.frames += 1

    def close(self) -> None:
        """Has nothing to free."""

    def abort(self) -> None:
        """Has nothing to throw away."""


class Preview(Sink):
    """A window. ``q`` or closing it ends the run, ``s`` saves the picture as a PNG in the current folder.

    A window belongs to the thread that made it: `open`, `write` and `close` are called from the same one.
    """

    title: ClassVar[str] = "streamgan"

    def __init__(self, location: str = "window:", encoding: Encoding = DEFAULT) -> None:
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
    """Brings the window, the bin and, for all else, video files and network addresses."""
    register("window", Preview)
    register("null", NullSink)
    register("file", VideoFileSink)
