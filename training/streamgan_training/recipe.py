"""The recipe: every knob of a training, typed, with the unit in its name or its docstring.

A recipe is a YAML file. Its ``method:`` names the paper, whose own defaults hold where the recipe is silent; without
one it is Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks" (CycleGAN).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from streamgan import plugins, settings
from streamgan.api import PresetError, option
from streamgan_training.augment import Augmentation
from streamgan_training.frames import domains
from streamgan_training.frames.camera import Camera
from streamgan_training.method import Method, Published
from streamgan_training.stability.temporal import Temporal
from streamgan_training.terms import Terms

GeneratorName = Literal["resnet9", "resnet6", "unet256", "unet128", "unet64", "compact", "swift"]
Upsampling = Literal["transpose", "resize", "antialiased"]
NormName = Literal["instance", "batch", "none"]
LARGEST_SIDE = 16384
"""Of a crop, in pixels."""


@dataclasses.dataclass(frozen=True)
class Footage:
    """One folder of images or of numbered frames, or one film."""

    path: str
    """A folder, searched recursively, or a video file; relative to the recipe."""
    weight: float = option(1.0, minimum=0, maximum=1e9)
    """How often it is drawn from, relative to the other footage of its domain."""
    exclude: tuple[str, ...] = ()
    """Glob patterns of file names that are left out altogether."""
    hold_out: tuple[str, ...] = ()
    """Glob patterns of file names that are kept from training and used to evaluate: name whole scenes, whole films."""
    labels: str | None = None
    """A CSV file with a column ``file``, relative to the recipe, to choose by its other columns."""
    where: dict[str, str] = dataclasses.field(default_factory=dict)
    """Only files whose columns in `labels` have these values."""
    film: bool = False
    """Whether a folder of numbered images is a film. A video file, or a folder of them, is one in any case."""

    def __post_init__(self) -> None:
        if self.where and self.labels is None:
            raise ValueError(f"where: {self.where} given, but no 'labels': the CSV file that has these columns")


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Largest random changes of colour, as torchvision's ColorJitter takes them; 0 is none."""

    brightness: float = option(0.0, minimum=0, maximum=10)
    contrast: float = option(0.0, minimum=0, maximum=10)
    saturation: float = option(0.0, minimum=0, maximum=10)
    hue: float = option(0.0, minimum=0, maximum=0.5)
    """At most 0.5, half way round the circle."""


@dataclasses.dataclass(frozen=True)
class Labels:
    """Domains by the values of one column of a CSV file."""

    file: str
    """The CSV file, with a column ``file``; relative to the recipe."""
    column: str
    """Whose values name the domains."""
    folder: str
    """Where the files of the column ``file`` lie; relative to the recipe."""
    hold_out: tuple[str, ...] = ()
    """As in `Footage`."""


@dataclasses.dataclass(frozen=True)
class Data:
    """The domains, and how a crop is made of a frame. Give one of `domains`, `tree` and `labels`."""

    domains: dict[str, tuple[Footage, ...]] = dataclasses.field(default_factory=dict)
    """Footage by the name of its domain, in order: of two, the first is A, the source look, and the second B."""
    tree: str | None = None
    """A folder whose sub-folders are the domains, in alphabetical order; relative to the recipe."""
    labels: Labels | None = None
    """Domains from a label file."""
    tree_hold_out: tuple[str, ...] = ()
    """As `Footage.hold_out`, for all domains of `tree`."""
    paired: bool = False
    """Whether files of the same name in two domains show the same: they are drawn and cropped together."""
    size: tuple[int, int] = (256, 256)
    """(width, height) of a crop as the networks see it, in pixels."""
    small_size: tuple[int, int] | None = None
    """(width, height) of the crops of the first part of the training, or None: coarse before fine."""
    small_until: float = option(0.0, minimum=0, maximum=1)
    """Fraction of the training that uses `small_size`."""
    crop_area: tuple[float, float] = (0.6, 1.0)
    """Smallest and largest part of the frame's area that a crop takes (0.8 is the paper's 256 out of 286)."""
    crop_aspect: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest ratio of a crop's sides, relative to the ratio of `size`."""
    flip: bool = True
    """Whether to mirror half of the crops."""
    jitter: dict[str, Jitter] = dataclasses.field(default_factory=dict)
    """Random changes of a domain's colours, by its name, so that footage of other colours is no surprise."""
    camera: dict[str, Camera] = dataclasses.field(default_factory=dict)
    """What a worse camera and codec do to a domain's frames, by its name."""
    workers: int | None = option(None, minimum=0, maximum=256)
    """Processes that make batches ahead; None for two beside a GPU, else none."""
    load_short_side: int = option(360, minimum=1)
    """Frames larger than this are reduced when they are read (antialiased), in pixels."""
    clip_stride_seconds: float | None = None
    """Time between two frames of a clip; None for the film's own next frame."""
    cache_gigabytes: float = option(4.0, minimum=0, maximum=1e6)
    """Decoded frames kept in memory, at most; those of films lie on disk."""

    def __post_init__(self) -> None:
        for key, size in (("size", self.size), ("small_size", self.small_size)):
            if size is not None and not all(1 <= side <= LARGEST_SIDE for side in size):
                raise ValueError(f"{key}: {list(size)} given, expected [width, height], each 1 to {LARGEST_SIDE}")
        for key, (low, high), most in (("crop_area", self.crop_area, 1), ("crop_aspect", self.crop_aspect, 100)):
            if not 0 < low <= high <= most:
                raise ValueError(f"{key}: [{low}, {high}] given, expected [smallest, largest], above 0, at most {most}")


@dataclasses.dataclass(frozen=True)
class Generator:
    """The architecture of the generators, for methods that do not bring their own."""

    name: GeneratorName = "resnet9"
    width: int = option(64, minimum=1, maximum=4096)
    """Channels of the first level: 64 in the paper, 24 for `compact`, 16 for `swift`."""
    norm: NormName = "instance"
    """Normalisation; `batch` folds into the convolutions at export."""
    upsampling: Upsampling = "transpose"
    """`resnet` only. `transpose` as in the paper; `resize`: nearest neighbour, then a convolution (Odena et al. 2016);
    `antialiased`: blurred down- and up-sampling (Zhang 2019), which shimmers less under motion."""
    dropout: float = option(0.0, minimum=0, maximum=1)
    """Probability, for `unet` only."""


@dataclasses.dataclass(frozen=True)
class Discriminator:
    """One PatchGAN discriminator; several of them judge at several scales."""

    width: int = option(64, minimum=1, maximum=4096)
    """Channels of the first level."""
    layers: int = option(3, minimum=1, maximum=10)
    """Strided levels: 3 is the paper's receptive field of 70² pixels."""
    norm: NormName = "instance"
    scale: int = option(1, minimum=1, maximum=64)
    """The picture is averaged down by this factor before it is judged."""
    weight: float = option(1.0, minimum=0)
    """Weight of its verdict in the generators' loss."""


@dataclasses.dataclass(frozen=True)
class Train:
    """The loop."""

    start_from: str | None = None
    """A run folder whose networks this training begins with, relative to the recipe; None to begin from nothing."""
    iterations: int = option(200_000, minimum=1, maximum=10**9)
    batch: int = option(1, minimum=1, maximum=65536)
    """Pictures of each domain in one step, over all processes."""
    micro_batch: int | None = option(None, minimum=1)
    """Pictures that one process computes at once; None for all of its share. Less saves memory, and changes nothing
    else where the norms are not `batch`."""
    optimizer: Literal["adam", "adamw", "rmsprop"] | None = None
    """None, here and below: as the method's paper has it."""
    learning_rate: float | None = option(None, minimum=0, maximum=1000)
    betas: tuple[float, float] | None = None
    weight_decay: float | None = option(None, minimum=0, maximum=1000)
    schedule: Literal["linear", "halve", "constant"] | None = None
    decay_start: float | None = option(None, minimum=0, maximum=1)
    """Fraction of the training after which the learning rate falls linearly to 0."""
    ema_decay: float = option(0.999, minimum=0, maximum=1)
    """Of the exponential moving average of the generators, which is what is exported."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    compile: bool = False
    """Whether to compile the generators (`torch.compile`); discriminators stay eager."""
    seed: int = option(0, minimum=0, maximum=2**32 - 1)
    log_every: int = option(20, minimum=1)
    sample_every: int = option(500, minimum=1)
    checkpoint_every: int = option(500, minimum=1)
    keep_checkpoints: int = option(2, minimum=1)
    evaluate_every: int = option(0, minimum=0)
    """Steps between two evaluations on held-out frames and `evaluate_clips`; 0 for none."""
    evaluate_clips: tuple[str, ...] = ()
    """Films to measure flicker on, relative to the recipe."""
    wandb_project: str | None = None
    """Weights & Biases, where it is installed, mirrors what TensorBoard gets."""

    def __post_init__(self) -> None:
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: {list(self.betas)} given, expected two numbers, 0 or more and below 1")

    def resolved(self, published: Published) -> Published:
        """How to optimise: `published`, with what the recipe says instead."""
        names = [field.name for field in dataclasses.fields(Published)]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return dataclasses.replace(published, **given)


@dataclasses.dataclass(frozen=True)
class Card:
    """What the model file will say of itself."""

    direction: str = ""
    """In words, such as "day to night"; empty to name the domains."""
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
    method: Method.Options = dataclasses.field(default_factory=Method.Options, metadata={"key": False})
    """The `Options` of the method that it names."""
    generator: Generator = Generator()
    discriminators: tuple[Discriminator, ...] = (Discriminator(),)
    augmentation: Augmentation = Augmentation()
    """Of what the discriminators see."""
    temporal: Temporal = Temporal()
    terms: Terms = Terms()
    """Further terms of the generators' objective."""
    train: Train = Train()
    card: Card = Card()
    method_class: type[Method] = dataclasses.field(default=Method, repr=False, metadata={"key": False})  # type: ignore[type-abstract]
    """The method itself."""

    def to_yaml(self) -> str:
        """The recipe with every default written out."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["method_class"]
        plain = json.loads(json.dumps(values, default=dataclasses.asdict))
        return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))

    @property
    def digest(self) -> str:
        """SHA-256 of the resolved recipe, in hexadecimal; where its files lie does not matter."""
        return hashlib.sha256(_replaced(self, _last_names).to_yaml().encode()).hexdigest()

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the domains, in order."""
        return tuple(self.data.domains)


def load(path: Path, changes: dict[str, Any] | None = None, plugin_files: Sequence[Path] = ()) -> Recipe:
    """Reads a recipe; paths become absolute, and the domains of a tree or a label file are spelled out.

    Args:
        path: the YAML file.
        changes: values by dotted key that replace those of the file, such as ``{"train.iterations": 10}``.
        plugin_files: single-file plugins that may bring the method.

    Raises:
        PresetError: if the file is missing, is not YAML, has an unknown key or a value of the wrong type.
        UsageError: if no method has the name.
    """
    if not path.is_file():
        raise PresetError(f"{path}: no such recipe")
    values = settings.read_yaml(path)
    for dotted, value in (changes or {}).items():
        _assign(values, dotted.split("."), value)
    options = values.pop("method", None) or {}
    if not isinstance(options, dict):
        raise PresetError(f"{path}: method: {options!r} given, expected keys, such as 'name: cyclegan'")
    name = str(options.get("name", "cyclegan"))
    method = plugins.load_methods(plugin_files).method(name)
    parsed = settings.parse(method.Options, {"name": name} | options, where=f"{path}: method")
    recipe = settings.parse(Recipe, values, where=str(path))
    recipe = dataclasses.replace(recipe, method=parsed, method_class=method)
    folder = path.resolve().parent
    recipe = domains.spelled_out(_replaced(recipe, lambda given: str((folder / given).resolve())), path)
    _check(recipe, path)
    return recipe


def _check(recipe: Recipe, path: Path) -> None:
    """Refuses values of the right type that cannot be trained with."""
    if not re.fullmatch(r"[\w.-]+", recipe.name):
        raise PresetError(
            f"{path}: name: '{recipe.name}' given, expected letters, digits, '-' and '_': it names a folder"
        )
    if recipe.terms.paired and not recipe.data.paired:
        raise PresetError(f"{path}: terms.paired: {recipe.terms.paired} given, but data.paired is not set to true")
    if recipe.data.paired and recipe.method_class.mixed:
        raise PresetError(f"{path}: data.paired: true given, but {recipe.method.name} draws from all domains at once")
    smallest = min(*recipe.data.size, *(recipe.data.small_size or recipe.data.size))
    if recipe.terms.exposure and recipe.terms.exposure_region > smallest:
        words = f"{path}: terms.exposure_region: {recipe.terms.exposure_region} given"
        raise PresetError(f"{words}, expected at most the side of a crop, {smallest}")
    if not recipe.discriminators:
        raise PresetError(f"{path}: discriminators: none given, expected at least one, such as {{layers: 3}}")
    for name, footages in recipe.data.domains.items():
        if not any(one.weight for one in footages):
            raise PresetError(f"{path}: data.domains.{name}: expected at least one folder or film of a weight above 0")
    wanted, given = recipe.method_class.domains, len(recipe.domains)
    if wanted is not None and given != wanted:
        raise PresetError(f"{path}: data: {given} domains given, the method {recipe.method.name} needs {wanted}")
    for key in ("jitter", "camera"):
        for name in getattr(recipe.data, key):
            if name not in recipe.domains:
                near = settings.nearest(name, recipe.domains)
                raise PresetError(f"{path}: data.{key}: no domain is called '{name}'{near}")


def check_sizes(recipe: Recipe, multiple_of: int) -> None:
    """Refuses crops that the generators cannot take.

    Raises:
        PresetError: if a side is no multiple of `multiple_of`.
    """
    for key, size in (("data.size", recipe.data.size), ("data.small_size", recipe.data.small_size)):
        if size is not None and any(side < multiple_of or side % multiple_of for side in size):
            raise PresetError(f"{recipe.name}: {key}: {list(size)} given, the sides must be multiples of {multiple_of}")


def _assign(values: dict[str, Any], keys: list[str], value: Any) -> None:
    """Sets one nested value, making the mappings on the way.

    Raises:
        PresetError: if there is something on the way that has no keys.
    """
    for depth, key in enumerate(keys[:-1], 1):
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            way = ".".join(keys[:depth])
            raise PresetError(f"{'.'.join(keys)}: cannot be set, {way} has no keys (it is a {type(values).__name__})")
    values[keys[-1]] = value


def _last_names(path: str) -> str:
    """The last two names of a path."""
    return "/".join(Path(path).parts[-2:])


def _replaced(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    """The recipe with every path changed."""

    def changed(path: str | None) -> str | None:
        return None if path is None else change(path)

    def footage(one: Footage) -> Footage:
        return dataclasses.replace(one, path=change(one.path), labels=changed(one.labels))

    data, labels, train = recipe.data, recipe.data.labels, recipe.train
    if labels is not None:
        labels = dataclasses.replace(labels, file=change(labels.file), folder=change(labels.folder))
    data = dataclasses.replace(
        data,
        domains={name: tuple(footage(one) for one in footages) for name, footages in data.domains.items()},
        tree=changed(data.tree),
        labels=labels,
    )
    clips = tuple(change(path) for path in train.evaluate_clips)
    train = dataclasses.replace(train, start_from=changed(train.start_from), evaluate_clips=clips)
    named = [field.name for field in dataclasses.fields(recipe.method) if field.metadata.get("path")]
    paths = {name: change(getattr(recipe.method, name)) for name in named if getattr(recipe.method, name)}
    return dataclasses.replace(recipe, data=data, train=train, method=dataclasses.replace(recipe.method, **paths))
