"""Decodes packets so that no frame is lost that can be had, and says which packets could not be decoded."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TypeAlias, cast

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
from av.codec.codec import Capabilities
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streamgan.frames.convert import decoder_with_alpha

VideoPacket: TypeAlias = "Packet[VideoStream]"

_IN_FLIGHT, _LONGEST = 40, 600
"""Packets that a decoder may hold back (16 threads, 16 frames put in order), and how many are kept at the most: where
key frames are rarer, all is decoded one packet at a time."""


class Decoder:
    """Decodes one stream in threads. Used by one thread.

    Where several threads each decode a frame, a damaged packet is reported late, takes the frames behind it along at
    the end of the stream, and is patched in a way that varies from run to run. So the packets since a recent key frame
    are kept, and at the first damage decoded once more, one at a time; what follows is decoded that way too.
    """

    def __init__(self, stream: VideoStream, threads: int) -> None:
        """Prepares for a stream from one of its key frames on.

        Args:
            stream: its own decoder is used, and must not be used elsewhere.
            threads: how many threads; 0 for one per core.
        """
        self._context = decoder_with_alpha(stream) or stream.codec_context
        self.name = self._context.name
        """FFmpeg's name of what decodes."""
        if not self._context.is_open:
            self._context.thread_type, self._context.thread_count = "AUTO", threads
        self._threaded = bool(self._context.codec.capabilities & Capabilities.frame_threads) or self.name == "libdav1d"
        self._kept: list[VideoPacket] = []
        self._pending: set[int] = set()
        self._last: int | None = None
        self._begun = self._ended = False
        self.damaged: list[VideoPacket] = []
        """Packets that could not be decoded, oldest first; whoever deals with them takes them out."""

    @property
    def aspect(self) -> Fraction:
        """Width of a pixel over its height, in the picture that came last; 1 if unknown."""
        return Fraction(self._context.sample_aspect_ratio or 1) or Fraction(1)

    def decode(self, packet: VideoPacket | None) -> Iterator[av.VideoFrame]:
        """Yields the frames that are ready once a packet is there, in order of presentation.

        Args:
            packet: the next one; None ends the stream, and brings what the decoder has held back.
        """
        if self._ended or (packet is not None and not packet.size):  # empty: in AVI, the picture before stays
            return
        self._ended = packet is None
        if packet is not None and not self._begun:
            self._begin(packet)
        for frame in self._decode_threaded(packet) if self._threaded else self._decode_singly(packet):
            self._last = self._last if frame.pts is None else frame.pts
            yield frame

    def _begin(self, first: VideoPacket) -> None:
        """Decides how to decode: without presentation times, what came and what did not cannot be told apart."""
        self._begun = True
        if self._threaded and first.pts is None and not self._context.is_open:
            self._threaded = False
            self._context.thread_type, self._context.thread_count = "NONE", 1

    def _decode_threaded(self, packet: VideoPacket | None) -> Iterator[av.VideoFrame]:
        """With several frames at once, as long as all goes well."""
        if packet is not None:
            self._keep(packet)
            if packet.is_corrupt:  # the container knows; threads would say so in time, or not
                yield from self._decode_again()
                return
        try:
            frames = self._context.decode(packet)
        except av.error.FFmpegError:
            yield from self._decode_again()
            return
        for frame in frames:
            if frame.is_corrupt:
                yield from self._decode_again()
                return
            self._pending.discard(-1 if frame.pts is None else frame.pts)
            yield frame
        if len(self._kept) > _LONGEST or (self._ended and any(self._is_new(pts) for pts in self._pending)):
            yield from self._decode_again()

    def _decode_singly(self, packet: VideoPacket | None) -> Iterator[av.VideoFrame]:
        """One packet; a fault is that of this packet."""
        try:
            yield from self._context.decode(packet)
        except av.error.FFmpegError:
            if packet is not None:
                self.damaged.append(packet)

    def _decode_again(self) -> Iterator[av.VideoFrame]:
        """Goes back to a key frame with a decoder that takes one packet at a time; yields what has not been there."""
        self._threaded, self._context = False, _fresh(self._context)
        kept, self._kept, last = self._kept, [], self._last
        news = last is None
        for packet in [*kept, None] if self._ended else kept:
            for frame in self._decode_singly(packet):
                news = news or frame.pts is None or last is None or frame.pts > last
                if news:
                    yield frame

    def _is_new(self, pts: int) -> bool:
        """Whether a time lies behind all frames that have come."""
        return self._last is None or pts > self._last

    def _keep(self, packet: VideoPacket) -> None:
        """Keeps a packet, and forgets those before a key frame that is long past."""
        if packet.is_keyframe:
            long_past = range(len(self._kept) - self._in_flight(), 0, -1)
            start = next((index for index in long_past if self._kept[index].is_keyframe), 0)
            for old in self._kept[:start]:
                self._pending.discard(-1 if old.pts is None else old.pts)
            del self._kept[:start]
        self._kept.append(packet)
        if packet.pts is not None and not packet.is_discard:
            self._pending.add(packet.pts)

    def _in_flight(self) -> int:
        """How many packets may be inside the decoder."""
        return self._context.thread_count + 2 if self._context.codec.intra_only else _IN_FLIGHT


def _fresh(context: VideoCodecContext) -> VideoCodecContext:
    """A decoder for the same stream that takes one packet at a time."""
    made = cast(VideoCodecContext, av.CodecContext.create(context.name, "r"))
    made.extradata, made.codec_tag = context.extradata, context.codec_tag
    made.width, made.height = context.width, context.height
    if context.pix_fmt is not None:
        made.pix_fmt = context.pix_fmt
    made.thread_type, made.thread_count = "NONE", 1
    return made
