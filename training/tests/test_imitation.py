"""Imitation: the objective against arithmetic of its own, the teacher's pictures, and bad teachers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from streamgan.api import ModelError, PresetError
from streamgan.model import ModelCard, SizeRule, write_card
from streamgan_training import export, recipe
from streamgan_training.method import Batch
from streamgan_training.methods.imitation import Imitation
from streamgan_training.trained import FrameModel

RECIPE = """
name: tiny
data:
  domains: {a: [{path: a}], b: [{path: b}]}
  size: [32, 32]
method: {name: imitation, teacher: models/teacher.onnx}
generator: {name: swift, width: 4, norm: batch}
train: {iterations: 60, precision: 32-true}
"""


class Teacher(nn.Module):
    """Turns to night: half as bright, and bluish; or something that is no teacher."""

    def __init__(self, enlarges: bool = False) -> None:
        super().__init__()
        self.enlarges = enlarges
        self.tint = nn.Parameter(torch.tensor([-0.2, -0.1, 0.1]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → the same, or twice the size."""
        night = (x - 1) / 2 + self.tint
        return nn.functional.interpolate(night, scale_factor=2.0) if self.enlarges else night


def make(folder: Path, teacher: nn.Module | None = None, **changes: object) -> Imitation:
    """The method, in a folder with a recipe and a teacher."""
    (folder / "models").mkdir()
    (folder / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    if teacher is not None:
        file = folder / "models/teacher.onnx"
        export.write_graph(FrameModel(teacher).eval(), file, SizeRule(16, (32, 32)))
        write_card(file, ModelCard("teacher", "none", "a to b", "CC0-1.0", "tests", SizeRule(16, (32, 32))))
    settings = recipe.load(folder / "tiny.yaml", dict(changes))
    torch.manual_seed(0)
    method = settings.method_class(settings)
    assert isinstance(method, Imitation)
    return method


def pictures(count: int = 2) -> Tensor:
    """Smooth noise in [-1, 1]."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(-1, 1)


def test_the_lesson_is_what_the_teacher_draws(tmp_path: Path) -> None:
    given = pictures()
    wanted = Teacher()(given).clamp(-1, 1)
    assert (make(tmp_path, Teacher()).lesson(given) - wanted).abs().max().item() <= 1.01 / 127.5


def test_the_objective_is_the_one_that_is_documented(tmp_path: Path) -> None:
    method, random = make(tmp_path, Teacher()), np.random.default_rng(0)
    one, other = (random.uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32) for _ in range(2))
    losses = method.losses(torch.tensor(one), torch.tensor(other))
    difference = one - other
    edges = sum(np.abs(np.diff(difference, axis=axis)).mean() for axis in (2, 3))
    assert losses["l1"].item() == pytest.approx(10 * np.abs(difference).mean(), rel=1e-4)
    assert losses["edges"].item() == pytest.approx(10 * edges, rel=1e-4)
    same = method.losses(torch.tensor(one), torch.tensor(one))
    assert all(value.item() == pytest.approx(0, abs=1e-4) for value in same.values())


def test_the_student_learns_to_draw_as_the_teacher(tmp_path: Path) -> None:
    method = make(tmp_path, Teacher())
    optimizer = torch.optim.Adam(method.players()["generators"].parameters(), 5e-3)
    sums = []
    for step in range(40):
        (turn,) = method.turns(Batch(step, (pictures(), pictures())))
        loss = torch.stack([*turn.terms.values()]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        sums.append(loss.item())
    assert sums[-1] < 0.2 * sums[0]


def test_the_teacher_is_looked_for_beside_the_recipe_and_only_when_it_teaches(tmp_path: Path) -> None:
    method = make(tmp_path)
    assert method.options.teacher == str(tmp_path / "models/teacher.onnx")
    with pytest.raises(ModelError, match=r"models/teacher\.onnx: no such model file"):
        method.lesson(pictures())


def test_no_teacher_is_named(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"method\.teacher: nothing given, expected a model file"):
        make(tmp_path, **{"method.teacher": ""}).lesson(pictures())


def test_a_teacher_that_enlarges_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="expected a model that keeps the size"):
        make(tmp_path, Teacher(enlarges=True)).lesson(pictures())


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    method = make(tmp_path)
    (tmp_path / "models/teacher.onnx").write_bytes(b"no model at all")
    with pytest.raises(ModelError, match="not an ONNX model"):
        method.lesson(pictures())
