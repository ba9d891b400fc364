"""Checkpoints: all state of a training in safetensors and JSON, never a pickle; written whole or not at all.

A checkpoint is a folder ``checkpoints/00001500/`` with ``tensors.safetensors`` and ``state.json``. It is made under
another name, flushed to the disk, then renamed: a folder with a number is always complete.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from streamgan.api import ModelError, UsageError

FORMAT = 1
TENSORS, STATE = "tensors.safetensors", "state.json"


@dataclasses.dataclass
class State:
    """All that a training must remember. Loading fills the very objects in place."""

    modules: dict[str, nn.Module]
    """Networks and their moving averages, by name."""
    optimizers: dict[str, torch.optim.Optimizer]
    generators: dict[str, torch.Generator]
    """Sources of randomness beside torch's own."""
    pools: dict[str, list[Tensor]]
    """Frames that the replay pools remember."""
    step: int = 0
    """Steps done."""


def save(state: State, folder: Path, recipe_digest: str, keep: int) -> Path:
    """Writes a checkpoint, then removes all but the newest `keep`.

    Raises:
        OSError: if the disk is full or the folder cannot be written; older checkpoints stay.
    """
    final = folder / f"{state.step:08d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        tensors, scalars = _flatten(state)
        save_file(tensors, partial / TENSORS)
        plain = {"format": FORMAT, "recipe_digest": recipe_digest, "step": state.step, "optimizers": scalars}
        (partial / STATE).write_text(json.dumps(plain), encoding="utf-8")
        for file in partial.iterdir():
            _flush(file)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"{final}: the checkpoint could not be written ({error}); older ones are kept") from None
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run's ``checkpoints`` folder, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if (path / STATE).is_file())


def load(state: State, folder: Path, recipe_digest: str) -> None:
    """Fills `state` from a checkpoint folder.

    Raises:
        ModelError: if it is damaged or of another format.
        UsageError: if it belongs to another recipe.
    """
    try:
        plain: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        with safe_open(folder / TENSORS, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder}: not a whole checkpoint ({error})") from None
    if plain.get("format") != FORMAT:
        raise ModelError(f"{folder}: checkpoint format {plain.get('format')}, expected {FORMAT}")
    if plain["recipe_digest"] != recipe_digest:
        raise UsageError(f"{folder}: belongs to another recipe; resume with the 'recipe.yaml' of the run folder")
    _restore(state, tensors, plain["optimizers"])
    state.step = int(plain["step"])


def load_modules(state: State, run: Path) -> None:
    """Fills all networks from a run's newest checkpoint; optimisers, pools and the step stay as they are.

    Raises:
        ModelError: if there is no whole checkpoint, or the networks are others.
    """
    saved = list_checkpoints(run / "checkpoints")
    if not saved:
        raise ModelError(f"{run}: has no checkpoint to start from; mend train.start_from in the recipe")
    for name, module in state.modules.items():
        load_module(module, name, saved[-1])


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
        raise ModelError(f"{folder}: no such checkpoint, or not of this recipe ({error})") from None


def interpolate(run: Path, other: Path, weight: float, output: Path) -> Path:
    """Makes a run folder whose averaged generator lies between those of two runs: (1 - weight) θ_run + weight θ_other.

    Network interpolation, Wang et al. 2018 (ESRGAN), eq. 4: both must descend from the same training. What one of them
    overdoes is damped without training again.

    Raises:
        ModelError: if one has no checkpoint, or their generators differ.
        OSError: if `output` exists or cannot be written.
    """
    pair = []
    for each in (run, other):
        saved = list_checkpoints(each / "checkpoints")
        if not saved:
            raise ModelError(f"{each}: not a run folder with a checkpoint")
        with safe_open(saved[-1] / TENSORS, framework="pt") as file:
            pair.append({key: file.get_tensor(key) for key in file.keys() if key.startswith("module.ema.")})  # noqa: SIM118
    shapes = [{key: value.shape for key, value in tensors.items()} for tensors in pair]
    if shapes[0] != shapes[1]:
        raise ModelError(f"{other}: its generator is of another architecture than that of {run}")
    mixed = {
        key: value.lerp(pair[1][key], weight) if value.dtype.is_floating_point else value
        for key, value in pair[0].items()
    }
    folder = output / "checkpoints" / "00000000"
    folder.mkdir(parents=True)
    save_file(mixed, folder / TENSORS)
    (folder / STATE).write_text(json.dumps({"format": FORMAT, "from": [run.name, other.name], "weight": weight}))
    shutil.copy(run / "recipe.yaml", output)
    return output


def _flatten(state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors under flat names, and what of the optimisers is no tensor."""
    tensors: dict[str, Tensor] = {"random.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    for name, generator in state.generators.items():
        tensors[f"random.{name}"] = generator.get_state()
    for name, module in state.modules.items():
        tensors |= {f"module.{name}.{key}": value for key, value in module.state_dict().items()}
    for name, frames in state.pools.items():
        tensors |= {f"pool.{name}.{index}": frame for index, frame in enumerate(frames)}
    scalars: dict[str, Any] = {}
    for name, optimizer in state.optimizers.items():
        packed = optimizer.state_dict()
        scalars[name] = packed["param_groups"]
        for index, values in packed["state"].items():
            tensors |= {f"optimizer.{name}.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}, scalars


def _restore(state: State, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """The reverse of `_flatten`."""
    torch.set_rng_state(tensors["random.torch"])
    if torch.cuda.is_available() and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
    for name, generator in state.generators.items():
        generator.set_state(tensors[f"random.{name}"])
    for name, module in state.modules.items():
        prefix = f"module.{name}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for name, frames in state.pools.items():
        prefix = f"pool.{name}."
        count = sum(key.startswith(prefix) for key in tensors)
        frames[:] = [tensors[f"{prefix}{index}"] for index in range(count)]
    for name, optimizer in state.optimizers.items():
        prefix = f"optimizer.{name}."
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(prefix):
                index, field = key.removeprefix(prefix).split(".")
                moments.setdefault(int(index), {})[field] = value
        optimizer.load_state_dict({"state": moments, "param_groups": scalars[name]})


def _flush(path: Path) -> None:
    """Forces a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
