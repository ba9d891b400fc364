"""Which images a location names: one file, a folder, a pattern; at which rate, and in which order."""

from __future__ import annotations

import glob
import os
import re
from fractions import Fraction
from pathlib import Path

from streamgan.api import SourceError, UsageError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")
"""Files that are taken for images, and can be written."""
GREY = (".pgm", ".pnm")
"""Endings of files that are read, but cannot, or need not, hold colours: those made of them end in ``.ppm``."""
NUMBER = re.compile(r"%(?:0?\d+)?d")
"""The place of the number in the name of a sequence, such as ``%06d``."""
RATE = Fraction(25)
"""Frames per second of images whose location says nothing else."""
_AT_RATE = re.compile(r"(?P<where>.+)@(?P<rate>\d+(?:\.\d+|/\d+)?)")


def split_rate(location: str) -> tuple[str, Fraction]:
    """A location without its ``@RATE``, and the rate; what exists under the whole name is that.

    Raises:
        UsageError: for a rate of 0.
    """
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


def is_pattern(where: str) -> bool:
    """Whether a location stands for several names."""
    return not os.path.exists(where) and (glob.has_magic(where) or bool(NUMBER.search(where)))


def find(where: str) -> list[Path]:
    """The images of a location, in the order of the numbers in their names.

    Raises:
        SourceError: if a folder cannot be read.
    """
    if os.path.isdir(where):
        try:
            found = [entry.path for entry in os.scandir(where) if not entry.name.startswith(".")]
        except OSError as error:
            raise SourceError(f"{where}: cannot be read ({error.strerror})") from None
    elif is_pattern(where):
        found = glob.glob(NUMBER.sub("[0-9]*", where))
    else:
        return [Path(where)]
    paths = (Path(path) for path in found if os.path.isfile(path))
    return sorted((path for path in paths if path.suffix.lower() in ENDINGS), key=_natural)


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """A key that puts ``a2`` before ``a10``."""
    parts = re.split(r"([0-9]+)", str(path))
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def none_there(location: str, where: str, seconds: Fraction) -> str:
    """Why there is no image.

    Args:
        location: as it was given.
        where: the same without the rate.
        seconds: how long all images last; 0 if there are none.
    """
    if seconds:
        return f"{location}: no image in the part wanted; all together they last {float(seconds):.2f} s"
    if os.path.isdir(where):
        return f"{location}: a folder, not a video file, and no images in it ({', '.join(ENDINGS)})"
    return f"{location}: no image is named like this"


def first_name(location: str) -> Path:
    """Where images are written: a path with or without a place for the number."""
    return Path(location) / "%06d.png" if location.endswith("/") else Path(location)


def names(path: Path) -> re.Pattern[str]:
    """The file names that a sequence takes, whatever their numbers."""
    return re.compile("[0-9]+".join(re.escape(part) for part in NUMBER.split(path.name)))


def made_ending(ending: str) -> str:
    """The ending of an image that is made of one with this ending."""
    return ".ppm" if ending.lower() in GREY else ending


def default_output(location: str, look: str) -> str:
    """``photo.LOOK.jpg`` for ``photo.jpg``, the folder ``shots.LOOK/`` for the folder ``shots``.

    Args:
        location: what is read.
        look: the name of the preset.

    Raises:
        SourceError: if there is no such image, or no image in the folder.
        UsageError: for a pattern, which names no place.
    """
    where, _ = split_rate(location)
    if is_pattern(where):
        raise UsageError(f"{location}: names several images, so the output needs a name; give one with -o, as -o OUT/")
    path = Path(where).resolve() if os.path.isdir(where) else Path(where)
    if not os.path.exists(path):
        raise SourceError(f"{location}: no such file")
    if os.path.isdir(where):
        if not find(where):
            raise SourceError(none_there(location, where, Fraction(0)))
        return f"{path.with_name(f'{path.name}.{look}')}/"
    return str(path.with_name(f"{path.stem}.{look}{made_ending(path.suffix)}"))
