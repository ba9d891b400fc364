"""From a model file to a graph whose types are those that TensorRT shall compute in.

TensorRT 11 computes in the types that the graph has, and takes no flag that says otherwise; TensorRT 10 can be told to
do the same. So a network in half precision has to be written down as one: weights and tensors in fp16 or bf16, with
casts where it changes. What is delicate stays in fp32: the way from levels of 0 to 255 and back, and sums over
whole pictures.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from streamgan import api

_FRAMES, _MADE = "frames", "frames_out"
_BORDER = frozenset({"Add", "Cast", "Clip", "Div", "Identity", "Mul", "Round", "Sigmoid", "Sub", "Tanh", "Transpose"})
"""Operations on single values, which the border of the network consists of."""
_LAYOUT = frozenset({"Reshape", "Slice"})
"""Operations that may stand between those where the picture leaves the network."""
_STATISTICS = frozenset(
    {"GlobalAveragePool", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "ReduceL2"}
    | {"ReduceMean", "ReduceSum", "ReduceSumSquare", "Softmax"}
)
"""Operations that sum over many values: 11 bits of mantissa cannot hold such a sum, and 65504 is soon exceeded."""
_SQUARES = frozenset({"Mul", "Pow", "Sub"})
"""What a variance is made of before it is summed."""
_NOT_IN_BF16 = frozenset({"ConvTranspose"})
"""Operations that TensorRT-RTX 1.7 parses in bf16 and then cannot build."""


def typed(path: Path, precision: str) -> bytes:
    """The graph of a model file, serialised, in the types that it shall be computed in.

    Args:
        path: the ``.onnx`` file, in fp32; for ``int8`` a quantised one.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; with the last, what is not quantised is computed in fp32.

    Returns:
        ONNX whose inputs and outputs are those of the file: uint8 ``(N, H, W, 3)`` in and out.

    Raises:
        BackendError: if the file is missing or no ONNX.
    """
    proto = _read(path)
    for number, node in enumerate(proto.graph.node):
        node.name = f"{number}_{node.op_type}"
    _cast_first(proto.graph)
    if precision == "int8":
        _quantise_symmetrically(proto.graph)
    elif precision in ("fp16", "bf16"):
        delicate = _border(proto.graph) | _statistics(proto.graph)
        if precision == "bf16":
            delicate |= {node.name for node in proto.graph.node if node.op_type in _NOT_IN_BF16}
        proto = _in_half(proto, delicate, precision)
    serialised: bytes = proto.SerializeToString()
    return serialised


def multiple_of(path: Path) -> int:
    """What height and width must be multiples of, in pixels, as the card of a model file says; 1 without a card.

    Raises:
        BackendError: if the file is missing or no ONNX.
    """
    cards = [entry.value for entry in _read(path).metadata_props if entry.key == "streamgan"]
    try:
        return max(1, int(json.loads(cards[0])["size"]["multiple_of"]))
    except (IndexError, KeyError, TypeError, ValueError):
        return 1


def _read(path: Path) -> Any:
    """The model in a file."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load(str(path))
    except FileNotFoundError:
        raise api.BackendError(f"tensorrt: {path}: no such model file") from None
    except (DecodeError, OSError, onnx.checker.ValidationError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise api.BackendError(f"tensorrt: {path}: not an ONNX model that can be read ({reason})") from None
    if not any(value.name == _FRAMES for value in proto.graph.input):
        raise api.BackendError(f"tensorrt: {path}: expected an ONNX model with the input '{_FRAMES}', found none")
    return proto


def _cast_first(graph: Any) -> None:
    """Makes floats of the frames before anything else: TensorRT can do nothing with uint8 but cast it.

    Exporters transpose first. Casts later on then cast floats to floats, which costs nothing.
    """
    from onnx import TensorProto, helper

    users = [node for node in graph.node if _FRAMES in node.input and node.op_type not in ("Cast", "Shape")]
    for node in users:
        node.input[:] = ["frames_as_floats" if name == _FRAMES else name for name in node.input]
    if users:
        cast = helper.make_node("Cast", [_FRAMES], ["frames_as_floats"], name="cast_first", to=TensorProto.FLOAT)
        graph.node.insert(0, cast)


def _border(graph: Any) -> set[str]:
    """The nodes that make floats of levels, and levels of floats.

    In a residual network the last sum is among them: what the network adds may be rounded to half precision, the
    picture that it is added to is not.
    """
    constants = {value.name for value in graph.initializer}
    reached, found = {_FRAMES}, set()
    for node in graph.node:
        if node.op_type in _BORDER and node.input[0] in reached and set(node.input[1:]) <= constants | {""}:
            reached.update(node.output)
            found.add(node.name)
    wanted = {_MADE}
    for node in reversed(graph.node):
        if node.op_type in _BORDER | _LAYOUT and wanted.intersection(node.output):
            wanted.update(node.input)
            found.add(node.name)
    return found


def _statistics(graph: Any) -> set[str]:
    """The nodes that sum over many values, and those that square them before."""
    wanted: set[str] = set()
    found = set()
    for node in reversed(graph.node):
        if node.op_type in _STATISTICS or (node.op_type in _SQUARES and wanted.intersection(node.output)):
            wanted.update(node.input[:1] if node.op_type in _STATISTICS else node.input)
            found.add(node.name)
    return found


def _in_half(proto: Any, delicate: Collection[str], precision: str) -> Any:
    """The model with every node in half precision, but for those of these names and those that make no float of one.

    Converters at hand were tried first: that of ONNX Runtime names two casts alike where nodes in fp32 share a tensor,
    and knows no bf16; NVIDIA's ModelOpt needs torch.
    """
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(proto).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    constants = {value.name: value for value in graph.initializer if value.data_type == TensorProto.FLOAT}
    types = _Types(constants, precision)
    for node in proto.graph.node:
        taken = [name for name in node.input if name in floats or name in constants]
        half = bool(taken) and node.name not in delicate and node.op_type != "Cast"
        for place, name in enumerate(node.input):
            if name in taken:
                fixed = node.op_type == "Resize" and place > 0
                node.input[place] = types.narrow(name) if half and not fixed else types.widen(name)
        if half:
            types.halves.update(floats.intersection(node.output))
        types.nodes.append(node)
    del proto.graph.value_info[:]
    proto.graph.initializer.extend(types.constants.values())
    nodes = [_copy(node) for node in types.nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [_copy(value) for value in proto.graph.initializer if value.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return proto


def _copy(part: Any) -> Any:
    """The same part of a graph, in memory of its own."""
    copied = type(part)()
    copied.CopyFrom(part)
    return copied


class _Types:
    """Which tensors are in half precision so far, and the casts between."""

    def __init__(self, floats: dict[str, Any], precision: str) -> None:
        self.nodes: list[Any] = []
        """The nodes so far, in order, with the casts that they need."""
        self.halves: set[str] = set()
        """Names of the tensors that are in half precision."""
        self.constants: dict[str, Any] = {}
        """Constants in half precision, by the name of the one in fp32."""
        self._floats, self._precision = floats, precision
        self._cast: dict[str, str] = {}

    def narrow(self, name: str) -> str:
        """The name of a tensor in half precision."""
        if name in self.halves:
            return name
        if name in self._floats:
            if name not in self.constants:
                self.constants[name] = _rounded(self._floats[name], self._precision)
            return str(self.constants[name].name)
        return self._converted(name, self._precision)

    def widen(self, name: str) -> str:
        """The name of a tensor in fp32."""
        return self._converted(name, "fp32") if name in self.halves else name

    def _converted(self, name: str, precision: str) -> str:
        """The name of a tensor after a cast, of which each tensor needs but one."""
        from onnx import TensorProto, helper

        if name not in self._cast:
            to = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
            made = self._cast[name] = f"{name}_in_{precision}"
            self.nodes.append(helper.make_node("Cast", [name], [made], name=f"cast_{made}", to=to))
        return self._cast[name]


def _rounded(constant: Any, precision: str) -> Any:
    """A constant in half precision, under a name that says so; what is too large for fp16 becomes its largest."""
    import ml_dtypes
    from onnx import TensorProto, numpy_helper

    values = numpy_helper.to_array(constant)
    rounded = TensorProto(name=f"{constant.name}_in_{precision}", dims=constant.dims)
    if precision == "fp16":
        limits = np.finfo(np.float16)
        rounded.data_type = TensorProto.FLOAT16
        rounded.raw_data = np.clip(values, limits.min, limits.max).astype("<f2").tobytes()
    else:
        rounded.data_type, rounded.raw_data = TensorProto.BFLOAT16, values.astype(ml_dtypes.bfloat16).tobytes()
    return rounded


def _quantise_symmetrically(graph: Any) -> None:
    """Turns quantisation to uint8 around a zero point into one to int8 around zero, the only one TensorRT has.

    The step grows so that the largest value still fits; up to one bit is lost where all values have one sign. What was
    cut off at 0 and 255 is cut off as before, since a quantiser may have left out a ReLU that this stands for.
    """
    from onnx import helper, numpy_helper

    constants = {value.name: value for value in graph.initializer}

    def constant(name: str, value: Any) -> str:
        if name not in constants:
            constants[name] = numpy_helper.from_array(np.asarray(value), name)
            graph.initializer.append(constants[name])
        return name

    for node in list(graph.node):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        zero, scale = (numpy_helper.to_array(constants[name]) for name in (node.input[2], node.input[1]))
        if node.input[0] in constants or zero.dtype != np.uint8:
            continue
        of = f"{node.input[1]}_{node.input[2]}"
        lowest, highest = (scale * (level - zero.astype(np.float32)) for level in (0, 255))
        if node.op_type == "QuantizeLinear":
            limits = [constant(f"{of}_lowest", lowest), constant(f"{of}_highest", highest)]
            cut = helper.make_node("Clip", [node.input[0], *limits], [f"{node.name}_cut"], name=f"{node.name}_clip")
            graph.node.insert(next(n for n, each in enumerate(graph.node) if each.name == node.name), cut)
            node.input[0] = cut.output[0]
        step = np.maximum(-lowest, highest) / 127
        node.input[1] = constant(f"{of}_step", step.astype(scale.dtype))
        node.input[2] = constant(f"{of}_zero", np.zeros(zero.shape, np.int8))
