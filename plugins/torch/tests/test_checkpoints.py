"""A checkpoint gives what the training package makes of it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from streamgan import api, testing
from streamgan_torch import backends, checkpoints

pytest.importorskip("streamgan_training")

from streamgan_training import checkpoint, recipe
from streamgan_training.trained import load_trained, translate

PAIR = """
name: tiny
data:
  domains: {bright: [{path: a}], dark: [{path: b}]}
  size: [48, 32]
method: {name: cyclegan}
generator: {name: compact, width: 6, norm: batch}
card: {licence: CC0-1.0, creator: tests}
"""
MANY = """
name: many
data:
  domains: {plain: [{path: a}], bright: [{path: b}], dark: [{path: c}]}
  size: [48, 32]
method: {name: stargan}
generator: {name: compact, width: 6, norm: batch}
card: {licence: CC0-1.0, creator: tests}
"""


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_it_runs_as_in_training(precision: torch.dtype, tmp_path: Path) -> None:
    file, images = make_run(tmp_path, PAIR), testing.make_images(2, 32, 48)
    expected = translate(load_trained(tmp_path).model(), images)
    model = checkpoints.Checkpoint(file, torch.device("cpu"), precision)
    with torch.inference_mode():
        made = model.lay_out({"frames": (images.shape, torch.uint8)})(torch.from_numpy(images.copy())).numpy()
    assert np.abs(made.astype(int) - expected).max() <= (1 if precision is torch.float32 else 12)


def test_a_session_knows_sizes_and_domains(tmp_path: Path) -> None:
    file, images = make_run(tmp_path, MANY), testing.make_images(2, 32, 48)
    session = backends.TorchCpu().load(file, threads=1)
    assert session.multiple_of == 4 and session.domains == ("plain", "bright", "dark")
    made = session.run(images, {"domain": np.array([2, 0])})
    model = load_trained(tmp_path).model()
    for number, domain in enumerate((2, 0)):
        expected = translate(model, images[number : number + 1], domain)
        assert np.abs(made[number].astype(int) - expected[0]).max() <= 1
    with pytest.raises(api.BackendError, match="given the inputs frames, expected frames, domain"):
        session.run(images)
    session.close()


def test_a_damaged_checkpoint_and_a_missing_package_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_run(tmp_path, PAIR)
    file.write_bytes(b"\0" * 100)
    with pytest.raises(api.ModelError, match="00000003"):
        backends.TorchCpu().load(file, threads=1)
    monkeypatch.setitem(sys.modules, "streamgan_training.trained", None)
    with pytest.raises(api.BackendError, match="needs the package streamgan-training"):
        backends.TorchCpu().load(file, threads=1)


def make_run(folder: Path, text: str) -> Path:
    """A run folder with a checkpoint of random weights."""
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    settings = recipe.load(folder / "recipe.yaml")
    torch.manual_seed(0)
    generators = settings.method_class(settings).generators
    for parameter in generators.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.05)
    checkpoint.save_module(generators, "ema", folder / "checkpoints/00000003", 3)
    return folder / "checkpoints/00000003" / checkpoint.TENSORS
