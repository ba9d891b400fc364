"""Between the numbers of a video and RGB: the matrix and the range are read, converted with, and written back.

FFmpeg's scaler assumes BT.601 unless told otherwise, players assume BT.709 for high definition; so it is always said.
"""

from __future__ import annotations

import functools

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from streamgan.api import Color

BT709, UNSPECIFIED, BT601_625, BT601_525, BT2020 = 1, 2, 5, 6, 9
HD_HEIGHT = 720
_LIMITED, _FULL = 1, 2
_SCALER_MATRIX = {
    BT709: Colorspace.ITU709,
    4: Colorspace.FCC,
    BT601_625: Colorspace.ITU601,
    BT601_525: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    BT2020: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
_LUMA |= {BT601_625: (0.299, 0.114), BT601_525: (0.299, 0.114)}
_ACCURATE = Interpolation.AREA | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND


def read_color(frame: av.VideoFrame) -> Color:
    """How the numbers of a decoded frame stand for colours; the matrix is guessed from the height if untagged.

    The guess is what players assume: BT.709 from 720 lines, BT.601 below. RGB has no matrix, so it is guessed as well.
    """
    known = frame.colorspace in _SCALER_MATRIX and not frame.format.is_rgb
    guess = BT709 if frame.height >= HD_HEIGHT else BT601_525
    return Color(
        matrix=int(frame.colorspace) if known else guess,
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        full_range=not frame.format.is_rgb and _is_full(frame),
        guessed=not known,
    )


def _is_full(frame: av.VideoFrame) -> bool:
    """Whether luma uses 0..255; the formats ``yuvj...`` say so by their name."""
    return frame.color_range == _FULL or frame.format.name.startswith("yuvj")


def to_rgb(
    reformatter: VideoReformatter, frame: av.VideoFrame, color: Color, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Converts a decoded frame.

    The matrix is applied here and not by FFmpeg's scaler, whose fast conversion to RGB is 1 to 1.5 levels too dark and
    whose accurate one takes three times as long as this.

    Args:
        reformatter: one per thread; it keeps the scaler's tables from frame to frame.
        frame: of any pixel format.
        color: what its numbers mean.
        size: (width, height) to scale to, normally the frame's own.

    Returns:
        ``(H, W, 3)`` uint8 RGB, owned by the caller.
    """
    if frame.format.is_rgb:
        rgb = reformatter.reformat(frame, width=size[0], height=size[1], format="rgb24", threads=1)
        return np.array(rgb.to_ndarray(), dtype=np.uint8)
    yuv = cv2.merge(_planes(reformatter, frame, color, size))  # (H, W, 3)
    return np.asarray(cv2.transform(yuv, _rgb_matrix(color.matrix, color.full_range)), dtype=np.uint8)


def _planes(
    reformatter: VideoReformatter, frame: av.VideoFrame, color: Color, size: tuple[int, int]
) -> list[npt.NDArray[np.uint8]]:
    """Luma and both chromas, each ``(H, W)``; the chroma of 4:2:0 is repeated, so that `from_rgb` restores it."""
    width, height = size
    plain = frame.format.name in ("yuv420p", "yuvj420p") and (frame.width, frame.height) == size
    if plain and not width % 2 and not height % 2:
        stacked = frame.to_ndarray()  # (3 / 2 H, W)
        chroma = stacked[height:].reshape(2, height // 2, width // 2)
        wide = [cv2.resize(each, size, interpolation=cv2.INTER_NEAREST) for each in chroma]
        return [np.asarray(plane, dtype=np.uint8) for plane in (stacked[:height], *wide)]
    span = _FULL if color.full_range else _LIMITED
    full = reformatter.reformat(
        frame, width=width, height=height, format="yuv444p", src_color_range=span, dst_color_range=span, threads=1
    )
    return [np.asarray(plane, dtype=np.uint8) for plane in full.to_ndarray()]


@functools.cache
def _rgb_matrix(matrix: int, full_range: bool) -> npt.NDArray[np.float32]:
    """YCbCr to RGB, as ``(3, 4)``: equations 38 to 40 of ITU-T H.273, solved for R, G and B, with offsets."""
    red, blue = _LUMA[matrix]
    green = 1 - red - blue
    luma, chroma = (1.0, 1.0) if full_range else (255 / 219, 255 / 224)
    from_blue, from_red = 2 * (1 - blue) * chroma, 2 * (1 - red) * chroma
    rows = np.array(
        [
            [luma, 0, from_red],
            [luma, -from_blue * blue / green, -from_red * red / green],
            [luma, from_blue, 0],
        ]
    )
    offset = rows @ np.array([0 if full_range else -16, -128, -128])
    return np.hstack([rows, offset[:, None]]).astype(np.float32)


def from_rgb(
    reformatter: VideoReformatter, image: npt.NDArray[np.uint8], color: Color, pixel_format: str
) -> av.VideoFrame:
    """Converts a picture for an encoder; the frame carries the tags of `color`.

    Args:
        reformatter: one per thread.
        image: ``(H, W, 3)`` uint8 RGB.
        color: what the numbers of the result shall mean.
        pixel_format: FFmpeg's name, such as ``yuv420p``.
    """
    # from_numpy_buffer borrows the array; from_ndarray copies it line by line, 5.8 ms at 1280x720 here.
    rgb = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")
    return reformatter.reformat(
        rgb,
        format=pixel_format,
        dst_colorspace=_SCALER_MATRIX[color.matrix],
        dst_color_range=_FULL if color.full_range else _LIMITED,
        interpolation=_ACCURATE,
        threads=1,
    )


def tag(context: av.VideoCodecContext, color: Color) -> None:
    """Writes matrix, range, primaries and transfer into an encoder that is not open yet."""
    context.colorspace = color.matrix
    context.color_range = _FULL if color.full_range else _LIMITED
    context.color_primaries = color.primaries
    context.color_trc = color.transfer
