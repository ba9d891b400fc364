"""The pictures that a quantisation is made from and judged by: of folders and films, as the model will see them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from streamgan.api import SourceError, UsageError
from streamgan.model import SizeRule
from streamgan_training.frames import film
from streamgan_training.frames.film import Image, Warn

CALIBRATION, HELD_OUT, CLIPS, CLIP_LENGTH = 96, 20, 3, 5
"""How many pictures set the scales; how many, and how many clips of how many frames, judge the result. Of 32 pictures,
day2night was off by 10/255 in a place of a held-out one that was brighter than all of them; of 64, by 4."""
LONGEST = 1800
"""How many frames of a film are looked at, from its beginning."""
SEEN = 0.75
"""The part of each folder and film, from its beginning, that sets the scales; the rest judges."""
_REELS = 16


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What `read` found, each picture ``(H, W, 3)`` uint8 RGB, H and W multiples of what the model takes."""

    calibration: tuple[Image, ...]
    """Set the scales."""
    held_out: tuple[Image, ...]
    """Judge; none of them sets a scale."""
    clips: tuple[tuple[Image, ...], ...]
    """Consecutive frames of films, to judge flicker by."""
    sources: tuple[str, ...]
    """For the card: the folders and films of the first kind, with how many pictures each gave."""


@dataclasses.dataclass(frozen=True)
class _Reel:
    """Pictures in an order: the files of a folder, or the frames of a film."""

    name: str
    files: tuple[Path, ...]
    length: int

    @property
    def still(self) -> bool:
        """Whether its pictures are files of their own."""
        return self.files[0].suffix.lower() in film.IMAGE_SUFFIXES

    def images(self, wanted: Sequence[int], warn: Warn) -> Iterator[Image]:
        """The pictures of these numbers, which grow."""
        if self.still:
            yield from (np.asarray(film.load_picture(self.files[number]), np.uint8) for number in wanted)
            return
        chosen = set(wanted)
        for number, picture in enumerate(itertools.islice(film.read_video(self.files[0], warn), self.length)):
            if number in chosen:
                yield picture.render()


def read(
    frames: Sequence[Path], size: SizeRule, *, short_side: int = 0, check: Sequence[Path] = (), warn: Warn
) -> Pictures:
    """Picks pictures, spread evenly over everything that is given.

    Args:
        frames: images, films, or folders of them.
        size: what the model takes.
        short_side: pictures are reduced to this, in pixels; 0 for that of the pictures it was trained on.
        check: the same kinds of places, to judge by; if there is none, the last quarter of each of `frames` judges.
        warn: is told what was skipped.

    Raises:
        UsageError: if there are no pictures, or too few to judge by.
        SourceError: if one of the places cannot be read.
    """
    side = max(size.multiple_of, short_side or min(size.trained))

    def fitted(images: Iterator[Image]) -> tuple[Image, ...]:
        return tuple(fit(image, side, size.multiple_of) for image in images)

    reels, judging = _reels(frames, warn), _reels(check, warn)
    share, begin = (1.0, 0.0) if judging else (SEEN, SEEN)
    judging = judging or reels
    calibration: list[Image] = []
    sources: list[str] = []
    for reel in reels:
        wanted = _spread(reel.length, 0.0, share, -(-CALIBRATION // len(reels)))
        calibration += fitted(reel.images(wanted, warn))
        sources.append(f"{reel.name}: {len(wanted)} pictures")
    held_out = [
        image
        for reel in judging
        for image in fitted(reel.images(_spread(reel.length, begin, 1.0, -(-HELD_OUT // len(judging))), warn))
    ]
    if not held_out:
        raise UsageError(f"{frames[0]}: too few pictures to judge by; give at least 4, or others with --check")
    films = [reel for reel in judging if not reel.still and reel.length * (1 - begin) >= CLIP_LENGTH]
    clips = (fitted(reel.images(_clip(reel.length, begin), warn)) for reel in films[:CLIPS])
    return Pictures(tuple(calibration), tuple(held_out), tuple(clips), tuple(sources))


def fit(image: Image, short_side: int, multiple_of: int) -> Image:
    """A picture reduced, and cut around its middle to what the model takes; repeated at its edges if it is too small.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        short_side: of the result, at most, in pixels.
        multiple_of: both sides of the result are multiples of this.
    """
    small = film.reduced(image, short_side)
    for axis in (0, 1):
        side = small.shape[axis]
        length = max(1, side // multiple_of) * multiple_of
        small = np.take(small, np.clip(np.arange(length) + (side - length) // 2, 0, side - 1), axis)
    return np.ascontiguousarray(small)


def _reels(places: Sequence[Path], warn: Warn) -> list[_Reel]:
    """What there is at some places; of very many films, some.

    Raises:
        UsageError: if a place holds no pictures.
        SourceError: if there is no such place, or a film cannot be read.
    """
    found: list[_Reel] = []
    single = tuple(place for place in places if place.is_file() and place.suffix.lower() in film.IMAGE_SUFFIXES)
    if single:
        found.append(_Reel(single[0].parent.name, single, len(single)))
    for place in places:
        if place not in single:
            found += _at(place, warn)
    return [found[number] for number in _spread(len(found), 0.0, 1.0, _REELS)]


def _at(place: Path, warn: Warn) -> Iterator[_Reel]:
    """The films and the images at one place."""
    if place.is_file():
        yield _film(place, warn)
        return
    if not place.is_dir():
        raise SourceError(f"{place}: no such file or folder of pictures")
    files = sorted(each for each in place.rglob("*") if each.is_file() and not each.name.startswith("."))
    folders: dict[Path, list[Path]] = {}
    for each in files:
        if each.suffix.lower() in film.IMAGE_SUFFIXES:
            folders.setdefault(each.parent, []).append(each)
    films = [each for each in files if each.suffix.lower() in film.VIDEO_SUFFIXES]
    if not folders and not films:
        raise UsageError(f"{place}: no images and no films in it; give a folder of pictures that the model is made for")
    for folder, images in folders.items():
        yield _Reel(f"{folder.parent.name}/{folder.name}", tuple(images), len(images))
    for each in films:
        yield _film(each, warn)


def _film(path: Path, warn: Warn) -> _Reel:
    """A film; decodes it to count its frames."""
    length = sum(1 for _ in itertools.islice(film.read_video(path, warn), LONGEST))
    if not length:
        raise SourceError(f"{path}: no picture of this film could be read; it may be damaged")
    return _Reel(path.name, (path,), length)


def _spread(length: int, begin: float, end: float, count: int) -> list[int]:
    """At most `count` numbers, spread evenly over a part of ``range(length)``; of a single one, the first part has it.

    Example:
        >>> _spread(100, 0.0, 0.5, 3), _spread(100, 0.5, 1.0, 2), _spread(1, 0.75, 1.0, 2)
        ([8, 25, 41], [62, 87], [])
    """
    first, last = -int(-length * begin // 1), -int(-length * end // 1)
    room = last - first
    return [first + (2 * number + 1) * room // (2 * min(count, room)) for number in range(min(count, room))]


def _clip(length: int, begin: float) -> range:
    """The numbers of a clip in the middle of the part from `begin` on."""
    first = int(length * begin)
    start = first + (length - first - CLIP_LENGTH) // 2
    return range(max(0, start), max(0, start) + CLIP_LENGTH)
