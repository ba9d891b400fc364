"""Every operation of the table computes what ONNX Runtime computes, and refuses the forms that it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from streamgan import api
from streamgan_torch import graph, operations

Numbers = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
SHAPES = {"frames": ((2, 5, 6, 3), torch.uint8)}


class Case(NamedTuple):
    """One node of a graph, after pictures became ``(2, 4, 5, 6)`` float around 0."""

    kind: str
    attributes: Mapping[str, Any] = {}
    constants: tuple[Any, ...] = ()
    """Inputs behind the first; None for one that is left out."""
    constant_first: bool = False
    """Whether they stand before it instead."""
    step: float = 60
    """Levels of 255 a unit."""


def normal(*shape: int) -> Numbers:
    return RANDOM.normal(size=shape).astype(np.float32)


def whole(*numbers: int) -> Numbers:
    return np.array(numbers, np.int64)


CASES = [
    Case("Abs"),
    Case("Add", {}, (normal(1, 4, 1, 1),)),
    Case("Add", {}, (np.float32(0.5),)),
    Case("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("Cast", {"to": TensorProto.FLOAT}),
    Case("Cast", {"to": TensorProto.INT64}),
    Case("Clip", {}, (np.float32(-0.2), np.float32(0.3))),
    Case("Clip", {}, (None, np.float32(0.3))),
    Case("Concat", {"axis": 1}, (np.repeat(normal(2, 1, 5, 6), 3, 1),)),
    Case("Conv", {"pads": [1, 1, 1, 1], "strides": [2, 2]}, (normal(8, 4, 3, 3), normal(8))),
    Case("Conv", {"pads": [0, 1, 2, 1], "group": 4, "dilations": [1, 2]}, (normal(4, 1, 2, 2),)),
    Case("ConvTranspose", {"pads": [1, 1, 1, 1], "strides": [2, 2], "output_padding": [1, 1]}, (normal(4, 6, 3, 3),)),
    Case("ConvTranspose", {"strides": [2, 2], "group": 2}, (normal(4, 3, 4, 4), normal(6))),
    Case("DepthToSpace", {"blocksize": 2}),
    Case("DepthToSpace", {"blocksize": 2, "mode": "CRD"}),
    Case("Div", {}, (np.float32(3),)),
    Case("Sub", {}, (normal(1, 4, 1, 1),), True),
    Case("Expand", {}, (whole(3, 1, 1, 1, 6),)),
    Case("Floor"),
    Case("Gather", {"axis": 1}, (whole(2, -1),)),
    Case("GatherND", {}, (np.array([[1, 0], [0, 3]]),)),
    Case("Identity"),
    Case("InstanceNormalization", {"epsilon": 1e-5}, (normal(4), normal(4))),
    Case("LeakyRelu", {"alpha": 0.2}),
    Case("Less", {}, (np.float32(0.1),)),
    Case("Min", {}, (np.float32(0.1),)),
    Case("Min", {}, (normal(1, 4, 1, 1),)),
    Case("Mul", {}, (np.float32(-2),)),
    Case("Neg"),
    Case("Pad", {"mode": "edge"}, (whole(0, 0, 1, 2, 0, 0, 3, 0),)),
    Case("Pad", {"mode": "reflect"}, (whole(0, 0, 1, 2, 0, 0, 3, 0),)),
    Case("Pad", {"mode": "reflect"}, (whole(1, 2, 3, 0), None, whole(2, -1))),
    Case("Pad", {}, (whole(0, 0, 1, 2, 0, 0, 3, 0), np.float32(7))),
    Case("ReduceMean", {"keepdims": 1}, (whole(2, 3),)),
    Case("ReduceMean", {"keepdims": 0}, (whole(1),)),
    Case("ReduceMean"),
    Case("ReduceProd", {"keepdims": 0}, step=0.5),
    Case("Relu"),
    Case("Reshape", {}, (whole(0, -1, 10),)),
    Case("Reshape", {"allowzero": 1}, (whole(2, 2, 2, 5, 6),)),
    Case("Resize", {"mode": "linear"}, (None, np.array([1, 1, 2, 2], np.float32))),
    Case("Resize", {"mode": "linear"}, (None, np.array([1, 1, 0.5, 0.5], np.float32))),
    Case("Resize", {"mode": "linear"}, (None, None, whole(2, 4, 8, 15))),
    Case(
        "Resize",
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        (None, np.array([1, 1, 2, 2], np.float32)),
    ),
    Case(
        "Resize",
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        (None, np.array([1, 1, 2, 2], np.float32)),
    ),
    Case("Resize", {"mode": "nearest"}, (None, np.array([1, 1, 3, 2], np.float32))),
    Case("Round"),
    Case("Sigmoid"),
    Case("Slice", {}, (whole(1, 0), whole(4, -1), whole(2, 3))),
    Case("Slice", {}, (whole(-4), whole(100), whole(-1), whole(2))),
    Case("SpaceToDepth", {"blocksize": 1}),
    Case("Split", {"axis": 3, "num_outputs": 2}),
    Case("Split", {"axis": 2}, (whole(1, 4),)),
    Case("Sqrt"),
    Case("Squeeze", {}, (whole(0, -1),)),
    Case("Sub", {}, (normal(6),)),
    Case("Tanh"),
    Case("Transpose", {"perm": [0, 2, 3, 1]}),
    Case("Transpose"),
    Case("Unsqueeze", {}, (whole(-1, 0),)),
]


def test_every_operation_has_a_case() -> None:
    assert {case.kind for case in CASES} == set(operations.OPERATIONS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.attributes}")
def test_it_computes_what_onnx_runtime_computes(case: Case, tmp_path: Path) -> None:
    path, frames = write(case, tmp_path), pictures()
    (expected,) = onnxruntime.InferenceSession(path).run(None, {"frames": frames})
    made = lay_out(path)(torch.from_numpy(frames)).numpy()
    assert made.shape == expected.shape
    assert np.abs(made.astype(int) - expected).max() <= 1
    assert np.ptp(expected) or 0 < expected.flat[0] < 255, "the case would not notice a mistake"


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "InstanceNormalization", "Concat"])
def test_half_is_near(kind: str, precision: torch.dtype, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.kind == kind)
    path, frames = write(case, tmp_path), pictures()
    (expected,) = onnxruntime.InferenceSession(path).run(None, {"frames": frames})
    made = lay_out(path, precision)(torch.from_numpy(frames)).numpy()
    assert np.abs(made.astype(int) - expected).max() <= 4


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_padding_by_joining_is_padding(mode: str) -> None:
    x = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last)
    made = operations.extend(operations.extend(x, 2, 1, 3, mode), 3, 2, 0, mode)
    assert torch.equal(made, operations.pad(x, (0, 0, 1, 2, 0, 0, 3, 0), mode=mode))
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "case",
    [
        Case("Resize", {"mode": "cubic"}, (None, np.array([1, 1, 2, 2], np.float32))),
        Case("Resize", {"mode": "nearest"}, (None, np.array([1, 1, 1.5, 1.5], np.float32))),
        Case("Conv", {"auto_pad": "SAME_UPPER"}, (normal(8, 4, 3, 3),)),
        Case("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        Case("Slice", {}, (whole(3), whole(0), whole(2), whole(-1))),
        Case("Pad", {}, (whole(0, 1, 0, 0, 0, 1, 0, 0),)),
    ],
    ids=lambda case: f"{case.kind}-{case.attributes}",
)
def test_an_unknown_form_is_refused_by_its_name(case: Case, tmp_path: Path) -> None:
    path = write(case, tmp_path)
    with pytest.raises(api.BackendError, match=rf"{case.kind} \(node 'tested'\) cannot work on 2 pictures of 6x5"):
        lay_out(path)


def pictures() -> npt.NDArray[np.uint8]:
    return RANDOM.integers(0, 256, (2, 5, 6, 3), dtype=np.uint8)


def lay_out(path: Path, precision: torch.dtype = torch.float32) -> torch.nn.Module:
    return graph.Layouts(graph.read(path), torch.device("cpu"), precision).lay_out(SHAPES)


def write(case: Case, folder: Path) -> Path:
    """A model file around the node: pictures to 4 channels of floats, and all that it gives to one column of bytes."""
    node = helper.make_node
    constants = {f"constant{place}": value for place, value in enumerate(case.constants) if value is not None}
    names = [f"constant{place}" if value is not None else "" for place, value in enumerate(case.constants)]
    before = {
        "Sqrt": [node("Abs", ["x"], ["given"])],
        "Squeeze": [node("Unsqueeze", ["x", "constant0"], ["given"])],
        "ReduceProd": [node("Shape", ["x"], ["given"])],
    }.get(case.kind, [node("Identity", ["x"], ["given"])])
    inputs = ["given", *names] if not case.constant_first else [*names, "given"]
    parts = [f"part{number}" for number in range(2 if case.kind == "Split" else 1)]
    nodes = [
        node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        node("Div", ["planes", "half"], ["scaled"]),
        node("Sub", ["scaled", "one"], ["centred"]),
        node("Conv", ["centred", "spread"], ["x"]),
        *before,
        node(case.kind, inputs, parts, name="tested", **case.attributes),
        *(node("Cast", [part], [f"{part}-float"], to=TensorProto.FLOAT) for part in parts),
        *(node("Reshape", [f"{part}-float", "column"], [f"{part}-column"]) for part in parts),
        node("Concat", [f"{part}-column" for part in parts], ["columns"], axis=1),
        node("ReduceMean", ["x"], ["mean"]),
        node("Mul", ["mean", "zero"], ["nothing"]),  # what hangs on the pictures, if nothing else does
        node("Add", ["columns", "nothing"], ["live"]),
        node("Add", ["live", "two"], ["shifted"]),
        node("Mul", ["shifted", "step"], ["levels"]),
        node("Clip", ["levels", "zero", "most"], ["clipped"]),
        node("Round", ["clipped"], ["rounded"]),
        node("Cast", ["rounded"], ["frames_out"], to=TensorProto.UINT8),
    ]
    numbers = {"half": 127.5, "one": 1, "two": 2, "zero": 0, "most": 255, "step": case.step}
    constants |= {name: np.float32(value) for name, value in numbers.items()}
    constants |= {"spread": normal(4, 3, 1, 1), "column": whole(1, -1, 1, 1)}
    made = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, [2, 5, 6, 3])],
        [helper.make_tensor_value_info("frames_out", TensorProto.UINT8, [None] * 4)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = folder / "one.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(path))
    return path
