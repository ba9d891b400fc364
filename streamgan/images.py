"""Images in and out: one file, a folder, a pattern of names; each is a frame."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamgan import outputs
from streamgan.api import (
    Encoding,
    Frame,
    Selection,
    Sink,
    SinkError,
    Source,
    SourceError,
    UsageError,
    VideoInfo,
    hookimpl,
)
from streamgan.imagefile import ENDINGS, NUMBER, SRGB, encode_image, read_image

RATE = Fraction(25)
"""Frames per second of images whose location says nothing else."""
_WHOLE, _DEFAULT = Selection(), Encoding()
_AT_RATE = re.compile(r"(?P<where>.+)@(?P<rate>\d+(?:\.\d+|/\d+)?)")


class ImageFiles(Source):
    """One image, the images of a folder, or those that a pattern names, in the order of the numbers in their names.

    A pattern has ``*``, ``?`` or ``[…]``, or ``%06d`` for a number. With ``@RATE`` at the end of the location, such as
    ``shots/@30`` or ``shots/*.png@30000/1001``, the images follow each other at that rate instead of 25 a second.

    All have one size. The orientation of a camera (EXIF) is applied; transparent pixels are shown over white and
    16 bits are rounded to 8, each with a note. A colour profile is not applied: the numbers are taken as sRGB.
    """

    def __init__(self, location: str, selection: Selection = _WHOLE) -> None:
        """Finds the images, and opens none yet.

        Raises:
            SourceError: if there are none, or none within the selection.
        """
        self._notes: dict[str, int] = {}
        where, self._rate = _split_rate(location)
        paths = _find(where)
        start, end = selection.start or 0, selection.end
        times = [number / self._rate for number in range(len(paths))]
        self._numbers = [n for n, time in enumerate(times) if start <= time and (end is None or time < end)]
        self._paths = [paths[number] for number in self._numbers]
        if not paths or not self._paths:
            raise SourceError(_none_there(location, where, len(paths) / self._rate))
        self._first: npt.NDArray[np.uint8] | None = None

    @classmethod
    def accepts(cls, location: str) -> bool:
        """A name with the ending of an image, a folder, or a pattern that can name images."""
        if "://" in location or location.isdecimal():
            return False
        where, _ = _split_rate(location)
        if os.path.isdir(where):
            return True
        ending = os.path.splitext(where)[1].lower()
        return ending in ENDINGS or (_is_pattern(where) and (not ending or glob.has_magic(ending)))

    @property
    def notes(self) -> list[str]:  # type: ignore[override]
        """What was done to the images beside decoding, and to how many."""
        return [f"{count} image{'s' if count > 1 else ''}: {what}" for what, count in self._notes.items()]

    @property
    def info(self) -> VideoInfo:
        """Size, rate and number; decodes the first image.

        Raises:
            SourceError: if it cannot be decoded.
        """
        if self._first is None:
            self._first = self._read(self._paths[0])
        height, width = self._first.shape[:2]
        count, kind = len(self._paths), self._paths[0].suffix[1:].lower()
        many = f"{count} {kind} images {width}x{height} at {float(self._rate):.4g} fps"
        shown = f"{kind} image {width}x{height}" if count == 1 else many
        return VideoInfo(width, height, 1 / self._rate, self._rate, count, color=SRGB, description=shown)

    def frames(self) -> Iterator[Frame]:
        """Yields every image once, decoded when it is asked for.

        Raises:
            SourceError: if one cannot be decoded, or is not of the first one's size.
        """
        info, first = self.info, self._first
        for number, path in zip(self._numbers, self._paths, strict=True):
            image = self._read(path) if first is None else first
            first = self._first = None
            height, width = image.shape[:2]
            if (width, height) != (info.width, info.height):
                expected = f"{info.width}x{info.height} expected, the size of {self._paths[0].name}"
                raise SourceError(f"{path}: {width}x{height} pixels, {expected}; bring all images to one size first")
            yield Frame(image, number, info.time_base, 1)

    def close(self) -> None:
        """Forgets the first image."""
        self._first = None

    def _read(self, path: Path) -> npt.NDArray[np.uint8]:
        """An image as ``(H, W, 3)`` uint8 RGB; counts what was done to it."""
        image, done = read_image(path)
        for what in done:
            self._notes[what] = self._notes.get(what, 0) + 1
        return image


def _split_rate(location: str) -> tuple[str, Fraction]:
    """A location without its ``@RATE``, and the rate; what exists under the whole name is that."""
    match = _AT_RATE.fullmatch(location)
    if match is None or os.path.exists(location):
        return location, RATE
    try:
        rate = Fraction(match["rate"])
    except ZeroDivisionError:
        rate = Fraction(0)
    if not rate:
        raise UsageError(f"{location}: a rate of @{match['rate']}; expected frames per second above 0, such as @30")
    return match["where"], rate


def _is_pattern(where: str) -> bool:
    """Whether a location stands for several names."""
    return not os.path.exists(where) and (glob.has_magic(where) or bool(NUMBER.search(where)))


def _find(where: str) -> list[Path]:
    """The images of a location, in the order of the numbers in their names."""
    if os.path.isdir(where):
        try:
            found = [entry.path for entry in os.scandir(where) if not entry.name.startswith(".")]
        except OSError as error:
            raise SourceError(f"{where}: cannot be read ({error.strerror})") from None
    elif _is_pattern(where):
        found = glob.glob(NUMBER.sub("[0-9]*", where))
    else:
        return [Path(where)]
    paths = (Path(path) for path in found if os.path.isfile(path))
    return sorted((path for path in paths if path.suffix.lower() in ENDINGS), key=_natural)


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """A key that puts ``a2`` before ``a10``."""
    parts = re.split(r"([0-9]+)", str(path))
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _none_there(location: str, where: str, seconds: Fraction) -> str:
    """Why there is no image."""
    if seconds:
        return f"{location}: no image in the part wanted; all together they last {float(seconds):.2f} s"
    if os.path.isdir(where):
        return f"{location}: a folder, not a video file, and no images in it ({', '.join(ENDINGS)})"
    return f"{location}: no image is named like this"


class ImageSink(Sink):
    """Writes ``night.png``, one image; or a sequence, ``out/%06d.png`` or ``out/``, numbered from 1.

    An image appears whole. A sequence appears when all of its images are there: its folder is renamed into place if it
    was not there before, else the images are moved into it. Images have no times: those of the film are lost.
    """

    def __init__(self, location: str, encoding: Encoding = _DEFAULT) -> None:
        """Checks all that can be checked before a frame is there.

        Raises:
            UsageError: if an output exists and may not be replaced, or is the input.
            SinkError: if the folder does not take files.
        """
        self.notes: list[str] = []
        self._path = _first_name(location)
        self._numbered, self._overwrite = bool(NUMBER.search(self._path.name)), encoding.overwrite
        if NUMBER.search(str(self._path.parent)) or len(NUMBER.findall(self._path.name)) > 1:
            raise UsageError(f"{location}: one number may be in the name, none in that of its folder; use OUT/%06d.png")
        self._fresh = self._numbered and not os.path.exists(self._path.parent)
        if not self._numbered:
            outputs.check_target(self._path, encoding)
        elif self._fresh:
            outputs.check_folder(self._path.parent.parent, self._path.parent)
        else:
            outputs.check_folder(self._path.parent, self._path)
            self._check_free()
        if encoding.crf is not None or encoding.preset is not None:
            self.notes.append("--crf and --encoder-preset have no meaning for images")
        self._partial: Path | None = None
        self._count = 0

    @classmethod
    def accepts(cls, location: str) -> bool:
        """A name that ends as an image's or in ``/``; a single ``.webp`` may be an animation and is none of these."""
        if "://" in location:
            return False
        path = Path(location)
        single_webp = path.suffix.lower() == ".webp" and not NUMBER.search(path.name)
        return location.endswith("/") or (path.suffix.lower() in ENDINGS and not single_webp)

    def open(self, info: VideoInfo) -> None:
        """Makes the hidden folder that the images wait in.

        Raises:
            SinkError: if it cannot be made.
        """
        if info.sample_aspect_ratio != 1:
            self.notes.append(f"pixels of {info.sample_aspect_ratio} were kept, which images show as squares")
        self._partial = outputs.partial_name(self._path.parent if self._fresh else self._path.parent / "images")
        with self._failures():
            self._partial.mkdir()

    def write(self, frame: Frame) -> None:
        """Encodes one image.

        Raises:
            UsageError: if more than one frame comes, and the name has no place for a number.
            SinkError: if it cannot be written, as on a full disk.
        """
        assert self._partial is not None, "open comes before write"
        self._count += 1
        if self._count > 1 and not self._numbered:
            numbered = self._path.with_name(f"{self._path.stem}-%06d{self._path.suffix}")
            raise UsageError(f"{self._path}: holds one image, but more frames come; use -o {numbered}, or --end")
        with self._failures():
            (self._partial / self._name(self._count)).write_bytes(encode_image(frame.image, self._path.suffix))

    def close(self) -> None:
        """Gives the images their names.

        Raises:
            SinkError: if they cannot have them; nothing is left behind then.
        """
        try:
            if self._partial is not None:
                with self._failures():
                    self._publish(self._partial)
        finally:
            self.abort()

    def abort(self) -> None:
        """Leaves nothing behind."""
        partial, self._partial = self._partial, None
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)

    def _publish(self, partial: Path) -> None:
        """The folder by one rename, or else each image; those already there are taken back if one cannot be."""
        if self._fresh and not self._path.parent.exists():
            partial.rename(self._path.parent)
            self._partial = None
            return
        placed: list[Path] = []
        try:
            for number in range(1, self._count + 1):
                target = self._path.with_name(self._name(number))
                outputs.publish(partial / target.name, target, self._overwrite)
                placed.append(target)
        except OSError:
            for target in placed if not self._overwrite else []:
                target.unlink(missing_ok=True)
            raise
        if self._numbered and (older := self._present() - {path.name for path in placed}):
            self.notes.append(f"{len(older)} images of an earlier sequence are still there, up to {max(older)}")

    def _name(self, number: int) -> str:
        """The file name of an image, counted from 1."""
        return NUMBER.sub(lambda match: match[0] % number, self._path.name)

    def _present(self) -> set[str]:
        """Names in the folder that are of the sequence, whatever their number."""
        names = _names(self._path)
        return {name for name in os.listdir(self._path.parent) if names.fullmatch(name)}

    def _check_free(self) -> None:
        """Refuses a folder that holds such a sequence, unless it may be replaced."""
        if not self._overwrite and (present := self._present()):
            fault = f"images exist already, such as {min(present)}"
            raise UsageError(f"{self._path}: {fault}; use --overwrite to replace them, or -o for another folder")

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turns what cannot be encoded or stored into one line."""
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, SinkError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise SinkError(f"{self._path}: cannot be written ({reason})") from None


def default_output(location: str, look: str) -> str:
    """``photo.LOOK.jpg`` for ``photo.jpg``, the folder ``shots.LOOK/`` for the folder ``shots``.

    Args:
        location: what is read.
        look: the name of the preset.

    Raises:
        SourceError: if there is no such image, or no image in the folder.
        UsageError: for a pattern, which names no place.
    """
    where, _ = _split_rate(location)
    if _is_pattern(where):
        raise UsageError(f"{location}: names several images, so the output needs a name; give one with -o, as -o OUT/")
    path = Path(where).resolve() if os.path.isdir(where) else Path(where)
    if not os.path.exists(path):
        raise SourceError(f"{location}: no such file")
    if os.path.isdir(where):
        if not _find(where):
            raise SourceError(_none_there(location, where, Fraction(0)))
        return f"{path.with_name(f'{path.name}.{look}')}/"
    return str(path.with_name(f"{path.stem}.{look}{path.suffix}"))


def _first_name(location: str) -> Path:
    """Where the images go: a path with or without a place for the number."""
    return Path(location) / "%06d.png" if location.endswith("/") else Path(location)


def _names(path: Path) -> re.Pattern[str]:
    """The file names that a sequence takes, whatever their numbers."""
    return re.compile("[0-9]+".join(re.escape(part) for part in NUMBER.split(path.name)))


def refuse_own_input(location: str, output: str) -> None:
    """Refuses a sequence that would replace the images that it is made from.

    Args:
        location: what is read.
        output: what is written.

    Raises:
        UsageError: if names of the output are those of input images.
    """
    if not (ImageFiles.accepts(location) and ImageSink.accepts(output)):
        return
    path = _first_name(output)
    names = _names(path)
    for source in _find(_split_rate(location)[0]):
        if names.fullmatch(source.name) and path.parent.is_dir() and path.parent.resolve() == source.parent.resolve():
            raise UsageError(f"{output}: would replace the input {source}; use -o for another folder")


@hookimpl
def register_sources(register: Callable[[str, type[Source]], None]) -> None:
    """Brings images, folders and patterns."""
    register("images", ImageFiles)


@hookimpl
def register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Brings images and sequences of them."""
    register("images", ImageSink)
