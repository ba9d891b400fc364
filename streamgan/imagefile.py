"""One image file: decoded, upright and 8 bits deep, and encoded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from streamgan.api import Color, SourceError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
"""Files that are taken for images, and can be written."""
NUMBER = re.compile(r"%(?:0?\d+)?d")
"""The place of the number in the name of a sequence, such as ``%06d``."""
SRGB = Color(matrix=1, primaries=1, transfer=13)
"""What the numbers of an image mean; the matrix is for a film made of it."""
_GROUND = 255
"""What transparent pixels are shown over: white."""


def read_image(path: Path) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Decodes an image file, upright, without alpha, 8 bits.

    Returns:
        ``(H, W, 3)`` uint8 RGB, and what was lost on the way, in words.

    Raises:
        SourceError: if it cannot be read, is cut short, moves, or is of a kind that 8 bits cannot show.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        kind = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise SourceError(f"{path}: {kind}") from None
    if not data:
        raise SourceError(f"{path}: cannot be read as an image (it is empty)")
    _check_whole(path, data)
    pixels, alpha = _decode(path, data)
    done = []
    if pixels.dtype == np.uint16:
        pixels, done = _eight_bits(pixels), ["16 bits were rounded to 8"]
    if pixels.dtype != np.uint8:
        raise SourceError(f"{path}: {pixels.dtype} pixels, expected 8 or 16 bits; convert it first")
    if alpha is not None and (share := _eight_bits(alpha)).min() < 255:
        weight = share[..., None].astype(np.float32) / 255
        pixels = np.rint(pixels * weight + _GROUND * (1 - weight)).astype(np.uint8)
        done.append("transparent pixels are shown over white")
    return np.ascontiguousarray(pixels[..., ::-1], dtype=np.uint8), done


def _check_whole(path: Path, data: bytes) -> None:
    """Refuses what OpenCV would complain about on the terminal, or show the first picture of only."""
    png, webp = data.startswith(b"\x89PNG"), data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if png and b"IEND" not in data:
        raise SourceError(f"{path}: cannot be read as an image (it is cut short)")
    if png and b"acTL" in data[: data.find(b"IDAT")]:
        raise SourceError(f"{path}: an animated PNG, not an image; name it .apng to have it read as a film")
    if webp and data[12:16] == b"VP8X" and data[20:21] and data[20] & 2:
        raise SourceError(f"{path}: an animated WebP, which cannot be read; convert it to GIF or to a video first")


def _decode(path: Path, data: bytes) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Pixels ``(H, W, 3)`` BGR, upright, of the file's own type; and its alpha, ``(H, W)`` or None."""
    packed = np.frombuffer(data, np.uint8)
    upright = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    try:
        if data.startswith(b"\xff\xd8"):  # a JPEG: 8 bits, no alpha
            return _found(path, cv2.imdecode(packed, cv2.IMREAD_COLOR)), None
        stored = _found(path, cv2.imdecode(packed, cv2.IMREAD_UNCHANGED))
        turnable = b"eXIf" in data or b"EXIF" in data or data[:2] in (b"II", b"MM")
        if stored.ndim == 3 and stored.shape[2] == 3 and not turnable:
            return stored, None
        pixels = _found(path, cv2.imdecode(packed, upright))
    except cv2.error as error:  # such as more pixels than OpenCV takes
        raise SourceError(f"{path}: cannot be read as an image ({error.err})") from None
    if stored.ndim < 3 or stored.shape[2] != 4:
        return pixels, None
    if turnable and not np.array_equal(stored[..., :3], pixels):
        raise SourceError(f"{path}: transparent and turned by its EXIF tag, which cannot be read; save it upright")
    return stored[..., :3], stored[..., 3]


def _found(path: Path, decoded: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """What OpenCV decoded; it says nothing of why it did not."""
    if decoded is None:
        raise SourceError(f"{path}: cannot be read as an image (damaged, or of another kind)")
    return decoded


def _eight_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """16 bits rounded to 8, so that white stays white; 8 as they are."""
    wide = values.astype(np.uint32)
    return ((wide + 128) // 257 if values.dtype == np.uint16 else wide).astype(np.uint8)


def encode_image(image: npt.NDArray[np.uint8], ending: str) -> bytes:
    """The bytes of an image file; JPEG and WebP at quality 95, the others without loss.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        ending: one of `ENDINGS`, in any case.

    Raises:
        ValueError: if the kind of file cannot hold it, as JPEG cannot hold more than 65535 pixels a side.
    """
    kind = ending.lower()
    quality = {".webp": cv2.IMWRITE_WEBP_QUALITY, ".jpg": cv2.IMWRITE_JPEG_QUALITY, ".jpeg": cv2.IMWRITE_JPEG_QUALITY}
    chosen = [quality[kind], 95] if kind in quality else []
    try:
        made, data = cv2.imencode(kind, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), chosen)
    except cv2.error as error:
        raise ValueError(error.err) from None
    if not made:
        raise ValueError(f"{image.shape[1]}x{image.shape[0]} pixels do not fit into {kind}")
    return data.tobytes()
