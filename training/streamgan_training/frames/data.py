"""Frame data sets: folders of images and films in, pictures and clips by number out.

`batches.py` draws from them. What can be read is found once, at the start; what cannot is named and left out.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as VF

from streamgan.api import SourceError, UsageError
from streamgan_training.frames import domains, film
from streamgan_training.frames.film import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from streamgan_training.frames.footage import Sampling, Shot, open_footage
from streamgan_training.recipe import Data, Footage

Warn = Callable[[str], None]
SHOWN = 10
"""Broken images of a folder that are named one by one."""


class Pictures(Protocol):
    """Readable pictures of one piece of footage."""

    @property
    def weight(self) -> float:
        """How often it is drawn from, relative to the others of its domain."""

    def __len__(self) -> int:
        """How many pictures it has."""

    def image(self, index: int) -> Tensor:
        """One picture: ``(3, H, W)`` uint8 RGB."""

    def name(self, index: int) -> str:
        """Its file name without ending: what pairs go by."""

    def clips(self, length: int) -> Sequence[tuple[int, ...]]:
        """Every clip of so many consecutive frames, as numbers of pictures; none for single images."""


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """The readable images of one folder, decoded if they fit the cache."""

    weight: float
    paths: tuple[Path, ...]
    cache: dict[Path, Tensor]
    short_side: int

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Tensor:
        """``(3, H, W)`` uint8 of one image."""
        path = self.paths[index]
        return self.cache[path] if path in self.cache else read_image(path, self.short_side)

    def name(self, index: int) -> str:
        """The file's name without ending."""
        return self.paths[index].stem

    def clips(self, length: int) -> Sequence[tuple[int, ...]]:
        """None: images are not consecutive."""
        return ()


@dataclasses.dataclass(frozen=True)
class FilmSet:
    """The frames of films; they lie decoded on disk (see `streamgan_training.frames.footage`)."""

    weight: float
    shots: tuple[Shot, ...]
    places: tuple[tuple[int, int], ...]
    """Each picture's shot and its number within it."""
    stride_seconds: float | None

    def __len__(self) -> int:
        return len(self.places)

    def image(self, index: int) -> Tensor:
        """``(3, H, W)`` uint8 of one frame."""
        shot, frame = self.places[index]
        return self.shots[shot].frame(frame)

    def name(self, index: int) -> str:
        """Shot and frame."""
        shot, frame = self.places[index]
        return f"{self.shots[shot].name}_{frame:06d}"

    def clips(self, length: int) -> Sequence[tuple[int, ...]]:
        """Every clip within a shot."""
        numbers = {place: number for number, place in enumerate(self.places)}
        return [
            tuple(numbers[index, frame] for frame in clip)
            for index, shot in enumerate(self.shots)
            for clip in shot.clips(length, self.stride_seconds)
        ]


def list_images(footage: Footage, held_out: bool = False) -> list[Path]:
    """The image files of a folder that are trained on, or those that are held out; sorted.

    Raises:
        UsageError: if the folder is missing or holds no image.
    """
    root = Path(footage.path)
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder of images; mend 'path' in the recipe's data")
    every = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not every:
        raise UsageError(f"{root}: no image found; looked for {', '.join(IMAGE_SUFFIXES)} in it and its sub-folders")
    if footage.labels is not None:
        rows = domains.read_labels(Path(footage.labels))
        wanted = {
            name for name, row in rows.items() if all(row.get(key) == footage.where[key] for key in footage.where)
        }
        every = [path for path in every if path.name in wanted or path.relative_to(root).as_posix() in wanted]
    kept = [path for path in every if not _matches(path, footage.exclude)]
    return [path for path in kept if _matches(path, footage.hold_out) == held_out]


def is_film(footage: Footage) -> bool:
    """Whether footage is films rather than single images: a video file, a folder of them, or what the recipe says."""
    root = Path(footage.path)
    if footage.film or root.is_file():
        return True
    suffixes = {path.suffix.lower() for path in root.rglob("*")} if root.is_dir() else set()
    return not suffixes & set(IMAGE_SUFFIXES) and bool(suffixes & set(VIDEO_SUFFIXES))


def _matches(path: Path, patterns: Sequence[str]) -> bool:
    """Whether a file's name fits one of the glob patterns."""
    return any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)


def read_image(path: Path, short_side: int) -> Tensor:
    """Reads an image as RGB, turned as its EXIF says, reduced (antialiased) to a short side of at most `short_side`.

    Returns:
        ``(3, H, W)`` uint8.

    Raises:
        SourceError: if the file is not a whole image.
    """
    try:
        with Image.open(path) as file:
            file.draft("RGB", (2 * short_side, 2 * short_side))
            picture = _eight_bit(ImageOps.exif_transpose(file)).convert("RGB")
    except (OSError, SyntaxError, ValueError, MemoryError, Image.DecompressionBombError) as error:
        raise SourceError(f"{path}: not a whole image ({error})") from None
    size = film.reduced_size(picture.size, short_side)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    pixels: Tensor = VF.pil_to_tensor(picture)
    return pixels


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8: Pillow's own conversion makes all but the darkest 256 of its 65536 steps white."""
    if not picture.mode.startswith("I;16"):
        return picture
    return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))


def load_images(footage: Footage, data: Data, cache_bytes: int, warn: Warn, held_out: bool = False) -> ImageSet:
    """Reads every image of a folder once: the broken ones are named and skipped, the others fill the cache.

    Raises:
        UsageError: if no image is left.
    """
    cache: dict[Path, Tensor] = {}
    readable = []
    broken = 0
    for path in list_images(footage, held_out):
        try:
            image = read_image(path, data.load_short_side)
        except SourceError as error:
            broken += 1
            if broken <= SHOWN:
                warn(f"skipped: {error}")
            continue
        readable.append(path)
        if cache_bytes >= image.nbytes:
            cache[path] = image
            cache_bytes -= image.nbytes
    if broken > SHOWN:
        warn(f"{footage.path}: {broken - SHOWN} more images skipped; 'streamgan data check' lists all of them")
    if not readable and not held_out:
        named = "'exclude' or 'hold_out'" + (", or not chosen by 'labels' and 'where'" if footage.labels else "")
        raise UsageError(f"{footage.path}: no image is left to train on: broken, or named by {named}")
    return ImageSet(footage.weight, tuple(readable), cache, data.load_short_side)


def load_films(footage: Footage, data: Data, clip_length: int, warn: Warn, held_out: bool = False) -> FilmSet:
    """Opens films: decoded once, to disk.

    Raises:
        SourceError: if no film can be read.
        UsageError: if no frame is left.
    """
    sampling = Sampling(data.load_short_side, max(1, clip_length), data.clip_stride_seconds)
    every = open_footage(Path(footage.path), sampling, warn)
    shots = []
    for shot in every:
        file = shot.stored.film.location
        names = (file, Path(shot.video))
        if any(_matches(name, footage.exclude) for name in names):
            continue
        if any(_matches(name, footage.hold_out) for name in names) == held_out:
            shots.append(shot)
    places = tuple((number, frame) for number, shot in enumerate(shots) for frame in shot.kept)
    if not places and not held_out:
        raise UsageError(f"{footage.path}: no frame is left to train on: all named by 'exclude' or 'hold_out'")
    return FilmSet(footage.weight, tuple(shots), places, data.clip_stride_seconds)


def load_domain(
    footages: Sequence[Footage], data: Data, warn: Warn, *, clip_length: int = 0, held_out: bool = False
) -> list[Pictures]:
    """All footage of one domain, with its share of the recipe's cache.

    Args:
        footages: as in the recipe.
        data: the recipe's.
        warn: is told what was skipped.
        clip_length: frames of the clips that will be asked for; 0 for none.
        held_out: whether to load what is held out, instead of what is trained on.

    Raises:
        UsageError: if a folder is missing, or holds nothing to train on.
    """
    budget = int(data.cache_gigabytes * 1e9 / max(1, len(data.domains)))
    sets: list[Pictures] = []
    for footage in footages:
        if is_film(footage):
            sets.append(load_films(footage, data, clip_length, warn, held_out))
            continue
        images = load_images(footage, data, budget, warn, held_out)
        budget -= sum(image.nbytes for image in images.cache.values())
        sets.append(images)
    return [one for one in sets if len(one)]


def some_images(footages: Sequence[Footage], data: Data, count: int) -> list[Tensor]:
    """A few pictures of a domain, spread over it, without reading the others: each ``(3, H, W)`` uint8 RGB.

    Raises:
        UsageError: if there is none; SourceError if one of them is broken.
    """
    paths = [path for footage in footages if not is_film(footage) for path in list_images(footage)]
    if paths:
        return [read_image(paths[number * len(paths) // count], data.load_short_side) for number in range(count)]
    films = [load_films(footage, data, 0, lambda _: None) for footage in footages]
    places = [(one, index) for one in films for index in range(len(one))]
    chosen = [places[number * len(places) // count] for number in range(count)]
    return [one.image(index) for one, index in chosen]
