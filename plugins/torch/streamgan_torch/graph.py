"""Model files as torch graphs: read once, then laid out for each shape of pictures.

Of what a model file computes, much hangs on the pictures' size alone: shapes, pads, slices. Laying a graph out for one
shape works all that out beforehand. What remains is a `torch.fx.GraphModule` of tensor operations with plain numbers
as their other arguments: nothing in it waits for the device, so that a CUDA graph can hold it; it frees what it no
longer needs, and can be printed and compiled.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import NodeProto, numpy_helper
from torch import Tensor, fx, nn

from streamgan import api
from streamgan_torch.operations import OPERATIONS, UnsupportedError

INPUT, OUTPUT = "frames", "frames_out"
_OLDEST_OPSET = 13
_FAILURES = (UnsupportedError, RuntimeError, ValueError, TypeError, IndexError, KeyError)


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation of a model file."""

    kind: str
    """ONNX's name, such as ``Conv``."""
    name: str
    """For messages."""
    inputs: tuple[str, ...]
    """Names of values; empty for one that is left out."""
    outputs: tuple[str, ...]
    """Names of values."""
    attributes: dict[str, Any]
    """As plain values."""


@dataclasses.dataclass(frozen=True)
class Graph:
    """What a model file computes."""

    path: Path
    """The file, for messages."""
    inputs: tuple[str, ...]
    """Names of the inputs, ``frames`` among them."""
    nodes: tuple[Node, ...]
    """In an order in which they can be computed."""
    constants: Mapping[str, Tensor]
    """Weights and other numbers by name, on the CPU; floats are fp32."""


@dataclasses.dataclass(frozen=True)
class _Live:
    """A value that hangs on the pictures: where it is computed, and its shape and type, on the device ``meta``."""

    node: fx.Node
    like: Tensor


_Value: TypeAlias = Tensor | _Live
"""A value of a graph that is being laid out: known beforehand, or not."""


def read(path: Path) -> Graph:
    """Reads a model file.

    Raises:
        BackendError: if it is missing, is not ONNX, or has an operation that is unknown here.
    """
    try:
        proto = onnx.load(str(path))
    except (OSError, DecodeError) as error:
        raise api.BackendError(f"torch: {path}: not a model file that can be read ({_reason(error)})") from None
    constants = {each.name: _tensor(each) for each in proto.graph.initializer}
    inputs = tuple(each.name for each in proto.graph.input if each.name not in constants)
    opset = max((each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")), default=0)
    if INPUT not in inputs or [each.name for each in proto.graph.output] != [OUTPUT] or opset < _OLDEST_OPSET:
        raise api.BackendError(
            f"torch: {path}: expected ONNX opset {_OLDEST_OPSET} or newer with input '{INPUT}' and output '{OUTPUT}', "
            f"found opset {opset} with inputs {', '.join(inputs) or 'none'}; export the model again"
        )
    nodes = []
    for each in proto.graph.node:
        if each.op_type == "Constant":
            constants[each.output[0]] = _constant(each, path)
        else:
            nodes.append(_node(each, path))
    return Graph(path, inputs, tuple(nodes), constants)


def _node(proto: NodeProto, path: Path) -> Node:
    """A node with plain attributes; refuses an operation that is unknown."""
    name = proto.name or proto.output[0]
    if proto.op_type not in (*OPERATIONS, "Shape") or proto.domain not in ("", "ai.onnx"):
        raise api.BackendError(
            f"torch: {path}: operation {proto.op_type} (node '{name}') is unknown to this backend; "
            "choose another one, such as --backend onnxruntime"
        )
    attributes = {each.name: _plain_attribute(onnx.helper.get_attribute_value(each)) for each in proto.attribute}
    return Node(proto.op_type, name, tuple(proto.input), tuple(proto.output), attributes)


def _constant(proto: NodeProto, path: Path) -> Tensor:
    """The value of a node ``Constant``."""
    (attribute,) = proto.attribute
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return _tensor(value)
    if attribute.name in ("value_float", "value_floats", "value_int", "value_ints"):
        return torch.tensor(_plain_attribute(value))
    raise api.BackendError(f"torch: {path}: a constant of the kind {attribute.name} ('{proto.output[0]}') is unknown")


def _plain_attribute(value: Any) -> Any:
    """Text as str, lists as tuples."""
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, int | float | str) else tuple(value)


def _tensor(proto: onnx.TensorProto) -> Tensor:
    """A constant of a file; halves become fp32, as they are read from it."""
    value = np.array(numpy_helper.to_array(proto))
    return torch.from_numpy(value.astype(np.float32) if value.dtype.kind == "f" else value)


class Layouts:
    """Lays a model out for shapes of pictures; all of them share the weights.

    Args:
        graph: what to compute.
        device: where.
        precision: of the convolutions: fp32, fp16 or bf16.
    """

    def __init__(self, graph: Graph, device: torch.device, precision: torch.dtype) -> None:
        self._graph, self._device = graph, device
        self.inputs = graph.inputs
        """Names of the inputs, in the order that a network takes them."""
        half = {name for node in graph.nodes if node.kind in ("Conv", "ConvTranspose") for name in node.inputs[1:]}
        self._weights = {
            name: _placed(value, device, precision if name in half else torch.float32)
            for name, value in graph.constants.items()
        }

    def lay_out(self, inputs: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> fx.GraphModule:
        """The graph for inputs of one shape.

        Args:
            inputs: shape and type of each of `Graph.inputs`.

        Returns:
            Takes the inputs in the order of `Graph.inputs`, on the device, and gives ``(N, H', W', 3)`` uint8.

        Raises:
            BackendError: if an operation cannot work on such shapes.
        """
        root, made, values = nn.Module(), fx.Graph(), dict[str, _Value](self._graph.constants)
        for name in self._graph.inputs:
            shape, kind = inputs[name]
            values[name] = _Live(made.placeholder(f"input_{name}"), torch.empty(shape, dtype=kind, device="meta"))
        for node in self._graph.nodes:
            try:
                results = self._compute(node, values, made, root)
            except _FAILURES as error:
                raise api.BackendError(
                    f"torch: {self._graph.path}: {node.kind} (node '{node.name}') cannot work on "
                    f"{_describe(inputs[INPUT][0])} ({_reason(error)})"
                ) from None
            values.update(zip(node.outputs, results, strict=False))
        last = values[OUTPUT]
        assert isinstance(last, _Live)
        made.output(made.call_method("contiguous", (last.node,)))
        return fx.GraphModule(root, made)

    def _compute(self, node: Node, values: Mapping[str, _Value], made: fx.Graph, root: nn.Module) -> list[_Value]:
        """The results of a node: at once if all that it needs is known, else as nodes of the graph that is made."""
        given = [values[name] if name else None for name in node.inputs]
        if node.kind == "Shape":
            sides = _like(given[0]).shape[node.attributes.get("start", 0) : node.attributes.get("end")]
            return [torch.tensor(sides, dtype=torch.int64)]
        operation = OPERATIONS[node.kind]
        plain = [_numbers(value) if place in operation.plain else value for place, value in enumerate(given)]
        if not any(isinstance(value, _Live) for value in plain):
            return [*_several(operation.function(*plain, **node.attributes))]
        if operation.elementwise:
            plain = [value.item() if isinstance(value, Tensor) and value.numel() == 1 else value for value in plain]
        names = [name if isinstance(value, Tensor) else "" for name, value in zip(node.inputs, plain, strict=True)]
        placed = [self._operand(name, value) if name else value for name, value in zip(names, plain, strict=True)]
        with torch.inference_mode():
            like = operation.function(*(_on_meta(value) for value in placed), **node.attributes)
        arguments = [value.node if isinstance(value, _Live) else value for value in placed]
        for place, name in enumerate(names):
            if name:
                arguments[place] = made.get_attr(_register(root, name, arguments[place]))
        call = made.call_function(operation.function, tuple(arguments), node.attributes)
        if isinstance(like, Tensor):
            return [_Live(call, like)]
        return [_Live(made.call_function(operator.getitem, (call, place)), one) for place, one in enumerate(like)]

    def _operand(self, name: str, value: _Value | None) -> Tensor:
        """A tensor known beforehand, on the device."""
        assert isinstance(value, Tensor)
        return self._weights[name] if name in self._weights else _placed(value, self._device, torch.float32)


def _placed(value: Tensor, device: torch.device, kind: torch.dtype) -> Tensor:
    """A constant on the device; floats in this type, weights of convolutions channels last."""
    if value.is_floating_point():
        value = value.to(kind)
    return value.to(device, memory_format=torch.channels_last if value.ndim == 4 else torch.preserve_format)


def _register(root: nn.Module, name: str, value: Any) -> str:
    """Makes a tensor an attribute of the module, and names it."""
    known = "constant_" + "".join(letter if letter.isalnum() else "_" for letter in name)
    while getattr(root, known, value) is not value:
        known += "_"
    if not hasattr(root, known):
        root.register_buffer(known, value)
    return known


def _numbers(value: Any) -> Any:
    """A constant as plain numbers; what hangs on the pictures cannot be."""
    if isinstance(value, _Live):
        raise UnsupportedError("sizes or limits that hang on the pictures' contents")
    return None if value is None else value.tolist()


def _like(value: _Value | None) -> Tensor:
    """Something of the same shape."""
    assert value is not None
    return value.like if isinstance(value, _Live) else value


def _on_meta(value: Any) -> Any:
    """The same without its numbers."""
    if isinstance(value, _Live):
        return value.like
    return value.to("meta") if isinstance(value, Tensor) else value


def _several(result: Any) -> Iterator[Tensor]:
    """The results of an operation, one by one."""
    yield from (result,) if isinstance(result, Tensor) else result


def _describe(shape: tuple[int, ...]) -> str:
    """Pictures in words."""
    return f"{shape[0]} pictures of {shape[2]}x{shape[1]}" if len(shape) == 4 else str(shape)


def _reason(error: BaseException) -> str:
    """The first line of an error's text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
