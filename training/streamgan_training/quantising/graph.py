"""A model's graph in 8-bit integers: pairs of QuantizeLinear and DequantizeLinear, with scales from real pictures.

Activations are uint8 with one scale each, weights int8 with one scale for each output channel, as in Jacob et
al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference". Weights use 7
of their 8 bits: a CPU with AVX2 but without VNNI adds two products of a uint8 and an int8 in 16 bits (vpmaddubsw), and
2 · 255 · 64 is the most that fits. So every CPU computes the same, and none saturates.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto
from onnxruntime.quantization import CalibrationDataReader, QDQQuantizer, QuantType, create_calibrator
from onnxruntime.quantization.shape_inference import quant_pre_process

CONVOLUTIONS = ("Conv", "ConvTranspose")
_MEANS = ("ReduceMean", "GlobalAveragePool")
_KINDS = (
    *CONVOLUTIONS, "Add", "Mul", "Concat", "Relu", "Clip", "LeakyRelu", "Resize", "Pad", "Reshape", "Transpose",
    "MaxPool", "AveragePool", "DepthToSpace", "SpaceToDepth", "Split", "Slice",
)  # fmt: skip
"""What ONNX Runtime and OpenVINO compute, or move, in 8 bits."""

Feed = dict[str, npt.NDArray[Any]]
"""The inputs of a model for one run, by name."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A graph that can be quantised, and what its values were seen to be."""

    proto: ModelProto
    """The graph, simplified."""
    ranges: Any
    """The least and the largest number that each value took: ONNX Runtime's ``TensorsData``."""
    nodes: tuple[str, ...]
    """Names of the nodes that may compute in 8 bits, in the graph's order."""

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Names of the convolutions among `nodes`: where the time goes."""
        kinds = {node.name: node.op_type for node in self.proto.graph.node}
        return tuple(name for name in self.nodes if kinds[name] in CONVOLUTIONS)

    def weights(self, convolution: str) -> str:
        """The name of a convolution's weights, by which people know it."""
        return str(next(node.input[1] for node in self.proto.graph.node if node.name == convolution))

    def group(self, convolution: str) -> set[str]:
        """The names of a convolution, of the padding that it alone reads, and of the ReLU right after it."""
        nodes = {node.name: node for node in self.proto.graph.node}
        found, node = {convolution}, nodes[convolution]
        for each in nodes.values():
            readers = {other.name for other in nodes.values() if set(other.input).intersection(each.output)}
            if (each.op_type == "Pad" and readers == {convolution}) or (
                each.op_type == "Relu" and each.input[0] in node.output
            ):
                found.add(each.name)
        return found


def prepare(model: Path, folder: Path, feeds: Iterable[Feed]) -> Prepared:
    """Simplifies a graph, finds what may be quantised, and runs it on pictures to see which numbers occur.

    Args:
        model: a model file in fp32.
        folder: for files on the way.
        feeds: the pictures; one run each.
    """
    simple = folder / "simple.onnx"
    quant_pre_process(str(model), str(simple), skip_symbolic_shape=True)
    proto = onnx.load(str(simple))
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    onnx.save(proto, str(simple))
    calibrator = create_calibrator(simple, _KINDS, str(folder / "augmented.onnx"))
    calibrator.collect_data(_Reader(feeds))
    return Prepared(proto, calibrator.compute_data(), tuple(_quantisable(proto)))


def write(prepared: Prepared, nodes: Collection[str], output: Path) -> None:
    """Writes the graph with some of its nodes in 8 bits.

    Args:
        prepared: the graph.
        nodes: names of the nodes, some of `Prepared.nodes`; the others stay in fp32.
        output: the ``.onnx`` file.
    """
    proto = copy.deepcopy(prepared.proto)
    quantizer = QDQQuantizer(
        proto,
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=prepared.ranges,
        nodes_to_quantize=list(nodes),
        nodes_to_exclude=[],
        op_types_to_quantize=list(_KINDS),
        extra_options={"WeightSymmetric": True, "QuantizeBias": False},
    )
    quantizer.quantize_model()
    _shield(quantizer.model.model, set(prepared.convolutions) - set(nodes))
    quantizer.model.save_model_to_file(str(output), False)


def _shield(proto: ModelProto, kept: Collection[str]) -> None:
    """Puts an operator that does nothing before the convolutions that stay in fp32.

    ONNX Runtime quantises by itself, with weights of 8 bits that saturate, what stands between DequantizeLinear and
    QuantizeLinear (its pass ``WeightBiasQuantization``). A Clip without bounds is left alone, and costs little.
    """
    made = {name for node in proto.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for number, node in reversed(list(enumerate(proto.graph.node))):
        if node.name in kept and node.input[0] in made:
            shielded = f"{node.input[0]}_for_{node.name}"
            proto.graph.node.insert(number, onnx.helper.make_node("Clip", [node.input[0]], [shielded], shielded))
            node.input[0] = shielded


def _quantisable(proto: ModelProto) -> Iterator[str]:
    """The nodes that may compute in 8 bits: of a known kind, on numbers that a convolution will read.

    What comes after the last convolution makes the picture: there 256 steps would be seen as bands. And what is
    computed of means over the picture is too little to be worth the loss.
    """
    graph = onnx.shape_inference.infer_shapes(proto).graph
    floats = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    wanted = _upstream(graph.node)
    constants, pooled = {each.name for each in graph.initializer}, set[str]()
    for node in graph.node:
        inputs = [name for name in node.input if name and name not in constants]
        if node.op_type in _MEANS or (inputs and pooled.issuperset(inputs)):
            pooled.update(node.output)
        elif node.op_type in _KINDS and node.name in wanted and floats.intersection(node.output):
            yield node.name


def _upstream(nodes: Collection[NodeProto]) -> set[str]:
    """Names of the convolutions, and of all nodes that one of them depends on."""
    names, read = set[str](), set[str]()
    for node in reversed(list(nodes)):
        if node.op_type in CONVOLUTIONS or read.intersection(node.output):
            names.add(node.name)
            read.update(node.input)
    return names


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands pictures to ONNX Runtime, one after the other."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        """The inputs of the next run; None at the end."""
        return next(self._feeds, None)
