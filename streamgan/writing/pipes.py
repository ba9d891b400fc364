"""Standard output as a place for frames: ``-`` is Matroska, ``y4m:-`` is raw YUV4MPEG2 for other programs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from fractions import Fraction

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
from av.container import OutputContainer
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter

from streamgan.api import Encoding, Frame, Sink, SinkError, UsageError, VideoInfo, hookimpl
from streamgan.frames.convert import to_picture
from streamgan.writing import encoders
from streamgan.writing.coder import encode, failures
from streamgan.writing.muxing import Companion, open_input
from streamgan.writing.videostream import add_video, choose

RAW = "y4m:-"
"""The location of standard output as YUV4MPEG2."""
_DESCRIPTOR = 1
_DEFAULT = Encoding()


class StandardOutput(Sink):
    """Matroska on standard output, which is never sought in: a reader may begin while it is written.

    Frames keep their times; with ``encoding.selection.start`` the first one is moved to 0 and all that follows, audio
    too, by the same amount.
    """

    def __init__(self, location: str = encoders.STANDARD_OUTPUT, encoding: Encoding = _DEFAULT) -> None:
        """Checks all that can be checked before a frame is there.

        Raises:
            UsageError: if standard output is a terminal, or the codec or its settings do not fit.
        """
        encoders.check(location, encoding)
        _refuse_terminal(location)
        self.notes: list[str] = []
        self._location, self._encoding = location, encoding
        self._container: OutputContainer | None = None
        self._companion: Companion | None = None
        self._origin: int | None = None
        self._reformatter = VideoReformatter()

    @classmethod
    def accepts(cls, location: str) -> bool:
        """The location ``-``."""
        return location == encoders.STANDARD_OUTPUT

    def open(self, info: VideoInfo) -> None:
        """Writes the header.

        Raises:
            UsageError: if the encoder does not suit the film.
            SinkError: if nobody reads, or the encoder cannot be opened.
        """
        choice = choose(self._location, self._encoding, info)
        self.notes.extend(choice.notes)
        self._info = info
        with _failures(self._location):
            self._container = av.open(f"pipe:{_DESCRIPTOR}", "w", format="matroska")
            self._stream = add_video(self._container, choice, info, self._encoding)
            if self._encoding.copy_from is not None:
                self._companion = Companion(open_input(self._encoding.copy_from), self._container, self._encoding)
            self._container.start_encoding()

    def write(self, frame: Frame) -> None:
        """Encodes one frame, and takes over what the input has beside it up to its time.

        Raises:
            SinkError: if nobody reads any more.
        """
        assert self._container is not None, "open comes before write"
        if self._origin is None:
            self._origin = frame.pts if self._encoding.selection.start or frame.pts < 0 else 0
            if self._companion is not None:
                self._companion.begin(self._origin * frame.time_base)
        with _failures(self._location):
            self._container.mux(encode(self._stream, self._reformatter, frame, self._origin, self._info))
            if self._companion is not None:
                self._companion.advance(frame.time)

    def close(self) -> None:
        """Writes what is left.

        Raises:
            SinkError: if nobody reads any more.
        """
        if self._container is None:
            return
        try:
            with _failures(self._location):
                self._container.mux(self._stream.encode(None))
                if self._companion is not None:
                    self._companion.advance(None)
                self._container.close()
            self._container = None
        finally:
            self.abort()

    def abort(self) -> None:
        """Ends where it is: what was written cannot be taken back."""
        container, self._container = self._container, None
        if self._companion is not None:
            self.notes.extend(self._companion.notes)
            self._companion.close()
            self._companion = None
        if container is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):
                container.close()


class RawOutput(Sink):
    """YUV4MPEG2 on standard output: 8 bits, 4:2:0, or 4:4:4 with `Encoding.lossless`; no sound, no compression.

    The format has one rate and no times. So that sound from elsewhere still fits, a frame is written as often as its
    time lasts at that rate, and left out if another has its place; a note counts both.
    """

    def __init__(self, location: str = RAW, encoding: Encoding = _DEFAULT) -> None:
        """Checks all that can be checked before a frame is there.

        Raises:
            UsageError: if standard output is a terminal, or a setting of an encoder is given.
        """
        _refuse_terminal(location)
        given = {"--codec": encoding.codec if encoding.codec != _DEFAULT.codec else None}
        given |= {"--encoder": encoding.encoder, "--crf": encoding.crf, "--encoder-preset": encoding.preset}  # type: ignore[dict-item]
        for option, value in given.items():
            if value is not None:
                raise UsageError(
                    f"{option} {value}: {location} is not compressed; leave it out, or use -o - for Matroska"
                )
        self.notes: list[str] = []
        self._location, self._encoding = location, encoding
        self._pixels = "yuv444p" if encoding.lossless else "yuv420p"
        self._last: Frame | None = None
        self._origin = Fraction(0)
        self._written = self._repeated = self._left_out = 0
        self._reformatter = VideoReformatter()

    @classmethod
    def accepts(cls, location: str) -> bool:
        """The location ``y4m:-``."""
        return location == RAW

    def open(self, info: VideoInfo) -> None:
        """Writes the header.

        Raises:
            UsageError: if the film is transparent, or its rate is unknown.
            SinkError: if nobody reads.
        """
        where = self._location
        if encoders.keeps_alpha(self._encoding, info):
            raise UsageError(f"{where}: the input is transparent, which YUV4MPEG2 cannot keep; use --alpha drop")
        if info.frame_rate is None:
            raise UsageError(f"{where}: the input's frame rate is unknown, and YUV4MPEG2 needs one; use -o - instead")
        if info.bits > 8:
            self.notes.append(f"{info.bits} bits became 8: {where} has no more (-o - does)")
        if self._encoding.copy_from is not None and self._encoding.audio != "none":
            self.notes.append(f"only the video was written: {where} holds nothing else (-o - does)")
        self._rate, self._color = info.frame_rate, info.color
        aspect, span = info.sample_aspect_ratio, "FULL" if info.color.full_range else "LIMITED"
        header = (
            f"YUV4MPEG2 W{info.width} H{info.height} F{_ratio(info.frame_rate)} Ip A{_ratio(aspect)} "
            f"C{'444' if self._encoding.lossless else '420mpeg2'} XCOLORRANGE={span}\n"
        )
        with _failures(where):
            _write(header.encode())

    def write(self, frame: Frame) -> None:
        """Writes the frame before this one, as often as it lasts.

        Raises:
            SinkError: if nobody reads any more.
        """
        if self._last is None:
            self._origin = frame.time
        else:
            self._put_until(self._last, self._place(frame.time))
        self._last = frame

    def close(self) -> None:
        """Writes the last frame as often as it lasts.

        Raises:
            SinkError: if nobody reads any more.
        """
        last, self._last = self._last, None
        if last is None:
            return
        end = last.time + last.duration * last.time_base
        self._put_until(last, max(self._place(end), self._written + 1))
        if self._repeated or self._left_out:
            counts = f"{self._repeated} frames were repeated and {self._left_out} left out"
            self.notes.append(f"{counts}: {self._location} has one rate, {float(self._rate):g} frames a second")

    def abort(self) -> None:
        """Ends where it is: what was written cannot be taken back."""
        self._last = None

    def _place(self, time: Fraction) -> int:
        """The number of the frame that is shown at a time, from 0."""
        return round((time - self._origin) * self._rate)

    def _put_until(self, frame: Frame, end: int) -> None:
        """Writes one frame at every place that is free before `end`."""
        count = max(0, end - self._written)
        self._left_out += not count
        self._repeated += max(0, count - 1)
        self._written += count
        with _failures(self._location):
            picture = to_picture(self._reformatter, frame, self._color, self._pixels)
            samples = b"".join(_samples(plane) for plane in picture.planes)
            for _ in range(count):
                _write(b"FRAME\n")
                _write(samples)


def _samples(plane: VideoPlane) -> bytes:
    """A plane of 8 bits without the padding at the end of its rows."""
    return np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width].tobytes()


def _ratio(value: Fraction) -> str:
    """A fraction as YUV4MPEG2 writes it."""
    return f"{value.numerator}:{value.denominator}"


def _write(data: bytes) -> None:
    """All of some bytes, to standard output."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(_DESCRIPTOR, rest) :]


def _refuse_terminal(location: str) -> None:
    """Raises UsageError if standard output is a screen: it would fill with signs that mean nothing."""
    if os.isatty(_DESCRIPTOR):
        raise UsageError(f"{location}: standard output is a terminal; end the command with '| PROGRAM' or '> FILE'")


@contextlib.contextmanager
def _failures(location: str) -> Iterator[None]:
    """Turns what FFmpeg and the system raise into one line."""
    with failures(location):
        try:
            yield
        except BrokenPipeError:
            reader = "the program that reads standard output"
            raise SinkError(f"{location}: {reader} has ended before the film did") from None


@hookimpl
def register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Brings standard output."""
    register("stdout", StandardOutput)
    register("y4m", RawOutput)
