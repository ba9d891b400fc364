"""What torch would run on here, found out without importing it: that alone takes a second or two."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path

_OLDEST = (2, 6)
_INSTALL = "install it with: pip install 'torch>=2.6'"
_NAME_BYTES = 100


ASKED_FOR = 1
"""The rank of what is used only where it is asked for."""


@dataclasses.dataclass(frozen=True)
class Device:
    """A kind of device that torch can run on."""

    name: str
    """Torch's name."""
    precisions: tuple[str, ...]
    """What convolutions may compute in there; the first is ``auto``."""
    streams: int
    """How many pictures it may work on at once."""
    rank: int
    """As `streamgan.api.Availability.rank`."""


CUDA = Device("cuda", ("fp16", "bf16", "fp32"), 2, 40)
"""An NVIDIA GPU."""
MPS = Device("mps", ("fp16", "fp32"), 1, 30)
"""The GPU of an Apple computer."""
CPU = Device("cpu", ("fp32",), 4, ASKED_FOR)
"""Any CPU. ONNX Runtime is faster there, so nobody is kept waiting for a trial of it: see the README."""


@dataclasses.dataclass(frozen=True)
class Found:
    """Whether a device is here."""

    usable: bool
    """Whether torch can be expected to run on it."""
    reason: str
    """What it is, or what is missing."""


@functools.cache
def find(device: Device) -> Found:
    """Looks for a device; quick, and imports nothing of torch."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return Found(False, f"the package torch is missing; {_INSTALL}")
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        return Found(False, f"torch {version} is too old; {_INSTALL}")
    if device is MPS:
        here = sys.platform == "darwin" and platform.machine() == "arm64"
        return Found(here, f"torch {version} on the Apple GPU" if here else "this is no Apple computer with a GPU")
    if device is CPU:
        return Found(True, f"torch {version} on the CPU")
    if not _built_for_cuda():
        return Found(False, f"torch {version} was built without CUDA; install a build with it (see pytorch.org)")
    name = _nvidia_gpu()
    return Found(bool(name), f"torch {version} on {name}" if name else "no NVIDIA GPU with a driver was found")


def _built_for_cuda() -> bool:
    """Whether the installed torch has CUDA, as the file of its version says."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return False
    file = Path(spec.submodule_search_locations[0]) / "version.py"
    version = importlib.util.spec_from_file_location("streamgan_torch_version_of_torch", file)
    if version is None or version.loader is None or not file.is_file():
        return False
    module = importlib.util.module_from_spec(version)
    version.loader.exec_module(module)
    return getattr(module, "cuda", None) is not None


def _nvidia_gpu() -> str:
    """The name of the first NVIDIA GPU that the driver shows; empty if there is none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return ""
    count, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return ""
    driver.cuDeviceGetName(name, _NAME_BYTES, 0)
    return name.value.decode(errors="replace") or "an NVIDIA GPU"
