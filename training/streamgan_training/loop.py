"""The training loop, readable from top to bottom: data, players, steps, records, checkpoints."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.seed import seed_everything
from torch import Tensor, nn

from streamgan.api import PluginError, StreamganError, UsageError
from streamgan_training import checkpoint, terms
from streamgan_training.augment import Augment
from streamgan_training.frames import batches, data
from streamgan_training.method import Batch, Direction, Method, Turn
from streamgan_training.recipe import Recipe, check_sizes
from streamgan_training.record import Record
from streamgan_training.stability.consistency import Consistency, check_footage

EXPLODED = 1e6
"""A loss beyond this has left every useful range."""


def train(
    recipe: Recipe,
    folder: Path,
    fabric: Fabric,
    *,
    resume: bool = False,
    warn: Callable[[str], None] = lambda _: None,
    on_step: Callable[[int, dict[str, float]], None] = lambda *_: None,
) -> Path:
    """Trains a recipe in a run folder; under ``torchrun`` every process calls it.

    Args:
        recipe: what to train; saved as ``recipe.yaml`` in the folder.
        folder: an existing run folder, the same for all processes.
        fabric: from `make_fabric`.
        resume: continue from the folder's newest checkpoint, as if the run had not stopped.
        warn: is told of images that are skipped and the like.
        on_step: is called after each step with the number of steps done and the losses so far.

    Returns:
        The last checkpoint.

    Raises:
        UsageError: if the data or the checkpoint do not fit.
        StreamganError: if a loss or a weight is no number any more, or has exploded.
        PluginError: if the method breaks the contract of `Method`.
        OSError: if a checkpoint cannot be written.
    """
    settings = recipe.train
    seed_everything(settings.seed, verbose=False)
    slots = share(settings.batch, fabric.global_rank, fabric.world_size)
    domains = recipe.data.domains.values()
    length = recipe.temporal.clip_length
    sets = [data.load_domain(footages, recipe.data, warn, clip_length=length) for footages in domains]
    steps = batches.Steps(recipe, batches.drawings(recipe, sets), slots)
    batches.check_pairs(steps)
    check_footage(recipe.temporal, footage_of(recipe, steps, length))

    method = recipe.method_class(recipe).to(fabric.device).to(memory_format=torch.channels_last)
    check_sizes(recipe, method.multiple_of)
    consistency = Consistency(recipe.temporal, settings.iterations, 1 if method.mixed else len(sets)).to(fabric.device)
    judges = terms.load_networks(recipe.terms, fabric.device)
    players = check_players(recipe, dict(method.players())) | dict(consistency.players())
    learning = {name: [*module.parameters()] for name, module in players.items()}
    learning["generators"] += consistency.generator_networks().parameters()
    optimizers = {name: method.optimizer(name, weights) for name, weights in learning.items()}
    steppers: dict[str, Any] = {name: fabric.setup_optimizers(optimizer) for name, optimizer in optimizers.items()}
    average = copy.deepcopy(method.generators).eval().requires_grad_(False)
    modules = players | {"ema": average, "predictors": consistency.generator_networks()}
    state = checkpoint.State(modules, optimizers, method.pools, precision=fabric.strategy.precision)

    saved = checkpoint.list_checkpoints(folder / "checkpoints")
    if resume and not saved:
        raise UsageError(f"{folder}: has no checkpoint to resume from")
    if resume:
        checkpoint.load(state, saved[-1], recipe.digest, fabric.global_rank)
    elif settings.start_from is not None:
        method.begin_from(Path(settings.start_from))
        average.load_state_dict(method.generators.state_dict())
    if settings.compile:
        for network in method.generators.children():
            network.compile()

    micro = min(settings.micro_batch or len(slots), len(slots))
    workers = recipe.data.workers if recipe.data.workers is not None else 2 * (fabric.device.type != "cpu")
    with Record(folder, recipe, method, average, sets, fabric) as record:
        record.begin(state)
        clock = time.perf_counter()
        for batch in batches.batches_from(steps, state.step, workers):
            waited = time.perf_counter() - clock
            for name, optimizer in optimizers.items():
                for group in optimizer.param_groups:
                    group["lr"] = method.learning_rate(name, batch.step)

            # Every part of the batch plays the same turns; a player learns when all parts have played its turn.
            parts = batches.parts_of(batches.moved_to(batch, fabric.device), micro)
            plays = [play(method, consistency, judges, recipe, part) for part in parts]
            losses: dict[str, Tensor] = {}
            while name := play_turn(plays, parts, steppers, losses, fabric):
                average_gradients(learning[name], fabric)
                check_losses(losses, batch.step + 1)
                steppers[name].step()
                after_step(method, players[name], name)
            update_average(average, method.generators, settings.ema_decay, batch.step)

            state.step = batch.step + 1
            took = time.perf_counter() - clock
            state.seconds += took
            values = {name: float(value) for name, value in average_losses(losses, fabric).items()}
            on_step(state.step, values)
            record.step(state, values, waited / took)
            if state.step == settings.iterations or state.step % settings.checkpoint_every == 0:
                check_weights(state.modules, state.step)
                checkpoint.save(
                    state, folder / "checkpoints", recipe.digest, settings.keep_checkpoints,
                    fabric.global_rank, fabric.barrier,
                )  # fmt: skip
            clock = time.perf_counter()
    return checkpoint.list_checkpoints(folder / "checkpoints")[-1]


def make_fabric(precision: str) -> Fabric:
    """One process on the best device, or one of those that ``torchrun`` started: all devices of all machines."""
    chosen = choose_precision(precision)
    processes, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if processes == 1:
        return Fabric(accelerator="auto", devices=1, precision=chosen)  # type: ignore[arg-type]
    nodes = processes // local
    fabric = Fabric(accelerator="auto", devices=local, num_nodes=nodes, strategy="ddp", precision=chosen)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def choose_precision(precision: str) -> str:
    """Resolves ``auto``: bf16 where the device computes in it, else fp32."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return "bf16-mixed" if "avx512_bf16" in flags or "amx_bf16" in flags else "32-true"


def share(batch: int, process: int, processes: int) -> range:
    """The slots of the whole batch that a process computes.

    Raises:
        UsageError: if the batch cannot be shared evenly.
    """
    if batch % processes:
        raise UsageError(f"train.batch: {batch} given, expected a multiple of the {processes} processes")
    size = batch // processes
    return range(process * size, (process + 1) * size)


def footage_of(recipe: Recipe, steps: batches.Steps, length: int) -> list[bool]:
    """By domain, whether it has clips of `length` frames; one value for a method of mixed batches."""
    found = [bool(length) and bool(domain.clip_places(length)) for domain in steps.domains]
    return [any(found)] if recipe.method_class.mixed else found


def play(
    method: Method, consistency: Consistency, judges: terms.TermNetworks, recipe: Recipe, batch: Batch
) -> Iterator[Turn]:
    """One step of the method, with the terms that the recipe adds to its translations."""
    directions: tuple[Direction, ...] = ()
    for turn in method.turns(batch):
        added = consistency.terms(turn.directions, batch) if turn.directions else {}
        for direction in turn.directions:
            target = batch.images[direction.target] if recipe.data.paired else None
            added |= terms.extra_terms(recipe.terms, direction, target, judges)
        directions = turn.directions or directions
        yield dataclasses.replace(turn, terms=turn.terms | added)
    yield from consistency.turns(directions, batch)


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Says what to do where a GPU's memory is not enough.

    Raises:
        StreamganError: in place of torch's error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ")[0]
        raise StreamganError(
            f"not enough memory ({reason}); set train.micro_batch to 1, or lower train.batch or data.size"
        ) from None


@enough_memory()
def play_turn(
    plays: list[Iterator[Turn]],
    parts: list[Batch],
    steppers: Mapping[str, torch.optim.Optimizer],
    losses: dict[str, Tensor],
    fabric: Fabric,
) -> str:
    """Plays the next turn of every part of the batch, one after the other, so that one part's graph is held at a time.

    Args:
        plays: the step of each part.
        parts: of the batch of this process.
        steppers: the optimisers, by player.
        losses: what the batch's losses are added up in.
        fabric: differentiates.

    Returns:
        The player whose gradients are ready; empty when the step is over.
    """
    whole = sum(len(part.slots) for part in parts)
    player = ""
    for number, (one, part) in enumerate(zip(plays, parts, strict=True)):
        with fabric.autocast():
            turn = next(one, None)
        check_turn(turn, player if number else None, steppers, part.step)
        if turn is None:
            continue
        if number == 0:
            steppers[turn.player].zero_grad()
        player = turn.player
        fabric.backward(len(part.slots) / whole * torch.stack(list(turn.terms.values())).sum())
        add_up(losses, turn.terms, len(part.slots) / whole)
    return player


def check_players(recipe: Recipe, players: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The players of a method, if the loop can train them.

    Raises:
        PluginError: if none is called ``generators``, or one has nothing to learn.
    """
    given = ", ".join(players) or "none"
    if "generators" not in players:
        raise PluginError(f"{recipe.method_class.__qualname__}.players: {given} given, one must be called 'generators'")
    for name, module in players.items():
        if not any(True for _ in module.parameters()):
            raise PluginError(f"{recipe.method_class.__qualname__}.players: '{name}' has no weights that could learn")
    return players


def check_turn(turn: object, expected: str | None, players: Collection[str], step: int) -> None:
    """Refuses what no player can learn from.

    Args:
        turn: what a method's `turns` gave; None if it has ended.
        expected: the player of the batch's other parts, empty if their step is over; None for the first part.
        players: those there are.
        step: steps done before this one.

    Raises:
        PluginError: naming what is wrong.
    """
    where = f"step {step + 1}: the method's turns"
    given = turn.player if isinstance(turn, Turn) else ""
    if turn is not None and not isinstance(turn, Turn):
        raise PluginError(f"{where} gave {type(turn).__name__}, expected Turn")
    if expected is not None and given != expected:
        names = f"'{given}' and '{expected}'" if given and expected else f"'{given or expected}' and none"
        raise PluginError(f"{where} differ between two parts of a batch: {names}; every part must play the same")
    if turn is None:
        return
    if given not in players:
        raise PluginError(f"{where}: no player is called '{given}' (known: {', '.join(players)})")
    if not any(term.requires_grad for term in turn.terms.values()) or any(term.dim() for term in turn.terms.values()):
        raise PluginError(f"{where}: '{given}' must minimise scalars with gradients, by name; got {list(turn.terms)}")


def add_up(losses: dict[str, Tensor], terms: dict[str, Tensor], weight: float) -> None:
    """Adds a part's share to the losses of the batch."""
    for name, value in terms.items():
        losses[name] = losses.get(name, torch.zeros_like(value)) + weight * value.detach()


def average_gradients(weights: list[nn.Parameter], fabric: Fabric) -> None:
    """Averages a player's gradients over the processes, in one message.

    Instead of wrapping networks in DistributedDataParallel: a step calls a network several times, differentiates twice
    for gradient penalties, and leaves some weights unused, all of which that wrapper forbids or needs switches for.
    """
    if fabric.world_size == 1:
        return
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= fabric.world_size
    for weight, part in zip(weights, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True):
        weight.grad = part.view_as(weight).clone(memory_format=torch.preserve_format)


def average_losses(losses: dict[str, Tensor], fabric: Fabric) -> dict[str, Tensor]:
    """The losses of the whole batch, over all processes."""
    if fabric.world_size == 1:
        return losses
    flat = torch.stack([value.float() for value in losses.values()])
    torch.distributed.all_reduce(flat)
    return dict(zip(losses, flat / fabric.world_size, strict=True))


def check_losses(losses: dict[str, Tensor], step: int) -> None:
    """Stops a training that has diverged, before it overwrites a good checkpoint.

    Raises:
        StreamganError: naming the loss and the step.
    """
    if bool((torch.stack(list(losses.values())).abs() < EXPLODED).all()):  # one wait for the device, not one a loss
        return
    for name, value in losses.items():
        if not abs(float(value)) < EXPLODED:
            raise StreamganError(
                f"step {step}: the loss '{name}' is {float(value)}; lower train.learning_rate, or use 32-true"
            )


def check_weights(modules: Mapping[str, nn.Module], step: int) -> None:
    """Stops a training whose weights have diverged, before it overwrites a good checkpoint.

    Raises:
        StreamganError: naming the network and the step.
    """
    for name, module in modules.items():
        if not all(bool(weight.isfinite().all()) for weight in module.parameters()):
            raise StreamganError(
                f"step {step}: weights of the {name} are no numbers any more; the checkpoints before are whole; "
                "lower train.learning_rate, or use 32-true"
            )


def after_step(method: Method, module: nn.Module, player: str) -> None:
    """What follows a player's step: the method's own, and the strength of its augmentations."""
    method.after_step(player)
    for each in module.modules():
        if isinstance(each, Augment):
            each.adjust()


def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """One step of the exponential moving average, over weights and buffers alike; the decay ramps up at the start."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(new.to(kept), 1 - decay)
            else:
                kept.copy_(new)
