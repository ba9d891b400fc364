"""Runs model files with TensorRT or TensorRT-RTX, on NVIDIA GPUs; ``streamgan tensorrt build`` makes engines ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from streamgan import api
from streamgan_tensorrt.backend import TensorRt as TensorRt

if TYPE_CHECKING:
    import click


@api.hookimpl
def register_backends(register: Callable[[str, type[api.Backend]], None]) -> None:
    """Brings ``tensorrt``."""
    register("tensorrt", TensorRt)


@api.hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Brings ``streamgan tensorrt``; TensorRT is imported only when it runs."""
    from streamgan_tensorrt.command import tensorrt

    register(tensorrt)
