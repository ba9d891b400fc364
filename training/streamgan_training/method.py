"""What a method of training is to the loop: networks, who plays against whom, and what each of them minimises.

A method is one paper in one file. It registers itself by name through the hook ``register_methods``; the loop, the
evaluation and the export know none of them by name.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from streamgan_training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Clips:
    """Consecutive frames of one domain, each clip cut, flipped and jittered as one."""

    frames: Tensor
    """``(N, T, 3, H, W)`` float in [-1, 1]."""
    flow: Tensor | None = None
    """``(N, T - 1, 2, H, W)``: from a pixel of frame t + 1 to where it was in frame t, in pixels, x then y."""
    valid: Tensor | None = None
    """``(N, T - 1, 1, H, W)``: 1 where the flow can be trusted, else 0."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """What one process sees of one step. All randomness hangs on (seed, step, slot), so that neither the number of
    processes nor a restart changes it."""

    step: int
    """Steps done before this one."""
    images: tuple[Tensor, ...]
    """By domain, each ``(N, 3, H, W)`` in [-1, 1]; for a method with `Method.mixed` a single tensor of all domains."""
    labels: Tensor | None = None
    """``(N,)`` int64: the domain of each picture, for a method with `Method.mixed`."""
    clips: tuple[Clips | None, ...] = ()
    """By domain: clips of consecutive frames, where the recipe's `temporal` needs them and the domain has footage."""
    slots: range = range(1)
    """Which pictures of the whole batch these are, over all processes."""
    seed: int = 0
    """That of the recipe."""

    def generator(self, name: str, slot: int) -> torch.Generator:
        """A CPU generator for one purpose and one picture of the whole batch."""
        return torch.Generator().manual_seed(hash_seed(self.seed, self.step, slot, name))

    def randn(self, like: Tensor, name: str) -> Tensor:
        """Standard normal noise of the shape, type and device of `like`, whose first axis is that of the slots."""
        noise = [torch.randn(like.shape[1:], generator=self.generator(name, slot)) for slot in self.slots]
        return torch.stack(noise).to(like)

    def rand(self, like: Tensor, name: str) -> Tensor:
        """Uniform noise in [0, 1), as `randn`."""
        noise = [torch.rand(like.shape[1:], generator=self.generator(name, slot)) for slot in self.slots]
        return torch.stack(noise).to(like)


def hash_seed(*key: object) -> int:
    """A seed that depends on the values of `key` alone: 56 bits."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "big")


@dataclasses.dataclass(frozen=True)
class Direction:
    """One translation of a step, for the terms that any method may add: consistency in time, perceptual loss, …"""

    name: str
    """Such as ``ab``; terms are named after it."""
    source: int
    """Index of the source domain, into `Batch.clips`; 0 for a method with `Method.mixed`."""
    target: int
    """Index of the target domain; 0 for a method with `Method.mixed`."""
    x: Tensor
    """What is translated: ``(N, 3, H, W)`` in [-1, 1]."""
    y: Tensor
    """Its translation, with its graph: the same shape."""
    forward: Callable[[Tensor], Tensor]
    """G: takes and gives as many pictures as `x` has."""
    backward: Callable[[Tensor], Tensor] | None = None
    """The translation back, if the method has one."""
    cycled: Tensor | None = None
    """``backward(y)`` with its graph, where the method has computed it already."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """What one player minimises now."""

    player: str
    """Whose optimiser steps."""
    terms: dict[str, Tensor]
    """Scalars by name, weighted: their sum is minimised."""
    directions: tuple[Direction, ...] = ()
    """The translations of this turn, to which the recipe's `temporal` and `terms` apply."""


@dataclasses.dataclass(frozen=True)
class Published:
    """How the paper optimises; a recipe may say otherwise under ``train``."""

    optimizer: Literal["adam", "adamw", "rmsprop"] = "adam"
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    """For Adam; RMSprop takes the second one as its smoothing constant α."""
    weight_decay: float = 0.0
    schedule: Literal["linear", "halve", "constant"] = "linear"
    """`linear`: constant, then to 0 from `decay_start` on. `halve`: half of it every `decay_start` of the training."""
    decay_start: float = 0.5
    """Fraction of the training."""


class ReplayPool:
    """The last translated frames: the discriminators see half of the time an older one (Shrivastava et al. 2017).

    Every slot of the whole batch remembers frames of its own, so that results do not depend on the number of processes;
    with a batch of 1 it is the pool of Zhu et al. 2017.

    Args:
        size: frames remembered by all slots together; 0 passes everything through.
        batch: slots of the whole batch.
    """

    def __init__(self, size: int, batch: int) -> None:
        self.size = 0 if size == 0 else max(1, size // batch)
        self.frames: dict[int, list[Tensor]] = {}
        """By slot, each ``(3, H, W)``; part of a checkpoint."""

    def exchange(self, images: Tensor, batch: Batch, name: str) -> Tensor:
        """Stores new frames and returns as many: each is the new one or, with probability ½, an older one."""
        if self.size == 0:
            return images.detach()
        pairs = zip(batch.slots, images.detach(), strict=True)
        return torch.stack([self._exchange_one(slot, image, batch.generator(name, slot)) for slot, image in pairs])

    def _exchange_one(self, slot: int, image: Tensor, generator: torch.Generator) -> Tensor:
        """As `exchange`, for one frame."""
        frames = self.frames.setdefault(slot, [])
        if frames and frames[0].shape != image.shape:
            frames.clear()  # the crops' size has changed
        if len(frames) < self.size:
            frames.append(image.clone())  # a view would keep the whole batch in memory
            return image
        if torch.rand((), generator=generator) >= 0.5:
            return image
        index = int(torch.randint(self.size, (), generator=generator))
        old, frames[index] = frames[index], image.clone()
        return old.to(image.device)


@contextlib.contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Networks that judge but do not learn: no gradient is computed for their weights."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


class Method(nn.Module, abc.ABC):
    """One way of training translators.

    A subclass makes its networks in ``__init__`` (after ``super().__init__(recipe)``), among them `generators`, and
    plays a step in `turns`. Everything that must survive a restart is a parameter, a buffer, an optimiser's state or in
    `pools`; randomness comes from the `Batch`.
    """

    @dataclasses.dataclass(frozen=True)
    class Options:
        """The keys of a recipe's ``method:``; a subclass replaces this, and keeps `name`.

        A field with the metadata ``path`` is a file's path, relative to the recipe.
        """

        name: str = ""

    published: ClassVar[Published] = Published()
    """How the paper optimises."""
    mixed: ClassVar[bool] = False
    """True if a batch is one tensor of pictures of all domains with labels, False if it is one tensor a domain."""
    domains: ClassVar[int | None] = 2
    """How many domains the method translates between; None for any number."""
    multiple_of: int = 4
    """Height and width of what the generators take must be multiples of this, in pixels."""
    generators: nn.Module
    """What translates: its moving average is what is exported."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.options: Any = recipe.method
        """The `Options`."""
        self.pools: dict[str, ReplayPool] = {}
        """By name; part of a checkpoint."""

    @abc.abstractmethod
    def players(self) -> Mapping[str, nn.Module]:
        """The networks that learn together, by player; a player's weights are those of its module.

        The player whose turns have directions is called ``generators``.
        """

    @abc.abstractmethod
    def turns(self, batch: Batch) -> Iterator[Turn]:
        """Plays one step.

        Yields the turns in the order in which the players learn; between two of them the loop differentiates the
        terms' sum, averages the gradients over the processes and steps the player's optimiser. Networks of others are
        `frozen` by the method while it computes a player's terms.
        """

    @abc.abstractmethod
    def translator(self, generators: nn.Module, direction: str) -> nn.Module:
        """The network of one direction, made of `generators` or a copy of them (their moving average).

        Args:
            generators: as `self.generators`.
            direction: one of `directions`.

        Returns:
            Takes ``(N, 3, H, W)`` in [-1, 1] and gives the same; of a multi-domain method it also takes ``(N,)`` int64,
            the domains to translate to.
        """

    @property
    def directions(self) -> tuple[str, ...]:
        """The names of the translations that can be exported; the first is the default."""
        return ("ab", "ba")

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """A player's optimiser: as published, where the recipe does not say otherwise."""
        train = self.recipe.train.resolved(self.published)
        if train.optimizer == "rmsprop":
            return torch.optim.RMSprop(
                parameters, train.learning_rate, alpha=train.betas[1], weight_decay=train.weight_decay
            )
        kind = torch.optim.AdamW if train.optimizer == "adamw" else torch.optim.Adam
        return kind(parameters, train.learning_rate, train.betas, weight_decay=train.weight_decay)

    def learning_rate(self, player: str, step: int) -> float:
        """A player's learning rate: a function of the step alone."""
        train = self.recipe.train.resolved(self.published)
        start = max(1.0, train.decay_start * self.recipe.train.iterations)
        if train.schedule == "halve":
            return float(train.learning_rate * 0.5 ** (step // start))
        if train.schedule == "constant":
            return train.learning_rate
        left = (self.recipe.train.iterations - step) / max(1.0, self.recipe.train.iterations - start)
        return train.learning_rate * min(1.0, left)

    def begin_from(self, run: Path) -> None:
        """Takes over the networks of a trained run, before the first step; by default those of the same players.

        Raises:
            ModelError: if the run has no checkpoint, or its networks are others.
        """
        from streamgan_training import checkpoint

        newest = checkpoint.newest(run)
        for name, module in self.players().items():
            checkpoint.load_module(module, name, newest)

    def after_step(self, player: str) -> None:
        """Called after a player's optimiser has stepped, for example to clip weights."""
