"""Pictures in overlapping tiles: the memory of a model is bounded by the tile, and no seam is seen.

All tiles have the same shape, and they begin where a model that shrinks the picture inside has its grid, so that tiles
and whole picture are computed alike. Outer tiles end where the picture ends: there the model's own padding acts, as it
would on the whole. Of what two neighbours share, the middle is blended and the rest, where a tile lacks its
surroundings, is thrown away.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from streamgan import api
from streamgan.models import sharednorm


class TiledSession(api.Session):
    """A session that shows pictures to a model tile by tile.

    Args:
        tiles: runs one tile; if `measure` is given, with the further input `sharednorm.STATISTICS`.
        measure: runs the whole picture, shrunk to the area of a tile, and gives the statistics that all its tiles
            share; None if the model needs none.
        side: height and width of a tile, in pixels.
        overlap: what two neighbours share at least, in pixels.

    Sides and positions of tiles are multiples of the model's `multiple_of`.
    """

    def __init__(self, tiles: api.Session, measure: api.Session | None, *, side: int, overlap: int) -> None:
        self._tiles, self._measure = tiles, measure
        self.precision, self.multiple_of, self.domains = tiles.precision, tiles.multiple_of, tiles.domains
        self._side = max(side // self.multiple_of, 2) * self.multiple_of
        self._overlap = min(overlap, self._side - self.multiple_of)

    def run(self, images: api.Images, inputs: Mapping[str, npt.NDArray[Any]] | None = None) -> api.Images:
        """Runs the model on each picture, ``(N, H, W, 3)`` uint8 RGB, H and W multiples of `multiple_of`."""
        made = [
            self._run_one(image, {name: values[number : number + 1] for name, values in (inputs or {}).items()})
            for number, image in enumerate(images)
        ]
        return made[0][None] if len(made) == 1 else np.stack(made)

    def _run_one(self, image: api.Images, inputs: dict[str, npt.NDArray[Any]]) -> api.Images:
        """One picture, ``(H, W, 3)``, row by row of tiles."""
        if self._measure is not None:
            small = shrink(image, self._side**2, self.multiple_of)
            inputs = inputs | {sharednorm.STATISTICS: sharednorm.decode(self._measure.run(small[None], inputs))}
        height, width = (min(self._side, side) for side in image.shape[:2])
        tops = starts(image.shape[0], height, self._overlap, self.multiple_of)
        lefts = starts(image.shape[1], width, self._overlap, self.multiple_of)

        def rows() -> Iterable[api.Images]:
            for top in tops:
                row = image[top : top + height]
                tiles = (self._tiles.run(row[None, :, left : left + width], inputs)[0] for left in lefts)
                yield join(tiles, lefts, width, self._overlap // 2, axis=1)

        return join(rows(), tops, height, self._overlap // 2, axis=0)

    def close(self) -> None:
        """Frees the model."""
        self._tiles.close()
        if self._measure is not None:
            self._measure.close()


def starts(length: int, side: int, overlap: int, multiple_of: int = 1) -> tuple[int, ...]:
    """Where tiles of `side` pixels begin, evenly over `length` pixels: the first at 0, the last ends at the end.

    Args:
        length: a multiple of `multiple_of`, at least `side`.
        side: a multiple of `multiple_of`.
        overlap: what neighbours share at least; less than `side`.
        multiple_of: every start is a multiple of this.

    Example:
        >>> starts(1000, 400, 100)
        (0, 300, 600)
    """
    room, step = (length - side) // multiple_of, max(1, (side - overlap) // multiple_of)
    count = math.ceil(room / step)
    return tuple(room * number // count * multiple_of for number in range(count + 1)) if count else (0,)


def join(parts: Iterable[api.Images], begins: Sequence[int], side: int, ramp: int, axis: int) -> api.Images:
    """Puts overlapping parts side by side and blends each with the one before, in the middle of what they share.

    One part is taken at a time. The weights are a Hann window's and add up to 1, so that equal parts stay as they are.

    Args:
        parts: ``(H, W, 3)`` uint8, all of the same shape; larger by a whole factor than the parts that `begins`, `side`
            and `ramp` speak of, if the model enlarges.
        begins: where each begins, as from `starts`.
        side: the length of a part along `axis`.
        ramp: the length of a blend, at most what any two neighbours share.
        axis: 0 for parts one below the other, 1 for parts side by side.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    result, end, along = np.empty(0, np.uint8), 0, functools.partial(_slice, axis)
    for begin, part in zip(begins, parts, strict=True):
        factor = part.shape[axis] // side
        if not end:
            shape = list(part.shape)
            shape[axis] = (begins[-1] + side) * factor
            result = np.empty(shape, np.uint8)
            result[along(0, shape[axis])][along(0, part.shape[axis])] = part
        else:
            shared, blend = end - begin * factor, ramp * factor
            skip = (shared - blend) // 2
            old = result[along(begin * factor + skip, begin * factor + skip + blend)]
            mix(old, part[along(skip, skip + blend)], axis)
            rest = part[along(skip + blend, part.shape[axis])]
            result[along(begin * factor + skip + blend, begin * factor + part.shape[axis])] = rest
        end = begin * factor + part.shape[axis]
    return result


def mix(old: api.Images, new: api.Images, axis: int) -> None:
    """Turns `old` into `new` from one end of `axis` to the other, in place; ``(H, W, 3)`` uint8."""
    length = old.shape[axis]
    weights = np.sin((np.arange(length, dtype=np.float32) + 0.5) * np.float32(np.pi / 2 / max(1, length))) ** 2
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    before = old.astype(np.float32)
    np.copyto(old, np.rint(before + (new - before) * weights.reshape(shape)), casting="unsafe")


def shrink(image: api.Images, area: int, multiple_of: int = 1) -> api.Images:
    """Shrinks a picture to about `area` pixels, and about its shape.

    Args:
        image: ``(H, W, 3)`` uint8; H and W are multiples of `multiple_of`.
        area: in pixels; passed only where a side would be less than twice `multiple_of`.
        multiple_of: both sides of the result are multiples of this.

    Returns:
        ``(h, w, 3)`` uint8; the picture itself if it is small enough.
    """
    height, width = image.shape[:2]
    scale = min(1.0, math.sqrt(area / (height * width)))
    size = [min(side, max(2, int(side * scale) // multiple_of) * multiple_of) for side in (width, height)]
    if size == [width, height]:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _slice(axis: int, begin: int, end: int) -> tuple[slice, ...]:
    """The index of rows (axis 0) or columns (axis 1) from `begin` to `end`."""
    return (slice(begin, end),) if axis == 0 else (slice(None), slice(begin, end))
