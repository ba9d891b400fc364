"""Where frames come from: any file or URL that FFmpeg opens, and cameras."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from streamgan import color
from streamgan.api import Frame, Selection, Source, SourceError, VideoInfo, hookimpl
from streamgan.timeline import Timeline

_ROTATE = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, -90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180}
WHOLE = Selection()
"""From beginning to end."""
_FASTEST, _PATIENCE, _RESTART = 500, 10.0, Fraction(1, 3)
_MICROSECOND = Fraction(1, 1_000_000)
_FILM = 5
"""Frames from which on a stream counts as a film, not as stills that a camera put beside it."""


class VideoFile(Source):
    """Frames of a file or URL, decoded in threads, upright, in RGB, each with the time that the file gives it.

    Times are those of the stream, also with a selection: it is the sink that lets a cut begin at 0.
    """

    threads: int = 0
    """How many threads decode; 0 for one per core. Takes effect if set before `info` is read."""

    def __init__(self, location: str, selection: Selection = WHOLE) -> None:
        self.notes: list[str] = []
        self._location, self._selection = location, selection
        self._container = _open(location)
        try:
            self._stream = _best_video(self._container, location)
        except SourceError:
            self._container.close()
            raise
        self._reader: _Reader | None = None

    @classmethod
    def accepts(cls, location: str) -> bool:
        """Any location: this is the source of last resort."""
        return True

    @property
    def info(self) -> VideoInfo:
        """What is known of the video; decodes its first wanted frame.

        Raises:
            SourceError: if nothing can be decoded, or nothing lies within the selection.
        """
        return self._start().info

    def frames(self) -> Iterator[Frame]:
        """Yields every frame of the selection, once.

        Raises:
            SourceError: if nothing can be decoded, or nothing lies within the selection.
        """
        reader = self._start()
        self.notes.extend(_other_videos(self._container, self._stream))
        yield from reader.frames()

    def _start(self) -> _Reader:
        """The reader, made on first use so that `threads` can be set before."""
        if self._reader is None:
            context = self._stream.codec_context
            context.thread_type, context.thread_count = "AUTO", self.threads
            self._reader = _Reader(self._container, self._stream, self._selection, self._location, self.notes)
        return self._reader

    def close(self) -> None:
        """Closes the file."""
        self._container.close()


class _Reader:
    """Decodes one stream: the first frame at once, to know what comes; the rest as it is asked for."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, selection: Selection, location: str, notes: list[str]
    ) -> None:
        self._container, self._stream, self._selection = container, stream, selection
        self._location, self._notes = location, notes
        self._time_base = Fraction(stream.time_base or _MICROSECOND)
        self._origin = (stream.start_time or 0) * self._time_base
        self._timeline = Timeline(restart=int(_RESTART / self._time_base))
        self._reformatter = VideoReformatter()
        self._came = False
        self._decoded = self._select(self._decode())
        first = next(self._decoded, None)
        if first is None:
            raise SourceError(self._nothing())
        self._first = first
        self._size = (first[0].width, first[0].height)
        self._color = color.read_color(first[0])
        self._rotation = _ROTATE.get(_quarter_turns(first[0]))
        self.info = self._describe(first[0])

    def frames(self) -> Iterator[Frame]:
        """Every frame of the selection, the first included."""
        yield self._convert(*self._first)
        for frame, pts in self._decoded:
            yield self._convert(frame, pts)

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Every frame that can be decoded, the decoder's last ones included; damaged packets are counted."""
        start, damaged = self._selection.start, 0
        try:
            if start:
                with contextlib.suppress(av.error.FFmpegError):  # what cannot seek is read from its beginning
                    self._container.seek(self._ticks(start), stream=self._stream)
            for packet in self._container.demux(self._stream):
                try:
                    yield from packet.decode()
                except av.error.InvalidDataError:
                    damaged += 1
        except av.error.FFmpegError as error:
            self._notes.append(f"reading ended early: {error.strerror}")
        if damaged:
            self._notes.append(f"{damaged} damaged packets of the video were skipped")

    def _ticks(self, start: Fraction) -> int:
        """A time of the selection on the stream's clock, held to the 64 bits that FFmpeg has for it."""
        return min(int((self._origin + start) / self._time_base), 2**62)

    def _select(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, int]]:
        """The frames within the selection, with times that go forward."""
        start, end = self._selection.start, self._selection.end
        for frame in frames:
            self._came = True
            pts = self._timeline.place(frame.pts, self._duration(frame))
            at = pts * self._time_base - self._origin
            if end is not None and at >= end:
                return
            if start is None or at >= start:
                yield frame, pts

    def _duration(self, frame: av.VideoFrame) -> int:
        """Ticks that a frame lasts: its own word, else the average of the stream, else 0."""
        rate = _rate(self._stream)
        return frame.duration or (round(1 / (rate * self._time_base)) if rate else 0)

    def _convert(self, frame: av.VideoFrame, pts: int) -> Frame:
        """A decoded frame as RGB, upright, of the first frame's size."""
        try:
            image = color.to_rgb(self._reformatter, frame, self._color, self._size)
        except av.error.FFmpegError as error:
            given = f"{frame.format.name} to RGB ({error.strerror})"
            raise SourceError(f"{self._location}: cannot convert {given}") from None
        if self._rotation is not None:
            image = _rgb(cv2.rotate(image, self._rotation))
        return Frame(image, pts, self._time_base, self._duration(frame))

    def _describe(self, frame: av.VideoFrame) -> VideoInfo:
        """What the first frame and the stream say together."""
        turned = self._rotation in (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_90_COUNTERCLOCKWISE)
        width, height = reversed(self._size) if turned else self._size
        aspect = Fraction(self._stream.sample_aspect_ratio or 1) or Fraction(1)
        rate = _rate(self._stream)
        shown = f" {float(rate):.4g} fps" if rate else ""
        return VideoInfo(
            width=width,
            height=height,
            time_base=self._time_base,
            frame_rate=rate,
            frame_count=self._count(),
            sample_aspect_ratio=1 / aspect if turned else aspect,
            color=self._color,
            description=f"{self._stream.codec_context.name} {width}x{height}{shown}",
        )

    def _count(self) -> int | None:
        """How many frames are to be expected within the selection, or None."""
        length, rate = _length(self._container, self._stream), _rate(self._stream)
        count = self._stream.frames or (length and rate and round(length * rate))
        if not count or not (self._selection.start or self._selection.end):
            return count or None
        if not length:
            return None
        end = length if self._selection.end is None else min(length, self._selection.end)
        return round(count * max(Fraction(0), end - (self._selection.start or 0)) / length)

    def _nothing(self) -> str:
        """Why there is no frame."""
        start, end, length = self._selection.start, self._selection.end, _length(self._container, self._stream)
        outside = start and (not length or start >= length)
        if not self._came and not outside:
            detail = "; ".join(self._notes) or "it may be damaged"
            return f"{self._location}: no frame of its video could be decoded ({detail})"
        until = "the end" if end is None else f"{float(end):g} s"
        span = f"from {float(start or 0):g} s to {until}"
        lasts = f"; the video lasts {float(length):.2f} s" if length else ""
        return f"{self._location}: no frame {span}{lasts}"


def _rgb(image: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """What OpenCV returns, as the type that it is."""
    return np.asarray(image, dtype=np.uint8)


def _open(location: str) -> InputContainer:
    """Opens a file or URL for reading."""
    if "://" not in location:
        _check_file(location)
    # file: keeps a name such as "a:b.mp4" from being taken for a protocol.
    name = location if "://" in location else f"file:{location}"
    try:
        return av.open(name, "r", metadata_errors="replace", timeout=_PATIENCE if "://" in location else None)
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{location}: cannot be read as a video ({reason})") from None


def _check_file(location: str) -> None:
    """Says what is wrong with a path in better words than FFmpeg."""
    try:
        mode = Path(location).stat().st_mode
    except OSError as error:
        kind = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise SourceError(f"{location}: {kind}") from None
    if stat.S_ISDIR(mode):
        raise SourceError(f"{location}: a folder, not a video file")
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise SourceError(f"{location}: not a video file")


def _best_video(container: InputContainer, location: str) -> VideoStream:
    """The largest stream of moving pictures; cover art is not one, and a few stills beside a film are not the film."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    streams = [s for s in streams if s.codec_context is not None]
    if not streams:
        found = ", ".join(stream.type for stream in container.streams) or "nothing"
        cover = " (a cover picture is no video)" if container.streams.video else ""
        raise SourceError(f"{location}: no video in this file{cover}; found: {found}")
    return max(streams, key=lambda s: (min(s.frames or _FILM, _FILM), s.codec_context.width * s.codec_context.height))


def _other_videos(container: InputContainer, chosen: VideoStream) -> Iterator[str]:
    """One line for each video stream that is not translated."""
    for stream in container.streams.video:
        codec = stream.codec_context.name if stream.codec_context else "unknown codec"
        if stream.index == chosen.index:
            continue
        if stream.disposition & Disposition.attached_pic:
            yield f"cover picture {stream.index} ({codec}) was left out"
        else:
            yield f"video stream {stream.index} ({codec}) was left out: only stream {chosen.index} is translated"


def _length(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Seconds that the video lasts, if the file says."""
    if stream.duration and stream.time_base:
        return Fraction(stream.duration * stream.time_base)
    return Fraction(container.duration, av.time_base) if container.duration else None


def _rate(stream: VideoStream) -> Fraction | None:
    """Average frames per second; None if unknown, as where a container gives the rate of its clock instead."""
    rate = Fraction(stream.average_rate or stream.guessed_rate or 0)
    return rate if 0 < rate <= _FASTEST else None


def _quarter_turns(frame: av.VideoFrame) -> int:
    """The rotation a player would apply, counter-clockwise, as one of 0, 90, 180 and -90 degrees."""
    degrees = round(frame.rotation / 90) * 90 % 360
    return degrees - 360 if degrees == 270 else degrees


class Camera(Source):
    """A camera of this machine, by its number or its device file."""

    live = True

    def __init__(self, location: str, selection: Selection = WHOLE) -> None:
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
            rgb = _rgb(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
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
    """Brings cameras and, for all else, files and URLs."""
    register("camera", Camera)
    register("file", VideoFile)
