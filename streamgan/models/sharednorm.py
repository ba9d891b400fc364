"""What a network takes from the whole picture, shared by its tiles.

An instance normalisation divides by the spread of the picture it sees: shown tile by tile, every tile would get a
brightness of its own. So two graphs are made of a model file. The first is shown the whole picture at a small size and
gives all means that the network takes over height and width; the second takes them as an input, and then computes
every place from its surroundings alone. This is the thumbnail instance normalisation of URST (Wang et al. 2021, arXiv
2103.11784, section 3.2), for every mean over the picture: instance and layer norms, squeeze-and-excitation, FiLM.

Sessions give pictures only, so the means leave the first graph as digits in base 256: `decode` reads them.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from streamgan.api import Images, ModelError
from streamgan.model import CARD_KEY, INPUT, OUTPUT, read_card

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

STATISTICS = "statistics"
"""Name of the further input of a graph that is shown tiles: ``(K,)`` float32."""
Shape: TypeAlias = tuple[int | None, ...]
"""Of a value: None for a side that changes with the picture, or that nobody knows."""

_DIGITS, _WHOLE_DIGITS = 8, 3
_LOCAL = {
    "Abs", "Add", "And", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Ceil", "Clip", "Conv",
    "ConvTranspose", "DepthToSpace", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Expand", "Floor", "Gelu",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "LpPool", "Max", "MaxPool", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Pow",
    "Reciprocal", "Relu", "Reshape", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "SpaceToDepth",
    "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
"""What looks at the surroundings of a place only."""
_ALONG = {"Concat": 0, "Gather": 0, "Softmax": -1, "LogSoftmax": -1, "Split": 0}
"""What is local if it works along the channels, with the axis it works along by default."""
_POSITIONS = {"Range", "CumSum", "NonZero", "EyeLike"}
"""What tells one place from another."""
_BRANCHES = {"If", "Loop", "Scan"}
"""What holds a graph of its own, which nobody looks into here."""


class _Kind(enum.IntEnum):
    """What a value hangs on; of several, a result has the greatest."""

    CONSTANT = 0
    SIZE = 1
    SHARED = 2
    PIXELS = 3


@dataclasses.dataclass(frozen=True)
class Derived:
    """Two model files made of one."""

    measure: Path
    """Gives the statistics of a picture, as digits."""
    tiles: Path
    """Takes them as the input `STATISTICS`."""


def derive(path: Path, folder: Path) -> Derived | None:
    """Makes the two graphs of a model file; they take one picture at a time.

    Args:
        path: the model file.
        folder: where to write them.

    Returns:
        The two files; None if the model takes nothing from the whole picture, so that its tiles need nothing.

    Raises:
        ModelError: if the onnx package is missing, or something spans the picture that tiles cannot share.
    """
    try:
        import onnx
    except ImportError:
        raise ModelError(
            f"{path}: to work in tiles a model must be taken apart, and the package onnx is missing; install it with: "
            "pip install onnx (or set tile to 0)"
        ) from None
    card, proto = read_card(path), onnx.load(str(path))
    for value in proto.graph.input:
        for side in value.type.tensor_type.shape.dim[:1]:
            side.dim_value = 1
    _spell_out(proto)
    means = _find_means(proto, path)
    if not means:
        return None
    derived = Derived(folder / f"{path.stem}-measure.onnx", folder / f"{path.stem}-tiles.onnx")
    measure, tiles = onnx.ModelProto(), proto
    measure.CopyFrom(proto)
    _give(measure.graph, means)
    _take(tiles.graph, means)
    for made, target, inputs in ((measure, derived.measure, ()), (tiles, derived.tiles, (STATISTICS,))):
        _prune(made.graph)
        theirs = dataclasses.replace(card, inputs=(*card.inputs, *inputs))
        onnx.helper.set_model_props(made, {CARD_KEY: theirs.to_json()})
        onnx.save(made, str(target))
    return derived


def decode(digits: Images) -> npt.NDArray[np.float32]:
    """The statistics that the first graph gave.

    Args:
        digits: ``(1, K, 3, 3)`` uint8: of each a sign, three digits before the point and five behind it.

    Returns:
        ``(K,)`` float32.
    """
    rows = digits.reshape(-1, 1 + _DIGITS).astype(np.float64)
    places = 256.0 ** (_WHOLE_DIGITS - 1 - np.arange(_DIGITS))
    return np.asarray((1 - 2 * rows[:, 0]) * (rows[:, 1:] @ places), dtype=np.float32)


def _spell_out(proto: ModelProto) -> None:
    """Writes instance norms and global pools with means, so that there are only means to share."""
    nodes, shapes, graph = list(proto.graph.node), _shapes(proto), proto.graph
    del graph.node[:]
    for node in nodes:
        rank = len(shapes.get(node.input[0], (None,) * 4)) if node.input else 0
        if node.op_type == "InstanceNormalization":
            graph.node.extend(_instance_norm(proto, node, rank))
        elif node.op_type == "GlobalAveragePool":
            graph.node.append(_mean(proto, node.input[0], node.output[0], rank))
        else:
            graph.node.append(node)


def _instance_norm(proto: ModelProto, node: NodeProto, rank: int) -> Iterator[NodeProto]:
    """``x * gain + offset``, where gain and offset are a number a channel, made of mean and variance."""
    from onnx.helper import make_node

    (x, scale, bias), name, graph = node.input, node.output[0], proto.graph
    epsilon = _constant(graph, f"{name}/epsilon", np.array(_attribute(node, "epsilon", 1e-5), np.float32))
    planes = _constant(graph, f"{name}/planes", np.array([1, -1] + [1] * (rank - 2)))
    yield _mean(proto, x, f"{name}/mean", rank)
    yield make_node("Sub", [x, f"{name}/mean"], [f"{name}/centred"])
    yield make_node("Mul", [f"{name}/centred", f"{name}/centred"], [f"{name}/square"])
    yield _mean(proto, f"{name}/square", f"{name}/variance", rank)
    yield make_node("Add", [f"{name}/variance", epsilon], [f"{name}/positive"])
    yield make_node("Sqrt", [f"{name}/positive"], [f"{name}/spread"])
    yield make_node("Reshape", [scale, planes], [f"{name}/scale"])
    yield make_node("Div", [f"{name}/scale", f"{name}/spread"], [f"{name}/gain"])
    yield make_node("Reshape", [bias, planes], [f"{name}/bias"])
    yield make_node("Mul", [f"{name}/mean", f"{name}/gain"], [f"{name}/moved"])
    yield make_node("Sub", [f"{name}/bias", f"{name}/moved"], [f"{name}/offset"])
    yield make_node("Mul", [x, f"{name}/gain"], [f"{name}/scaled"])
    yield make_node("Add", [f"{name}/scaled", f"{name}/offset"], [name])


def _mean(proto: ModelProto, x: str, name: str, rank: int) -> NodeProto:
    """The mean over all axes but the first two."""
    from onnx.helper import make_node

    axes = np.arange(2, rank)
    if next(each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")) < 18:
        return make_node("ReduceMean", [x], [name], axes=axes.tolist(), keepdims=1)
    return make_node("ReduceMean", [x, _constant(proto.graph, f"{name}/axes", axes)], [name], keepdims=1)


def _find_means(proto: ModelProto, path: Path) -> dict[str, Shape]:
    """The means over the whole picture and their shapes, in the order they are computed.

    Raises:
        ModelError: if what the model computes at a place hangs on the whole picture in another way.
    """
    constants, shapes = _constants(proto.graph), _shapes(proto)
    kinds = {value.name: _Kind.SHARED for value in proto.graph.input} | {INPUT: _Kind.PIXELS, "": _Kind.CONSTANT}
    kinds |= dict.fromkeys(constants, _Kind.CONSTANT)
    means: dict[str, Shape] = {}
    for node in proto.graph.node:
        kind = max((kinds[name] for name in node.input), default=_Kind.CONSTANT)
        if node.op_type in ("Shape", "Size"):
            kind = _Kind.SIZE
        elif kind is _Kind.PIXELS and _is_mean(node, shapes):
            means[node.output[0]] = shapes[node.output[0]]
            kind = _Kind.SHARED
        elif not _is_harmless(node, kind, constants, shapes):
            raise ModelError(
                f"{path}: cannot work in tiles: {node.op_type} (node '{node.name or node.output[0]}') spans the whole "
                "picture, in a way that tiles cannot share; set tile to 0, and a smaller 'size' if memory is short"
            )
        kinds |= dict.fromkeys(node.output, kind)
    return means


def _is_mean(node: NodeProto, shapes: Mapping[str, Shape]) -> bool:
    """Whether it is a mean whose size does not change with the picture's."""
    return node.op_type == "ReduceMean" and _collapses(node, shapes)


def _is_harmless(
    node: NodeProto, kind: _Kind, constants: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, Shape]
) -> bool:
    """Whether an operation, on values of this kind, computes the same in a tile as in the whole picture."""
    if node.op_type in _POSITIONS or node.op_type in _BRANCHES:
        return kind is _Kind.CONSTANT and node.op_type in _POSITIONS
    return kind is not _Kind.PIXELS or (_is_local(node, constants, shapes) and not _collapses(node, shapes))


def _collapses(node: NodeProto, shapes: Mapping[str, Shape]) -> bool:
    """Whether the size of the picture is no longer in the size of the result."""
    return not _fixed(shapes, node.input[0]) and _fixed(shapes, node.output[0])


def _is_local(node: NodeProto, constants: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, Shape]) -> bool:
    """Whether a place of the result hangs on its surroundings only."""
    shape = shapes.get(node.input[0])
    if node.op_type == "Resize":
        mode = _attribute(node, "coordinate_transformation_mode", b"half_pixel")
        sized = len(node.input) > 3 and node.input[3] in constants
        return mode not in (b"align_corners", b"tf_crop_and_resize") and not sized
    if node.op_type in _ALONG or node.op_type.startswith("Reduce") or node.op_type == "Slice":
        axes = _axes(node, constants)
        return shape is not None and axes is not None and all(shape[axis] is not None for axis in axes)
    return node.op_type in _LOCAL and not node.domain


def _axes(node: NodeProto, constants: Mapping[str, npt.NDArray[Any]]) -> list[int] | None:
    """The axes that an operation works along; None if they are all, or unknown."""
    if node.op_type in _ALONG:
        return [int(_attribute(node, "axis", _ALONG[node.op_type]))]
    place = 3 if node.op_type == "Slice" else 1
    if len(node.input) > place and node.input[place]:
        given = constants.get(node.input[place])
        return None if given is None else [int(axis) for axis in given]
    return list(_attribute(node, "axes", [])) or None


def _give(graph: GraphProto, means: Mapping[str, Shape]) -> None:
    """Makes the means the only output: digits in base 256, ``(1, K, 3, 3)``, exact in any type of number."""
    from onnx import TensorProto, helper

    for node in graph.node:
        node.output[:] = [f"{OUTPUT}/whole" if name == OUTPUT else name for name in node.output]
    make = helper.make_node

    def constant(name: str, value: Any) -> str:
        return _constant(graph, f"{OUTPUT}/{name}", np.asarray(value))

    flat, column = constant("flat", [-1]), constant("column", [1, -1, 1])
    unit, base = constant("unit", np.float32(256.0 ** (1 - _WHOLE_DIGITS))), constant("base", np.float32(256))
    zero, most = constant("zero", np.float32(0)), constant("most", np.float32(256.0**_WHOLE_DIGITS - 1))
    nodes = [make("Reshape", [name, flat], [f"{name}/flat"]) for name in means]
    nodes += [
        make("Concat", [f"{name}/flat" for name in means], ["digits/all"], axis=0),
        make("Reshape", ["digits/all", column], ["digits/values"]),
        make("Less", ["digits/values", zero], ["digits/negative"]),
        make("Cast", ["digits/negative"], ["digits/sign"], to=TensorProto.FLOAT),
        make("Abs", ["digits/values"], ["digits/absolute"]),
        make("Min", ["digits/absolute", most], ["digits/held"]),
        make("Mul", ["digits/held", unit], ["digits/rest0"]),
    ]
    for place in range(_DIGITS):
        nodes += [
            make("Floor", [f"digits/rest{place}"], [f"digits/{place}"]),
            make("Sub", [f"digits/rest{place}", f"digits/{place}"], [f"digits/left{place}"]),
            make("Mul", [f"digits/left{place}", base], [f"digits/rest{place + 1}"]),
        ]
    nodes += [
        make("Concat", ["digits/sign", *(f"digits/{place}" for place in range(_DIGITS))], ["digits/rows"], axis=2),
        make("Reshape", ["digits/rows", constant("pictures", [1, -1, 3, 3])], ["digits/pictures"]),
        make("Cast", ["digits/pictures"], [OUTPUT], to=TensorProto.UINT8),
    ]
    graph.node.extend(nodes)
    count = sum(math.prod(side or 1 for side in shape) for shape in means.values())
    graph.output[0].CopyFrom(helper.make_tensor_value_info(OUTPUT, TensorProto.UINT8, [1, count, 3, 3]))


def _take(graph: GraphProto, means: Mapping[str, Shape]) -> None:
    """Takes the means from the input `STATISTICS` instead of computing them."""
    from onnx import TensorProto, helper

    kept = [node for node in graph.node if node.output[0] not in means]
    del graph.node[:]
    begin, axes = 0, _constant(graph, f"{STATISTICS}/axes", np.array([0]))
    for name, shape in means.items():
        sides = np.array([side or 1 for side in shape], np.int64)
        end = begin + math.prod(sides.tolist())
        bounds = [_constant(graph, f"{name}/{each}", np.array([each])) for each in (begin, end)]
        graph.node.append(helper.make_node("Slice", [STATISTICS, *bounds, axes], [f"{name}/part"]))
        sides_name = _constant(graph, f"{name}/shape", sides)
        graph.node.append(helper.make_node("Reshape", [f"{name}/part", sides_name], [name]))
        begin = end
    graph.node.extend(kept)
    graph.input.append(helper.make_tensor_value_info(STATISTICS, TensorProto.FLOAT, [begin]))


def _prune(graph: GraphProto) -> None:
    """Leaves out what no output needs."""
    needed, kept = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    weights = [value for value in graph.initializer if value.name in needed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)


def _shapes(proto: ModelProto) -> dict[str, Shape]:
    """The shapes of all values, as far as they can be told."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes: dict[str, Shape] = {value.name: tuple(value.dims) for value in graph.initializer}
    for value in (*graph.input, *graph.value_info):
        if value.type.tensor_type.HasField("shape"):
            sides = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(side.dim_value if side.HasField("dim_value") else None for side in sides)
    return shapes


def _fixed(shapes: Mapping[str, Shape], name: str) -> bool:
    """Whether a value's size does not change with the picture's; its first axis counts the pictures."""
    return name in shapes and None not in shapes[name][1:]


def _constants(graph: GraphProto) -> dict[str, npt.NDArray[Any]]:
    """What is fixed in a graph, by name."""
    from onnx import numpy_helper

    found = {value.name: value for value in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return {name: numpy_helper.to_array(value) for name, value in found.items()}


def _constant(graph: GraphProto, name: str, value: npt.NDArray[Any]) -> str:
    """Adds a constant; returns its name."""
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute."""
    from onnx import helper

    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
