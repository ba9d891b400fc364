"""Checkpoints of streamgan's training, run without an export; the package streamgan-training must be installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamgan import api


class Checkpoint:
    """The averaged generator of a checkpoint.

    Args:
        path: its ``tensors.safetensors``, in a run folder; the recipe there says what network that is.
        device: where it runs.
        precision: of the convolutions; in half, torch's autocast chooses what stays in fp32.

    Raises:
        BackendError: if the training package is missing.
        ModelError: if it is no checkpoint, or a damaged one.
    """

    def __init__(self, path: Path, device: torch.device, precision: torch.dtype) -> None:
        try:
            from streamgan_training.trained import load_trained
        except ImportError as error:
            raise api.BackendError(
                f"torch: {path}: a checkpoint needs the package streamgan-training ({error}); install it, or export a "
                "model file with: streamgan export RUN -o model.onnx"
            ) from None
        trained = load_trained(path.parent)
        self.multiple_of: int = trained.multiple_of
        """Sides of pictures must be multiples of this, in pixels."""
        self.domains: tuple[str, ...] = trained.recipe.domains if trained.method.mixed else ()
        """What it translates to, if there are several."""
        self.inputs: tuple[str, ...] = ("frames", "domain") if self.domains else ("frames",)
        """Names of the inputs."""
        self._model = trained.model().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self._device, self._precision = device, precision

    def lay_out(self, inputs: Mapping[str, tuple[tuple[int, ...], Any]]) -> nn.Module:
        """The network, the same for all shapes."""
        return self._model if self._precision is torch.float32 else _Half(self._model, self._device, self._precision)


class _Half(nn.Module):
    """A network under autocast."""

    def __init__(self, network: nn.Module, device: torch.device, precision: torch.dtype) -> None:
        super().__init__()
        self.network, self._device, self._precision = network, device, precision

    def forward(self, *inputs: Tensor) -> Tensor:
        """As the network's."""
        with torch.autocast(self._device.type, self._precision, cache_enabled=False):  # a cache outlives no CUDA graph
            made: Tensor = self.network(*inputs)
        return made
