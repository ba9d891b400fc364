"""Pictures that stay Y, Cb and Cr on their whole way: half the samples of RGB, and no conversion on either side."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt

from streamgan.api import Color, Frame, Images, Translator
from streamgan.frames import color, pixels

FORMAT = "yuv420p"
"""What `draw` makes: FFmpeg's name."""
_STRIP = 1 << 17


@dataclasses.dataclass(frozen=True, eq=False)
class Planes:
    """A picture of 8 bits in 4:2:0, whose sides are even, in the memory of a decoder or for that of an encoder."""

    picture: av.VideoFrame
    """As it was decoded, and then not to be written to; or as `draw` made it."""
    color: Color
    """What its samples mean: matrix and range are heeded."""
    drawn: bool = False
    """Whether `draw` made it, so that an encoder can have it as it is."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.picture.width, self.picture.height

    @functools.cached_property
    def samples(self) -> list[npt.NDArray[np.uint8]]:
        """Y ``(H, W)``, Cb and Cr ``(H / 2, W / 2)``, in the picture's own memory."""
        return pixels.views(self.picture)

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """The picture as ``(H, W, 3)`` uint8 RGB."""
        given = pixels.Unpacked(self.samples, None, 8, self.size, (2, 2))
        return to_rgb(given, self.color.matrix, self.color.full_range)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PlanarFrame(Frame):
    """A frame whose picture is `planes`; its `image` is made of them if anybody asks for it."""

    image: npt.NDArray[np.uint8] = dataclasses.field(init=False)
    planes: Planes = dataclasses.field(kw_only=True)

    def __getattr__(self, name: str) -> Any:
        """The image, when it is asked for the first time."""
        if name != "image":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        image = self.planes.to_rgb()
        object.__setattr__(self, "image", image)
        return image

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture in pixels."""
        return self.planes.size

    def in_rgb(self) -> Frame:
        """The same as a frame without planes."""
        fields = (field.name for field in dataclasses.fields(Frame))
        return Frame(**{name: getattr(self, name) for name in fields})


class PlanarTranslator(Translator):
    """A translator that can have pictures as they are decoded, where nothing else looks at them: see `Plan.planar`."""

    @classmethod
    @abc.abstractmethod
    def takes_planes(cls, options: Any, size: tuple[int, int]) -> bool:
        """Whether it does with such options, for pictures of this (width, height)."""

    @abc.abstractmethod
    def translate_planes(self, pictures: Sequence[Planes]) -> list[Planes] | Images:
        """As `translate`, for consecutive pictures; the result may be planes of their size, or RGB after all."""


def is_planar(form: pixels.Layout, size: tuple[int, int]) -> bool:
    """Whether pictures of a format can stay as they are: 8 bits, 4:2:0 in three planes, with even sides."""
    plain = form.bits == 8 and not (form.rgb or form.gray or form.alpha) and form.planes is not None
    return plain and form.step == (2, 2) and not size[0] % 2 and not size[1] % 2


def draw(size: tuple[int, int], meaning: Color) -> Planes:
    """An empty picture for an encoder, whose `Planes.samples` are to be filled.

    Args:
        size: (width, height) in pixels, both even.
        meaning: what its samples will mean.
    """
    picture, _ = pixels.canvas(size, FORMAT)
    return Planes(picture, meaning, drawn=True)


def to_rgb(given: pixels.Unpacked, matrix: int, full_range: bool) -> npt.NDArray[np.uint8]:
    """Samples of 8 bits as ``(H, W, 3)`` uint8 RGB, each of chroma for all its pixels."""
    width, height = given.size
    image = np.empty((height, width, 3), np.uint8)
    for rows in strips(height, width):
        color.to_rgb(pixels.merged(given, rows), matrix, full_range, 8, made=image[rows])
    return image


def strips(height: int, size: int) -> Iterator[slice]:
    """Rows that are worked on together, a multiple of 4: what a strip needs stays in the processor's cache.

    Args:
        height: of the picture.
        size: bytes of one component in a row.
    """
    rows = max(4, _STRIP // max(1, size) // 4 * 4)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))
