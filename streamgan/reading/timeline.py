"""Timestamps that only ever go forward, made from streams whose clock may be missing, repeated or restarted."""

from __future__ import annotations

from fractions import Fraction

_BACK, _AHEAD = Fraction(1, 10), Fraction(10)
"""Seconds by which decoding times may go back or leap ahead before they count as another clock; FFmpeg's own limits."""


class Timeline:
    """Follows one stream. A clock that behaves passes through unchanged, tick for tick.

    A small step back, as where a file names two frames in the wrong order, is evened out on the spot. After a large
    one, as where two recordings were joined, all that follows is moved to come right after what went before.
    """

    def __init__(self, restart: int) -> None:
        """Starts with nothing placed; a step back of `restart` ticks or more is a large one."""
        self._restart = restart
        self._offset = 0
        self._next = 0
        self._last: int | None = None
        self._gap: int | None = None

    def leap(self, gap: int) -> None:
        """Says that the clock of what follows is another one: it comes `gap` ticks after the end of the last item."""
        self._gap = gap

    def place(self, ticks: int | None, duration: int) -> int:
        """The time for the next item.

        Args:
            ticks: its own time, or None if the stream gives none: then it follows the item before.
            duration: how long it lasts, in ticks; 0 if unknown: then as long as the step before.

        Returns:
            Ticks, larger than at the call before.
        """
        if self._gap is not None and self._last is not None:
            self._next += self._gap
            self._offset = self._offset if ticks is None else self._next - ticks
            self._gap = None
        placed = self._next if ticks is None else ticks + self._offset
        if self._last is not None and placed <= self._last:
            if ticks is not None and self._last - placed >= self._restart:
                placed = self._next
                self._offset = placed - ticks
            else:
                placed = self._last + 1
        step = 1 if self._last is None else placed - self._last
        self._last, self._next = placed, placed + (duration if duration > 0 else step)
        return placed


class Clock:
    """One clock for all streams of a file whose times start anew or leap in the middle, as in MPEG-TS recordings
    that were put one behind the other, or after 26.5 hours, when its 33 bits are used up.

    It is shown every packet of sound and picture in the order of the file. Where one stream breaks off, all are moved
    by the same amount, so that sound and picture stay together. Two readers of one file come to the same result.
    """

    def __init__(self) -> None:
        self._shift = self._before = Fraction(0)
        self._last: dict[int, Fraction] = {}
        self._next: dict[int, Fraction] = {}
        self._shown = Fraction(0)
        self._behind: set[int] = set()

    @property
    def present(self) -> Fraction:
        """Seconds to add to the times of what has no clock of its own, such as subtitles."""
        return self._shift

    def shift(
        self, stream: int, decoded_at: Fraction | None, duration: Fraction, shown_at: Fraction | None = None
    ) -> Fraction:
        """Seconds to add to the times of a packet.

        Args:
            stream: number of its stream in the file.
            decoded_at: its decoding time in seconds; None if it has none: then it goes with the packet before.
            duration: how long it lasts in seconds; 0 if unknown: then as long as the step before.
            shown_at: its presentation time in seconds, if that is another: what follows a break is shown after what
                came before it, also where that lacks the pictures that its last one was to be shown after.
        """
        if decoded_at is None:
            return self._shift
        shown_at = decoded_at if shown_at is None else shown_at
        expected, shift = self._next.get(stream), self._shift
        if expected is not None and stream in self._behind:  # has it reached the place where another one broke off?
            if abs(decoded_at + self._before - expected) < abs(decoded_at + shift - expected):
                shift = self._before
            else:
                self._behind.discard(stream)
        elif expected is not None and not -_BACK <= decoded_at + shift - expected <= _AHEAD:
            self._before, shift = shift, max(max(self._next.values()) - decoded_at, self._shown - shown_at)
            self._shift, self._behind = shift, set(self._next) - {stream}
        placed = decoded_at + shift
        step = placed - self._last.get(stream, placed)
        lasts = duration or max(step, Fraction(0))
        self._last[stream], self._next[stream] = placed, placed + lasts
        self._shown = max(self._shown, shown_at + shift + lasts)
        return shift
