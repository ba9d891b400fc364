"""Networks as training exports them become engines: instance norms, transposed convolutions, domains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from streamgan import testing
from streamgan_tensorrt import build, graph, runtime
from streamgan_tensorrt.profiles import Profile

torch = pytest.importorskip("torch", reason="exports networks, which needs torch")
pytest.importorskip("streamgan_training", reason="exports networks, which needs streamgan-training")

from streamgan_training import networks, recipe  # noqa: E402
from streamgan_training.export import SizeRule, write_graph  # noqa: E402
from streamgan_training.methods import stargan  # noqa: E402
from streamgan_training.trained import FrameModel  # noqa: E402

PICTURES = "UINT8 (-1, -1, -1, 3)"
NETWORKS: dict[str, tuple[Callable[[], Any], int, int]] = {
    "resnet9": (lambda: networks.make_generator(recipe.Generator("resnet9", width=4)), 4, 0),
    "unet64": (lambda: networks.make_generator(recipe.Generator("unet64", width=4)), 64, 0),
    "stargan": (lambda: stargan.StarGenerator(torch.eye(3), width=4, blocks=1), 4, 3),
}
"""How to make each, what its sides must be multiples of, and how many domains it has."""


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The graph of a small network with random weights, and how many domains it has."""
    make, multiple_of, domains = NETWORKS[request.param]
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("networks") / f"{request.param}.onnx"
    write_graph(FrameModel(make()).eval(), path, SizeRule(multiple_of, (64, 64)), domains)
    return path, domains


def test_it_becomes_an_engine_in_every_precision(exported: tuple[Path, int], trt: runtime.Runtime) -> None:
    path, domains = exported
    profiles = [Profile.static((1, 128, 192)), Profile.spanning([(1, 64, 64), (2, 256, 448)])]
    expected = {"frames": PICTURES, "frames_out": PICTURES} | ({"domain": "INT64 (-1,)"} if domains else {})
    for precision in ("fp32", "fp16", "bf16"):
        plan = build.build(trt, graph.typed(path, precision), profiles, lambda done, phase: None)
        assert plan.tensors == expected, precision
        assert len(plan.engine) > 50_000


def test_fp16_computes_the_same_to_a_few_levels(exported: tuple[Path, int]) -> None:
    path, domains = exported
    given: dict[str, Any] = {"frames": testing.make_images(2, 64, 64)}
    if domains:
        given["domain"] = np.array([0, 2])
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    made = [
        onnxruntime.InferenceSession(graph.typed(path, precision), options).run(None, given)[0].astype(int)
        for precision in ("fp32", "fp16")
    ]
    difference = made[0] - made[1]
    assert np.abs(difference).max() <= 4 and 10 * np.log10(255**2 / max(1e-6, np.mean(difference**2))) > 50
