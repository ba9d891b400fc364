"""Beside the video: the audio, subtitles, attachments, chapters and tags of the input, unchanged where they fit."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import DataStream, Stream

from streamgan.api import Encoding, Selection
from streamgan.reading import demux
from streamgan.reading.demux import AnyPacket
from streamgan.reading.timeline import Clock, Timeline
from streamgan.writing import audio, subtitles

_RESTART, _MARGIN = Fraction(1, 3), Fraction(2)
_NOT_OURS = ("encoder", "software", "major_brand", "minor_version", "compatible_brands")
_WITH_CHAPTERS = ("mp4", "mov", "matroska", "webm")
_SHOWN, _CLOCK = 4, 2**31
_OF_THE_CODING = re.compile(
    "bps|duration|number_of|_statistics|handler_name|vendor_id|encoder|creation_time", re.IGNORECASE
)
"""Tags of a stream that tell how it was coded or stored, and that its container writes anew."""
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Which channels so many are, if nobody says."""
_NAMES = {"matroska": "mkv", "mpegts": "ts"}


class Companion:
    """The streams of an input that travel beside its translated video. Used by one thread."""

    def __init__(self, source: InputContainer, output: OutputContainer, encoding: Encoding) -> None:
        """Adds the streams of an input, from `open_input`, to an output whose header is not written yet."""
        self._input = source
        self._output, self._selection, self._audio = output, encoding.selection, encoding.audio
        self._origin = Fraction(0)
        # An encoder's priming lies before 0. MP4 keeps it; Matroska only if its source says how long it is, and would
        # else move all streams, the video too.
        keeping = {"mp4": True, "mov": True, "matroska": "matroska" in self._input.format.name}
        self._keeps_negative = keeping.get(output.format.name, False)
        self._targets: dict[int, Stream] = {}
        self._recoders: dict[int, audio.Recoder] = {}
        self._texts: dict[int, str] = {}
        self._timelines: dict[int, Timeline] = {}
        self._held: AnyPacket | None = None
        self._tags: list[tuple[int | None, str, tuple[str, ...]]] = []  # number in the output, of what, names
        self.notes: list[str] = []
        """What the output has not, or not as it was, one line each."""
        for stream in self._input.streams:
            if stream.type in ("audio", "subtitle", "attachment", "data"):
                self._take(stream)
        self._packets = self._read()
        given = self._input.metadata.items()
        tags = {key: value for key, value in given if value and key.lower() not in _NOT_OURS}
        output.metadata.update(tags)
        self._tags.append((None, "", tuple(tags)))
        if self._selection == Selection():
            self._take_chapters()

    def begin(self, origin: Fraction) -> None:
        """Says which time of the input, in seconds, is 0 in the output; called once, before `advance`."""
        self._origin = origin
        if self._selection != Selection():
            self._take_chapters()
        if self._selection.start and self._targets:
            # Seeking may land late, in a transport stream for example; what comes too early is not written.
            self._input.seek(max(0, int((origin - _MARGIN) * av.time_base)))

    def advance(self, until: Fraction | None) -> None:
        """Writes every packet that begins before `until` (seconds, in the input's time); all that are left if None."""
        while (packet := self._held or next(self._packets, None)) is not None:
            self._held = packet
            begins = _begins(packet)
            if until is not None and begins > until:
                return
            self._held = None
            self._write(packet, begins)

    def lost_tags(self, path: Path) -> Iterator[str]:
        """What is to be said of tags that a finished output has not taken, one line for each stream.

        Args:
            path: the output, complete.
        """
        with av.open(f"file:{path}", metadata_errors="replace") as made:
            for number, what, given in self._tags:
                if number is not None and number >= len(made.streams):
                    continue
                kept = {key.lower() for key in (made if number is None else made.streams[number]).metadata}
                lost = [tag for tag in given if tag.lower() not in kept]
                if lost:
                    shown = ", ".join(lost[:_SHOWN]) + (", …" if len(lost) > _SHOWN else "")
                    count, them = ("1 tag was", "it") if len(lost) == 1 else (f"{len(lost)} tags were", "them")
                    yield f"{what}{count} left out: {self._kind()} cannot hold {them} ({shown})"

    def close(self) -> None:
        """Closes the input."""
        self._input.close()

    def _take(self, stream: Stream) -> None:
        """Adds one stream to the output, or notes why not."""
        if (stream.type == "audio" and self._audio == "none") or self._is_chapter_track(stream):
            return
        target = self._add(stream)
        if target is None:
            self.notes.append(f"{_words(stream)} was left out: {self._reason(stream)}")
            return
        if stream.type == "attachment":
            return
        target.metadata.update(stream.metadata)
        named = tuple(
            key for key, value in stream.metadata.items() if value not in ("", "und") and not _OF_THE_CODING.match(key)
        )
        self._tags.append((target.index, f"{_words(stream)}: ", named))
        target.disposition = stream.disposition
        self._targets[stream.index] = target
        self._timelines[stream.index] = Timeline(restart=int(_RESTART / (stream.time_base or 1)))

    def _is_chapter_track(self, stream: Stream) -> bool:
        """Whether a stream of an MP4 holds nothing but the titles of its chapters, which are taken over as such."""
        return isinstance(stream, DataStream) and stream.name == "bin_data" and bool(self._input.chapters())

    def _reason(self, stream: Stream) -> str:
        """Why a stream is left out."""
        if stream.type == "data":
            return "data streams are not copied"
        if stream.type != "attachment" and stream.codec_context is None:
            return "FFmpeg does not know its codec"
        refusal = f"{self._kind()} cannot hold it"
        if stream.type == "audio" and self._audio == "copy":
            return f"{refusal} (--audio aac re-encodes it)"
        if stream.type == "attachment":
            return f"{refusal} (mkv can)"
        return refusal

    def _kind(self) -> str:
        """The output's format, for people."""
        return _NAMES.get(self._output.format.name, self._output.format.name)

    def _add(self, stream: Stream) -> Stream | None:
        """The output's stream for one of the input's, or None."""
        container = self._output.format.name
        if stream.type == "attachment":
            return self._output.add_stream_from_template(stream) if container == "matroska" else None
        if stream.type == "data" or stream.codec_context is None:
            return None
        codec = stream.codec_context.codec.canonical_name
        held = audio.held if stream.type == "audio" else subtitles.held
        if held(codec, container):
            try:
                return self._copied(stream)
            except (ValueError, av.error.FFmpegError):
                pass
        if stream.type == "subtitle":
            self._texts[stream.index] = subtitles.OWN.get(container, "")
            return subtitles.add(self._output, codec)
        return self._add_recoded(stream) if self._audio == "aac" else None

    def _copied(self, stream: Stream) -> Stream:
        """A stream for packets as they are."""
        target = self._output.add_stream_from_template(stream)
        if isinstance(stream, AudioStream) and isinstance(target, AudioStream):
            count = stream.codec_context.channels  # MP4 wants to know which channels, WAV and AVI may only count them
            if count in _LAYOUTS and stream.codec_context.layout.name.endswith("channels"):
                target.codec_context.layout = _LAYOUTS[count]
        return target

    def _add_recoded(self, stream: Stream) -> Stream | None:
        """A stream for audio that is encoded anew."""
        if not isinstance(stream, AudioStream) or not stream.rate or not stream.channels:
            return None
        recoder = audio.Recoder(stream, self._output)
        self._recoders[stream.index] = recoder
        codec = recoder.codec.removeprefix("lib")
        self.notes.append(f"{_words(stream)} was re-encoded as {codec}: {self._kind()} cannot hold it")
        return recoder.target

    def _read(self) -> Iterator[AnyPacket]:
        """Packets of the streams that are kept, up to the end of the selection or of what can be read."""
        wanted = set(self._targets)
        if not wanted:
            return
        try:
            for packet in demux.packets(self._input, wanted, Clock()):
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
        recoder = self._recoders.get(index)
        before = begins < self._origin if self._selection.start else ends <= 0 and not self._keeps_negative
        if before and recoder is None:  # a decoder likes what comes before the first sample wanted
            return
        if index in self._texts:
            text = subtitles.converted(packet, self._texts[index])
            if text is None:
                return
            packet = text
        shift = round(self._origin / packet.time_base)
        dts = packet.pts if packet.dts is None else packet.dts
        assert dts is not None  # _read lets no packet through that has neither
        placed = self._timelines[index].place(dts - shift, packet.duration or 0)
        packet.pts = placed + (0 if packet.pts is None else packet.pts - dts)
        packet.dts = placed
        if recoder is not None:
            self._output.mux(list(recoder.encode(packet)))
            return
        packet.stream = self._targets[index]
        self._output.mux(packet)

    def finish(self) -> None:
        """Writes what the encoders of audio still hold; called once, after the last `advance`."""
        for index, recoder in self._recoders.items():
            self._output.mux(list(recoder.encode(None)))
            if recoder.damaged:
                self.notes.append(f"{recoder.damaged} damaged packets of audio stream {index} were skipped")
        self._recoders = {}

    def _take_chapters(self) -> None:
        """Takes over the chapters, of a cut film those within it."""
        end = self._selection.end
        stop = None if end is None else self._start_time() + end
        kept = _cut(self._input.chapters(), self._origin if self._selection.start else Fraction(0), stop)
        if kept and self._output.format.name not in _WITH_CHAPTERS:
            words = "1 chapter was" if len(kept) == 1 else f"{len(kept)} chapters were"
            self.notes.append(f"{words} left out: {self._kind()} cannot hold chapters")
        elif kept:
            self._output.set_chapters(kept)


def open_input(location: str) -> InputContainer:
    """Opens an input for what it has beside the video; whoever gets it closes it.

    Raises:
        av.error.FFmpegError: if it cannot be opened.
    """
    return av.open(location if "://" in location else f"file:{location}", "r", metadata_errors="replace")


def movie_clock(source: InputContainer | None, time_base: Fraction) -> int:
    """Ticks per second for MP4's own clock: a multiple of every stream's, so that no stream's beginning is rounded.

    Args:
        source: the input whose streams travel beside the video, or None.
        time_base: seconds per tick of the video.
    """
    coarse, rates, end = min(time_base.denominator, _CLOCK - 1), set[int](), Fraction(1)
    with contextlib.suppress(av.error.FFmpegError, ValueError):
        if source is not None:
            audible = [stream for stream in source.streams.audio if stream.codec_context is not None]
            rates = {stream.rate for stream in audible if stream.rate}
            end = max([end, *(each["end"] * Fraction(each["time_base"] or 0) for each in source.chapters())])
    fine = math.lcm(time_base.denominator, *rates)
    return fine if fine < _CLOCK and fine * end < 2 * _CLOCK else coarse  # chapters are counted with 32 bits


def _cut(chapters: list[Any], origin: Fraction, stop: Fraction | None) -> list[Any]:
    """The chapters that overlap a part of a film, on the part's clock.

    Args:
        chapters: as PyAV has them: mappings with start, end and time_base.
        origin: the time that becomes 0, in seconds.
        stop: where the part ends, in seconds; None for the end of the film.
    """
    kept = []
    for chapter in chapters:
        tick = chapter["time_base"]
        start, end = chapter["start"] * tick, chapter["end"] * tick
        if (stop is not None and start >= stop) or end <= origin:
            continue
        first, last = max(start, origin) - origin, (end if stop is None else min(end, stop)) - origin
        kept.append({**chapter, "start": round(first / tick), "end": round(last / tick)})
    return kept


def _words(stream: Stream) -> str:
    """A stream for people: its kind, its number, its codec or its name."""
    context = stream.codec_context
    known = stream.name if isinstance(stream, DataStream) else None
    name = context.name if context else stream.metadata.get("filename") or known or "unknown codec"
    return f"{stream.type} stream {stream.index} ({name})"


def _begins(packet: AnyPacket) -> Fraction:
    """When a packet begins, in seconds of the input's clock."""
    ticks = packet.pts if packet.dts is None else packet.dts
    return (ticks or 0) * packet.time_base
