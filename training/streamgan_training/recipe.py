"""The recipe: every knob of a training, typed, with the unit in its name or its docstring.

A recipe is a YAML file. Defaults are those of Zhu et al. 2017, "Unpaired Image-to-Image Translation using
Cycle-Consistent Adversarial Networks" (CycleGAN), so an empty ``method:`` trains what the paper trained.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

import yaml

from streamgan import settings
from streamgan.api import PresetError

GeneratorName = Literal["resnet9", "resnet6", "compact"]
MULTIPLE_OF: dict[GeneratorName, int] = {"resnet9": 4, "resnet6": 4, "compact": 16}
"""The sides of a picture must be multiples of this, in pixels."""
NormName = Literal["instance", "batch", "none"]


@dataclasses.dataclass(frozen=True)
class FrameFolder:
    """One folder of images."""

    path: str
    """Folder, searched recursively; relative to the recipe."""
    weight: float = 1.0
    """How often it is drawn from, relative to the other folders of its domain."""
    exclude: tuple[str, ...] = ()
    """Glob patterns of file names that are left out altogether."""
    hold_out: tuple[str, ...] = ()
    """Glob patterns of file names that are kept from training and used to evaluate: name whole scenes."""


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Largest random changes of colour, as torchvision's ColorJitter takes them; 0 is none."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """At most 0.5, half way round the circle."""


@dataclasses.dataclass(frozen=True)
class Data:
    """The two domains, and how a crop is made of a frame."""

    a: tuple[FrameFolder, ...]
    """Folders of the source look."""
    b: tuple[FrameFolder, ...]
    """Folders of the target look."""
    size: tuple[int, int] = (256, 256)
    """(width, height) of a crop as the networks see it, in pixels."""
    small_size: tuple[int, int] | None = None
    """(width, height) of the crops of the first part of the training, or None: coarse before fine."""
    small_until: float = 0.0
    """Fraction of the training that uses `small_size`."""
    crop_area: tuple[float, float] = (0.6, 1.0)
    """Smallest and largest part of the frame's area that a crop takes (0.8 is the paper's 256 out of 286)."""
    crop_aspect: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest ratio of a crop's sides, relative to the ratio of `size`."""
    flip: bool = True
    """Whether to mirror half of the crops."""
    jitter_a: Jitter = Jitter()
    """Random changes of the source frames' colours, so that footage of other colours is no surprise."""
    load_short_side: int = 360
    """Frames larger than this are reduced when they are read (antialiased), in pixels."""
    cache_gigabytes: float = 4.0
    """Decoded frames kept in memory, at most."""


@dataclasses.dataclass(frozen=True)
class Generator:
    """The architecture of both generators."""

    name: GeneratorName = "resnet9"
    width: int = 64
    """Channels of the first level: 64 in the paper, 24 for `compact`."""
    norm: NormName = "instance"
    """Normalisation; `batch` folds into the convolutions at export."""


@dataclasses.dataclass(frozen=True)
class Discriminator:
    """One PatchGAN discriminator; several of them judge at several scales."""

    width: int = 64
    """Channels of the first level."""
    layers: int = 3
    """Strided levels: 3 is the paper's receptive field of 70² pixels."""
    norm: NormName = "instance"
    scale: int = 1
    """The picture is averaged down by this factor before it is judged."""
    weight: float = 1.0
    """Weight of its verdict in the generators' loss."""


@dataclasses.dataclass(frozen=True)
class CycleGan:
    """Weights of CycleGAN's objective, and terms that a recipe may add to it."""

    name: Literal["cyclegan"] = "cyclegan"
    lambda_adversarial: float = 1.0
    lambda_cycle: float = 10.0
    """λ of the paper, for both cycles."""
    lambda_identity: float = 0.5
    """λ_idt, relative to `lambda_cycle`."""
    pool: int = 50
    """Translated frames remembered for the discriminators."""
    warm_up_iterations: int = 0
    """First iterations, in which both generators only learn to match colour statistics (Reinhard et al. 2001)."""
    lambda_exposure: float = 0.0
    """Weight of the one-sided exposure prior: regions that come out brighter than the ceiling cost."""
    exposure_ceiling: float = 1.0
    """The ceiling, as a fraction of the source's brightness."""
    exposure_region: int = 16
    """Side of a region, in pixels; lamps must be smaller than that."""


@dataclasses.dataclass(frozen=True)
class Temporal:
    """Consistency in time (see `streamgan_training.temporal`)."""

    kind: Literal["none", "synthetic"] = "none"
    weight: float = 10.0
    start: float = 0.4
    """Fraction of the training after which it counts: before the translation has formed it teaches to do nothing."""
    every: int = 1
    """It is computed on every n-th iteration (and weighted n times)."""


@dataclasses.dataclass(frozen=True)
class Train:
    """The loop."""

    start_from: str | None = None
    """A run folder whose networks this training begins with, relative to the recipe; None to begin from nothing."""
    iterations: int = 200_000
    batch: int = 1
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    decay_start: float = 0.5
    """Fraction of the training after which the learning rate falls linearly to 0."""
    ema_decay: float = 0.999
    """Of the exponential moving average of the generators, which is what is exported."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    seed: int = 0
    log_every: int = 20
    sample_every: int = 500
    checkpoint_every: int = 500
    keep_checkpoints: int = 2


@dataclasses.dataclass(frozen=True)
class Card:
    """What the model file will say of itself."""

    direction: str = "a to b"
    description: str = ""
    licence: str = "unknown"
    creator: str = "unknown"
    data: tuple[str, ...] = ()
    """Each data set with its licence."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A whole training."""

    name: str
    data: Data
    method: CycleGan = CycleGan()
    generator: Generator = Generator()
    discriminators: tuple[Discriminator, ...] = (Discriminator(),)
    temporal: Temporal = Temporal()
    train: Train = Train()
    card: Card = Card()

    def to_yaml(self) -> str:
        """The recipe with every default written out."""
        plain = json.loads(json.dumps(dataclasses.asdict(self)))
        return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))

    @property
    def digest(self) -> str:
        """SHA-256 of the resolved recipe, in hexadecimal; where its folders lie does not matter."""
        data = dataclasses.replace(self.data, a=_unplaced(self.data.a), b=_unplaced(self.data.b))
        start = self.train.start_from
        train = dataclasses.replace(self.train, start_from=None if start is None else Path(start).name)
        return hashlib.sha256(dataclasses.replace(self, data=data, train=train).to_yaml().encode()).hexdigest()


def load(path: Path, changes: dict[str, Any] | None = None) -> Recipe:
    """Reads a recipe; folders become absolute.

    Args:
        path: the YAML file.
        changes: values by dotted key that replace those of the file, such as ``{"train.iterations": 10}``.

    Raises:
        PresetError: if the file is missing, is not YAML, has an unknown key or a value of the wrong type.
    """
    if not path.is_file():
        raise PresetError(f"{path}: no such recipe")
    values = settings.read_yaml(path)
    for dotted, value in (changes or {}).items():
        _assign(values, dotted.split("."), value)
    recipe = settings.parse(Recipe, values, where=str(path))
    _check(recipe, path)
    folder = path.resolve().parent
    data = dataclasses.replace(recipe.data, a=_resolved(recipe.data.a, folder), b=_resolved(recipe.data.b, folder))
    train = recipe.train
    if train.start_from is not None:
        train = dataclasses.replace(train, start_from=str((folder / train.start_from).resolve()))
    return dataclasses.replace(recipe, data=data, train=train)


def _check(recipe: Recipe, path: Path) -> None:
    """Refuses values of the right type that cannot be trained with."""
    step = MULTIPLE_OF[recipe.generator.name]
    for key, size in (("data.size", recipe.data.size), ("data.small_size", recipe.data.small_size)):
        if size is not None and any(side < step or side % step for side in size):
            raise PresetError(f"{path}: {key}: {list(size)} given, the sides must be multiples of {step}")
    if not re.fullmatch(r"[\w.-]+", recipe.name):
        raise PresetError(
            f"{path}: name: '{recipe.name}' given, expected letters, digits, '-' and '_': it names a folder"
        )
    for key, number in (("iterations", recipe.train.iterations), ("batch", recipe.train.batch)):
        if number < 1:
            raise PresetError(f"{path}: train.{key}: {number} given, expected at least 1")


def _assign(values: dict[str, Any], keys: list[str], value: Any) -> None:
    """Sets one nested value, making the mappings on the way."""
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    values[keys[-1]] = value


def _unplaced(folders: tuple[FrameFolder, ...]) -> tuple[FrameFolder, ...]:
    """The same folders by their last two names."""
    return tuple(dataclasses.replace(folder, path="/".join(Path(folder.path).parts[-2:])) for folder in folders)


def _resolved(folders: tuple[FrameFolder, ...], base: Path) -> tuple[FrameFolder, ...]:
    """The same folders with absolute paths."""
    return tuple(dataclasses.replace(folder, path=str((base / folder.path).resolve())) for folder in folders)
