"""Engines: found where they are kept, else built."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from streamgan_tensorrt import cache, graph
from streamgan_tensorrt.build import build
from streamgan_tensorrt.cuda import Device
from streamgan_tensorrt.profiles import Profile, Shape
from streamgan_tensorrt.progress import OnProgress, announce
from streamgan_tensorrt.runtime import Runtime

_RECIPE = 1
"""Counts up when `graph.typed` or `build` comes to make other engines of the same model."""
_TURING = "7.5"
"""The one compute capability that TensorRT-RTX knows and does not build for by default."""


@dataclasses.dataclass(frozen=True)
class Source:
    """What engines are made of, whatever their shapes."""

    path: Path
    """The model file."""
    precision: str
    """What it is computed in."""
    graph: bytes
    """Its graph, in these types."""
    runtime: Runtime
    facts: dict[str, Any]
    """What decides whether an engine may be used: weights, precision, runtime, and what GPU it is for."""
    capability: str = ""
    """The compute capability to build for, with TensorRT-RTX; empty for its default, all from Ampere on."""
    further: tuple[dict[str, Any], ...] = ()
    """As `facts`, of engines that were built otherwise and may be used too."""

    @classmethod
    def open(cls, runtime: Runtime, path: Path, precision: str, device: Device | None, capability: str = "") -> Self:
        """Reads a model file.

        Args:
            runtime: TensorRT.
            path: the ``.onnx`` file.
            precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
            device: the GPU to run on, for which alone TensorRT builds; None builds ahead, with TensorRT-RTX.
            capability: what to build for with TensorRT-RTX; by default what runs on `device`.

        Raises:
            BackendError: if the file is missing or no model.
        """
        typed = graph.typed(path, precision)
        weights = hashlib.sha256(path.read_bytes()).hexdigest()
        facts = {"model": weights, "precision": precision, "runtime": runtime.name, "recipe": _RECIPE}
        if not runtime.portable:
            return cls(path, precision, typed, runtime, {**facts, "gpu": str(device)}, capability)
        if device and device.capability == _TURING:
            capability = _TURING
        own = {**facts, "gpu": f"any of compute capability {capability}" if capability else "any from Ampere on"}
        narrow = {**facts, "gpu": f"any of compute capability {device.capability}"} if device else own
        return cls(path, precision, typed, runtime, own, capability, (narrow,) if narrow != own else ())


def obtain(source: Source, shape: Shape) -> cache.Entry:
    """The engine for pictures of a shape: kept, or built for just that shape and kept.

    Raises:
        BackendError: if TensorRT refuses to build it.
    """
    kept = find(source, shape)
    if kept is not None:
        return kept
    count, height, width = shape
    title = f"{source.path.name}, {count} of {width}x{height}, {source.precision}"
    return make(source, [Profile.static(shape)], announce(title), shape)


def find(source: Source, shape: Shape) -> cache.Entry | None:
    """The engine that is kept for pictures of a shape, if there is one."""
    folder = cache.open_folder()
    found = (cache.find(folder, facts, shape) for facts in (*source.further, source.facts))
    return next((entry for entry in found if entry is not None), None)


def make(
    source: Source, profiles: Sequence[Profile], on_progress: OnProgress, shape: Shape | None = None
) -> cache.Entry:
    """Builds an engine and keeps it.

    Args:
        source: what it is made of.
        profiles: the shapes that it is for.
        on_progress: told how far it is.
        shape: if another program builds an engine for it meanwhile, that one is taken.

    Raises:
        BackendError: if TensorRT refuses.
    """
    folder = cache.open_folder()
    with cache.locked(folder):
        kept = find(source, shape) if shape else None
        if kept is not None:
            return kept
        times = _timing_file(folder, source)
        began = time.monotonic()
        plan = build(
            source.runtime,
            source.graph,
            profiles,
            on_progress,
            exact=source.precision == "fp32",
            capability=source.capability,
            timing=(times and cache.read(times)) or b"",
        )
        more = {"file": source.path.name, "tensors": plan.tensors, "seconds": round(time.monotonic() - began, 1)}
        if times and plan.timing:
            cache.keep(times, plan.timing)
        return cache.store(folder, source.facts, profiles, plan.engine, more)


def kernels_file(source: Source, device: Device) -> Path | None:
    """Where the kernels are kept that TensorRT-RTX compiled for this model and GPU; None if nothing is."""
    folder = cache.open_folder()
    return folder and folder / f"{cache.identify({**source.facts, 'device': str(device)})}.kernels"


def _timing_file(folder: Path | None, source: Source) -> Path | None:
    """Where the times are kept that TensorRT measured, of all models alike; None if nothing is, or nothing measured."""
    if folder is None or source.runtime.portable:
        return None
    return folder / f"{cache.identify({key: source.facts[key] for key in ('runtime', 'gpu')})}.timing"
