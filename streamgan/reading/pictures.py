"""Decoded pictures of one kind: fields are made into frames, and a size that changes is brought to the first one's."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TypeAlias

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
from av.filter import Graph

_SMALLEST = 4
"""Lines and columns that the deinterlacer needs."""
_ALIKE = Fraction(1, 100)
"""How much two shapes may differ before bars are put in, as a part of one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Timed:
    """A decoded picture and its time, which filters must not touch."""

    picture: av.VideoFrame
    """As decoded, not upright."""
    pts: int
    """Presentation time in ticks."""
    duration: int
    """How long it is shown, in ticks; 0 if unknown."""


Noting: TypeAlias = Callable[[str, Timed], None]
"""Takes what the user should know, and the picture where it begins."""


def deinterlaced(items: Iterator[Timed], time_base: Fraction, note: Noting) -> Iterator[Timed]:
    """Makes one frame of the two fields of each interlaced picture; leaves others alone, and all times.

    Raises:
        av.error.FFmpegError: if FFmpeg's filter ``bwdif`` refuses the pictures.
    """
    graph: Graph | None = None
    kind, noted = None, False
    waiting: collections.deque[Timed] = collections.deque()
    for item in items:
        if graph is not None and _kind(item.picture) != kind:
            yield from _pushed(graph, None, waiting)
            graph = None
        if graph is None and item.picture.interlaced_frame and min(_size(item.picture)) >= _SMALLEST:
            kind = _kind(item.picture)
            graph = _graph(item.picture, time_base, ("bwdif", "mode=send_frame:deint=interlaced"))
            if not noted:
                note("the video is interlaced, and was deinterlaced (bwdif, one frame for one)", item)
            noted = True
        if graph is None:
            yield item
        else:
            waiting.append(item)
            yield from _pushed(graph, item.picture, waiting)
    if graph is not None:
        yield from _pushed(graph, None, waiting)


def fitted(
    items: Iterator[Timed], time_base: Fraction, aspect: Callable[[], Fraction], note: Noting
) -> Iterator[Timed]:
    """Puts bars around pictures of another shape than the first one; what has its shape is left to be scaled.

    Args:
        items: the pictures.
        time_base: seconds per tick.
        aspect: the sample aspect ratio of the picture that came last.
        note: told once for each new size.

    Raises:
        av.error.FFmpegError: if FFmpeg's filters refuse the pictures.
    """
    first: tuple[int, int] | None = None
    shape = Fraction(1)
    graph: Graph | None = None
    kind: tuple[int, int, str] | None = None
    for item in items:
        size = _size(item.picture)
        if first is None:
            first, shape, kind = size, Fraction(*size) * aspect(), _kind(item.picture)
        if _kind(item.picture) != kind:
            kind, graph = _kind(item.picture), None
            other = Fraction(*size) * aspect() / shape
            if size != first and abs(other - 1) > _ALIKE:
                graph = _graph(item.picture, time_base, *_bars(first, other))
            if size != first:
                note(f"size changes to {size[0]}x{size[1]}: scaled{' with bars' if graph else ''}", item)
        if graph is None:
            yield item
        else:
            yield from _pushed(graph, item.picture, collections.deque([item]))


def _bars(size: tuple[int, int], other: Fraction) -> Iterator[tuple[str, str]]:
    """Filters that fit a picture into a size without changing its shape.

    Args:
        size: (width, height) to fill.
        other: the picture's shape, width over height as shown, as a multiple of that of `size`.
    """
    width, height = size
    inner = (width, max(1, round(height / other))) if other > 1 else (max(1, round(width * other)), height)
    yield "scale", f"{inner[0]}:{inner[1]}:flags=bicubic"
    yield "pad", f"{width}:{height}:-1:-1:black"


def _graph(picture: av.VideoFrame, time_base: Fraction, *filters: tuple[str, str]) -> Graph:
    """A chain of filters for pictures of one kind, which keeps their pixel format."""
    graph = Graph()
    chain = [
        graph.add_buffer(width=picture.width, height=picture.height, format=picture.format, time_base=time_base),
        *(graph.add(name, options) for name, options in filters),
        graph.add("format", f"pix_fmts={picture.format.name}"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*chain).configure()
    return graph


def _pushed(graph: Graph, picture: av.VideoFrame | None, waiting: collections.deque[Timed]) -> Iterator[Timed]:
    """Gives a picture to a graph (None ends it), and yields what comes out with the times of what went in."""
    graph.push(picture)
    while waiting:
        try:
            made = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(made, av.VideoFrame)
        yield dataclasses.replace(waiting.popleft(), picture=made)


def _size(picture: av.VideoFrame) -> tuple[int, int]:
    """Width and height in pixels."""
    return picture.width, picture.height


def _kind(picture: av.VideoFrame) -> tuple[int, int, str]:
    """What a graph must be made anew for."""
    return picture.width, picture.height, picture.format.name
