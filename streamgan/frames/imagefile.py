"""One image file: decoded, upright, with its depth and transparency; and encoded."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from streamgan.api import Color, Frame, SourceError

SRGB = Color(matrix=1, primaries=1, transfer=13)
"""What the numbers of an image mean; the matrix is for a film made of it."""
TRANSPARENT = (".png", ".webp", ".tif", ".tiff")
"""Endings of files that can hold transparency."""
DEEP = (".png", ".tif", ".tiff", ".ppm")
"""Endings of files that can hold 16 bits."""
TAGGED = (".jpg", ".jpeg", ".png", ".webp")
"""Endings of files that can hold what `read_tags` reads."""
_AT_ONCE = 16
_TURNS: tuple[Callable[[npt.NDArray[Any]], npt.NDArray[Any]], ...] = (
    lambda image: image,
    lambda image: image[:, ::-1],
    lambda image: image[::-1],
    lambda image: image[::-1, ::-1],
    lambda image: image.swapaxes(0, 1),
    lambda image: image.swapaxes(0, 1)[:, ::-1],
    lambda image: image.swapaxes(0, 1)[::-1],
    lambda image: image.swapaxes(0, 1)[::-1, ::-1],
)


@dataclasses.dataclass(frozen=True, eq=False)
class Still:
    """One decoded image; the arrays are those of a `Frame`."""

    image: npt.NDArray[np.uint8]
    """``(H, W, 3)`` uint8 RGB."""
    alpha: npt.NDArray[np.uint8] | None = None
    """``(H, W)`` uint8, 255 opaque; None if all of it is."""
    fine: npt.NDArray[np.int8] | None = None
    """What 8 bits leave of 16; see `Frame.fine`."""


def read_image(path: Path) -> Still:
    """Decodes an image file, upright.

    Raises:
        SourceError: if it cannot be read, is cut short, moves, or is of a kind that 16 bits cannot show.
    """
    data = _bytes_of(path)
    _check_whole(path, data)
    with _quiet():
        pixels, alpha = _decode(path, data)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise SourceError(f"{path}: {pixels.dtype} pixels, expected 8 or 16 bits; convert it first")
    return _still(pixels, alpha)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps OpenCV from telling the terminal what is wrong with a file: that is ours to say."""
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def _still(pixels: npt.NDArray[Any], alpha: npt.NDArray[Any] | None) -> Still:
    """BGR of 8 or 16 bits, and its opacity, as a still."""
    share = None if alpha is None else _eight_bits(alpha)
    image = np.ascontiguousarray(_eight_bits(pixels)[..., ::-1])
    fine = None
    if pixels.dtype == np.uint16:
        values = (pixels[..., ::-1].astype(np.int32) * 256 * 2 + 257) // (257 * 2)
        fine = (values - image.astype(np.int32) * 256).clip(-128, 127).astype(np.int8)
    return Still(image, None if share is None or share.min() == 255 else share, fine)


def _bytes_of(path: Path) -> bytes:
    """All of a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        kind = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise SourceError(f"{path}: {kind}") from None
    if not data:
        raise SourceError(f"{path}: cannot be read as an image (it is empty)")
    return data


def _check_whole(path: Path, data: bytes) -> None:
    """Refuses what OpenCV would complain about on the terminal, or show the first picture of only."""
    png = data.startswith(b"\x89PNG")
    if png and b"IEND" not in data:
        raise SourceError(f"{path}: cannot be read as an image (it is cut short)")
    if png and b"acTL" in data[: data.find(b"IDAT")]:
        raise SourceError(f"{path}: an animated PNG, not an image; name it .apng to have it read as a film")
    if is_animated(data):
        raise SourceError(f"{path}: an animated WebP among images; give it alone to have it read as a film")


def is_animated(head: bytes) -> bool:
    """Whether these are the first 21 bytes or more of an animated WebP."""
    webp = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X"
    return webp and bool(head[20:21] and head[20] & 2)


def durations(path: Path) -> list[int]:
    """How long each frame of an animated WebP is shown, in milliseconds, 1 at least.

    Raises:
        SourceError: if the file cannot be read, or is cut short.
    """
    data, at, found = _bytes_of(path), 12, []
    if len(data) < struct.unpack_from("<I", data, 4)[0] + 8:
        raise SourceError(f"{path}: cannot be read as an animation (it is cut short)")
    while at + 8 <= len(data):  # the chunks of the container, by its specification
        kind, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        if kind == b"ANMF" and at + 23 <= len(data):
            found.append(max(1, int.from_bytes(data[at + 20 : at + 23], "little")))
        at += 8 + length + length % 2
    return found


def animated_frames(path: Path) -> Iterator[Still]:
    """Every frame of an animated WebP, which FFmpeg does not read.

    Raises:
        SourceError: if it cannot be decoded.
    """
    packed, start = np.frombuffer(_bytes_of(path), np.uint8), 0
    while True:
        try:  # a few at a time: all of them might not fit into memory
            with _quiet():
                made, animation = cv2.imdecodeanimation(packed, start, _AT_ONCE)
        except cv2.error as error:
            raise SourceError(f"{path}: cannot be read as an animation ({error.err})") from None
        except AttributeError:
            raise SourceError(f"{path}: animated WebP needs OpenCV 4.12; pip install -U opencv-python") from None
        if not made or not len(animation.frames):
            break
        for frame in animation.frames:
            yield _still(frame[..., :3], frame[..., 3] if frame.shape[2] == 4 else None)
        start += len(animation.frames)
    if not start:
        raise SourceError(f"{path}: cannot be read as an animation (damaged)")


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
    if stored.ndim < 3:
        return pixels, _grey_alpha(data, pixels)
    if stored.shape[2] != 4:
        return pixels, None
    if not turnable:
        return stored[..., :3], stored[..., 3]
    for turn in _TURNS:  # by the one that the colours were turned by, the alpha is turned too
        if np.array_equal(turn(stored[..., :3]), pixels):
            return pixels, turn(stored[..., 3])
    raise SourceError(f"{path}: transparent, and turned in a way that cannot be read; save it upright")


def _grey_alpha(data: bytes, pixels: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """The alpha of a grey PNG that names one level as transparent, which OpenCV does not look at."""
    at = data.find(b"tRNS", 0, data.find(b"IDAT")) if data.startswith(b"\x89PNG") else -1
    if at < 0 or data[25] != 0:
        return None
    level, depth = struct.unpack_from(">H", data, at + 4)[0], data[24]
    shown = level if depth == 16 else level * 255 // ((1 << depth) - 1)
    return np.where(pixels[..., 0] == shown, 0, 255).astype(np.uint8)


def _found(path: Path, decoded: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """What OpenCV decoded; it says nothing of why it did not."""
    if decoded is None:
        raise SourceError(f"{path}: cannot be read as an image (damaged, or of another kind)")
    return decoded


def _eight_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """16 bits rounded to 8, so that white stays white; 8 as they are."""
    wide = values.astype(np.uint32)
    return ((wide + 128) // 257 if values.dtype == np.uint16 else wide).astype(np.uint8)


def read_tags(path: Path) -> dict[int, bytes]:
    """What stands beside the pixels of an image, for `encode_image`: camera data (EXIF) and colour profile (ICC).

    The orientation is set to upright, which is how `read_image` reads. A profile that is not for RGB is left out.

    Returns:
        By OpenCV's number of the kind; empty if there is none, the file cannot be read, or OpenCV is older than 4.12.
    """
    if not hasattr(cv2, "imdecodeWithMetadata"):
        return {}
    try:
        packed = np.frombuffer(_bytes_of(path), np.uint8)
        with _quiet():
            _, kinds, found = cv2.imdecodeWithMetadata(packed, cv2.IMREAD_UNCHANGED)
    except (SourceError, cv2.error):
        return {}
    tags = {int(kind): bytes(np.asarray(data).ravel()) for kind, data in zip(kinds, found, strict=True)}
    exif, profile = tags.get(cv2.IMAGE_METADATA_EXIF), tags.get(cv2.IMAGE_METADATA_ICCP)
    kept = {} if exif is None else {cv2.IMAGE_METADATA_EXIF: _upright(exif)}
    if profile is not None and profile[16:20] == b"RGB " and profile[36:40] == b"acsp" and len(profile) >= 132:
        kept[cv2.IMAGE_METADATA_ICCP] = profile
    return kept


def _upright(exif: bytes) -> bytes:
    """EXIF whose orientation, tag 0x0112 of the first directory, is 1."""
    order, made = ">" if exif[:2] == b"MM" else "<", bytearray(exif)
    try:
        at = struct.unpack_from(f"{order}I", exif, 4)[0]
        for entry in range(at + 2, at + 2 + 12 * struct.unpack_from(f"{order}H", exif, at)[0], 12):
            if struct.unpack_from(f"{order}H", exif, entry)[0] == 0x0112:
                struct.pack_into(f"{order}H", made, entry + 8, 1)
    except struct.error:  # cut short: nobody can read an orientation in it either
        pass
    return bytes(made)


def encode_image(frame: Frame, ending: str, bits: int = 8, tags: Mapping[int, bytes] | None = None) -> bytes:
    """The bytes of an image file; JPEG and WebP at quality 95, the others without loss.

    Args:
        frame: its image; its alpha and fine part, of the same size, if the kind of file holds them.
        ending: one of the image endings, in any case.
        bits: 16 bits are written for more than 8, where the kind of file holds them.
        tags: those of `read_tags`, for a file that holds them.

    Raises:
        ValueError: if the kind of file cannot hold it, as JPEG cannot hold more than 65535 pixels a side.
    """
    kind = ending.lower()
    quality = {".webp": cv2.IMWRITE_WEBP_QUALITY, ".jpg": cv2.IMWRITE_JPEG_QUALITY, ".jpeg": cv2.IMWRITE_JPEG_QUALITY}
    chosen = [quality[kind], 95] if kind in quality else []
    pixels: npt.NDArray[Any] = frame.image
    deep = bits > 8 and kind in DEEP
    if deep:
        values = pixels.astype(np.int32) * 256 + (0 if frame.fine is None else frame.fine)
        pixels = ((values * 257 + 128) // 256).clip(0, 65535).astype(np.uint16)
    pixels = pixels[..., ::-1]
    if frame.alpha is not None and kind in TRANSPARENT:
        pixels = np.dstack([pixels, frame.alpha * np.uint16(257) if deep else frame.alpha])
    try:
        pixels = np.ascontiguousarray(pixels)
        made = False
        if tags and kind in TAGGED:
            beside = [np.frombuffer(each, np.uint8) for each in tags.values()]
            made, data = cv2.imencodeWithMetadata(kind, pixels, list(tags), beside, chosen)
        if not made:  # a profile that the encoder finds fault with is no reason to lose the picture
            made, data = cv2.imencode(kind, pixels, chosen)
    except cv2.error as error:
        raise ValueError(error.err) from None
    if not made:
        raise ValueError(f"{frame.image.shape[1]}x{frame.image.shape[0]} pixels do not fit into {kind}")
    return data.tobytes()
