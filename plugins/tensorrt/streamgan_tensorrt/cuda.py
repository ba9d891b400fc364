"""The GPU: NVIDIA's own Python bindings of the CUDA runtime, with errors that say what failed."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamgan import api

MISSING = "the package cuda-bindings is missing; install it with: pip install cuda-bindings"
"""What to say where the bindings are not installed."""
_DRIVER = Path("/sys/module/nvidia/version")


@dataclasses.dataclass(frozen=True)
class Device:
    """The GPU that is used: the first one that CUDA shows (CUDA_VISIBLE_DEVICES chooses)."""

    name: str
    """Such as ``NVIDIA GeForce RTX 4090``."""
    capability: str
    """Its compute capability, such as ``8.9``."""
    driver: str
    """The newest CUDA that its driver knows, and the driver's own version where the system tells it."""

    def __str__(self) -> str:
        """For people."""
        return f"{self.name} (compute capability {self.capability}, driver {self.driver})"


def installed() -> bool:
    """Whether the bindings are there, found without importing them."""
    try:
        return importlib.util.find_spec("cuda.bindings.runtime") is not None
    except ImportError:
        return False


@functools.cache
def runtime() -> Any:
    """The bindings of the CUDA runtime.

    Raises:
        BackendError: if they are missing or cannot be loaded.
    """
    try:
        from cuda.bindings import runtime as bindings
    except ImportError as error:
        raise api.BackendError(f"tensorrt: {MISSING} ({' '.join(str(error).split())})") from None
    return bindings


def checked(cuda: Any, doing: str, result: Sequence[Any]) -> Any:
    """What a call of CUDA returned beside its status: nothing, one value, or several.

    Args:
        cuda: the bindings.
        doing: what it was called for, for the message.
        result: the status and the values.

    Raises:
        BackendError: if the status is an error.
    """
    status, *values = result
    if status != cuda.cudaError_t.cudaSuccess:
        _, words = cuda.cudaGetErrorString(status)
        raise api.BackendError(f"tensorrt: CUDA failed while {doing} ({words.decode()})")
    return values[0] if len(values) == 1 else values


def find_device() -> Device:
    """The GPU that would be used.

    Raises:
        BackendError: if there is none, its driver is missing or too old, or the bindings are missing.
    """
    cuda = runtime()
    status, count = cuda.cudaGetDeviceCount()
    if status != cuda.cudaError_t.cudaSuccess or not count:
        _, words = cuda.cudaGetErrorString(status)
        reason = words.decode() if status != cuda.cudaError_t.cudaSuccess else "CUDA_VISIBLE_DEVICES hides them all"
        raise api.BackendError(f"tensorrt: no CUDA device: an NVIDIA GPU and its driver are needed ({reason})")
    properties = checked(cuda, "looking at the GPU", cuda.cudaGetDeviceProperties(0))
    known = checked(cuda, "looking at the driver", cuda.cudaDriverGetVersion())
    driver = f"CUDA {known // 1000}.{known % 1000 // 10}"
    if _DRIVER.is_file():
        driver = f"{_DRIVER.read_text(encoding='utf-8').strip()}, {driver}"
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Device(name.rstrip("\0"), f"{properties.major}.{properties.minor}", driver)
