"""Small folders of images and the smallest recipe that exercises every term."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from streamgan_training import loop
from streamgan_training import recipe as recipes

torch.set_num_threads(1)  # networks this small are slower on more

RECIPE = """
name: tiny
data:
  domains:
    bright: [{path: a, hold_out: ["out*"]}]
    dark: [{path: b, hold_out: ["out*"]}]
  size: [48, 32]
  small_size: [32, 32]
  small_until: 0.5
method: {name: cyclegan, warm_up_iterations: 1, pool: 3}
generator: {name: compact, width: 6, norm: batch}
discriminators: [{width: 4, layers: 2}, {width: 4, layers: 1, norm: none, scale: 2}]
terms: {exposure: 1.0, exposure_ceiling: 0.5}
temporal: {kind: synthetic, start: 0.2, every: 2}
train: {iterations: 6, batch: 2, precision: 32-true, log_every: 1, sample_every: 3, checkpoint_every: 3}
card: {direction: bright to dark, licence: Apache-2.0, creator: tests}
"""


def write_images(folder: Path, low: int, high: int, count: int = 8) -> None:
    """Noise on a gradient, between two brightnesses; every fourth is named to be held out."""
    folder.mkdir()
    random = np.random.default_rng(low)
    for index in range(count):
        ramp = np.linspace(low, high, 60)[None, :, None] * np.ones((44, 1, 3))
        pixels = np.clip(ramp + random.normal(0, 8, ramp.shape), 0, 255).astype(np.uint8)
        name = f"out{index}.png" if index % 4 == 0 else f"in{index}.png"
        Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A recipe beside its two folders."""
    write_images(tmp_path / "a", 120, 250)
    write_images(tmp_path / "b", 0, 90)
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


Train = Callable[..., Path]


@pytest.fixture
def train(recipe_file: Path) -> Train:
    """Trains the recipe, or another, in a folder beside it: ``train("name", train__batch=4)`` gives the run folder."""

    def call(name: str = "run", recipe: Path | None = None, resume: bool = False, **changes: object) -> Path:
        folder = recipe_file.parent / name
        folder.mkdir(exist_ok=True)
        path = folder / "recipe.yaml" if resume else recipe or recipe_file
        settings = recipes.load(path, {key.replace("__", "."): value for key, value in changes.items()})
        loop.train(settings, folder, loop.make_fabric(settings.train.precision), resume=resume, warn=print)
        return folder

    return call


@pytest.fixture
def trained(train: Train) -> Path:
    """A run of the tiny recipe."""
    return train()
