"""Films as a training reads them: a video file or numbered frames, picture by picture, upright, in RGB.

The pictures are those that the runtime would show the model: the largest video stream, turned as a player turns it,
every frame at the size of the first, not stretched to square pixels, colours by the stream's own matrix and range.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image as Pillow
from PIL import ImageOps

from streamgan.api import SourceError, UsageError

Image = npt.NDArray[np.uint8]
"""``(H, W, 3)`` uint8 RGB."""
Warn = Callable[[str], None]
"""Takes one line for people."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".ts", ".m2ts", ".mts"),
    *(".flv", ".wmv", ".mpg", ".mpeg", ".ogv", ".gif", ".h264", ".hevc"),
)
FRAMES_PER_SECOND = Fraction(25)
"""What numbered frames are taken to have been recorded at, unless told otherwise."""
_MICROSECONDS = 1_000_000
_RESTART = 333_333
_NUMBERED = re.compile(r"^(.*?)(\d+)(\D*)$")
_MATRIX = {1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601}
_MATRIX |= {7: Colorspace.SMPTE240M, 9: Colorspace.BT2020, 10: Colorspace.BT2020}
_LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 6: (0.299, 0.114), 7: (0.212, 0.087)}
_LUMA |= {9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
_HD_HEIGHT, _LIMITED, _FULL = 720, 1, 2
_ROTATE = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


@dataclasses.dataclass(frozen=True)
class Film:
    """A film on disk."""

    name: str
    """What its shots and frames are named after: letters, digits, dots, dashes and underscores."""
    files: tuple[Path, ...]
    """One video file, or the frames in their order."""
    numbers: tuple[int, ...] = ()
    """The number of each frame; empty for a video file."""

    @property
    def location(self) -> Path:
        """The video file, or the first frame: what a message names."""
        return self.files[0]


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture of a film, not converted yet."""

    time: int
    """From the film's beginning, in microseconds; grows from picture to picture."""
    joined: bool
    """Whether the film's clock was set back right before this picture, as where two recordings were joined."""
    size: tuple[int, int]
    """(width, height) upright, in pixels."""
    render: Callable[[], Image]
    """The whole picture, upright: ``(H, W, 3)`` uint8 RGB."""
    glance: Callable[[tuple[int, int]], Image]
    """The picture averaged down quickly to (width, height), perhaps lying on its side."""


def find_films(path: Path, warn: Warn) -> list[Film]:
    """The films at a path: a video file is one; so is each numbered sequence and each video file within a folder.

    Frames belong to one film if they lie in the same folder and their names differ in the last number alone; they are
    ordered by that number, so that ``f9.png`` comes before ``f10.png``.

    Args:
        path: a video file, or a folder, which is searched recursively.
        warn: is told of images without a number.

    Raises:
        SourceError: if there is no such path.
        UsageError: if a folder holds neither numbered frames nor video files.
    """
    if path.is_file():
        return [Film(clean_name(path.stem), (path,))]
    if not path.is_dir():
        raise SourceError(f"{path}: no such file or folder of footage")
    every = sorted(each for each in path.rglob("*") if each.is_file() and not each.name.startswith("."))
    films = [Film(clean_name(each.stem), (each,)) for each in every if each.suffix.lower() in VIDEO_SUFFIXES]
    sequences: dict[tuple[Path, str, str], list[tuple[int, Path]]] = {}
    for each in every:
        if each.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        parts = _NUMBERED.match(each.stem)
        if parts is None:
            warn(f"skipped: {each}: no number in its name, so it is no frame of a film")
            continue
        sequences.setdefault((each.parent, parts[1], parts[3] + each.suffix), []).append((int(parts[2]), each))
    for (folder, prefix, _), frames in sequences.items():
        frames.sort()
        name = clean_name(prefix.rstrip("_-. ") or folder.resolve().name)
        films.append(Film(name, tuple(file for _, file in frames), tuple(number for number, _ in frames)))
    if not films:
        raise UsageError(f"{path}: no numbered frames (such as 0001.png) and no video file, nor in its sub-folders")
    return _distinct(films)


def clean_name(text: str) -> str:
    """A text as part of a file name: what is not a letter, a digit, '.', '-' or '_' becomes '-'."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "film"


def _distinct(films: list[Film]) -> list[Film]:
    """The films, those of the same name told apart by a number."""
    counts: dict[str, int] = {}
    distinct = []
    for film in films:
        counts[film.name] = count = counts.get(film.name, 0) + 1
        distinct.append(film if count == 1 else dataclasses.replace(film, name=f"{film.name}-{count}"))
    return distinct


def read_film(film: Film, warn: Warn, rate: Fraction = FRAMES_PER_SECOND) -> Iterator[Picture]:
    """The pictures of a film from beginning to end; what is damaged is skipped, and said.

    Args:
        film: what to read.
        warn: is told what was skipped.
        rate: of numbered frames, in 1/s.

    Raises:
        SourceError: if nothing of it can be read.
    """
    pictures = read_numbered(film, warn, rate) if film.numbers else read_video(film.location, warn)
    first = next(pictures, None)
    if first is None:
        raise SourceError(f"{film.location}: no picture of this film could be read; it may be damaged")
    yield from itertools.chain((first,), pictures)


def read_numbered(film: Film, warn: Warn, rate: Fraction) -> Iterator[Picture]:
    """Numbered frames: the number is the time. A frame that is broken, or of another shape, is skipped."""
    shape: tuple[int, int] | None = None
    for number, file in zip(film.numbers, film.files, strict=True):
        try:
            picture = load_picture(file)
        except SourceError as error:
            warn(f"skipped: {error}")
            continue
        size = picture.size
        shape = shape or size
        if size != shape:
            warn(f"skipped: {file}: {size[0]}x{size[1]} pixels, the frames before it have {shape[0]}x{shape[1]}")
            continue
        time = int((number - film.numbers[0]) * _MICROSECONDS / rate)
        yield Picture(time, False, size, *_views_of_image(picture))


def load_picture(file: Path) -> Pillow.Image:
    """An image file, whole, upright, in RGB.

    Raises:
        SourceError: if it is not a whole image.
    """
    try:
        with Pillow.open(file) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError) as error:
        raise SourceError(f"{file}: not a whole image ({error})") from None


def _views_of_image(picture: Pillow.Image) -> tuple[Callable[[], Image], Callable[[tuple[int, int]], Image]]:
    """`Picture.render` and `Picture.glance` of an image."""
    return (
        lambda: np.array(picture, np.uint8),
        lambda size: np.array(picture.resize(size, Pillow.Resampling.BOX, reducing_gap=2.0), np.uint8),
    )


def read_video(file: Path, warn: Warn) -> Iterator[Picture]:
    """The pictures of a video file. Damaged packets are skipped; where reading ends early, the rest is left out.

    Raises:
        SourceError: if it is not a file with video in it.
    """
    container = _open(file)
    try:
        stream = _largest_video(container, file)
        context: Any = stream.codec_context
        context.thread_type = "AUTO"
        yield from _pictures(_decode(container, stream, file, warn), stream, file)
    finally:
        container.close()


def _open(file: Path) -> InputContainer:
    """Opens a video file."""
    if not file.is_file():
        raise SourceError(f"{file}: no such video file")
    try:
        return av.open(f"file:{file}", "r", metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{file}: cannot be read as a video ({reason})") from None


def _largest_video(container: InputContainer, file: Path) -> VideoStream:
    """The largest stream of moving pictures; cover art is not one."""
    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    streams = [each for each in streams if each.codec_context is not None]
    if not streams:
        found = ", ".join(each.type for each in container.streams) or "nothing"
        raise SourceError(f"{file}: no video in this file; found: {found}")
    return max(streams, key=lambda each: (each.codec_context.width or 0) * (each.codec_context.height or 0))


def _decode(container: InputContainer, stream: VideoStream, file: Path, warn: Warn) -> Iterator[av.VideoFrame]:
    """Every frame that can be decoded."""
    damaged = 0
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:
                damaged += 1
    except av.error.FFmpegError as error:
        warn(f"{file}: reading ended early ({error.strerror})")
    if damaged:
        warn(f"{file}: {damaged} damaged packets were skipped")


def _pictures(frames: Iterator[av.VideoFrame], stream: VideoStream, file: Path) -> Iterator[Picture]:
    """Decoded frames with times that go forward, all at the size and turned the way of the first."""
    reformatter = VideoReformatter()
    base = Fraction(stream.time_base or Fraction(1, _MICROSECONDS)) * _MICROSECONDS
    rate = stream.average_rate or stream.guessed_rate or FRAMES_PER_SECOND
    usual = max(1, int(_MICROSECONDS / Fraction(rate)))
    origin, last, offset, size, turn = 0, -1, 0, (0, 0), 0
    for frame in frames:
        own = None if frame.pts is None else int(frame.pts * base)
        if last < 0:
            origin, size, turn = own or 0, (frame.width, frame.height), round(frame.rotation / 90) * 90 % 360
        time = last + usual if own is None else own - origin + offset
        joined = last >= 0 and last - time >= _RESTART
        if joined:
            offset += last + usual - time
            time = last + usual
        last = time = max(time, last + 1)
        upright = (size[1], size[0]) if turn in (90, 270) else size
        yield Picture(time, joined, upright, *_views_of_frame(reformatter, frame, size, turn, file))


def _views_of_frame(
    reformatter: VideoReformatter, frame: av.VideoFrame, size: tuple[int, int], turn: int, file: Path
) -> tuple[Callable[[], Image], Callable[[tuple[int, int]], Image]]:
    """`Picture.render` and `Picture.glance` of a decoded frame."""

    guess = 1 if frame.height >= _HD_HEIGHT else 6
    matrix = int(frame.colorspace) if frame.colorspace in _MATRIX else guess
    full = frame.color_range == _FULL or frame.format.name.startswith("yuvj")
    span = _FULL if full else _LIMITED

    def convert(form: str, to: tuple[int, int], interpolation: int) -> Image:
        rgb = form == "rgb24"
        try:
            converted = reformatter.reformat(
                frame, width=to[0], height=to[1], format=form, interpolation=interpolation, threads=1,
                src_colorspace=_MATRIX[matrix] if rgb else None,
                src_color_range=_FULL if frame.format.is_rgb else span, dst_color_range=_FULL if rgb else span,
            )  # fmt: skip
            return np.array(converted.to_ndarray(), np.uint8)
        except av.error.FFmpegError as error:
            raise SourceError(f"{file}: cannot convert {frame.format.name} to RGB ({error.strerror})") from None

    def render() -> Image:
        if frame.format.is_rgb:
            image = convert("rgb24", size, Interpolation.BICUBIC)
        else:
            planes = _repeated_chroma(frame, size)
            yuv = cv2.merge(planes or list(convert("yuv444p", size, Interpolation.BILINEAR)))  # (H, W, 3)
            image = np.asarray(cv2.transform(yuv, _rgb_matrix(matrix, full)), np.uint8)
        return np.asarray(cv2.rotate(image, _ROTATE[turn]), np.uint8) if turn in _ROTATE else image

    return render, lambda to: convert("rgb24", to, Interpolation.AREA)


def _repeated_chroma(frame: av.VideoFrame, size: tuple[int, int]) -> list[npt.NDArray[np.uint8]]:
    """Luma and both chromas, ``(H, W)`` each, of a plain 4:2:0 frame of this size, as the runtime has them; else []."""
    width, height = size
    plain = frame.format.name in ("yuv420p", "yuvj420p") and (frame.width, frame.height) == size
    if not plain or width % 2 or height % 2:
        return []
    stacked = frame.to_ndarray()  # (3 / 2 H, W)
    chroma = stacked[height:].reshape(2, height // 2, width // 2)
    wide = [cv2.resize(each, size, interpolation=cv2.INTER_NEAREST) for each in chroma]
    return [np.asarray(plane, np.uint8) for plane in (stacked[:height], *wide)]


@functools.cache
def _rgb_matrix(matrix: int, full: bool) -> npt.NDArray[np.float32]:
    """YCbCr to RGB, as ``(3, 4)``: equations 38 to 40 of ITU-T H.273, solved; as the runtime does it.

    FFmpeg's scaler would do, but comes out up to 2 levels darker.
    """
    red, blue = _LUMA.get(matrix, _LUMA[6])
    green = 1 - red - blue
    luma, chroma = (1.0, 1.0) if full else (255 / 219, 255 / 224)
    from_blue, from_red = 2 * (1 - blue) * chroma, 2 * (1 - red) * chroma
    rows = np.array(
        [[luma, 0, from_red], [luma, -from_blue * blue / green, -from_red * red / green], [luma, from_blue, 0]]
    )
    offset = rows @ np.array([0 if full else -16, -128, -128])
    return np.hstack([rows, offset[:, None]]).astype(np.float32)


def reduced(image: Image, short_side: int | None) -> Image:
    """A picture reduced to a short side of at most `short_side` pixels, as `data.read_image` reduces: antialiased.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        short_side: in pixels; None leaves it as it is.
    """
    height, width = image.shape[:2]
    to = reduced_size((width, height), short_side)
    if to == (width, height):
        return image
    small = Pillow.fromarray(image).resize(to, Pillow.Resampling.BICUBIC, reducing_gap=3.0)
    return np.array(small, np.uint8)


def reduced_size(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """(width, height) after `reduced`."""
    scale = 1.0 if short_side is None else min(1.0, short_side / min(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def each_readable(films: Sequence[Film], action: Callable[[Film], Any], warn: Warn) -> list[Any]:
    """What `action` makes of each film; one that cannot be read is skipped, and said, unless it is the only one.

    Raises:
        SourceError: if no film can be read.
    """
    made, errors = [], []
    for film in films:
        try:
            made.append(action(film))
        except SourceError as error:
            errors.append(error)
    if errors and not made:
        raise errors[0]
    for each in errors:
        warn(f"skipped: {each}")
    return made
