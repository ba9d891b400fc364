"""What is wrong with a data set: broken files, duplicates, and pictures that are trained on and held out."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import hashlib
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from streamgan.api import SinkError, SourceError, UsageError
from streamgan_training.frames import film as films
from streamgan_training.frames import fingerprint
from streamgan_training.frames.film import IMAGE_SUFFIXES
from streamgan_training.frames.fingerprint import Fingerprint

Split = tuple[Sequence[Path], Sequence[Path]]
"""Files that are trained on, and files that are held out."""
_LOOK_SIDE = 256
_TILE, _GAP, _COLUMNS, _LABEL = 120, 4, 12, 22
_PAPER, _INK, _HELD = (24, 24, 24), (235, 235, 235), (230, 160, 40)


@dataclasses.dataclass(frozen=True, eq=False)
class Inspected:
    """One picture that could be read whole."""

    path: Path
    size: tuple[int, int]
    """(width, height) upright, in pixels."""
    held_out: bool
    digest: str
    """Of the file's bytes."""
    look: Fingerprint


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two pictures that are the same, or nearly."""

    first: Path
    second: Path
    bits: int
    """How many of the 64 bits of their hashes differ."""
    exact: bool
    """Whether the files are the same byte for byte."""


@dataclasses.dataclass(frozen=True)
class DomainReport:
    """What was found in one domain."""

    name: str
    trained: int
    """Readable pictures that are trained on."""
    held_out: int
    """Readable pictures that are held out."""
    smallest: tuple[int, int]
    """(width, height) of the picture of the fewest pixels; (0, 0) without pictures, like the two below."""
    median: tuple[int, int]
    """Median width and median height."""
    largest: tuple[int, int]
    """(width, height) of the picture of the most pixels."""
    broken: tuple[str, ...]
    """One line for each file that is no whole picture."""
    duplicates: tuple[Pair, ...]
    """Pictures of one side of the split that are the same, or nearly."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found in a data set."""

    domains: tuple[DomainReport, ...]
    leaks: tuple[Pair, ...]
    """A picture that is trained on, in any domain, and one that is held out, in any: the same, or nearly."""
    shared: tuple[Pair, ...]
    """Pictures of two domains, on the same side of the split, that are the same byte for byte."""

    @property
    def sound(self) -> bool:
        """Whether no file is broken, nothing leaks, and every domain has pictures to train on."""
        return not self.leaks and all(not each.broken and each.trained for each in self.domains)


def find_domains(folders: Sequence[Path], hold_out: Sequence[str] = ()) -> dict[str, Split]:
    """The domains in folders: one that holds images is one, else each of its sub-folders is.

    Args:
        folders: each searched recursively.
        hold_out: glob patterns of file names, or of paths below the domain's folder, that are held out.

    Raises:
        UsageError: if a folder is missing or holds no image.
    """
    domains: dict[str, Split] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder of images")
        own = any(_is_image(each) for each in folder.iterdir())
        roots = [folder] if own else sorted(each for each in folder.iterdir() if each.is_dir())
        found = {root: sorted(each for each in root.rglob("*") if _is_image(each)) for root in roots}
        if not any(found.values()):
            raise UsageError(f"{folder}: no image found; looked for {', '.join(IMAGE_SUFFIXES)} in it and below")
        for root, files in found.items():
            if files:
                name = root.resolve().name
                domains[str(root) if name in domains else name] = _split(root, files, hold_out)
    return domains


def _is_image(path: Path) -> bool:
    """Whether a path is an image by its ending, and not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _split(root: Path, files: Sequence[Path], hold_out: Sequence[str]) -> Split:
    """The files that fit none of the patterns, and those that fit one."""

    def held(file: Path) -> bool:
        names = (file.name, file.relative_to(root).as_posix())
        return any(fnmatch.fnmatch(name, pattern) for pattern in hold_out for name in names)

    return [file for file in files if not held(file)], [file for file in files if held(file)]


def recipe_domains(path: Path) -> dict[str, Split]:
    """The images of a recipe's domains, split by its ``hold_out`` patterns; its films are not looked at.

    Raises:
        PresetError: if the recipe does not read.
        UsageError: if a folder is missing or holds no image.
    """
    from streamgan_training import recipe as recipes
    from streamgan_training.frames import data

    def listed(held_out: bool, footage: Iterable[recipes.Footage]) -> list[Path]:
        folders = [one for one in footage if not Path(one.path).is_file()]
        return [file for one in folders for file in data.list_images(one, held_out=held_out)]

    domains = recipes.load(path).data.domains
    return {name: (listed(False, footage), listed(True, footage)) for name, footage in domains.items()}


def check(domains: Mapping[str, Split], on_file: Callable[[], object] = lambda: None) -> Report:
    """Reads every picture of every domain, and compares them.

    Args:
        domains: by name, the files that are trained on and those that are held out.
        on_file: is called after each file.
    """
    readable: dict[str, list[Inspected]] = {}
    broken: dict[str, list[str]] = {}
    for name, (trained, held_out) in domains.items():
        readable[name], broken[name] = [], []
        jobs = [(path, False) for path in trained] + [(path, True) for path in held_out]
        with ThreadPoolExecutor() as threads:
            for result in threads.map(_try_inspect, jobs):
                if isinstance(result, Inspected):
                    readable[name].append(result)
                else:
                    broken[name].append(result)
                on_file()
    every = [one for pictures in readable.values() for one in pictures]
    sides = [one for one in every if not one.held_out], [one for one in every if one.held_out]
    reports = tuple(_report(name, readable[name], broken[name]) for name in domains)
    return Report(reports, tuple(_pairs(*sides)), tuple(_shared(readable)))


def _try_inspect(job: tuple[Path, bool]) -> Inspected | str:
    """A picture, or what is wrong with it in one line."""
    try:
        return inspect(*job)
    except SourceError as error:
        return str(error)


def inspect(path: Path, held_out: bool = False) -> Inspected:
    """Reads one image file to its end.

    Raises:
        SourceError: if it is not a whole image.
    """
    picture = films.load_picture(path)
    image = films.reduced(np.array(picture, np.uint8), _LOOK_SIDE)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Inspected(path, picture.size, held_out, digest, fingerprint.fingerprint(image))


def _report(name: str, pictures: Sequence[Inspected], broken: Sequence[str]) -> DomainReport:
    """What was found in one domain."""
    sizes = sorted((one.size for one in pictures), key=lambda size: size[0] * size[1]) or [(0, 0)]
    middle = int(statistics.median(size[0] for size in sizes)), int(statistics.median(size[1] for size in sizes))
    sides = [[one for one in pictures if one.held_out == held_out] for held_out in (False, True)]
    duplicates = tuple(pair for side in sides for pair in _pairs(side))
    counts = (len(sides[0]), len(sides[1]))
    return DomainReport(name, *counts, sizes[0], middle, sizes[-1], tuple(broken), duplicates)


def _pairs(first: Sequence[Inspected], second: Sequence[Inspected] | None = None) -> list[Pair]:
    """The pictures that are the same or nearly, the most alike first."""
    others = first if second is None else second
    looks = [[one.look for one in side] for side in (first, others)]
    found = fingerprint.near_duplicates(looks[0], None if second is None else looks[1])
    pairs = [
        Pair(first[one].path, others[other].path, bits, first[one].digest == others[other].digest)
        for one, other, bits in found
    ]
    return sorted(pairs, key=lambda pair: (not pair.exact, pair.bits))


def _shared(readable: Mapping[str, Sequence[Inspected]]) -> list[Pair]:
    """The files that two domains have in common on the same side of the split."""
    seen: dict[tuple[str, bool], tuple[str, Path]] = {}
    shared = []
    for name, pictures in readable.items():
        for one in pictures:
            domain, path = seen.setdefault((one.digest, one.held_out), (name, one.path))
            if domain != name:
                shared.append(Pair(path, one.path, 0, True))
    return shared


def write_sheet(domains: Mapping[str, Split], file: Path, tiles: int = 2 * _COLUMNS) -> None:
    """Draws a contact sheet: for each domain its name, and pictures spread evenly over it; held-out ones are framed.

    Args:
        domains: as for `check`; broken files are left out.
        file: the PNG to write.
        tiles: pictures of a domain, at most.

    Raises:
        SinkError: if it cannot be written.
    """
    strips = [_strip(name, split, tiles) for name, split in domains.items()]
    width = _COLUMNS * (_TILE + _GAP) + _GAP
    sheet = Pillow.new("RGB", (width, max(1, sum(strip.height for strip in strips))), _PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    part = file.with_name(f".{file.name}.part")
    try:
        sheet.save(part, "PNG")
        part.replace(file)
    except OSError as error:
        raise SinkError(f"{file}: the contact sheet cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _strip(name: str, split: Split, tiles: int) -> Pillow.Image:
    """The part of a contact sheet that shows one domain."""
    every = [(path, False) for path in split[0]] + [(path, True) for path in split[1]]
    count = min(tiles, len(every))
    chosen = [every[(2 * place + 1) * len(every) // (2 * count)] for place in range(count)]
    pictures = [(picture, held) for path, held in chosen if (picture := _tile(path)) is not None]
    rows = -(-len(pictures) // _COLUMNS)
    strip = Pillow.new("RGB", (_COLUMNS * (_TILE + _GAP) + _GAP, _LABEL + rows * (_TILE + _GAP) + _GAP), _PAPER)
    draw = ImageDraw.Draw(strip)
    held_out = f", {len(split[1])} held out (framed)" if split[1] else ""
    draw.text((_GAP, 3), f"{name}: {len(split[0])} to train on{held_out}", _INK, ImageFont.load_default(14))
    for place, (picture, held) in enumerate(pictures):
        left, top = _GAP + place % _COLUMNS * (_TILE + _GAP), _LABEL + place // _COLUMNS * (_TILE + _GAP)
        strip.paste(picture, (left + (_TILE - picture.width) // 2, top + (_TILE - picture.height) // 2))
        if held:
            draw.rectangle((left - 2, top - 2, left + _TILE + 1, top + _TILE + 1), outline=_HELD, width=2)
    return strip


def _tile(path: Path) -> Pillow.Image | None:
    """A picture small enough for the sheet; None if it is broken."""
    try:
        picture = films.load_picture(path)
    except SourceError:
        return None
    picture.thumbnail((_TILE, _TILE), Pillow.Resampling.BICUBIC)
    return picture
