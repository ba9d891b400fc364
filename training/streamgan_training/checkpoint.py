"""Checkpoints: all state of a training in safetensors and JSON, never a pickle; written whole or not at all.

A checkpoint is a folder ``checkpoints/00001500/`` with ``tensors.safetensors`` and ``state.json``. It is made under
another name, flushed to the disk, then renamed: a folder with a number is always complete.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import Precision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from streamgan.api import ModelError, UsageError
from streamgan_training.method import ReplayPool

FORMAT = 2
TENSORS, STATE = "tensors.safetensors", "state.json"
LOCAL = "process-{}.safetensors"
"""What each process keeps for itself: its replay pools and torch's randomness."""


@dataclasses.dataclass
class State:
    """All that a training must remember. Loading fills the very objects in place."""

    modules: dict[str, nn.Module]
    """Networks and their moving averages, by name."""
    optimizers: dict[str, torch.optim.Optimizer]
    pools: dict[str, ReplayPool] = dataclasses.field(default_factory=dict)
    """Translated frames that are remembered, by name."""
    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time spent on them, over all sessions."""
    best: float | None = None
    """The best score of an evaluation so far; the lower the better."""
    precision: Precision | None = None
    """Has the scale of the losses in ``16-mixed``, which adapts itself."""


def save(
    state: State,
    folder: Path,
    recipe_digest: str,
    keep: int,
    process: int = 0,
    barrier: Callable[[], None] = lambda: None,
) -> Path:
    """Writes a checkpoint, then removes all but the newest `keep`; every process of the training calls it.

    It appears whole or not at all: a process killed at any moment leaves the older ones.

    Args:
        state: what to write; networks and optimisers are those of process 0, being the same everywhere.
        folder: the run's ``checkpoints``, which all processes see.
        recipe_digest: `recipe.Recipe.digest`.
        keep: how many to keep.
        process: number of this process.
        barrier: returns once every process has called it.

    Raises:
        OSError: if the disk is full or the folder cannot be written; older checkpoints stay.
    """
    final = folder / f"{state.step:08d}"
    partial = folder / f".{final.name}.partial"
    try:
        if process == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        barrier()
        save_file(_local(state), partial / LOCAL.format(process))
        barrier()
        if process == 0:
            _complete(state, partial, final, recipe_digest)
        barrier()
    except (OSError, SafetensorError) as error:
        raise OSError(f"{final}: the checkpoint could not be written ({error}); older ones are kept") from None
    finally:
        if process == 0:  # also after Ctrl-C
            shutil.rmtree(partial, ignore_errors=True)
    if process == 0:
        for old in list_checkpoints(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    return final


def _complete(state: State, partial: Path, final: Path, recipe_digest: str) -> None:
    """Writes what all processes share, flushes everything to the disk and gives the folder its name."""
    tensors, scalars = _flatten(state)
    save_file(tensors, partial / TENSORS)
    plain = {
        "format": FORMAT,
        "recipe_digest": recipe_digest,
        "step": state.step,
        "seconds": state.seconds,
        "best": state.best,
        "optimizers": scalars,
        "precision": {} if state.precision is None else state.precision.state_dict(),
    }
    (partial / STATE).write_text(json.dumps(plain), encoding="utf-8")
    for file in partial.iterdir():
        _flush(file)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _flush(final.parent)


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run's ``checkpoints`` folder, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if (path / STATE).is_file())


def load(state: State, folder: Path, recipe_digest: str, process: int = 0) -> None:
    """Fills `state` from a checkpoint folder, made by as many processes as now or by others.

    Raises:
        ModelError: if it is damaged or of another format.
        UsageError: if it belongs to another recipe.
    """
    try:
        plain: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = _read(folder / TENSORS)
        local = [_read(file) for file in sorted(folder.glob(LOCAL.format("*")))]
        own = _read(folder / LOCAL.format(process if (folder / LOCAL.format(process)).is_file() else 0))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder}: not a whole checkpoint ({error})") from None
    if plain.get("format") != FORMAT:
        raise ModelError(f"{folder}: checkpoint format {plain.get('format')}, expected {FORMAT}")
    if plain["recipe_digest"] != recipe_digest:
        raise UsageError(f"{folder}: belongs to another recipe; resume with the 'recipe.yaml' of the run folder")
    _restore(state, tensors, plain["optimizers"])
    _restore_local(state, local, own)
    if state.precision is not None and plain.get("precision"):
        state.precision.load_state_dict(plain["precision"])
    state.step, state.seconds, state.best = int(plain["step"]), float(plain["seconds"]), plain["best"]


def _read(file: Path) -> dict[str, Tensor]:
    """All tensors of a file."""
    with safe_open(file, framework="pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - not a dict


def step_of(folder: Path) -> int:
    """The step of a checkpoint folder."""
    return int(json.loads((folder / STATE).read_text(encoding="utf-8")).get("step", 0))


def save_module(module: nn.Module, name: str, folder: Path, step: int) -> None:
    """Writes one network alone, as a checkpoint that can be translated with but not resumed from."""
    folder.mkdir(parents=True)
    save_file(_alone({f"module.{name}.{key}": value for key, value in module.state_dict().items()}), folder / TENSORS)
    (folder / STATE).write_text(json.dumps({"format": FORMAT, "step": step}), encoding="utf-8")


def newest(run: Path) -> Path:
    """A run's newest checkpoint.

    Raises:
        ModelError: if there is none.
    """
    saved = list_checkpoints(run / "checkpoints")
    if not saved:
        raise ModelError(f"{run}: not a run folder with a checkpoint")
    return saved[-1]


def load_module(module: nn.Module, name: str, folder: Path) -> None:
    """Fills one module, such as ``ema``, from a checkpoint folder.

    Raises:
        ModelError: if the checkpoint is damaged or the module does not fit.
    """
    prefix = f"module.{name}."
    try:
        with safe_open(folder / TENSORS, framework="pt") as file:
            keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118 - not a dict
            module.load_state_dict({key.removeprefix(prefix): file.get_tensor(key) for key in keys})
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torch names every single weight
        short = reason if len(reason) <= 200 else f"{reason[:200]} …"
        raise ModelError(f"{folder}: no such checkpoint, or not of this recipe ({short})") from None


def interpolate(run: Path, other: Path, weight: float, output: Path) -> Path:
    """Makes a run folder whose averaged generator lies between those of two runs: (1 - weight) θ_run + weight θ_other.

    Network interpolation, Wang et al. 2018 (ESRGAN), eq. 4: both must descend from the same training. What one of them
    overdoes is damped without training again.

    Raises:
        ModelError: if one has no checkpoint or a damaged one, or their generators differ.
        OSError: if `output` exists or cannot be written.
    """
    pair = [_averaged(newest(each)) for each in (run, other)]
    shapes = [{key: value.shape for key, value in tensors.items()} for tensors in pair]
    if shapes[0] != shapes[1]:
        raise ModelError(f"{other}: its generator is of another architecture than that of {run}")
    mixed = {
        key: value.lerp(pair[1][key], weight) if value.dtype.is_floating_point else value
        for key, value in pair[0].items()
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    folder = partial / "checkpoints" / "00000000"
    try:
        folder.mkdir(parents=True)
        save_file(mixed, folder / TENSORS)
        (folder / STATE).write_text(json.dumps({"format": FORMAT, "from": [run.name, other.name], "weight": weight}))
        shutil.copy(run / "recipe.yaml", partial)
        partial.rename(output)
    except SafetensorError as error:
        raise OSError(f"{output}: cannot be written ({error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return output


def _averaged(folder: Path) -> dict[str, Tensor]:
    """The averaged generators of a checkpoint.

    Raises:
        ModelError: if it is damaged.
    """
    try:
        return {key: value for key, value in _read(folder / TENSORS).items() if key.startswith("module.ema.")}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder}: not a whole checkpoint ({error})") from None


def write_whole(file: Path, text: str) -> None:
    """Writes a text file whole or not at all: a full disk leaves the one that is there.

    Raises:
        OSError: if it cannot be written.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        _flush(partial)
        partial.replace(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None
    finally:
        partial.unlink(missing_ok=True)


def _flatten(state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The networks' and the optimisers' tensors under flat names, and what of the optimisers is no tensor."""
    tensors: dict[str, Tensor] = {}
    for name, module in state.modules.items():
        tensors |= {f"module.{name}.{key}": value for key, value in module.state_dict().items()}
    scalars: dict[str, Any] = {}
    for name, optimizer in state.optimizers.items():
        packed = optimizer.state_dict()
        scalars[name] = packed["param_groups"]
        for index, values in packed["state"].items():
            tensors |= {f"optimizer.{name}.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
    return _alone(tensors), scalars


def _alone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU; weights that two networks share are written twice, since a file may not hold them once."""
    seen = set[int]()
    alone = {}
    for key, value in tensors.items():
        kept = value.detach().cpu().contiguous()
        alone[key] = kept.clone() if kept.data_ptr() in seen else kept
        seen.add(kept.data_ptr())
    return alone


def _local(state: State) -> dict[str, Tensor]:
    """What this process keeps for itself."""
    tensors: dict[str, Tensor] = {"random.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    for name, pool in state.pools.items():
        for slot, frames in pool.frames.items():
            tensors |= {f"pool.{name}.{slot}.{index}": frame for index, frame in enumerate(frames)}
    return _alone(tensors)


def _restore(state: State, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """The reverse of `_flatten`."""
    for name, module in state.modules.items():
        prefix = f"module.{name}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for name, optimizer in state.optimizers.items():
        prefix = f"optimizer.{name}."
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(prefix):
                index, field = key.removeprefix(prefix).split(".")
                moments.setdefault(int(index), {})[field] = value
        optimizer.load_state_dict({"state": moments, "param_groups": scalars[name]})


def _restore_local(state: State, every: list[dict[str, Tensor]], own: dict[str, Tensor]) -> None:
    """The reverse of `_local`: the pools' slots of all processes, and the randomness of this one."""
    torch.set_rng_state(own["random.torch"])
    if torch.cuda.is_available() and "random.cuda" in own:
        torch.cuda.set_rng_state(own["random.cuda"])
    for name, pool in state.pools.items():
        prefix = f"pool.{name}."
        found: dict[int, dict[int, Tensor]] = {}
        for tensors in every:
            for key, frame in tensors.items():
                if key.startswith(prefix):
                    slot, index = key.removeprefix(prefix).split(".")
                    found.setdefault(int(slot), {})[int(index)] = frame
        pool.frames = {slot: [frames[index] for index in sorted(frames)] for slot, frames in found.items()}


def _flush(path: Path) -> None:
    """Forces a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
