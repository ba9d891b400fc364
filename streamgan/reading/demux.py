"""Packets of a file in its order, on one clock: where that of the file starts anew, all streams are moved alike."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from fractions import Fraction
from typing import TypeAlias

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream

from streamgan.reading.timeline import Clock

AnyPacket: TypeAlias = "Packet[Stream]"
_CLOCKED = ("audio", "video")
_DISCONTINUOUS = 0x200  # AVFMT_TS_DISCONT: of formats whose times may start anew
_MICROSECOND = Fraction(1, 1_000_000)


def packets(container: InputContainer, wanted: Collection[int], clock: Clock) -> Iterator[AnyPacket]:
    """Yields the packets of some streams.

    Args:
        container: open for reading; all of its sound and pictures are looked at where their clock may start anew.
        wanted: numbers of the streams in the file.
        clock: a new one for each reading of a file from one place on.

    Raises:
        av.error.FFmpegError: if it cannot be read on.
    """
    clocked = bool(container.format.flags & _DISCONTINUOUS)
    shown = set(wanted)
    if clocked:
        moving = (stream for stream in container.streams if not stream.disposition & Disposition.attached_pic)
        shown |= {stream.index for stream in moving if stream.type in _CLOCKED}
    for packet in _demuxed(container, [container.streams[index] for index in sorted(shown)]):
        tick = packet.time_base or _MICROSECOND
        shift = Fraction(0)
        if clocked and container.streams[packet.stream_index].type in _CLOCKED:
            decoded_at = None if packet.dts is None else packet.dts * tick
            shown_at = None if packet.pts is None else packet.pts * tick
            shift = clock.shift(packet.stream_index, decoded_at, (packet.duration or 0) * tick, shown_at)
        elif clocked:
            shift = clock.present
        if packet.stream_index not in wanted or (packet.dts is None and not packet.size):
            continue  # the last one of each stream is empty
        if shift:
            moved = round(shift / tick)
            packet.pts = None if packet.pts is None else packet.pts + moved
            packet.dts = None if packet.dts is None else packet.dts + moved
        yield packet


def _demuxed(container: InputContainer, streams: list[Stream]) -> Iterator[AnyPacket]:
    """As PyAV does it, which raises IndexError after its last packet if a stream came up in the middle."""
    with contextlib.suppress(IndexError):
        yield from container.demux(streams)
