"""Graphs in half precision compute what they did in fp32, but for rounding, and keep what is delicate in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from streamgan import api, testing
from streamgan_tensorrt.graph import typed

PRESETS = Path(__file__).parents[3] / "presets"


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    """A node of one output."""
    return helper.make_node(kind, inputs, [output], **attributes)


@pytest.fixture
def residual(tmp_path: Path) -> Path:
    """A residual network with a variance over the whole picture, shared constants, an enlargement and its size read."""
    random = np.random.default_rng(1)
    nodes = [
        node("Shape", ["frames"], "size"),
        node("Transpose", ["frames"], "planes", perm=[0, 3, 1, 2]),
        node("Cast", ["planes"], "floats", to=TensorProto.FLOAT),
        node("Mul", ["floats", "scale"], "scaled"),
        node("Sub", ["scaled", "one"], "centred"),
        node("Conv", ["centred", "weights"], "made", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("ReduceMean", ["made", "sides"], "mean"),
        node("Sub", ["made", "mean"], "deviation"),
        node("Mul", ["deviation", "deviation"], "square"),
        node("ReduceMean", ["square", "sides"], "variance"),
        node("Add", ["variance", "one"], "more"),
        node("Sqrt", ["more"], "spread"),
        node("Div", ["deviation", "spread"], "even"),
        node("Resize", ["even", "", "twice"], "large", mode="linear", coordinate_transformation_mode="half_pixel"),
        node("Conv", ["large", "weights"], "added", pads=[1, 1, 1, 1]),
        node("Add", ["centred", "added"], "sum"),
        node("Tanh", ["sum"], "limited"),
        node("Add", ["limited", "one"], "shifted"),
        node("Div", ["shifted", "scale"], "levels"),
        node("Round", ["levels"], "rounded"),
        node("Transpose", ["rounded"], "pictures", perm=[0, 2, 3, 1]),
        node("Reshape", ["pictures", "size"], "whole"),
        node("Cast", ["whole"], "frames_out", to=TensorProto.UINT8),
    ]
    constants = {
        "scale": np.float32(1 / 127.5),
        "one": np.float32(1),
        "sides": np.array([2, 3]),
        "twice": np.array([1, 1, 2, 2], np.float32),
        "weights": random.normal(0, 0.2, (3, 3, 3, 3)).astype(np.float32),
    }
    ends = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", "H", "W", 3]) for name in ("frames", "frames_out")
    ]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], stored)
    path = tmp_path / "residual.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path


def run(model: bytes | str, images: api.Images) -> Any:
    """What ONNX Runtime computes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options).run(None, {"frames": images})[0].astype(int)


def types(serialised: bytes) -> dict[str, int]:
    """The type of each tensor, by name."""
    graph = shape_inference.infer_shapes(onnx.load_from_string(serialised), strict_mode=True, data_prop=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_border_and_the_statistics_stay_in_fp32_and_the_rest_does_not(precision: str, residual: Path) -> None:
    found = types(typed(residual, precision))
    half = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    assert {found["frames"], found["frames_out"]} == {TensorProto.UINT8}
    for name in ("centred", "mean", "deviation", "square", "variance", "sum", "limited", "levels"):
        assert found[name] == TensorProto.FLOAT, name
    for name in ("made", "even", "large", "added"):
        assert found[name] == half, name


def test_fp16_computes_the_same_to_a_level(residual: Path) -> None:
    images = testing.make_images(2)
    difference = np.abs(run(typed(residual, "fp16"), images) - run(str(residual), images))
    assert 0 < difference.mean() < 0.05 and difference.max() <= 1


def test_bf16_computes_the_same_to_some_levels(residual: Path) -> None:
    images = testing.make_images(1, 16, 24)
    (made,) = ReferenceEvaluator(onnx.load_from_string(typed(residual, "bf16"))).run(None, {"frames": images})
    difference = np.abs(made.astype(int) - run(str(residual), images))
    assert 0 < difference.mean() < 0.5 and difference.max() <= 3


def test_uint8_is_only_cast(residual: Path) -> None:
    proto = onnx.load_from_string(typed(residual, "fp32"))
    users = {each.op_type for each in proto.graph.node if "frames" in each.input}
    assert users == {"Cast", "Shape"}
    images = testing.make_images(2)
    assert np.array_equal(run(typed(residual, "fp32"), images), run(str(residual), images))


@pytest.mark.parametrize(
    "path", sorted(set(PRESETS.glob("*.onnx")) - set(PRESETS.glob("*.int8.onnx"))), ids=lambda path: path.name
)
def test_shipped_models_compute_the_same_in_fp16(path: Path) -> None:
    images = testing.make_images(1, 64, 96)
    difference = run(typed(path, "fp16"), images) - run(str(path), images)
    assert 0 < np.abs(difference).max() <= 4 and 10 * np.log10(255**2 / np.mean(difference**2)) > 50


def quantised(path: Path, zero: int, step: float) -> Path:
    """The tiny model, whose input of the convolution is quantised to uint8 around `zero`."""
    testing.make_model(path)
    proto = onnx.load(str(path))
    constants = {"step": np.float32(step), "zero": np.uint8(zero)}
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    place = next(number for number, each in enumerate(proto.graph.node) if each.op_type == "Conv")
    proto.graph.node[place].input[0] = "rounded_values"
    for kind, taken, made in [
        ("DequantizeLinear", "as_int", "rounded_values"),
        ("QuantizeLinear", "centred", "as_int"),
    ]:
        proto.graph.node.insert(place, node(kind, [taken, "step", "zero"], made))
    onnx.save(proto, str(path))
    return path


@pytest.mark.parametrize("zero, step", [(128, 2 / 255), (100, 2.6 / 255), (0, 1 / 255), (20, 1 / 235)])
def test_quantisation_becomes_symmetric_and_int8(zero: int, step: float, tmp_path: Path) -> None:
    path = quantised(tmp_path / "tiny.int8.onnx", zero, step)
    made = typed(path, "int8")
    stored = {value.name: numpy_helper.to_array(value) for value in onnx.load_from_string(made).graph.initializer}
    for each in onnx.load_from_string(made).graph.node:
        if "Quantize" in each.op_type or "quantize" in each.op_type:
            assert stored[each.input[2]].dtype == np.int8 and not stored[each.input[2]].any()
    images = testing.make_images(1)
    difference = np.abs(run(made, images) - run(str(path), images))
    assert difference.max() <= 10 and difference.mean() < 1  # each value is a sum of 27, each rounded otherwise


@pytest.mark.parametrize("content", [None, b"this is no model", b""])
def test_what_is_no_model_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(api.BackendError, match=r"broken\.onnx") as caught:
        typed(path, "fp16")
    assert "\n" not in str(caught.value)
