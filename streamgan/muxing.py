"""Beside the video: the audio, subtitles, chapters and title of the input, taken over packet by packet, unchanged."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import TypeAlias

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from streamgan.api import Selection
from streamgan.timeline import Timeline

AnyPacket: TypeAlias = "Packet[Stream]"

_ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
_TEXT_SUBTITLES = ("subrip", "srt", "ass", "ssa", "webvtt", "text", "mov_text")
_STYLING = re.compile(rb"\{\\[^}]*\}")
_RESTART = Fraction(1, 3)
_NOT_OURS = ("encoder", "major_brand", "minor_version", "compatible_brands")


class Companion:
    """The streams of an input that travel beside its translated video. Used by one thread."""

    def __init__(self, location: str, output: OutputContainer, selection: Selection) -> None:
        """Opens the input and adds its streams to an output whose header is not written yet.

        Raises:
            av.error.FFmpegError: if the input cannot be opened.
        """
        name = location if "://" in location else f"file:{location}"
        self._input = av.open(name, "r", metadata_errors="replace")
        self._output, self._selection = output, selection
        self._origin = Fraction(0)
        # An encoder's priming lies before 0. MP4 keeps it; Matroska only if its source says how long it is, and would
        # else move all streams, the video too.
        keeping = {"mp4": True, "mov": True, "matroska": "matroska" in self._input.format.name}
        self._keeps_negative = keeping.get(output.format.name, False)
        self._targets: dict[int, Stream] = {}
        self._timelines: dict[int, Timeline] = {}
        self._held: AnyPacket | None = None
        self.notes: list[str] = []
        """Streams that the output cannot hold, one line each."""
        for stream in self._input.streams:
            if stream.type in ("audio", "subtitle", "attachment"):
                self._take(stream)
        self._packets = self._read()
        _copy_tags(self._input, output, selection)

    def begin(self, origin: Fraction) -> None:
        """Says which time of the input, in seconds, is 0 in the output; called once, before `advance`."""
        self._origin = origin
        start = self._selection.start
        if start and self._targets:
            self._input.seek(int(origin * av.time_base))

    def advance(self, until: Fraction | None) -> None:
        """Writes every packet that begins before `until` (seconds, in the input's time); all the rest if None."""
        while (packet := self._held or next(self._packets, None)) is not None:
            self._held = packet
            begins = _begins(packet)
            if until is not None and begins > until:
                return
            self._held = None
            self._write(packet, begins)

    def close(self) -> None:
        """Closes the input."""
        self._input.close()

    def _take(self, stream: Stream) -> None:
        """Adds one stream to the output, or notes why not."""
        target = self._add(stream)
        if target is None:
            context = stream.codec_context
            name = context.name if context else stream.metadata.get("filename", "unknown codec")
            what = f"{stream.type} stream {stream.index} ({name})"
            self.notes.append(f"{what} was left out: {self._kind()} cannot hold it")
            return
        if stream.type == "attachment":
            return
        target.metadata.update(stream.metadata)
        target.disposition = stream.disposition
        self._targets[stream.index] = target
        self._timelines[stream.index] = Timeline(restart=int(_RESTART / (stream.time_base or 1)))

    def _kind(self) -> str:
        """The output's format, for people."""
        return "mkv" if self._output.format.name == "matroska" else self._output.format.name

    def _add(self, stream: Stream) -> Stream | None:
        """The output's stream for one of the input's; MP4 knows only its own text subtitles."""
        if stream.type == "attachment" and self._output.format.name == "matroska":
            return self._output.add_stream_from_template(stream)
        if stream.codec_context is None:
            return None
        mp4 = self._output.format.name in ("mp4", "mov")
        if mp4 and stream.type == "subtitle" and stream.codec_context.name != "mov_text":
            return self._add_text() if stream.codec_context.name in _TEXT_SUBTITLES else None
        try:
            return self._output.add_stream_from_template(stream)
        except (ValueError, av.error.FFmpegError):
            return None

    def _add_text(self) -> SubtitleStream:
        """A stream of MP4's own text subtitles."""
        target = self._output.add_stream("mov_text")
        assert isinstance(target, SubtitleStream)
        target.codec_context.subtitle_header = _ASS_HEADER
        target.time_base = Fraction(1, 1000)
        return target

    def _read(self) -> Iterator[AnyPacket]:
        """Packets of the streams that are kept, up to the end of the selection or of what can be read."""
        wanted = [self._input.streams[index] for index in self._targets]
        if not wanted:
            return
        try:
            for packet in self._input.demux(wanted):
                if packet.dts is None and packet.pts is None:
                    continue
                if self._selection.end is None or _begins(packet) - self._start_time() < self._selection.end:
                    yield packet
        except av.error.FFmpegError as error:
            self.notes.append(f"audio and subtitles end early: {error.strerror}")

    def _start_time(self) -> Fraction:
        """When the input's clock begins, in seconds."""
        return Fraction(self._input.start_time or 0, av.time_base)

    def _write(self, packet: AnyPacket, begins: Fraction) -> None:
        """Moves one packet in time and hands it to the output."""
        index = packet.stream_index
        ends = begins + (packet.duration or 0) * packet.time_base
        before = begins < self._origin if self._selection.start else ends <= 0 and not self._keeps_negative
        if before:
            return
        source, target = self._input.streams[index], self._targets[index]
        if target.codec_context.name == "mov_text" and source.codec_context.name != "mov_text":
            text = _as_mov_text(packet)
            if text is None:
                return
            packet = text
        shift = round(self._origin / packet.time_base)
        dts = packet.pts if packet.dts is None else packet.dts
        assert dts is not None  # _read lets no packet through that has neither
        placed = self._timelines[index].place(dts - shift, packet.duration or 0)
        packet.pts = placed + (0 if packet.pts is None else packet.pts - dts)
        packet.dts = placed
        packet.stream = target
        self._output.mux(packet)


def _begins(packet: AnyPacket) -> Fraction:
    """When a packet begins, in seconds of the input's clock."""
    ticks = packet.pts if packet.dts is None else packet.dts
    return (ticks or 0) * packet.time_base


def _as_mov_text(packet: AnyPacket) -> AnyPacket | None:
    """A text subtitle in MP4's form (a length, then UTF-8), without markup; None if it shows nothing."""
    try:
        texts = [each.dialogue for each in packet.decode() if isinstance(each, AssSubtitle)]
    except av.error.FFmpegError:
        return None
    text = _STYLING.sub(b"", b"\n".join(texts)).replace(b"\\N", b"\n")
    if not text:
        return None
    rewritten: AnyPacket = Packet(struct.pack(">H", len(text)) + text)
    rewritten.time_base = packet.time_base
    rewritten.pts, rewritten.dts, rewritten.duration = packet.pts, packet.pts, packet.duration
    return rewritten


def _copy_tags(source: InputContainer, output: OutputContainer, selection: Selection) -> None:
    """Takes over the title and the like, and of an uncut film the chapters."""
    output.metadata.update({key: value for key, value in source.metadata.items() if key not in _NOT_OURS})
    if selection == Selection():
        output.set_chapters(source.chapters())
