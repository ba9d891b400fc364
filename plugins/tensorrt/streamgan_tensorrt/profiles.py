"""Optimisation profiles: for which numbers and sizes of pictures an engine is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self, TypeAlias

from streamgan import api

Shape: TypeAlias = tuple[int, int, int]
"""Number, height and width of the pictures of one call."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """A range of shapes, and the one to be fast at."""

    smallest: Shape
    usual: Shape
    largest: Shape

    @classmethod
    def static(cls, shape: Shape) -> Self:
        """Just this shape: what runs fastest."""
        return cls(shape, shape, shape)

    @classmethod
    def spanning(cls, shapes: Sequence[Shape]) -> Self:
        """All shapes from the smallest to the largest of each side; it is to be fast at the first.

        Example:
            >>> Profile.spanning([(1, 360, 640), (2, 720, 1280)]).largest
            (2, 720, 1280)
        """
        smallest, largest = (tuple(pick(sides) for sides in zip(*shapes, strict=True)) for pick in (min, max))
        return cls(_shape(smallest), shapes[0], _shape(largest))

    @classmethod
    def from_json(cls, content: Sequence[Sequence[int]]) -> Self:
        """Reads what `to_json` gave; raises ValueError if it is something else."""
        smallest, usual, largest = (_shape(each) for each in content)
        return cls(smallest, usual, largest)

    def to_json(self) -> list[list[int]]:
        """The three shapes."""
        return [list(shape) for shape in (self.smallest, self.usual, self.largest)]

    def covers(self, shape: Shape) -> bool:
        """Whether pictures of this shape can be run."""
        return all(low <= side <= high for low, side, high in zip(self.smallest, shape, self.largest, strict=True))

    @property
    def is_static(self) -> bool:
        """Whether it covers one shape only."""
        return self.smallest == self.largest

    def __str__(self) -> str:
        """For people: ``1x640x360``, or ``1x320x180 to 2x1280x720``."""
        first, last = (f"{count}x{width}x{height}" for count, height, width in (self.smallest, self.largest))
        return first if first == last else f"{first} to {last}"


def _shape(sides: Sequence[Any]) -> Shape:
    """Three whole numbers from 1; raises ValueError for anything else."""
    if len(sides) != 3 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(f"{sides!r} is no shape")
    count, height, width = sides
    return count, height, width


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of a size such as ``640x360``.

    Raises:
        UsageError: if it is something else.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise api.UsageError(f"--size: '{text}' given, expected WIDTHxHEIGHT in pixels, such as 640x360")
    return int(parts[0]), int(parts[1])
