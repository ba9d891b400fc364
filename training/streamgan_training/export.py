"""From a checkpoint to the model file: wrap, export, describe, and let nothing through that computes otherwise."""

from __future__ import annotations

import dataclasses
import datetime
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as VF

from streamgan.api import ModelError
from streamgan.model import INPUT, OUTPUT, ModelCard, SizeRule, write_card
from streamgan_training import checkpoint, data, networks, recipe

OPSET = 18
TOLERANCE = 1
"""Largest difference between torch and ONNX Runtime that the gate lets through, in steps of 1/255."""


class FrameModel(nn.Module):
    """A generator from frames to frames: scaling, clamping and rounding included."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 ``(N, H, W, 3)`` RGB → the same."""
        x = frames.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        y = self.generator(x)
        y = torch.round(torch.clamp((y + 1.0) * 127.5, 0.0, 255.0))
        return y.permute(0, 2, 3, 1).to(torch.uint8)


@dataclasses.dataclass(frozen=True)
class Parity:
    """How close ONNX Runtime comes to torch on the same frames."""

    max_difference: int
    """Largest absolute difference, in steps of 1/255."""
    differing: float
    """Fraction of the values that differ at all."""


def load_generator(run: Path) -> tuple[recipe.Recipe, nn.Module, int]:
    """The averaged generator of a run's newest checkpoint.

    Args:
        run: a run folder, or one checkpoint of it.

    Returns:
        The recipe, G_AB in eval mode, and the step.

    Raises:
        ModelError: if the folder is no run or has no checkpoint.
    """
    inside = run.parent.name == "checkpoints"
    home = run.parent.parent if inside else run
    saved = [run] if inside else checkpoint.list_checkpoints(run / "checkpoints")
    if not (home / "recipe.yaml").is_file() or not saved:
        raise ModelError(f"{run}: not a run folder with a checkpoint; expected recipe.yaml and checkpoints/NUMBER")
    settings = recipe.load(home / "recipe.yaml")
    generator = networks.make_generator(settings.generator)
    checkpoint.load_module(generator, "ema", saved[-1])
    return settings, generator.eval(), int(saved[-1].name)


def export(run: Path, output: Path) -> tuple[ModelCard, Parity]:
    """Writes the model file of a run: graph, card, and the parity gate on real frames.

    Args:
        run: a run folder, or one checkpoint of it.
        output: the ``.onnx`` file; it appears only if the gate is passed.

    Returns:
        The card that was written, and what the gate measured.

    Raises:
        ModelError: if there is no checkpoint, or the exported graph does not compute the same.
    """
    settings, generator, _ = load_generator(run)
    model = FrameModel(generator).eval()
    metrics_file = run / "metrics.json"
    card = ModelCard(
        name=settings.name,
        method=settings.method.name,
        direction=settings.card.direction,
        licence=settings.card.licence,
        creator=settings.card.creator,
        description=settings.card.description,
        data=settings.card.data,
        size=SizeRule(recipe.MULTIPLE_OF[settings.generator.name], settings.data.size),
        recipe_digest=settings.digest,
        metrics=json.loads(metrics_file.read_text()) if metrics_file.is_file() else {},
        parameters=sum(weight.numel() for weight in generator.parameters()),
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        partial = Path(folder) / "model.onnx"
        write_graph(model, partial, card.size)
        write_card(partial, card)
        parity = check_parity(model, partial, gate_frames(settings, card.size))
        if parity.max_difference > TOLERANCE:
            raise ModelError(
                f"{output}: not written, ONNX Runtime differs from torch by {parity.max_difference}/255 "
                f"(at most {TOLERANCE} is let through)"
            )
        partial.replace(output)
    return card, parity


def write_graph(model: nn.Module, path: Path, size: SizeRule) -> None:
    """Exports the ONNX graph with dynamic N, H and W; one self-contained file."""
    rows, columns = (size.multiple_of * torch.export.Dim(name, min=2, max=512) for name in ("rows", "columns"))
    width, height = size.trained
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"frames": {0: torch.export.Dim("N", min=1, max=64), 1: rows, 2: columns}},
            verbose=False,
        )
    assert program is not None
    program.optimize()
    proto = program.model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        for index, name in enumerate("NHW"):
            value.type.tensor_type.shape.dim[index].dim_param = name
    del proto.graph.value_info[:]  # names of sizes that no longer exist
    for node in proto.graph.node:
        del node.metadata_props[:]  # where in the source each node comes from: paths of this machine
        node.doc_string = ""
    onnx.save(proto, str(path))


def gate_frames(settings: recipe.Recipe, size: SizeRule) -> list[npt.NDArray[np.uint8]]:
    """Real frames of the source look for the gate, cut to the size rule: four ``(1, H, W, 3)`` uint8 RGB."""
    frames = []
    for path in [path for folder in settings.data.a for path in data.list_images(folder)][::37][:4]:
        image = data.read_image(path, settings.data.load_short_side)
        height, width = (side // size.multiple_of * size.multiple_of for side in image.shape[1:])
        frames.append(VF.center_crop(image, [height, width]).permute(1, 2, 0).unsqueeze(0).numpy())
    return frames


def check_parity(model: nn.Module, path: Path, frames: list[npt.NDArray[np.uint8]]) -> Parity:
    """Runs torch and ONNX Runtime on the same frames."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest, differing, count = 0, 0, 0
    for frame in frames:
        with torch.no_grad():
            expected = model(torch.from_numpy(frame)).numpy().astype(np.int16)
        (given,) = session.run([OUTPUT], {INPUT: frame})
        difference = np.abs(expected - given)
        largest = max(largest, int(difference.max()))
        differing += int((difference > 0).sum())
        count += difference.size
    return Parity(largest, differing / count)
