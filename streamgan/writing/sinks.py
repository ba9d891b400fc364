"""Where frames go: a video file, the network, nowhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Self

# isort: split
import av
from av.container import InputContainer, OutputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from streamgan.api import Encoding, Frame, Sink, VideoInfo, hookimpl
from streamgan.writing import encoders
from streamgan.writing.coder import SegmentCoder, encode, failures
from streamgan.writing.muxing import Companion, movie_clock, open_input
from streamgan.writing.outputs import check_target, partial_name, publish
from streamgan.writing.segments import Parts, VideoPacket
from streamgan.writing.videostream import add_video, choose

DEFAULT = Encoding()
"""H.264 with nothing beside it."""


class VideoFileSink(Sink):
    """Encodes into a file, which appears under its name only when it is complete, or to a network address.

    Frames keep their times, tick for tick; with ``encoding.selection.start`` the first frame is moved to 0 and all that
    follows, audio too, by the same amount.
    """

    parts: Parts | None = None
    """Where closed segments are kept, so that the run can go on after it was interrupted; set before `open`, which puts
    those that are there into the output. None: nothing is kept."""

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
        self._input: InputContainer | None = None  # until the companion has it
        self._companion: Companion | None = None
        self._origin: int | None = None
        self._count = 0
        self._coder: SegmentCoder | None = None
        self._target: VideoStream
        self._waiting: list[VideoPacket] = []  # not yet in the output, since the film's last packets are special
        self._end = 0  # of what waits, in ticks of the output
        self._first: tuple[int, int] | None = None
        self._last_dts: int | None = None
        self._reformatter = VideoReformatter()

    def __enter__(self) -> Self:
        """Opens the input for what travels beside the video: in a run the first frame is still being made."""
        if self._encoding.copy_from is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):  # `open` says what is wrong
                self._input = open_input(self._encoding.copy_from)
        return self

    @classmethod
    def accepts(cls, location: str) -> bool:
        """Any location: this is the sink of last resort."""
        return True

    def open(self, info: VideoInfo) -> None:
        """Creates the output and writes its header.

        Raises:
            StreamganError: if the output or its encoder cannot be opened.
        """
        self._info = info
        choice = choose(self._location, self._encoding, info, self._network)
        self.notes.extend(choice.notes)
        self._partial = self._unfinished()
        with failures(self._location, f"; does {self._encoding.codec} take {info.width}x{info.height} pixels?"):
            if self._input is None and self._encoding.copy_from is not None:
                self._input = open_input(self._encoding.copy_from)
            clock = movie_clock(self._input, info.time_base)
            self._container = av.open(
                self._location if self._partial is None else f"file:{self._partial}",
                "w",
                format=self._format,
                container_options=encoders.container_options(self._format, clock),
            )
            if self.parts is None:
                self._target = add_video(self._container, choice, info, self._encoding, self._network)
            else:
                self._coder = SegmentCoder(self._format, choice, info, self._encoding, self.parts)
                self._target = self._container.add_stream_from_template(self._coder.stream)
                # Not in the template: which kind of ProRes it is.
                self._target.codec_context.codec_tag = self._coder.stream.codec_context.codec_tag
                self._target.time_base = info.time_base
            if self._input is not None:
                self._companion, self._input = Companion(self._input, self._container, self._encoding), None
            self._container.start_encoding()
            if self.parts is not None and self.parts.manifest.segments:
                self._take_over(self.parts)

    def write(self, frame: Frame) -> None:
        """Encodes one frame, and takes over what the input has beside it up to its time.

        Raises:
            SinkError: if the output cannot be written, as on a full disk.
        """
        assert self._container is not None, "open comes before write"
        self._count += 1
        if self._origin is None:
            # No container shows what comes before 0, so a film that begins there is moved as one that is cut.
            self._begin(frame.pts if self._encoding.selection.start or frame.pts < 0 else 0)
        with failures(self._location):
            if self._coder is None:
                self._waiting = encode(self._target, self._reformatter, frame, self._origin or 0, self._info)
                self._end = frame.pts - (self._origin or 0) + frame.duration
                self._mux_waiting()
            else:
                before = self._coder.end
                self._take(self._coder.put(frame), before)

    def close(self) -> None:
        """Completes the output and gives it its name.

        Raises:
            SinkError: if the output cannot be completed; nothing is left behind then, but for segments.
        """
        if self._container is None:
            return self.abort()
        try:
            with failures(self._location):
                if self._coder is None:
                    self._waiting = self._target.encode(None)
                else:
                    self._take(self._coder.finish(), self._coder.end)
                self._mux_waiting(last=True)
                if self._companion is not None:
                    if not self._is_cut():
                        self._companion.advance(None)
                    self._companion.finish()
                self._container.close()
                if self._partial is not None and self._companion is not None:
                    self.notes.extend(self._companion.lost_tags(self._partial))
                if self._partial is not None:
                    publish(self._partial, Path(self._location), self._encoding.overwrite)
            self._container = None
        finally:
            self.abort()

    def abort(self) -> None:
        """Leaves nothing behind, but for the segments in `parts`."""
        opened = (self._coder, self._container, self._input)
        self._coder = self._container = self._input = None
        for each in opened:
            if each is not None:
                with contextlib.suppress(av.error.FFmpegError, OSError):
                    each.close()
        if self._companion is not None:
            self.notes = [*self.notes, *self._companion.notes]
            self._companion.close()
            self._companion = None
        if self._partial is not None:
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def _unfinished(self) -> Path | None:
        """Where to write until the output is complete; None for the network."""
        if self._network:
            return None
        path = Path(self._location)
        return partial_name(path) if self.parts is None else self.parts.partial(path)

    def _is_cut(self) -> bool:
        """Whether the film ends with its last frame since no more were wanted, its sound too."""
        wanted = self._encoding.selection.frames
        return wanted is not None and self._count >= wanted

    def _begin(self, origin: int) -> None:
        """Fixes which time of the source, in ticks, is 0 in the output."""
        self._origin = origin
        if self.parts is not None:
            self.parts.begin(self._info.width, self._info.height, origin)
        if self._companion is not None:
            self._companion.begin(origin * self._info.time_base)

    def _take(self, packets: list[VideoPacket] | None, end: int) -> None:
        """Takes a whole segment, if there is one, that ends at so many ticks; the one before goes into the output."""
        if packets is not None:
            self._mux_waiting()
            self._waiting, self._end = packets, end

    def _take_over(self, parts: Parts) -> None:
        """Puts the segments of an interrupted run into the output, the last one as far as that can be said."""
        self._begin(parts.manifest.origin)
        self._count = parts.manifest.frames
        for segment, packets in parts.read():
            self._take(packets, segment.end)

    def _mux_waiting(self, last: bool = False) -> None:
        """Writes packets of the video, and all that the input has beside it up to their end.

        MP4 adds up durations in order of decoding, where the last packet need not be the last picture; so the last one
        is given what is missing to the end of the film.
        """
        packets, self._waiting = self._waiting, []
        assert self._container is not None
        for packet in packets:
            # The pictures that a segment's first ones wait for are not in it, so its clock of decoding may begin early.
            earliest = packet.dts or 0 if self._last_dts is None else self._last_dts + 1
            packet.dts = self._last_dts = max(packet.dts or 0, earliest)
            packet.stream = self._target
            self._first = self._first or (packet.pts or 0, packet.dts)
        if last and packets and self._first is not None:
            first_pts, first_dts = self._first
            before = (packets[-1].dts or 0) - first_dts
            packets[-1].duration = max(packets[-1].duration or 0, self._end - first_pts - before)
        self._container.mux(packets)
        if self._companion is not None and self._origin is not None:
            self._companion.advance((self._end + self._origin) * self._info.time_base)


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


@hookimpl
def register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Brings the bin and, for all else, video files and network addresses."""
    register("null", NullSink)
    register("file", VideoFileSink)
