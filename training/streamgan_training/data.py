"""Frame data sets: folders of images in, batches of two domains out.

What a training step sees is a pure function of (seed, step): a resumed training continues with the very crops that an
uninterrupted one would have seen, and nothing of the sampler needs saving.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as VF

from streamgan.api import SourceError, UsageError
from streamgan_training.recipe import Data, FrameFolder, Jitter

NO_JITTER = Jitter()

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def list_images(folder: FrameFolder, held_out: bool = False) -> list[Path]:
    """The image files of a folder that are trained on, or those that are held out; sorted.

    Raises:
        UsageError: if the folder is missing or holds no image.
    """
    root = Path(folder.path)
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder of images; mend 'path' in the recipe's data")
    every = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not every:
        raise UsageError(f"{root}: no image found; looked for {', '.join(IMAGE_SUFFIXES)} in it and its sub-folders")
    kept = [path for path in every if not _matches(path, folder.exclude)]
    return [path for path in kept if _matches(path, folder.hold_out) == held_out]


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
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(f"{path}: not a whole image ({error})") from None
    scale = short_side / min(picture.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    pixels: Tensor = VF.pil_to_tensor(picture)
    return pixels


@dataclasses.dataclass(frozen=True)
class FrameSet:
    """The readable images of one folder, decoded if they fit the cache."""

    weight: float
    paths: tuple[Path, ...]
    cache: dict[Path, Tensor]
    short_side: int

    def image(self, index: int) -> Tensor:
        """``(3, H, W)`` uint8 of one image."""
        path = self.paths[index]
        return self.cache[path] if path in self.cache else read_image(path, self.short_side)


def load_folder(folder: FrameFolder, data: Data, cache_bytes: int, warn: Callable[[str], None]) -> FrameSet:
    """Reads every image of a folder once: the broken ones are named and skipped, the others fill the cache.

    Raises:
        UsageError: if no image is left.
    """
    cache: dict[Path, Tensor] = {}
    readable = []
    for path in list_images(folder):
        try:
            image = read_image(path, data.load_short_side)
        except SourceError as error:
            warn(f"skipped: {error}")
            continue
        readable.append(path)
        if cache_bytes >= image.nbytes:
            cache[path] = image
            cache_bytes -= image.nbytes
    if not readable:
        raise UsageError(f"{folder.path}: no image is left to train on: broken, or named by 'exclude' or 'hold_out'")
    return FrameSet(folder.weight, tuple(readable), cache, data.load_short_side)


def load_domain(folders: Sequence[FrameFolder], data: Data, warn: Callable[[str], None]) -> list[FrameSet]:
    """All folders of one domain, with half of the recipe's cache."""
    budget = int(data.cache_gigabytes * 1e9 / 2)
    sets = []
    for folder in folders:
        loaded = load_folder(folder, data, budget, warn)
        budget -= sum(image.nbytes for image in loaded.cache.values())
        sets.append(loaded)
    return sets


def crop_transform(data: Data, size: tuple[int, int], jitter: Jitter = NO_JITTER) -> v2.Transform:
    """From ``(3, H, W)`` uint8 to a float crop ``(3, height, width)`` in [-1, 1]; `size` is (width, height)."""
    width, height = size
    aspect = width / height
    crop = v2.RandomResizedCrop(
        (height, width),
        scale=data.crop_area,
        ratio=(aspect * data.crop_aspect[0], aspect * data.crop_aspect[1]),
        interpolation=InterpolationMode.BICUBIC,
        antialias=True,
    )
    color = [v2.ColorJitter(*dataclasses.astuple(jitter))] if jitter != NO_JITTER else []
    flip = v2.RandomHorizontalFlip(0.5 if data.flip else 0.0)
    return v2.Compose([crop, flip, *color, v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)])


def draw(sets: Sequence[FrameSet], transform: v2.Transform, batch: int, key: tuple[object, ...]) -> Tensor:
    """One batch of a domain, decided by `key` alone: ``(batch, 3, height, width)`` in [-1, 1]."""
    seed = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "big")
    weights = torch.tensor([one.weight for one in sets])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        images = []
        for _ in range(batch):
            frames = sets[int(torch.multinomial(weights, 1))]
            images.append(transform(frames.image(int(torch.randint(len(frames.paths), (1,))))))
    return torch.stack(images)


@dataclasses.dataclass(frozen=True)
class Batches:
    """The stream of training batches: iterate over `from_step`."""

    data: Data
    batch: int
    seed: int
    iterations: int
    a: list[FrameSet]
    b: list[FrameSet]

    def from_step(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (a, b) for each step from `step` to the end, both ``(batch, 3, H, W)`` in [-1, 1]."""
        for current in range(step, self.iterations):
            size = self.size_at(current)
            transform_a, transform_b = (
                crop_transform(self.data, size, self.data.jitter_a),
                crop_transform(self.data, size),
            )
            yield (
                draw(self.a, transform_a, self.batch, (self.seed, current, "a")),
                draw(self.b, transform_b, self.batch, (self.seed, current, "b")),
            )

    def size_at(self, step: int) -> tuple[int, int]:
        """(width, height) of the crops at a step."""
        if self.data.small_size is not None and step < self.data.small_until * self.iterations:
            return self.data.small_size
        return self.data.size
