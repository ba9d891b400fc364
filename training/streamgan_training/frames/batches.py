"""Batches: which pictures a step sees, and how they are cropped.

A picture of a batch is a pure function of (seed, step, slot): a resumed training continues with the very crops that an
uninterrupted one would have seen, any number of processes sees the same, and nothing of the sampler needs saving.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, RandomResizedCrop, v2
from torchvision.transforms.v2 import functional as VF

from streamgan.api import UsageError
from streamgan_training.frames.camera import Camera, degrade
from streamgan_training.frames.data import Pictures
from streamgan_training.method import Batch, Clips, hash_seed
from streamgan_training.recipe import Data, Jitter, Recipe
from streamgan_training.stability import flow

NO_JITTER = Jitter()


@dataclasses.dataclass(frozen=True)
class Crop:
    """What is cut out of a frame, in pixels, before it is resized."""

    top: int
    left: int
    height: int
    width: int
    flip: bool
    """Whether it is mirrored left to right."""

    def __call__(self, frames: Tensor, size: tuple[int, int]) -> Tensor:
        """``(…, 3, H, W)`` uint8 → ``(…, 3, height, width)`` uint8; `size` is (width, height)."""
        cut: Tensor = VF.resized_crop(
            frames, self.top, self.left, self.height, self.width, [size[1], size[0]], InterpolationMode.BICUBIC, True
        )
        return VF.horizontal_flip(cut) if self.flip else cut


def random_crop(frames: Tensor, data: Data, size: tuple[int, int]) -> Crop:
    """A crop as the recipe allows, from torch's global randomness; `size` is (width, height)."""
    aspect = size[0] / size[1]
    ratio = [aspect * data.crop_aspect[0], aspect * data.crop_aspect[1]]
    top, left, height, width = RandomResizedCrop.get_params(frames, list(data.crop_area), ratio)
    height, width = max(1, height), max(1, width)  # of a frame that is much smaller than the crop's shape
    return Crop(top, left, height, width, data.flip and bool(torch.rand(()) < 0.5))


def scaled(frames: Tensor) -> Tensor:
    """uint8 to float in [-1, 1]."""
    return frames.float() / 127.5 - 1.0


def choose(sets: Sequence[Pictures]) -> Pictures:
    """One of a domain's sets, by weight, from torch's global randomness."""
    return sets[int(torch.multinomial(torch.tensor([one.weight for one in sets]), 1))]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How the pictures of a domain are drawn."""

    sets: Sequence[Pictures]
    data: Data
    jitter: Jitter = NO_JITTER
    camera: Camera = Camera()

    def picture(self, key: tuple[object, ...], size: tuple[int, int], like: str | None = None) -> tuple[Tensor, str]:
        """A crop ``(3, height, width)`` in [-1, 1], decided by `key` alone, and its name.

        Args:
            key: the randomness.
            size: (width, height) in pixels.
            like: the name of the picture to take, for pairs; None for any.

        Raises:
            UsageError: if there is none called `like`.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash_seed(*key))
            chosen = choose(self.sets)
            index = int(torch.randint(len(chosen), (1,)))
            if like is not None:
                chosen, index = self.named(like)
            frame = chosen.image(index)
            crop = random_crop(frame, self.data, size)
            degraded = degrade(frame[None], self.camera, _generator(key))
            return self.finished(crop(degraded, size))[0], chosen.name(index)

    def clip(self, key: tuple[object, ...], size: tuple[int, int], length: int, engine: flow.Engine | None) -> Clips:
        """A clip of `length` frames, all cropped, degraded and coloured alike: `Clips` of N = 1."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash_seed(*key, "clip"))
            places = self.clip_places(length)
            weights = torch.tensor([chosen.weight for chosen, _ in places])
            chosen, clips = places[int(torch.multinomial(weights, 1))]
            frames = torch.stack([chosen.image(index) for index in clips[int(torch.randint(len(clips), (1,)))]])
            crop = random_crop(frames, self.data, size)
            degraded = degrade(frames, self.camera, _generator(key))
            finished = self.finished(crop(degraded, size))[None]
        if engine is None:
            return Clips(finished)
        moved, valid = flow.clip_flow(frames, engine)
        moved, valid = flow.crop_flow(moved, valid, **dataclasses.asdict(crop), out_size=size)
        return Clips(finished, moved[None], valid[None])

    def finished(self, frames: Tensor) -> Tensor:
        """Colours changed, in [-1, 1]: ``(T, 3, H, W)`` uint8 → float."""
        if self.jitter != NO_JITTER:
            frames = v2.ColorJitter(*dataclasses.astuple(self.jitter))(frames)
        return scaled(frames)

    def clip_places(self, length: int) -> list[tuple[Pictures, Sequence[tuple[int, ...]]]]:
        """The sets that have clips of this length, with their clips."""
        if length not in self._clips:
            found = [(one, one.clips(length)) for one in self.sets]
            self._clips[length] = [(one, clips) for one, clips in found if clips]
        return self._clips[length]

    def named(self, name: str) -> tuple[Pictures, int]:
        """The picture of this name.

        Raises:
            UsageError: if there is none.
        """
        if name not in self.names:
            raise UsageError(f"data.paired: the second domain has no picture called '{name}'; pairs go by file name")
        return self.names[name]

    @functools.cached_property
    def names(self) -> dict[str, tuple[Pictures, int]]:
        """Where each picture is, by its name; of several of one name the first."""
        found: dict[str, tuple[Pictures, int]] = {}
        for one in self.sets:
            for index in range(len(one)):
                found.setdefault(one.name(index), (one, index))
        return found

    @functools.cached_property
    def _clips(self) -> dict[int, list[tuple[Pictures, Sequence[tuple[int, ...]]]]]:
        """What `clip_places` has found, by length."""
        return {}


def _generator(key: tuple[object, ...]) -> torch.Generator:
    """The randomness of a picture's degradation."""
    return torch.Generator().manual_seed(hash_seed(*key, "camera"))


@dataclasses.dataclass(frozen=True)
class Steps(Dataset[Batch]):
    """The batches of one process, by step."""

    recipe: Recipe
    domains: Sequence[Drawing]
    slots: range
    """This process's share of the whole batch."""

    def __getitem__(self, step: int) -> Batch:
        """What this process sees at a step."""
        size = size_at(self.recipe, step)
        seed = self.recipe.train.seed
        if self.recipe.method_class.mixed:
            images, labels = self._mixed(step, size)
        else:
            images, labels = self._by_domain(step, size), None
        length = self.recipe.temporal.clip_length
        clips = tuple(self._clips(index, step, size, length) for index in range(len(self.domains))) if length else ()
        if self.recipe.method_class.mixed and clips:
            clips = (next((one for one in clips if one is not None), None),)
        return Batch(step, images, labels, clips, self.slots, seed)

    def _by_domain(self, step: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """One tensor a domain; pairs are drawn and cropped together."""
        seed, paired = self.recipe.train.seed, self.recipe.data.paired
        columns: list[list[Tensor]] = [[] for _ in self.domains]
        for slot in self.slots:
            name = None
            for index, domain in enumerate(self.domains):
                key = (seed, step, slot, "pair" if paired else index)
                picture, drawn = domain.picture(key, size, name)
                name = drawn if paired else None
                columns[index].append(picture)
        return tuple(torch.stack(column) for column in columns)

    def _mixed(self, step: int, size: tuple[int, int]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Pictures of all domains, each domain as often as the others, and their domains."""
        seed = self.recipe.train.seed
        labels = torch.tensor(
            [hash_seed(seed, step, slot, "domain") % len(self.domains) for slot in self.slots], dtype=torch.int64
        )
        pictures = [
            self.domains[label].picture((seed, step, slot, label), size)[0]
            for slot, label in zip(self.slots, labels.tolist(), strict=True)
        ]
        return (torch.stack(pictures),), labels

    def _clips(self, index: int, step: int, size: tuple[int, int], length: int) -> Clips | None:
        """The clips of a domain, if it has films."""
        domain, temporal = self.domains[index], self.recipe.temporal
        if not temporal.due(step, self.recipe.train.iterations) or not domain.clip_places(length):
            return None
        engine = flow.make_engine(temporal.flow) if temporal.needs_flow else None
        seed = self.recipe.train.seed
        parts = [domain.clip((seed, step, slot, index), size, length, engine) for slot in self.slots]
        return Clips(*(_joined([getattr(part, name) for part in parts]) for name in ("frames", "flow", "valid")))  # type: ignore[arg-type]


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    """Tensors along their first axis; None for none."""
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def size_at(recipe: Recipe, step: int) -> tuple[int, int]:
    """(width, height) of the crops at a step."""
    data = recipe.data
    if data.small_size is not None and step < data.small_until * recipe.train.iterations:
        return data.small_size
    return data.size


def drawings(recipe: Recipe, sets: Sequence[Sequence[Pictures]]) -> list[Drawing]:
    """How each domain is drawn from."""
    data = recipe.data
    return [
        Drawing(one, data, data.jitter.get(name, NO_JITTER), data.camera.get(name, Camera()))
        for name, one in zip(recipe.domains, sets, strict=True)
    ]


def batches_from(steps: Steps, first: int, workers: int) -> Iterator[Batch]:
    """The batches from a step to the end; `workers` processes make them ahead, 0 makes them when they are asked for."""
    numbers = range(first, steps.recipe.train.iterations)
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # else it draws from torch's own randomness, once more in a resumed training
    )
    return iter(loader)


def check_pairs(steps: Steps) -> None:
    """Refuses pairs of which one is missing, before anything is trained.

    Raises:
        UsageError: naming one.
    """
    if not steps.recipe.data.paired or steps.recipe.method_class.mixed:
        return
    first, *others = steps.domains
    for domain in others:
        if lacking := sorted(first.names.keys() - domain.names.keys()):
            raise UsageError(
                f"data.paired: {len(lacking)} of {len(first.names)} pictures of the first domain have no partner, "
                f"such as '{lacking[0]}'; pairs go by file name without its ending: add them, or exclude these"
            )


def parts_of(batch: Batch, size: int) -> list[Batch]:
    """A batch in parts of at most `size` pictures of each domain: micro-batches."""
    count = len(batch.slots)
    return [_part(batch, slice(start, min(start + size, count))) for start in range(0, count, size)]


def _part(batch: Batch, span: slice) -> Batch:
    """Some pictures of a batch."""

    def clip(whole: Clips | None) -> Clips | None:
        if whole is None:
            return None
        return Clips(*(None if one is None else one[span] for one in (whole.frames, whole.flow, whole.valid)))  # type: ignore[arg-type]

    return dataclasses.replace(
        batch,
        images=tuple(images[span] for images in batch.images),
        labels=None if batch.labels is None else batch.labels[span],
        clips=tuple(clip(one) for one in batch.clips),
        slots=batch.slots[span],
    )


def moved_to(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device, its pictures in channels-last order."""

    def clip(whole: Clips | None) -> Clips | None:
        if whole is None:
            return None
        return Clips(*(None if one is None else one.to(device) for one in (whole.frames, whole.flow, whole.valid)))  # type: ignore[arg-type]

    return dataclasses.replace(
        batch,
        images=tuple(images.to(device, memory_format=torch.channels_last) for images in batch.images),
        labels=None if batch.labels is None else batch.labels.to(device),
        clips=tuple(clip(one) for one in batch.clips),
    )
