"""Imitation: a fast generator learns to draw what a model file draws.

Distillation of outputs alone (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"), which is regression
here: the teacher is any streamgan model file that keeps the size of pictures, run by ONNX Runtime, and the student G
minimises

  λ_L1 E|G(a) − T(a)| + λ_edges E|∇G(a) − ∇T(a)| + λ_SSIM (1 − SSIM(G(a), T(a)))

over pictures a of the first domain. Nothing plays against it, so it neither drifts nor flickers more than its teacher,
and it needs no weights of the teacher but the file that is shipped. Pictures of the second domain are only what the
evaluation compares with. `distillation` is the method for a teacher that still learns, or whose inside is at hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamgan import api
from streamgan.model import INPUT, read_card
from streamgan_training import modelfile, networks
from streamgan_training.method import Batch, Direction, Method, Published, Turn
from streamgan_training.methods.distillation import ssim
from streamgan_training.recipe import Recipe


class Imitation(Method):
    """The method ``imitation``: the recipe's ``generator`` is the student."""

    @dataclasses.dataclass(frozen=True)
    class Options(Method.Options):
        """Who teaches, and the weights of the objective."""

        teacher: str = dataclasses.field(default="", metadata={"path": True})
        """The teacher's model file, relative to the recipe."""
        lambda_l1: float = api.option(10.0, minimum=0)
        """λ_L1"""
        lambda_edges: float = api.option(10.0, minimum=0)
        """λ_edges"""
        lambda_ssim: float = api.option(1.0, minimum=0)
        """λ_SSIM"""

    published = Published(optimizer="adam", learning_rate=1e-3, betas=(0.9, 0.999), schedule="linear", decay_start=0.3)
    options: Options

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.generators: nn.ModuleDict = nn.ModuleDict({"ab": networks.make_generator(recipe.generator)})
        self.multiple_of = networks.MULTIPLE_OF[recipe.generator.name]
        self._teacher: onnxruntime.InferenceSession | None = None  # opened when it first teaches: an export needs none

    def players(self) -> Mapping[str, nn.Module]:
        """The student alone."""
        return {"generators": self.generators}

    @property
    def directions(self) -> tuple[str, ...]:
        """One only."""
        return ("ab",)

    def translator(self, generators: nn.Module, direction: str) -> nn.Module:
        """The student."""
        return generators.get_submodule(direction)

    def turns(self, batch: Batch) -> Iterator[Turn]:
        """The only turn."""
        a, student = batch.images[0], self.generators["ab"]
        given, wanted = student(a), self.lesson(a)
        yield Turn("generators", self.losses(given, wanted), (Direction("ab", 0, 1, a, given, student),))

    def losses(self, given: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """The objective, term by term, weighted; both ``(N, 3, H, W)`` in [-1, 1]."""
        options = self.options
        edges = sum((F.l1_loss(given.diff(dim=axis), wanted.diff(dim=axis)) for axis in (2, 3)), given.new_zeros(()))
        return {
            "l1": options.lambda_l1 * F.l1_loss(given, wanted),
            "edges": options.lambda_edges * edges,
            "ssim": options.lambda_ssim * (1 - ssim(given, wanted)),
        }

    def lesson(self, a: Tensor) -> Tensor:
        """T(a): what the teacher draws, of and as ``(N, 3, H, W)`` in [-1, 1].

        Raises:
            PresetError: if no teacher is named, or it does not keep the size of pictures.
            ModelError: if it is no model file of one direction.
        """
        if self._teacher is None:
            self._teacher = self._open_teacher()
        frames = torch.round((a.detach().float().cpu() + 1) * 127.5).clamp(0, 255).to(torch.uint8)
        shown = frames.permute(0, 2, 3, 1).contiguous().numpy()
        drawn = modelfile.draw(self._teacher, {INPUT: shown}, Path(self.options.teacher))
        wanted = torch.from_numpy(drawn).permute(0, 3, 1, 2).to(a.device, a.dtype) / 127.5 - 1
        if wanted.shape != a.shape:
            raise api.PresetError(
                f"method.teacher: {self.options.teacher} draws {tuple(wanted.shape)} of {tuple(a.shape)}, expected a "
                "model that keeps the size; choose another"
            )
        return wanted

    def _open_teacher(self) -> onnxruntime.InferenceSession:
        """The teacher, on the processor."""
        if not self.options.teacher:
            raise api.PresetError("method.teacher: nothing given, expected a model file (.onnx); name one")
        path = Path(self.options.teacher)
        card = read_card(path)
        if card.domains:
            raise api.ModelError(f"method.teacher: {path} translates to several domains, expected a model of one look")
        return modelfile.load_session(path)
