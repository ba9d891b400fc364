"""A frame data set from films: sharp frames that differ, from every shot, with a manifest."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from streamgan.api import SinkError, SourceError, UsageError
from streamgan_training.frames import film as films
from streamgan_training.frames import fingerprint, footage
from streamgan_training.frames.film import Film, Image, Warn
from streamgan_training.frames.shots import Index

MANIFEST = "frames.csv"
COLUMNS = ("file", "video", "seconds", "shot", "sharpness", "hash")
_MICROSECONDS = 1_000_000
_NEIGHBOURS = 2


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What frames are to be taken of each film."""

    every: float = 0.5
    """Seconds of each part of a shot that gives one frame: the sharpest of the part's first half."""
    sharpness: float = 0.5
    """A frame less sharp than this, relative to the median of the taken frames around it, is left out; 0 keeps all."""
    duplicates: int = 4
    """A frame whose hash differs in at most so many bits of 64 from that of an earlier one goes; −1 keeps all."""
    limit: int | None = None
    """Frames of one film, at most, spread evenly."""
    short_side: int | None = None
    """Larger frames are reduced to this (antialiased), in pixels; None leaves them as they are."""
    suffix: str = ".png"
    """``.png``, or ``.jpg`` with quality 95 and full colour resolution."""


@dataclasses.dataclass(frozen=True)
class Taken:
    """One row of the manifest."""

    file: str
    """Its name in the folder: film, shot, and thousandths of a second."""
    video: str
    """The film's path, absolute."""
    seconds: float
    """From the film's beginning."""
    shot: int
    """Number of the shot within the film, from 0."""
    sharpness: float
    """See `shots.sharpness`; comparable within a film."""
    hash: str
    """The perceptual hash, 16 hexadecimal digits."""


def extract(
    videos: Sequence[Path],
    folder: Path,
    wanted: Wanted,
    append: bool,
    warn: Warn,
    on_film: Callable[[Film, int], Callable[[int], None]],
) -> list[Taken]:
    """Writes the frames of films, and the manifest, into a folder.

    Args:
        videos: video files, or folders of them or of numbered frames.
        folder: is made if it is missing.
        wanted: what to take.
        append: whether the folder may hold frames already, to which these are added.
        warn: is told of films that are skipped.
        on_film: is called with each film and how many frames of it come into question; what it returns is called with
            how many of them were looked at.

    Returns:
        The rows that were added.

    Raises:
        UsageError: if the folder is not empty, and `append` is not given.
        SourceError: if no film can be read.
        SinkError: if the folder cannot be written.
    """
    rows = _start(folder, append)
    known = len(rows)
    sources = [film for path in videos for film in films.find_films(path, warn)]

    def take(film: Film) -> None:
        index = footage.film_index(film, footage.Sampling(), warn, footage.cache_folder())
        named = dataclasses.replace(film, name=_free_name(film, rows))
        keep = choose(index, wanted)
        on_looked = on_film(named, len(keep))
        rows.extend(_save_frames(named, index, keep, folder, wanted, rows, on_looked))
        write_manifest(folder / MANIFEST, rows)

    films.each_readable(sources, take, warn)
    return rows[known:]


def _start(folder: Path, append: bool) -> list[Taken]:
    """Makes the folder; the rows that its manifest has."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: a file, expected a folder; give another with -o")
    if folder.is_dir() and any(folder.iterdir()) and not append:
        raise UsageError(f"{folder}: not empty; give a new folder with -o, or --append to add to it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"{folder}: cannot be made ({error.strerror})") from None
    return read_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else []


def _free_name(film: Film, rows: Sequence[Taken]) -> str:
    """The film's name, with a number if frames of another film bear it."""
    location = str(film.location.resolve())
    number = 1
    while True:
        name = film.name if number == 1 else f"{film.name}-{number}"
        if all(row.video == location for row in rows if row.file.startswith(f"{name}_s")):
            return name
        number += 1


def choose(index: Index, wanted: Wanted) -> npt.NDArray[np.int64]:
    """The frames of a film that come into question, growing; at least one of each shot before the limit.

    Each shot is divided into parts of `Wanted.every` seconds; of the first half of each the sharpest frame is taken, so
    that two are never closer than half a part, and dropped if it is much less sharp than the median of the two taken
    before it, the two after it, and itself.
    """
    kept: list[int] = []
    for shot in index.shots:
        times = index.times[shot.start : shot.stop]
        part = max(2, round(wanted.every * _MICROSECONDS))
        early = np.flatnonzero((times - times[0]) % part < part // 2)
        sharp = index.sharpness[shot.start : shot.stop]
        best = [int(places[sharp[places].argmax()]) for places in _runs(early, (times[early] - times[0]) // part)]
        taken = [best[place] for place in _sharp_enough(sharp[best], wanted.sharpness)]
        kept += [shot.start + place for place in taken]
    if wanted.limit is not None and len(kept) > wanted.limit:
        kept = [kept[(2 * place + 1) * len(kept) // (2 * wanted.limit)] for place in range(wanted.limit)]
    return np.asarray(kept, np.int64)


def _runs(places: npt.NDArray[np.intp], parts: npt.NDArray[np.int64]) -> list[npt.NDArray[np.intp]]:
    """The places, divided where the number of their part changes."""
    return np.split(places, np.flatnonzero(np.diff(parts)) + 1)


def _sharp_enough(values: npt.NDArray[np.float32], ratio: float) -> list[int]:
    """The places whose value is at least `ratio` times the median around them; the largest is always among them."""
    kept = []
    for place, value in enumerate(values):
        around = values[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1]
        if value >= ratio * float(np.median(around)) or place == int(values.argmax()):
            kept.append(place)
    return kept


def _save_frames(
    film: Film,
    index: Index,
    keep: npt.NDArray[np.int64],
    folder: Path,
    wanted: Wanted,
    earlier: Sequence[Taken],
    on_looked: Callable[[int], None],
) -> list[Taken]:
    """Writes the chosen frames of one film that are no duplicates, and makes their rows."""
    starts = np.asarray(index.starts)
    hashes = [int(row.hash, 16) for row in earlier]
    names = {row.file for row in earlier}
    taken: list[Taken] = []
    left = set(keep.tolist())
    for number, picture in enumerate(films.read_film(film, lambda _: None)):
        if not left:
            break
        if number not in left:
            continue
        left.remove(number)
        on_looked(len(keep) - len(left))
        image = films.reduced(picture.render(), wanted.short_side)
        bits = fingerprint.fingerprint(image).bits
        shot = int(np.searchsorted(starts, number, side="right")) - 1
        name = f"{film.name}_s{shot:04d}_{picture.time // 1000:08d}{wanted.suffix}"
        if name in names or any(fingerprint.distance(bits, other) <= wanted.duplicates for other in hashes):
            continue
        hashes.append(bits)
        _save(image, folder / name)
        seconds, sharp = round(picture.time / _MICROSECONDS, 3), round(float(index.sharpness[number]), 2)
        taken.append(Taken(name, str(film.location.resolve()), seconds, shot, sharp, f"{bits:016x}"))
    return taken


def _save(image: Image, file: Path) -> None:
    """Writes one picture, whole or not at all."""
    part = file.with_name(f".{file.name}.part")
    options = {"quality": 95, "subsampling": 0} if file.suffix == ".jpg" else {"compress_level": 3}
    try:
        Pillow.fromarray(image).save(part, "JPEG" if file.suffix == ".jpg" else "PNG", **options)
        os.replace(part, file)
    except OSError as error:
        raise SinkError(f"{file}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_manifest(file: Path, rows: Sequence[Taken]) -> None:
    """Writes the manifest, whole or not at all.

    Raises:
        SinkError: if it cannot be written.
    """
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as text:
            table = csv.writer(text)
            table.writerow(COLUMNS)
            table.writerows(dataclasses.astuple(row) for row in rows)
        os.replace(part, file)
    except OSError as error:
        raise SinkError(f"{file}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def read_manifest(file: Path) -> list[Taken]:
    """The rows of a manifest, so that a split can be made by film and shot.

    Raises:
        SourceError: if it is no manifest.
    """
    try:
        with file.open(encoding="utf-8", newline="") as text:
            table = list(csv.DictReader(text))
        return [
            Taken(
                row["file"], row["video"], float(row["seconds"]), int(row["shot"]), float(row["sharpness"]),
                f"{int(row['hash'], 16):016x}",
            )
            for row in table
        ]  # fmt: skip
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        expected = f"a CSV file with the columns {', '.join(COLUMNS)}"
        raise SourceError(f"{file}: not a manifest of frames ({error}); expected {expected}") from None
