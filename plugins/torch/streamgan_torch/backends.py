"""The backends: torch on the best device there is, and on one that is asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import ClassVar

from streamgan import api
from streamgan_torch import devices
from streamgan_torch.devices import ASKED_FOR, CPU, CUDA, MPS, Device

COMPILE = "STREAMGAN_TORCH_COMPILE"
"""Environment variable: 1 to run graphs through `torch.compile`, which needs a C++ compiler on this machine."""


class Torch(api.Backend):
    """Torch on an NVIDIA GPU, else on an Apple one, else on the CPU."""

    precisions = CUDA.precisions
    max_streams = CPU.streams
    candidates: ClassVar[tuple[Device, ...]] = (CUDA, MPS, CPU)
    """The best first."""

    @classmethod
    def availability(cls) -> api.Availability:
        """Usable where one of the devices is; says which."""
        found = [(device, devices.find(device)) for device in cls.candidates]
        for device, state in found:
            if state.usable:
                return api.Availability(True, state.reason, device.rank if len(found) > 1 else ASKED_FOR)
        return api.Availability(False, found[-1][1].reason)

    def load(self, path: Path, *, threads: int, precision: str = "auto", streams: int = 1) -> api.Session:
        """Loads a model file, or the ``tensors.safetensors`` of a checkpoint of streamgan's training.

        ``auto`` is fp16 on a GPU and fp32 on the CPU. A GPU that was found and then cannot be used is an error, not a
        reason to take the CPU. On the CPU `threads` holds for all that the process does with torch, which counts its
        threads in no other way.

        Raises:
            BackendError: if torch, the device or the precision is missing, or the model cannot be read.
        """
        device = next((each for each in self.candidates if devices.find(each).usable), None)
        if device is None:
            raise api.BackendError(f"torch: {self.availability().reason}")
        chosen = device.precisions[0] if precision == "auto" else precision
        if chosen not in device.precisions:
            raise api.BackendError(
                f"torch: precision {chosen} is not possible on {device.name}; choose {', '.join(device.precisions)}"
            )
        if not path.is_file():
            raise api.BackendError(f"torch: {path}: no such model file")
        if device is CPU and "torch" not in sys.modules:  # its threads would spin while they wait, on others' cores
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        try:
            from streamgan_torch import sessions
        except ImportError as error:
            raise api.BackendError(
                f"torch: a package is missing or broken ({error}); install it with: pip install streamgan-torch"
            ) from None
        compiled = os.environ.get(COMPILE, "") not in ("", "0")
        return sessions.load(path, device, chosen, threads, min(streams, device.streams), compiled)


class TorchCuda(Torch):
    """Torch on an NVIDIA GPU."""

    max_streams = CUDA.streams
    device = CUDA.name
    candidates = (CUDA,)


class TorchMps(Torch):
    """Torch on the GPU of an Apple computer."""

    precisions = MPS.precisions
    max_streams = MPS.streams
    device = MPS.name
    candidates = (MPS,)


class TorchCpu(Torch):
    """Torch on the CPU."""

    precisions = CPU.precisions
    max_streams = CPU.streams
    device = CPU.name
    candidates = (CPU,)
