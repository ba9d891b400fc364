"""Encodes frames in closed segments, each by a fresh encoder."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
from av.container import OutputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from streamgan.api import Encoding, Frame, Sink, SinkError, StreamganError, VideoInfo
from streamgan.frames.convert import to_picture
from streamgan.writing.encoders import format_of
from streamgan.writing.segments import Parts, VideoPacket, dumped, loaded
from streamgan.writing.videostream import Choice, add_video, choose


def encode(
    stream: VideoStream, reformatter: VideoReformatter, frame: Frame, origin: int, info: VideoInfo
) -> list[VideoPacket]:
    """What an encoder has ready after one more frame, whose time becomes that since `origin`, in ticks."""
    picture = to_picture(reformatter, frame, info.color, stream.pix_fmt or "yuv420p")
    picture.pts, picture.time_base = frame.pts - origin, frame.time_base
    picture.duration = frame.duration
    return stream.encode(picture)


class SegmentCoder:
    """Encodes frames, and keeps each segment for good when it is whole. Used by one thread.

    Its encoder belongs to a container of the output's format, in memory, that nothing goes to: so packets are what that
    format wants, and `stream` is a template for it.
    """

    def __init__(self, format_name: str, choice: Choice, info: VideoInfo, encoding: Encoding, parts: Parts) -> None:
        """Opens the first encoder.

        Raises:
            av.error.FFmpegError: or ValueError, if it cannot be opened.
        """
        self._format, self._choice, self._info = format_name, choice, info
        self._encoding, self._parts = encoding, parts
        self._reformatter = VideoReformatter()
        self._packets: list[VideoPacket] = []
        self._frames = 0
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._open()
        self.end = 0
        """When the last frame ends, in ticks of the output."""

    def put(self, frame: Frame) -> list[VideoPacket] | None:
        """Encodes one frame.

        Returns:
            The packets of the segment before, if this frame begins a new one.

        Raises:
            OSError: if a segment cannot be kept, as on a full disk.
        """
        whole = None
        if self._frames >= self._parts.length and (frame.cut or not self._parts.at_cuts):
            whole = self.finish()
            self._open()
        origin = self._parts.manifest.origin
        self._packets += encode(self.stream, self._reformatter, frame, origin, self._info)
        self._frames += 1
        self.end = frame.pts - origin + frame.duration
        return whole

    def finish(self) -> list[VideoPacket] | None:
        """Closes the segment; returns its packets, or None if it has none."""
        if not self._frames:
            return None
        whole = [*self._packets, *self.stream.encode(None)]
        self._parts.add(whole, self._frames, self.end)
        self._packets, self._frames = [], 0
        return list(loaded(dumped(whole)))  # what an encoder has made keeps it alive

    def close(self) -> None:
        """Frees the encoder. May be called twice."""
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            container.close()

    @property
    def stream(self) -> VideoStream:
        """The encoder at work."""
        assert self._stream is not None, "not after close"
        return self._stream

    def _open(self) -> None:
        """A fresh encoder; the one before is gone by then, as two need twice the memory."""
        self.close()
        self._container = av.open(io.BytesIO(), "w", format=self._format)
        self._stream = add_video(self._container, self._choice, self._info, self._encoding)
        self._container.start_encoding()


class SegmentSink(Sink):
    """Makes segments and nothing else: for one of several machines that make a film together."""

    parts: Parts
    """Where they are kept, with the origin of the whole film; set before `open`."""

    def __init__(self, location: str, encoding: Encoding) -> None:
        """Takes the name of the output that the segments are for."""
        self.notes: list[str] = []
        self._location, self._encoding = location, encoding
        self._coder: SegmentCoder | None = None

    @classmethod
    def accepts(cls, location: str) -> bool:
        """Nothing: it is never chosen by a location."""
        return False

    def open(self, info: VideoInfo) -> None:
        """Opens the encoder.

        Raises:
            StreamganError: if it cannot be opened.
        """
        choice = choose(self._location, self._encoding, info)
        self.parts.begin(info.width, info.height, self.parts.manifest.origin)
        with failures(self._location):
            self._coder = SegmentCoder(format_of(self._location), choice, info, self._encoding, self.parts)

    def write(self, frame: Frame) -> None:
        """Encodes one frame.

        Raises:
            SinkError: if a segment cannot be kept.
        """
        assert self._coder is not None, "open comes before write"
        with failures(self._location):
            self._coder.put(frame)

    def close(self) -> None:
        """Keeps the last segment.

        Raises:
            SinkError: if it cannot be kept.
        """
        if self._coder is not None:
            with failures(self._location):
                self._coder.finish()
            self.abort()

    def abort(self) -> None:
        """Keeps what is whole."""
        coder, self._coder = self._coder, None
        if coder is not None:
            coder.close()


@contextlib.contextmanager
def failures(location: str, doubt: str = "") -> Iterator[None]:
    """Turns what FFmpeg and the file system raise into one line; `doubt` is added if FFmpeg does not say more."""
    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, StreamganError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        reason += doubt if isinstance(error, av.error.ArgumentError) else ""
        refusal = SinkError(f"{location}: cannot be written ({reason})")
        refusal.errno = getattr(error, "errno", None)
        raise refusal from None
