"""Between the numbers of a video and RGB: the matrix and the range are read, converted with, and written back.

FFmpeg's scaler assumes BT.601 unless told otherwise, players assume BT.709 for high definition; so it is always said.
"""

from __future__ import annotations

import functools
from typing import Any

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from streamgan.api import Color, SourceError

RGB, BT709, UNSPECIFIED, BT601_625, BT601_525, YCGCO, BT2020 = 0, 1, 2, 5, 6, 8, 9
PQ, HLG = 16, 18
LIMITED, FULL = 1, 2
HD_HEIGHT = 720
WHITE = 255 * 256
"""White in the numbers of a deep picture, 1/256 of an 8-bit level each."""
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
_NO_MATRIX = {11: "those of SMPTE ST 2085", 14: "ICtCp", 15: "IPT"}
_MEAN_OF_CHROMA = Interpolation.AREA | Interpolation.FULL_CHR_H_INP


def read_color(frame: av.VideoFrame) -> Color:
    """How the numbers of a decoded frame stand for colours; the matrix is guessed from the height if untagged.

    The guess is what players assume: BT.709 from 720 lines, BT.601 below. RGB has no matrix, so it is guessed as well.
    Grey pictures that do not name their range use all of it, as FFmpeg makes them.
    """
    known = frame.colorspace in (*_SCALER_MATRIX, YCGCO) and not frame.format.is_rgb
    return Color(
        matrix=int(frame.colorspace) if known else guess(frame.height),
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        full_range=not frame.format.is_rgb and _is_full(frame),
        guessed=not known,
    )


def doubts(frame: av.VideoFrame) -> list[str]:
    """What to say of a matrix that the frame names and that is not known here.

    Raises:
        SourceError: if it is no matrix of RGB at all, so that any guess would show wrong colours.
    """
    matrix = int(frame.colorspace)
    if matrix in _NO_MATRIX:
        fault = f"its colours are {_NO_MATRIX[matrix]} (matrix {matrix} of ITU-T H.273), which cannot be read"
        raise SourceError(f"{fault}; convert it to BT.709 first")
    if matrix in (*_SCALER_MATRIX, YCGCO, UNSPECIFIED, RGB):
        return []
    return [f"matrix {matrix} of ITU-T H.273 is not known here: colours were read as BT.{_names(guess(frame.height))}"]


def _names(matrix: int) -> str:
    """The number of the recommendation that a guessed matrix is from."""
    return "709" if matrix == BT709 else "601"


def guess(height: int) -> int:
    """The matrix that players assume of a picture with so many lines."""
    return BT709 if height >= HD_HEIGHT else BT601_525


def _is_full(frame: av.VideoFrame) -> bool:
    """Whether luma uses 0..255; the formats ``yuvj...`` say so by their name."""
    grey = frame.format.name.startswith("gray") and frame.color_range != LIMITED
    return frame.color_range == FULL or frame.format.name.startswith("yuvj") or grey


def to_rgb(
    samples: npt.NDArray[Any], matrix: int, full_range: bool, bits: int, made: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """Samples of a picture as RGB.

    The matrix is applied here and not by FFmpeg's scaler, whose fast conversion to RGB is 1 to 1.5 levels too dark and
    whose accurate one takes three times as long as this.

    Args:
        samples: ``(H, W, 3)`` Y, Cb and Cr of up to 16 bits; or, with the matrix `RGB`, red, green and blue.
        matrix: one that `read_color` gives, or `RGB`, which applies the range only.
        full_range: whether they use all of their range.
        bits: of a sample.
        made: an array for the result.

    Returns:
        ``(H, W, 3)``, red, green and blue: uint8 for uint8; for uint16, uint16 in 1/256 of a level, up to `WHITE`.
    """
    made = cv2.transform(samples, _decoding(matrix, full_range, bits), dst=made)
    return np.asarray(np.minimum(made, WHITE, out=made) if made.dtype == np.uint16 else made)


@functools.cache
def _decoding(matrix: int, full_range: bool, bits: int) -> npt.NDArray[np.float32]:
    """Samples to RGB, as ``(3, 4)``: equations 20 to 31 and 38 to 40 of ITU-T H.273, solved for R, G and B."""
    deep = 1 if bits == 8 else 256
    luma, chroma = _spans(full_range, bits)
    zero, middle = 0.0 if full_range else 16 << (bits - 8), 1 << (bits - 1)
    if matrix == RGB:
        rows, offset = np.eye(3) / luma, np.full(3, zero)
    elif matrix == YCGCO:  # equations 41 to 44
        rows = np.array([[1.0, -1, 1], [1, 1, 0], [1, -1, -1]]) / [luma, chroma, chroma]
        offset = np.array([zero, middle, middle])
    else:
        red, blue = _LUMA[matrix]
        green = 1 - red - blue
        mixed = [[1, 0, 2 * (1 - red)], [1, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green]]
        rows = np.array([*mixed, [1, 2 * (1 - blue), 0]]) / [luma, chroma, chroma]
        offset = np.array([zero, middle, middle])
    rows = rows * 255 * deep
    return np.hstack([rows, -(rows @ offset)[:, None]]).astype(np.float32)


def _spans(full_range: bool, bits: int) -> tuple[float, float]:
    """How many codes lie between black and white, and between the ends of chroma."""
    if full_range:
        return (1 << bits) - 1, (1 << bits) - 1
    return 219 << (bits - 8), 224 << (bits - 8)


def from_rgb(
    values: npt.NDArray[np.uint16], lift: int, color: Color, bits: int, step: tuple[int, int]
) -> list[npt.NDArray[np.uint16]]:
    """Deep RGB as the samples Y, Cb and Cr of a picture.

    Args:
        values: ``(H, W, 3)`` uint16 red, green and blue in 1/256 of a level.
        lift: what they are too high by: room for values below black.
        color: what the samples shall mean; the matrix `RGB` stands for red, green and blue.
        bits: of a sample, up to 16.
        step: pixels per sample of chroma, across and down; their mean is taken.

    Returns:
        Three planes, those of chroma ``step`` times smaller, rounded up.
    """
    matrix, top = _encoding(color.matrix, color.full_range, bits, lift), (1 << bits) - 1
    if step == (1, 1):
        planes = cv2.split(cv2.transform(values, matrix))
    else:
        height, width = values.shape[:2]
        small = (-(-width // step[0]), -(-height // step[1]))
        right, below = small[0] * step[0] - width, small[1] * step[1] - height
        whole = cv2.copyMakeBorder(values, 0, below, 0, right, cv2.BORDER_REPLICATE) if right or below else values
        mean = cv2.resize(whole, small, interpolation=cv2.INTER_AREA)
        planes = [cv2.transform(values, matrix[:1]), *cv2.split(cv2.transform(mean, matrix[1:]))]
    return [np.minimum(plane, top) for plane in planes] if bits < 16 else [np.asarray(plane) for plane in planes]


@functools.cache
def _encoding(matrix: int, full_range: bool, bits: int, lift: int) -> npt.NDArray[np.float32]:
    """Deep RGB to samples, as ``(3, 4)``: equations 20 to 31 and 38 to 40 of ITU-T H.273."""
    luma, chroma = _spans(full_range, bits)
    zero, middle = 0.0 if full_range else 16 << (bits - 8), 1 << (bits - 1)
    if matrix == RGB:
        rows, offset = np.eye(3) * luma, np.full(3, zero)
    else:
        red, blue = _LUMA[matrix]
        weights = np.array([red, 1 - red - blue, blue])
        differences = [([0, 0, 1] - weights) / (2 * (1 - blue)), ([1, 0, 0] - weights) / (2 * (1 - red))]
        rows, offset = np.vstack([weights * luma, *np.multiply(differences, chroma)]), np.array([zero, middle, middle])
    rows = rows / WHITE
    return np.hstack([rows, (offset - rows.sum(axis=1) * lift)[:, None]]).astype(np.float32)


def scale_from_rgb(
    reformatter: VideoReformatter, packed: av.VideoFrame, color: Color, pixel_format: str
) -> av.VideoFrame:
    """Converts a picture of 8 bits by FFmpeg's scaler: within 0.62 of a code of the exact value.

    Asked for accurate rounding as well, it is within 0.51, and takes 1.6 times as long (benchmarks/colour.py).

    Args:
        reformatter: one per thread.
        packed: ``rgb24`` or ``rgba``.
        color: what the numbers of the result shall mean.
        pixel_format: FFmpeg's name, of 8 bits, such as ``yuv420p``.
    """
    return reformatter.reformat(
        packed,
        format=pixel_format,
        dst_colorspace=_SCALER_MATRIX[color.matrix],
        dst_color_range=FULL if color.full_range else LIMITED,
        interpolation=_MEAN_OF_CHROMA,
        threads=1,
    )


def stamp(frame: av.VideoFrame, color: Color) -> None:
    """Writes matrix, range, primaries and transfer on a picture, as `tag` does."""
    frame.colorspace, frame.color_range = _coded(frame.format.name, color)
    frame.color_primaries, frame.color_trc = color.primaries, color.transfer


def tag(context: av.VideoCodecContext, color: Color) -> None:
    """Writes matrix, range, primaries and transfer into an encoder that has its pixel format and is not open yet."""
    context.colorspace, context.color_range = _coded(context.pix_fmt or "yuv420p", color)
    context.color_primaries, context.color_trc = color.primaries, color.transfer


def _coded(pixel_format: str, color: Color) -> tuple[int, int]:
    """Matrix and range of a picture as they are written: RGB has no matrix; RGB and grey use all of their range."""
    rgb, grey = av.VideoFormat(pixel_format).is_rgb, pixel_format.startswith("gray")
    return RGB if rgb else color.matrix, FULL if rgb or grey or color.full_range else LIMITED
