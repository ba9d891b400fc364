"""The packets of one stream: of a file, a pipe, or a connection that may break off and come back."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias, cast

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from streamgan.api import SourceError
from streamgan.reading import demux, network
from streamgan.reading.timeline import Clock

VideoPacket: TypeAlias = "Packet[VideoStream]"

STDIN = "-"
"""The location that stands for standard input."""
_FILM = 5
"""Frames from which on a stream counts as a film, not as stills that a camera put beside it."""
_MARGIN = 10.0
"""Seconds before the place where a connection broke off, from which a file is read again."""
_MICROSECOND = Fraction(1, 1_000_000)


class Feed:
    """Reads one video stream of a location. A connection that breaks off is opened again, with growing waits."""

    def __init__(self, location: str, wanted: int | None) -> None:
        """Opens a location.

        Args:
            location: a path, a URL, or ``-`` for standard input.
            wanted: number of the stream in the file; None for the best video.

        Raises:
            SourceError: if it cannot be opened, or has no such stream.
        """
        self._location, self._wanted = location, wanted
        self.container = open_input(location)
        try:
            self.stream = _chosen(self.container, location, wanted)
        except SourceError:
            self.container.close()
            raise
        self.live = network.is_live(location)
        """Whether what is missed is gone: `packets` then goes on with a new clock after a break."""
        self._is_repeatable = network.is_network(location) and not self.live
        self.breaks = 0
        """How often the connection broke off and came back."""
        self.gap = 0.0
        """Seconds without a packet at the last break."""
        self.ended_early = False
        """Whether the connection broke off and did not come back."""
        self.count = 0
        """How many packets there were so far."""
        self.notes: list[str] = []
        """How the connection did, one line each; complete once `packets` has ended."""
        self._clock = Clock()
        self._furthest: int | None = None
        self._waits = network.waits()
        self._missed, self._heard = 0.0, time.monotonic()

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick of the packets' times."""
        return _time_base(self.stream)

    def packets(self) -> Iterator[VideoPacket]:
        """Yields every packet, in the order of decoding; after a new connection those of another `stream`.

        Raises:
            av.error.FFmpegError: if it cannot be read on.
        """
        while True:
            try:
                yield from _one_behind(self._read()) if self._is_repeatable else self._read()
                if not self.live:
                    break
                reason: av.error.FFmpegError | None = None
            except av.error.FFmpegError as error:
                if not network.is_network(self._location):
                    raise
                reason = error
            if not self._reopen():
                self.ended_early = True
                cause = "the sender ended it" if reason is None else str(reason.strerror)
                self.notes.append(f"the connection was lost ({cause}) and did not come back: the video may end early")
                break
        if self.breaks:
            times = "once" if self.breaks == 1 else f"{self.breaks} times"
            lost = f", {self._missed:.1f} s are missing" if self.live else ", nothing is missing"
            self.notes.append(f"the connection broke off {times} and came back{lost}")

    def seek(self, ticks: int) -> bool:
        """Goes to a key frame before a time, or not far behind it; False if that cannot be done here."""
        if self.live or self._is_pipe():
            return False
        try:
            self.container.seek(max(-(2**62), min(ticks, 2**62)), stream=self.stream)
        except av.error.FFmpegError:
            return False
        self._clock, self.count = Clock(), 0
        return True

    def rewind(self) -> bool:
        """Goes to the very first packet, after a `seek` that led astray; False if that cannot be done here.

        Raises:
            SourceError: if the location cannot be opened any more.
        """
        if self.live or self._is_pipe():
            return False
        container = open_input(self._location)
        self._replace(container, _chosen(container, self._location, self._wanted))
        return True

    def _replace(self, container: InputContainer, stream: VideoStream) -> None:
        """Reads from another opening of the same location from now on."""
        self.container.close()
        self.container, self.stream, self._clock = container, stream, Clock()
        self.count = 0

    def _is_pipe(self) -> bool:
        """Whether what was read once cannot be read again."""
        mode = os.fstat(0).st_mode if self._location == STDIN else None
        return mode is not None and not stat.S_ISREG(mode)

    def close(self) -> None:
        """Closes the location."""
        self.container.close()

    def _read(self) -> Iterator[VideoPacket]:
        """Packets of the present connection, on a clock without breaks."""
        for packet in demux.packets(self.container, {self.stream.index}, self._clock):
            self._note_progress(packet)
            yield cast(VideoPacket, packet)

    def _note_progress(self, packet: demux.AnyPacket) -> None:
        """Takes note that the connection is alive: the next break is waited for from the beginning again."""
        self.count += 1
        self._heard = time.monotonic()
        if packet.dts is not None and (self.live or self._furthest is None or packet.dts > self._furthest):
            self._furthest, self._waits = packet.dts, network.waits()

    def _reopen(self) -> bool:
        """Opens the location again after a break; False if it stays away."""
        for wait in self._waits:
            time.sleep(wait)
            try:
                container = open_input(self._location)
                stream = _chosen(container, self._location, self._wanted)
            except SourceError:
                continue
            self._replace(container, stream)
            self.gap = time.monotonic() - self._heard
            self._missed += self.gap
            self.breaks += 1
            if not self.live and self._furthest is not None:
                self.seek(self._furthest - int(_MARGIN / self.time_base))
            return True
        return False


def open_input(location: str) -> InputContainer:
    """Opens a path, a URL or standard input for reading.

    Raises:
        SourceError: if it is not there, or nothing that FFmpeg can read.
    """
    online = network.is_network(location)
    if location == STDIN:
        _check_stdin()
        name = "fd:"
    elif "://" in location:
        name = location
    else:
        _check_file(location)
        name = f"file:{location}"  # keeps a name such as "a:b.mp4" from being taken for a protocol
    try:
        return av.open(
            name,
            "r",
            metadata_errors="replace",
            container_options=network.options(location),
            timeout=(network.PATIENCE, network.silence(location)) if online else None,
        )
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "; a pipe needs a format that is read from front to back, such as Matroska" if location == STDIN else ""
        raise SourceError(f"{location}: cannot be read as a video ({reason}{hint})") from None


def _one_behind(packets: Iterator[VideoPacket]) -> Iterator[VideoPacket]:
    """Each packet once the next one is there: if the connection breaks off, the last may be cut, and comes again."""
    held: VideoPacket | None = None
    for packet in packets:
        if held is not None:
            yield held
        held = packet
    if held is not None:
        yield held


def _check_stdin() -> None:
    """Refuses a standard input that nobody sends anything into."""
    try:
        terminal = os.isatty(0)
        os.fstat(0)
    except OSError as error:
        raise SourceError(f"{STDIN}: standard input cannot be read ({error.strerror})") from None
    if terminal:
        raise SourceError(
            f"{STDIN}: standard input is a terminal; pipe a video into it: cat film.mkv | streamgan run -"
        )


def _check_file(location: str) -> None:
    """Says what is wrong with a path in better words than FFmpeg."""
    try:
        mode = Path(location).stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        kind = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({reason})"
        raise SourceError(f"{location}: {kind}") from None
    if stat.S_ISDIR(mode):
        raise SourceError(f"{location}: a folder, not a video file")
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise SourceError(f"{location}: not a video file")


def _chosen(container: InputContainer, location: str, wanted: int | None) -> VideoStream:
    """The stream of that number, or the best: the largest of moving pictures; cover art is none, nor are a few stills
    beside a film."""
    known = [stream for stream in container.streams.video if stream.codec_context is not None]
    if wanted is not None:
        found = [stream for stream in known if stream.index == wanted]
        if not found:
            raise SourceError(f"{location}: stream {wanted} is no video that can be decoded; {_videos(known)}")
        return found[0]
    films = [stream for stream in known if not stream.disposition & Disposition.attached_pic]
    if not films:
        kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
        cover = " (a cover picture is no video)" if container.streams.video else ""
        raise SourceError(f"{location}: no video in this file{cover}; found: {kinds}")
    return max(films, key=lambda s: (min(s.frames or _FILM, _FILM), s.codec_context.width * s.codec_context.height))


def _videos(streams: list[VideoStream]) -> str:
    """The video streams of a file for people."""
    if not streams:
        return "it has no video stream"
    words = (f"{s.index} ({s.codec_context.name} {s.codec_context.width}x{s.codec_context.height})" for s in streams)
    return f"its video streams are {', '.join(words)}"


def _time_base(stream: VideoStream) -> Fraction:
    """Seconds per tick of a stream; microseconds if it does not say."""
    tick = Fraction(stream.time_base or _MICROSECOND)
    return tick if tick > 0 else _MICROSECOND
