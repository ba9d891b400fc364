"""Timestamps that only ever go forward, made from streams whose clock may be missing, repeated or restarted."""

from __future__ import annotations


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

    def place(self, ticks: int | None, duration: int) -> int:
        """The time for the next item.

        Args:
            ticks: its own time, or None if the stream gives none: then it follows the item before.
            duration: how long it lasts, in ticks; 0 if unknown.

        Returns:
            Ticks, larger than at the call before.
        """
        placed = self._next if ticks is None else ticks + self._offset
        if self._last is not None and placed <= self._last:
            if ticks is not None and self._last - placed >= self._restart:
                placed = self._next
                self._offset = placed - ticks
            else:
                placed = self._last + 1
        self._last, self._next = placed, placed + max(duration, 1)
        return placed
