"""A trained run, ready to translate frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from streamgan.api import ModelError, UsageError
from streamgan.settings import nearest
from streamgan_training import checkpoint
from streamgan_training import recipe as recipes
from streamgan_training.measuring.metrics import Image
from streamgan_training.method import Method
from streamgan_training.recipe import Recipe


class FrameModel(nn.Module):
    """A translator from frames to frames: scaling, clamping and rounding included.

    Args:
        translator: what `Method.translator` gives.
    """

    def __init__(self, translator: nn.Module) -> None:
        super().__init__()
        self.translator = translator

    def forward(self, frames: Tensor, domain: Tensor | None = None) -> Tensor:
        """uint8 ``(N, H, W, 3)`` RGB → the same; with several domains also ``(N,)`` int64, those to translate to."""
        x = (frames.float() / 127.5 - 1.0).permute(0, 3, 1, 2)
        y = self.translator(x) if domain is None else self.translator(x, domain)
        y = y.permute(0, 2, 3, 1)  # first, so that a network that ends in this order needs no other
        return torch.round(torch.clamp((y + 1.0) * 127.5, 0.0, 255.0)).to(torch.uint8)


@dataclasses.dataclass(frozen=True)
class Trained:
    """Averaged generators and how to use them."""

    recipe: Recipe
    method: Method
    generators: nn.Module
    """In eval mode."""
    step: int

    @property
    def multiple_of(self) -> int:
        """Sides of frames must be multiples of this, in pixels."""
        return self.method.multiple_of

    def model(self, direction: str | None = None) -> FrameModel:
        """The frame model of a direction, the method's first one by default.

        Raises:
            UsageError: if the method has no such direction.
        """
        known = self.method.directions
        name = known[0] if direction is None else direction
        if name not in known:
            raise UsageError(f"no direction is called '{name}'{nearest(name, known)} (known: {', '.join(known)})")
        return FrameModel(self.method.translator(self.generators, name)).eval()


def load_trained(run: Path, plugin_files: Sequence[Path] = ()) -> Trained:
    """The averaged generators of a run's newest checkpoint.

    Args:
        run: a run folder, or one checkpoint of it, such as its ``best``.
        plugin_files: single-file plugins that may bring the method.

    Raises:
        ModelError: if the folder is no run or has no checkpoint.
    """
    inside = run.parent.name == "checkpoints" or (run.name == "best" and (run / checkpoint.STATE).is_file())
    home = (run.parent.parent if run.parent.name == "checkpoints" else run.parent) if inside else run
    saved = [run] if inside else checkpoint.list_checkpoints(run / "checkpoints")
    if not (home / "recipe.yaml").is_file() or not saved:
        raise ModelError(f"{run}: not a run folder with a checkpoint; expected recipe.yaml and checkpoints/NUMBER")
    recipe = recipes.load(home / "recipe.yaml", plugin_files=plugin_files)
    method = recipe.method_class(recipe)
    checkpoint.load_module(method.generators, "ema", saved[-1])
    return Trained(recipe, method, method.generators.eval(), checkpoint.step_of(saved[-1]))


def translate(model: FrameModel, frames: Image, domain: int | None = None, device: str | torch.device = "cpu") -> Image:
    """Runs a frame model on ``(N, H, W, 3)`` uint8 RGB, one by one, to `domain` if it has several."""
    made = []
    with torch.no_grad():
        for frame in frames:
            target = None if domain is None else torch.tensor([domain], device=device)
            made.append(model(torch.from_numpy(frame[None].copy()).to(device), target).cpu().numpy()[0])
    return np.stack(made)
