"""The decoded pictures of a feed, each at its time: over damage, breaks of a connection, and clocks that start anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av

from streamgan.api import Selection, SourceError
from streamgan.reading.decoder import Decoder, VideoPacket
from streamgan.reading.feed import Feed
from streamgan.reading.pictures import Timed
from streamgan.reading.timeline import Timeline

FASTEST = 500
"""Frames per second beyond which a rate is taken for that of a container's clock."""
_RESTART = Fraction(1, 3)
_FIRST_STEP = Fraction(1)
"""Seconds to go further back at first, where seeking landed too late."""
_CLOCK_ENDS, _LONGEST = 2**62, Fraction(86400)
"""Ticks beyond which a time, and seconds beyond which a duration, is no such thing but damage."""


class Footage:
    """Decodes a feed. Used by one thread."""

    def __init__(self, feed: Feed, selection: Selection, location: str, threads: int) -> None:
        """Prepares for `pictures`.

        Args:
            feed: the packets.
            selection: its start and what to do at damage are obeyed here.
            location: for messages.
            threads: how many threads decode; 0 for one per core.
        """
        self._feed, self._location, self._threads = feed, location, threads
        self._start, self._policy = selection.start or Fraction(0), selection.on_error
        self.time_base = feed.time_base
        """Seconds per tick of the pictures' times."""
        self.origin = (feed.stream.start_time or 0) * self.time_base
        """When the stream says that it begins, in seconds."""
        self._counts_packets = feed.container.format.name == "avi"  # it has no times, and FFmpeg guesses them badly
        self.came = False
        """Whether any picture could be decoded, wanted or not."""
        self.lost = self.repeated = 0
        """How many pictures could not be decoded: left out; replaced by the one before."""
        self._concealed, self._damaged_at = 0, Fraction(0)
        self._troubles: list[str] = []
        self._begin()

    @property
    def codec(self) -> str:
        """FFmpeg's name of what decodes."""
        return self._decoder.name

    @property
    def notes(self) -> list[str]:
        """What the user should know, one line each; complete once `pictures` has ended."""
        notes = [*self._troubles, *self._feed.notes]
        where = f"the first at {float(self._damaged_at):.2f} s"
        if self.lost:
            notes.append(f"{_count(self.lost)} could not be decoded: left out ({where})")
        if self.repeated:
            notes.append(f"{_count(self.repeated)} could not be decoded: replaced by the one before ({where})")
        if self._concealed:
            notes.append(f"{_count(self._concealed)} with damage: shown as well as could be")
        return notes

    def rate(self) -> Fraction | None:
        """Average frames per second; None if unknown, as where a container gives the rate of its clock instead."""
        stream = self._feed.stream
        rate = Fraction(stream.average_rate or stream.guessed_rate or 0)
        return rate if 0 < rate <= FASTEST else None

    def aspect(self) -> Fraction:
        """Width of a pixel over its height, in the picture that came last."""
        return self._decoder.aspect

    def pictures(self) -> Iterator[Timed]:
        """Yields every picture from the key frame before the start on, with times that only go forward.

        Raises:
            SourceError: at damage, if that is to end it.
        """
        wanted, back = self.origin + self._start, Fraction(0)
        while self._start and wanted - back > self.origin and self._feed.seek(int((wanted - back) / self.time_base)):
            self._begin()
            items = self._placed()
            key = self._key(items)
            if key is not None:
                return itertools.chain([key], items)
            back = 2 * back or _FIRST_STEP
        if self._start and self._feed.rewind():
            self._begin()
        return self._placed()

    def _key(self, items: Iterator[Timed]) -> Timed | None:
        """The key frame that a seek has led to; None if it is not before the start, or has no time of this film."""
        for item in items:
            at = item.pts * self.time_base - self.origin
            if item.picture.pts is None or not -_FIRST_STEP <= at <= self._start:
                return None
            if item.picture.key_frame:
                return item
        return None

    def _begin(self) -> None:
        """Forgets all pictures: after a seek."""
        self._decoder = Decoder(self._feed.stream, self._threads)
        self._timeline = Timeline(restart=int(_RESTART / self.time_base))
        self._before: av.VideoFrame | None = None
        self._due: list[VideoPacket] = []
        self._seen: int | None = None

    def _placed(self) -> Iterator[Timed]:
        """Every picture that can be had, and where that is wanted, another one for each that cannot."""
        for frame in self._decoded():
            ticks = frame.dts if self._counts_packets else frame.pts
            pts = None if ticks is None or abs(ticks) > _CLOCK_ENDS else ticks
            yield from self._in_place_of_damaged(pts)
            self._before, self.came = frame, True
            item = self._place(frame, pts)
            self._concealed += frame.is_corrupt and self._is_wanted(item.pts)
            yield item
        yield from self._in_place_of_damaged(None)
        if self._feed.ended_early and self._policy == "stop":
            raise SourceError(f"{self._location}: {'; '.join(self._feed.notes)}")

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Every frame that can be decoded, the decoder's last ones included, over breaks of the connection."""
        stream = self._feed.stream
        try:
            for packet in self._feed.packets():
                if packet.stream is not stream:
                    yield from self._news(None)
                    stream = self._feed.stream
                    self._go_on()
                yield from self._news(packet)
        except av.error.FFmpegError as error:
            self._troubles.append(f"reading ended early: {error.strerror}")
            if self._policy == "stop":
                raise SourceError(f"{self._location}: {self._troubles[-1]}") from None
        yield from self._news(None)

    def _news(self, packet: VideoPacket | None) -> Iterator[av.VideoFrame]:
        """The frames that come with a packet, without those that were there before a break."""
        for frame in self._decoder.decode(packet):
            if self._seen is None or frame.pts is None or frame.pts > self._seen:
                yield frame

    def _go_on(self) -> None:
        """Goes on after a break: what is live with a new clock, a file where it was."""
        self._decoder = Decoder(self._feed.stream, self._threads)
        if self._feed.live:
            self._timeline.leap(round(Fraction(self._feed.gap) / self.time_base))
        elif self._before is not None:
            self._seen = self._before.pts

    def _in_place_of_damaged(self, until: int | None) -> Iterator[Timed]:
        """Deals with damaged packets whose pictures would have come before a time; None stands for the end."""
        if self._decoder.damaged:
            self._due = sorted(self._due + self._decoder.damaged, key=self._time_of)
            self._decoder.damaged = []
        while self._due and (until is None or self._due[0].pts is None or self._due[0].pts <= until):
            packet = self._due.pop(0)
            joining = self._feed.live and not self.came  # what is live is met anywhere, not at a key frame
            if not joining and (until is None or packet.pts != until):
                yield from self._instead(packet)

    def _instead(self, packet: VideoPacket) -> Iterator[Timed]:
        """The picture before once more, if that is wanted and there is one."""
        at = self._time_of(packet) - self.origin
        if at < self._start:
            return
        if self._policy == "stop":
            raise SourceError(f"{self._location}: damaged at {float(at):.2f} s; --on-error skip or repeat goes on")
        self._damaged_at = self._damaged_at if self.lost or self.repeated else at
        if self._policy == "repeat" and self._before is not None:
            self.repeated += 1
            yield self._place(self._before, packet.pts)
        else:
            self.lost += 1

    def _place(self, frame: av.VideoFrame, pts: int | None) -> Timed:
        """A picture with its time."""
        duration, rate = frame.duration or 0, self.rate()
        if duration * self.time_base > _LONGEST or duration <= 0:
            duration = round(1 / (rate * self.time_base)) if rate else 0
        return Timed(frame, self._timeline.place(pts, duration), duration)

    def _time_of(self, packet: VideoPacket) -> Fraction:
        """When a packet is presented, or at least decoded, in seconds; long ago if it does not say."""
        ticks = packet.dts if packet.pts is None else packet.pts
        return self.origin if ticks is None else ticks * self.time_base

    def _is_wanted(self, pts: int) -> bool:
        """Whether a time does not lie before the start."""
        return pts * self.time_base - self.origin >= self._start


def _count(pictures: int) -> str:
    """A number of pictures for people."""
    return "1 frame" if pictures == 1 else f"{pictures} frames"
