"""Runs model files and checkpoints with torch: on NVIDIA GPUs, Apple GPUs and CPUs."""

from __future__ import annotations

from collections.abc import Callable

from streamgan import api
from streamgan_torch.backends import Torch, TorchCpu, TorchCuda, TorchMps


@api.hookimpl
def register_backends(register: Callable[[str, type[api.Backend]], None]) -> None:
    """Brings ``torch``, which takes the best device, and one backend for each device."""
    register("torch", Torch)
    register("torch-cuda", TorchCuda)
    register("torch-mps", TorchMps)
    register("torch-cpu", TorchCpu)
