"""Between a picture of FFmpeg's, in any pixel format, and arrays: how samples lie in memory, not what they mean."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, TypeAlias

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

Samples: TypeAlias = npt.NDArray[Any]
"""Samples as they are stored: uint8 of 8 bits, uint16 of more, in the low bits."""
_SIDE = 64
_ODD = ("pal8", "mono", "xyz", "bayer", "msb")
"""Parts of the names of formats that are not what their components say."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the samples of a pixel format lie."""

    bits: int
    """Bits of a sample, 8 to 16."""
    rgb: bool
    """Whether the samples are red, green and blue."""
    gray: bool
    """Whether there is luma only."""
    alpha: bool
    """Whether there is a plane of opacity."""
    step: tuple[int, int]
    """Pixels per sample of chroma, across and down."""
    planes: tuple[int, ...] | None
    """The plane of each component, if each has one of its own; None for formats that FFmpeg has to unpack."""
    order: str
    """Bytes of a sample deeper than 8 bits: ``<`` for the low one first, else ``>``."""

    @property
    def unpacked(self) -> str:
        """FFmpeg's name of the format that holds the same samples, each component in a plane of its own."""
        letter = "a" if self.alpha else ""
        if self.rgb:
            return f"gbr{letter}p" if self.bits == 8 else f"gbr{letter}p16le"
        depth = "" if self.bits == 8 else f"{next(bits for bits in (10, 12, 16) if bits >= self.bits)}le"
        if self.gray:
            return f"gray{depth}"
        names = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411", (4, 4): "410"}
        return f"yuv{letter}{names.get(self.step, '444')}p{depth}"


@functools.cache
def layout(pixel_format: str) -> Layout:
    """What FFmpeg knows of a pixel format, such as ``yuv420p10le``.

    Raises:
        ValueError: if there is no such format.
    """
    known = av.VideoFormat(pixel_format, _SIDE, _SIDE)
    parts, odd = known.components, any(name in pixel_format for name in _ODD)
    alpha = any(part.is_alpha for part in parts) or known.has_palette
    colors = [part for part in parts if not part.is_alpha]
    # FFmpeg counts a transparent grey, a palette and XYZ as neither; all of them become RGB without loss.
    rgb = known.is_rgb or (odd and "msb" not in pixel_format) or (len(colors) == 1 and alpha)
    places = tuple(part.plane for part in parts)
    own = len(set(places)) == len(places) and not odd and max(part.bits for part in parts) <= 16
    step = (1, 1) if rgb or len(colors) < 3 else (_SIDE // colors[1].width, _SIDE // colors[1].height)
    return Layout(
        bits=min(16, max(8, *(part.bits for part in parts), 0)),
        rgb=rgb,
        gray=len(colors) == 1 and not rgb,
        alpha=alpha,
        step=step,
        planes=places if own else None,
        order=">" if known.is_big_endian else "<",
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Unpacked:
    """The samples of a picture, in its own memory."""

    colors: list[Samples]
    """Y, Cb and Cr; red, green and blue; or luma alone: each ``(H, W)``, chroma smaller by `Layout.step`."""
    alpha: Samples | None
    """``(H, W)`` of opacity, or None."""
    bits: int
    """Of a sample, 8 to 16."""
    size: tuple[int, int]
    """(width, height) of the picture in pixels."""
    step: tuple[int, int]
    """Pixels per sample of chroma, across and down."""


def read(reformatter: VideoReformatter, picture: av.VideoFrame, size: tuple[int, int]) -> Unpacked:
    """The samples of a picture.

    Args:
        reformatter: one per thread; it unpacks and scales what has to be.
        picture: of any pixel format.
        size: (width, height) to scale to, normally the picture's own.

    Raises:
        av.error.FFmpegError: if FFmpeg cannot unpack it.
    """
    form = layout(picture.format.name)
    if form.planes is None or (picture.width, picture.height) != size:
        # Said twice, the range is left as it is.
        picture = reformatter.reformat(
            picture, *size, format=form.unpacked, src_color_range=2, dst_color_range=2, threads=1
        )
        form = layout(form.unpacked)
    samples = views(picture)
    alpha = np.array(samples[3]) if form.alpha else None
    return Unpacked(samples[: 1 if form.gray else 3], alpha, form.bits, size, form.step)


def merged(given: Unpacked, rows: slice) -> Samples:
    """Rows of a picture, from a multiple of 4 on, chroma repeated so that its mean is as it was.

    Returns:
        ``(rows, W, 3)`` of Y, Cb and Cr, of red, green and blue, or of three times the luma.
    """
    (width, _), height = given.size, rows.stop - rows.start
    if len(given.colors) == 1:
        return np.asarray(cv2.merge([_native(given.colors[0][rows])] * 3))
    across, down = given.step
    planes = [_native(given.colors[0][rows])]
    for plane in given.colors[1:]:
        part = _native(plane[rows.start // down : -(-rows.stop // down)])
        if across > 1:  # merged with itself, six times as fast as cv2.resize
            part = np.asarray(cv2.merge([part] * across)).reshape(len(part), -1)
        if down > 1:
            part = part.repeat(down, axis=0)
        planes.append(part[:height, :width])  # with odd sides, the last samples are for half as many pixels
    return np.asarray(cv2.merge(planes))


def canvas(size: tuple[int, int], pixel_format: str) -> tuple[av.VideoFrame, list[Samples]]:
    """A picture to be drawn, and the samples of each of its components, in its own memory.

    Args:
        size: (width, height) in pixels.
        pixel_format: FFmpeg's name; the picture is in its `Layout.unpacked` where components share a plane, to be
            brought to it by `packed`.

    Returns:
        The picture, and ``(H, W)`` for each component, those of chroma as much smaller as `Layout.step` says.
    """
    form = layout(pixel_format)
    if form.planes is None:
        pixel_format, form = form.unpacked, layout(form.unpacked)
    picture = av.VideoFrame(*size, pixel_format)
    return picture, views(picture)


def packed(reformatter: VideoReformatter, picture: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
    """A picture of `canvas` in the format that it was asked for.

    Raises:
        av.error.FFmpegError: if FFmpeg cannot pack it.
    """
    if picture.format.name == pixel_format:
        return picture
    return reformatter.reformat(picture, format=pixel_format, src_color_range=2, dst_color_range=2, threads=1)


def views(picture: av.VideoFrame) -> list[Samples]:
    """The samples of each component, in the picture's own memory; for formats with a plane for each."""
    form = layout(picture.format.name)
    return [_view(picture, form, part) for part in range(len(form.planes or ()))]


def _view(picture: av.VideoFrame, form: Layout, part: int) -> Samples:
    """The samples of one component, in the picture's own memory."""
    assert form.planes is not None, "only for formats with a plane for each component"
    plane = picture.planes[form.planes[part]]
    kind: npt.DTypeLike = np.uint8 if form.bits == 8 else np.dtype(f"{form.order}u2")
    whole = np.frombuffer(plane, kind).reshape(-1, plane.line_size // np.dtype(kind).itemsize)  # type: ignore[call-overload]
    view: Samples = whole[: plane.height, : plane.width]
    return view


def _native(samples: Samples) -> Samples:
    """The same in the processor's own order of bytes."""
    return np.asarray(samples, samples.dtype.newbyteorder("="))
