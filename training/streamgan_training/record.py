"""What a training writes about itself: ``stats.jsonl`` (the truth), TensorBoard (its mirror), pictures, evaluations."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import resource
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid, save_image

from streamgan.api import UsageError
from streamgan_training import checkpoint
from streamgan_training.augment import Augment
from streamgan_training.frames import batches
from streamgan_training.frames.data import Pictures
from streamgan_training.measuring import evaluate
from streamgan_training.method import Method
from streamgan_training.recipe import Recipe

SAMPLES = 6
"""Frames of the sample grid."""
STATS, EVALUATIONS = "stats.jsonl", "evaluations.jsonl"
HELD_OUT = 48
"""Held-out frames of each domain that are measured while training."""


class Record:
    """The records of one run. Only the first process writes."""

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        method: Method,
        average: nn.Module,
        sets: Sequence[Sequence[Pictures]],
        fabric: Fabric,
    ) -> None:
        self.folder, self.recipe, self.method, self.average = folder, recipe, method, average
        self.writes = fabric.is_global_zero
        self.device = fabric.device
        self.samples = fixed_samples(recipe, sets).to(fabric.device)
        self.board: SummaryWriter | None = None
        self.lock: IO[str] | None = None
        self.evaluation: evaluate.Evaluation | None = None

    def begin(self, state: checkpoint.State) -> None:
        """Begins a session: what was written after the checkpoint that it continues from is dropped.

        Raises:
            UsageError: if another process trains in the folder, or the recipe holds nothing out to evaluate on.
            OSError: if the folder cannot be written.
        """
        if not self.writes:
            return
        self.lock = lock(self.folder)
        train = self.recipe.train
        if train.evaluate_every:
            clips = [Path(clip) for clip in train.evaluate_clips]
            self.evaluation = evaluate.Evaluation(self.recipe, clips, HELD_OUT)
        if train.wandb_project is not None:
            _start_wandb(train.wandb_project, self.folder, self.recipe)
        checkpoint.write_whole(self.folder / "recipe.yaml", self.recipe.to_yaml())
        for name in (STATS, EVALUATIONS):
            keep_until(self.folder / name, state.step)
        self.board = SummaryWriter(str(self.folder), purge_step=state.step + 1 if state.step else None)
        if state.step == 0:
            self.pictures(0)

    def step(self, state: checkpoint.State, losses: dict[str, float], waited: float) -> None:
        """Notes a step that is done; `waited` is the fraction of its time in which it waited for data."""
        if not self.writes:
            return
        train, step = self.recipe.train, state.step
        last = step == train.iterations
        if last or step % train.log_every == 0:
            self.note(state, losses, waited)
        if last or step % train.sample_every == 0:
            self.pictures(step)
        if self.evaluation is not None and (last or step % train.evaluate_every == 0):
            self.evaluate(state)

    def note(self, state: checkpoint.State, losses: dict[str, float], waited: float) -> None:
        """One line of ``stats.jsonl``."""
        observed = {
            f"augment_p/{name}": float(module.probability)
            for name, module in self.method.named_modules()
            if isinstance(module, Augment)
        }
        observed["waiting_for_data"] = round(waited, 4)
        rates = {name: self.method.learning_rate(name, state.step - 1) for name in self.method.players()}
        line = {
            "step": state.step,
            "losses": losses,
            "observed": observed,
            "learning_rate": rates,
            "seconds": round(state.seconds, 3),
            "memory_bytes": peak_memory(self.device),
        }
        _append(self.folder / STATS, line)
        assert self.board is not None
        for group, values in (("loss", losses), ("observed", observed), ("learning_rate", rates)):
            for name, value in values.items():
                self.board.add_scalar(f"{group}/{name}", value, state.step)

    def pictures(self, step: int) -> None:
        """Saves the sample grid."""
        grid = sample_grid(self.method, self.average, self.samples, len(self.recipe.domains))
        (self.folder / "samples").mkdir(exist_ok=True)
        save_image(grid, self.folder / "samples" / f"{step:08d}.png")
        assert self.board is not None
        self.board.add_image("samples", grid, step)

    def evaluate(self, state: checkpoint.State) -> None:
        """Measures the averaged generators on held-out frames; the best ones so far are kept in ``best``."""
        assert self.evaluation is not None and self.board is not None
        measured, _ = self.evaluation.measure(self.method, self.average, deep=False)
        score = evaluate.score(measured)
        best = math.isfinite(score) and (state.best is None or score < state.best)
        if best:
            state.best = score
            partial = self.folder / ".best.partial"
            shutil.rmtree(partial, ignore_errors=True)
            checkpoint.save_module(self.average, "ema", partial, state.step)
            shutil.rmtree(self.folder / "best", ignore_errors=True)
            partial.rename(self.folder / "best")
        self.evaluation.write_strips(self.method, self.average, self.folder / "strips", state.step)
        found = measured | {"score": score}
        metrics = {name: value for name, value in found.items() if math.isfinite(value)}
        _append(self.folder / EVALUATIONS, {"step": state.step, "metrics": metrics, "best": best})
        for name, value in measured.items():
            self.board.add_scalar(f"metric/{name}", value, state.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Completes what is unfinished; another process may train in the folder now."""
        if self.board is not None:
            self.board.close()
        if self.lock is not None:
            self.lock.close()


def lock(folder: Path) -> IO[str]:
    """Keeps other processes from training in a folder until what is returned is closed, or this process ends.

    Raises:
        UsageError: if another process does.
        OSError: if the folder cannot be written.
    """
    file = (folder / ".lock").open("a")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):  # else the file system has no locks
            file.close()
            raise UsageError(f"{folder}: another process is training in this folder; wait for it, or end it") from None
    return file


def keep_until(file: Path, step: int) -> None:
    """Drops the lines of a file that tell of later steps: a killed run may have got beyond its last checkpoint."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # torn by a kill
    checkpoint.write_whole(file, "".join(f"{line}\n" for line in kept))


def _append(file: Path, line: dict[str, Any]) -> None:
    """Adds one line of JSON."""
    with file.open("a", encoding="utf-8") as text:
        text.write(json.dumps(line) + "\n")


def peak_memory(device: torch.device) -> int:
    """The most memory used so far, in bytes: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def fixed_samples(recipe: Recipe, sets: Sequence[Sequence[Pictures]]) -> Tensor:
    """The frames of the sample grid, the same throughout a run: ``(SAMPLES, 3, H, W)``."""
    drawn = batches.drawings(recipe, sets)
    domains = drawn if recipe.method_class.mixed else drawn[:1]
    pictures = [
        domains[slot % len(domains)].picture((recipe.train.seed, "samples", slot), recipe.data.size)[0]
        for slot in range(SAMPLES)
    ]
    return torch.stack(pictures)


def sample_grid(method: Method, generators: nn.Module, frames: Tensor, domains: int) -> Tensor:
    """Sources above their translations, one row a domain for a multi-domain method: ``(3, H, W)`` in [0, 1]."""
    translator = method.translator(generators, method.directions[0])
    targets = [[torch.tensor([index], device=frames.device)] for index in range(domains)] if method.mixed else [[]]
    with torch.no_grad():
        rows = [torch.cat([translator(frame[None], *target) for frame in frames]) for target in targets]
    grid: Tensor = make_grid((torch.cat((frames, *rows)) + 1) / 2, nrow=len(frames), padding=2)
    return grid.clamp(0, 1)


def _start_wandb(project: str, folder: Path, recipe: Recipe) -> None:
    """Lets Weights & Biases mirror TensorBoard.

    Raises:
        UsageError: if it is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise UsageError("train.wandb_project: wandb is not installed; pip install wandb, or leave it out") from None
    wandb.init(
        project=project, name=folder.name, dir=str(folder), config={"recipe": recipe.to_yaml()}, sync_tensorboard=True
    )
