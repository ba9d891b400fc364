"""From a checkpoint to the model file: wrap, export, describe, and let nothing through that computes otherwise."""

from __future__ import annotations

import dataclasses
import datetime
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as VF

from streamgan.api import ModelError
from streamgan.model import DOMAIN, INPUT, OUTPUT, ModelCard, SizeRule, write_card
from streamgan_training.frames import data
from streamgan_training.measuring.metrics import Image
from streamgan_training.recipe import Recipe
from streamgan_training.trained import FrameModel, Trained, load_trained

OPSET = 18
TOLERANCE = 1
"""Largest difference between torch and ONNX Runtime that the gate lets through, in steps of 1/255."""


@dataclasses.dataclass(frozen=True)
class Parity:
    """How close ONNX Runtime comes to torch on the same frames."""

    max_difference: int
    """Largest absolute difference, in steps of 1/255."""
    differing: float
    """Fraction of the values that differ at all."""


def export(
    run: Path, output: Path, direction: str | None = None, plugin_files: Sequence[Path] = ()
) -> tuple[ModelCard, Parity]:
    """Writes the model file of a run: graph, card, and the parity gate on real frames.

    Args:
        run: a run folder, or one checkpoint of it.
        output: the ``.onnx`` file; it appears only if the gate is passed.
        direction: one of the method's, such as ``ba``; its first by default.
        plugin_files: single-file plugins that may bring the method.

    Returns:
        The card that was written, and what the gate measured.

    Raises:
        ModelError: if there is no checkpoint, or the exported graph does not compute the same.
        UsageError: if the method has no such direction.
    """
    trained = load_trained(run, plugin_files)
    model = trained.model(direction)
    card = describe(trained, model, direction or trained.method.directions[0], run)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        partial = Path(folder) / "model.onnx"
        write_graph(model, partial, card.size, len(card.domains))
        write_card(partial, card)
        frames = gate_frames(trained.recipe, card.size, 1 if direction == "ba" else 0)
        parity = check_parity(model, partial, frames, len(card.domains))
        if parity.max_difference > TOLERANCE:
            raise ModelError(
                f"{output}: not written, ONNX Runtime differs from torch by {parity.max_difference}/255 "
                f"(at most {TOLERANCE} is let through)"
            )
        partial.replace(output)
    return card, parity


def describe(trained: Trained, model: FrameModel, direction: str, run: Path) -> ModelCard:
    """What the model file says of itself."""
    recipe, mixed = trained.recipe, trained.method.mixed
    names = recipe.domains if direction != "ba" else recipe.domains[::-1]
    given = recipe.card.direction if direction == trained.method.directions[0] else ""
    metrics_file = run / "metrics.json"
    measured = json.loads(metrics_file.read_text(encoding="utf-8")) if metrics_file.is_file() else {}
    if measured.get("step", trained.step) != trained.step:
        measured = {}  # of another checkpoint
    return ModelCard(
        name=recipe.name,
        method=recipe.method.name,
        direction=given or ("any to any" if mixed else " to ".join(names)),
        domains=recipe.domains if mixed else (),
        inputs=(DOMAIN,) if mixed else (),
        licence=recipe.card.licence,
        creator=recipe.card.creator,
        description=recipe.card.description,
        data=recipe.card.data,
        size=SizeRule(trained.multiple_of, recipe.data.size),
        recipe_digest=recipe.digest,
        metrics={name: value for name, value in measured.items() if isinstance(value, float)},
        parameters=sum(weight.numel() for weight in model.parameters()),
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def write_graph(model: FrameModel, path: Path, size: SizeRule, domains: int = 0) -> None:
    """Exports the ONNX graph with dynamic N, H and W; one self-contained file.

    Args:
        model: a frame model.
        path: the file.
        size: what it takes.
        domains: how many it has; with any, the graph gets the input ``domain``, int64 ``(N,)``.
    """
    smallest = 2 if size.multiple_of < 64 else 1
    rows, columns = (size.multiple_of * torch.export.Dim(name, min=smallest, max=512) for name in ("rows", "columns"))
    count = torch.export.Dim("N", min=1, max=64)
    width, height = (max(side, 2 * size.multiple_of) for side in size.trained)
    inputs: dict[str, Tensor] = {INPUT: torch.zeros(2, height, width, 3, dtype=torch.uint8)}
    shapes: dict[str, dict[int, torch.export.Dim]] = {"frames": {0: count, 1: rows, 2: columns}}
    if domains:
        inputs[DOMAIN] = torch.arange(2) % domains
        shapes["domain"] = {0: count}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        program = torch.onnx.export(
            model,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[OUTPUT],
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    program.optimize()
    proto = program.model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, "NHW", strict=False):
            dimension.dim_param = name
    del proto.graph.value_info[:]  # names of sizes that no longer exist
    for node in proto.graph.node:
        del node.metadata_props[:]  # where in the source each node comes from: paths of this machine
        node.doc_string = ""
    onnx.save(proto, str(path))


def gate_frames(recipe: Recipe, size: SizeRule, domain: int) -> list[Image]:
    """Real frames of a domain for the gate, cut to the size rule: four ``(1, H, W, 3)`` uint8 RGB."""
    footages = [*recipe.data.domains.values()][domain]
    frames = []
    for image in data.some_images(footages, recipe.data, 4):
        height, width = (max(1, side // size.multiple_of) * size.multiple_of for side in image.shape[1:])
        frames.append(VF.center_crop(image, [height, width]).permute(1, 2, 0).unsqueeze(0).numpy())
    return frames


def check_parity(model: FrameModel, path: Path, frames: list[Image], domains: int = 0) -> Parity:
    """Runs torch and ONNX Runtime on the same frames; with several domains, each frame to another one."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest, differing, count = 0, 0, 0
    for number, frame in enumerate(frames):
        given = {INPUT: frame} | ({DOMAIN: np.array([number % domains])} if domains else {})
        with torch.no_grad():
            expected = model(*(torch.from_numpy(value) for value in given.values())).numpy().astype(np.int16)
        (made,) = session.run([OUTPUT], given)
        difference = np.abs(expected - made)
        largest = max(largest, int(difference.max()))
        differing += int((difference > 0).sum())
        count += difference.size
    return Parity(largest, differing / count)
