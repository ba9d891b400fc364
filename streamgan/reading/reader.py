"""Reads one stream of a file: the wanted frames, upright, in RGB, each with the time that the file gives it."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from fractions import Fraction

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
from av.container import InputContainer
from av.video.stream import VideoStream

from streamgan.api import Frame, Selection, SourceError, VideoInfo
from streamgan.frames.convert import FrameMaker
from streamgan.reading.feed import Feed
from streamgan.reading.footage import Footage
from streamgan.reading.pictures import Timed, deinterlaced, fitted

_SHORT, _SURELY_SHORT = Fraction(1, 10), Fraction(1)
"""Seconds that a video may be shorter than announced before that is said: the second, if the length is the file's."""


class Reader:
    """Decodes one stream: the first frame at once, to know what comes; the rest as it is asked for."""

    def __init__(self, feed: Feed, selection: Selection, location: str, threads: int) -> None:
        """Decodes the first frame.

        Args:
            feed: the packets.
            selection: the frames that are wanted.
            location: for messages.
            threads: how many threads decode; 0 for one per core.

        Raises:
            SourceError: if there is no frame.
        """
        self._feed, self._selection, self._location = feed, selection, location
        self._footage = Footage(feed, selection, location, threads)
        self._notes: list[str] = []
        self._until, self._complete = Fraction(0), False
        self._items = self._guarded(_thinned(self._select(self._even()), selection))
        first = next(self._items, None)
        if first is None:
            raise SourceError(self._nothing())
        self._first = first
        self._maker = FrameMaker(first.picture, self._footage.codec)
        self.info = self._describe()

    @property
    def lost(self) -> int:
        """How many frames could not be decoded and were left out."""
        return self._footage.lost

    @property
    def repeated(self) -> int:
        """How many frames were shown once more in place of damaged ones."""
        return self._footage.repeated

    @property
    def notes(self) -> list[str]:
        """What the user should know, one line each; complete once `frames` has ended."""
        return [*self._notes, *self._maker.notes, *self._footage.notes, *self._early_end()]

    def frames(self, skip: int, planar: bool = False) -> Iterator[Frame]:
        """Yields every frame of the selection, the first included.

        Args:
            skip: how many of them to leave out at the beginning.
            planar: whether they may stay Y, Cb and Cr, as a `PlanarFrame`.

        Raises:
            SourceError: if one cannot be decoded and that is to end it, or cannot become RGB.
        """
        self._maker.planar = planar
        for item in itertools.islice(itertools.chain([self._first], self._items), skip, None):
            try:
                frame = self._maker.make(item.picture, item.pts, self._footage.time_base, item.duration)
            except av.error.FFmpegError as error:
                given = f"{item.picture.format.name} to RGB ({error.strerror})"
                raise SourceError(f"{self._location}: cannot convert {given}") from None
            yield frame

    def _even(self) -> Iterator[Timed]:
        """All pictures from the start on, progressive and of one size."""
        pictures = deinterlaced(self._footage.pictures(), self._footage.time_base, self._note)
        return fitted(pictures, self._footage.time_base, self._footage.aspect, self._note)

    def _guarded(self, items: Iterator[Timed]) -> Iterator[Timed]:
        """The same; what a filter of FFmpeg refuses becomes one line."""
        try:
            yield from items
        except av.error.FFmpegError as error:
            raise SourceError(f"{self._location}: its pictures cannot be filtered ({error.strerror})") from None

    def _note(self, text: str, item: Timed) -> None:
        """Keeps what is said of the pictures from one on."""
        at = float(self._at(item))
        self._notes.append(f"from {at:.2f} s: {text}" if at > 0 else text)

    def _at(self, item: Timed) -> Fraction:
        """Seconds from the beginning of the stream."""
        return item.pts * self._footage.time_base - self._footage.origin

    def _select(self, items: Iterator[Timed]) -> Iterator[Timed]:
        """The pictures from the start to the end of the selection."""
        start, end = self._selection.start, self._selection.end
        for item in items:
            at = self._at(item)
            if end is not None and at >= end:
                return
            if start is None or at >= start:
                yield item
            self._until = at + item.duration * self._footage.time_base
        self._complete = True

    def _describe(self) -> VideoInfo:
        """What the first frame and the stream say together."""
        width, height = self._maker.size
        aspect = Fraction(self._feed.stream.sample_aspect_ratio or 1) or Fraction(1)
        rate = self._footage.rate()
        shown = f" {float(rate):.4g} fps" if rate else ""
        return VideoInfo(
            width=width,
            height=height,
            time_base=self._footage.time_base,
            frame_rate=rate and rate / self._selection.every,
            frame_count=self._count(),
            sample_aspect_ratio=1 / aspect if self._maker.turned else aspect,
            color=self._maker.color,
            bits=self._maker.bits,
            alpha=self._maker.alpha,
            description=f"{self._feed.stream.codec_context.name} {width}x{height}{shown}",
        )

    def _count(self) -> int | None:
        """How many frames are to be expected within the selection, or None."""
        wanted, stream = self._selection, self._feed.stream
        length, rate = _length(self._feed.container, stream), self._footage.rate()
        count = Fraction(stream.frames or (length and rate and round(length * rate)) or 0)
        if count and (wanted.start or wanted.end):
            end = length if length is None or wanted.end is None else min(length, wanted.end)
            part = Fraction(0) if not end else max(Fraction(0), end - (wanted.start or 0))
            count = Fraction(round(count * part / length)) if length else Fraction(0)
        if not count:
            return None
        taken = -(-count // wanted.every)
        return int(taken if wanted.frames is None else min(taken, wanted.frames))

    def _early_end(self) -> Iterator[str]:
        """Says so if the video is shorter than announced; nothing if not all of it was read."""
        frames = self._feed.stream.frames
        if not self._complete or (frames and (self._selection.start or self._feed.count >= frames)):
            return
        own = _own_length(self._feed.stream)
        announced = own or _length(self._feed.container, self._feed.stream)
        rate = self._footage.rate()
        slack = max(_SHORT if own else _SURELY_SHORT, 2 / rate if rate else Fraction(0))
        if announced is not None and announced - self._until > slack:
            yield f"the video ends at {float(self._until):.2f} s; the file announces {float(announced):.2f} s"

    def _nothing(self) -> str:
        """Why there is no frame."""
        start, end = self._selection.start, self._selection.end
        length = _length(self._feed.container, self._feed.stream)
        outside = start and (not length or start >= length)
        if not self._footage.came and not outside:
            detail = "; ".join(self._footage.notes) or "it may be damaged"
            return f"{self._location}: no frame of its video could be decoded ({detail})"
        until = "the end" if end is None else f"{float(end):g} s"
        span = f"from {float(start or 0):g} s to {until}"
        lasts = f"; the video lasts {float(length):.2f} s" if length else ""
        return f"{self._location}: no frame {span}{lasts}"


def _thinned(items: Iterator[Timed], selection: Selection) -> Iterator[Timed]:
    """One picture in so many, each lasting until the next one taken, and so many at the most; decodes no further."""
    if selection.every > 1:
        items = _one_in(selection.every, items)
    return itertools.islice(items, selection.frames)


def _one_in(every: int, items: Iterator[Timed]) -> Iterator[Timed]:
    """The first picture of each group of so many, shown until the next group begins."""
    taken: Timed | None = None
    end = 0
    for index, item in enumerate(items):
        if index % every == 0:
            if taken is not None:
                yield dataclasses.replace(taken, duration=item.pts - taken.pts)
            taken = item
        end = item.pts + item.duration
    if taken is not None:
        yield dataclasses.replace(taken, duration=end - taken.pts)


def _length(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Seconds that the video lasts, if the file says."""
    lasts = container.duration or 0
    return _own_length(stream) or (Fraction(lasts, av.time_base) if lasts > 0 else None)


def _own_length(stream: VideoStream) -> Fraction | None:
    """Seconds that the stream itself is said to last: in its header, or in the tag that muxers of Matroska write."""
    if stream.duration and stream.duration > 0 and stream.time_base:
        return Fraction(stream.duration * stream.time_base)
    written = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if written is None:
        return None
    hours, minutes, seconds = (Fraction(part) for part in written.groups())
    return hours * 3600 + minutes * 60 + seconds or None
