"""What the operations of a model file compute, in torch: one function for each, and the table of them.

Tensors are ``(N, C, H, W)`` unless said otherwise. Convolutions compute in the type of their weights, which is half if
that is asked for; the picture itself, statistics over it and the last steps stay fp32. Sizes, axes and the like arrive
as plain numbers, since a graph is laid out for one shape of pictures (see `streamgan_torch.graph`); so a function never
waits for a GPU.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

TYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool}
"""Types of numbers by ONNX's code. Half is read as fp32: what is computed in half is the session's choice."""
_HALF = {10, 16}
_PADDING = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}


class UnsupportedError(Exception):
    """A form of an operation that no generator of ours has."""


@dataclasses.dataclass(frozen=True)
class Operation:
    """How to compute one kind of node."""

    function: Callable[..., Any]
    """Takes the inputs in ONNX's order, those left out as None, and the attributes by name."""
    plain: tuple[int, ...] = ()
    """Which inputs it takes as plain numbers."""
    elementwise: bool = False
    """Whether a constant of one entry may be given as a number, which leaves the type of the other input alone."""


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    pads: Sequence[int] = (0, 0, 0, 0),
    strides: Sequence[int] = (1, 1),
) -> Tensor:
    """A convolution with zeros around the picture."""
    _expect(auto_pad == "NOTSET" and weight.ndim == 4, f"auto_pad {auto_pad}, {weight.ndim - 2} dimensions")
    top, left, bottom, right = pads
    x = x.to(weight.dtype)
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    return F.conv2d(x, weight, bias, tuple(strides), (top, left), tuple(dilations), group)


def convolve_transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    output_padding: Sequence[int] = (0, 0),
    pads: Sequence[int] = (0, 0, 0, 0),
    strides: Sequence[int] = (1, 1),
) -> Tensor:
    """A transposed convolution."""
    top, left, bottom, right = pads
    even = (top, left) == (bottom, right)
    _expect(auto_pad == "NOTSET" and weight.ndim == 4 and even, f"auto_pad {auto_pad}, pads {tuple(pads)}")
    args = (tuple(strides), (top, left), tuple(output_padding), group, tuple(dilations))
    return F.conv_transpose2d(x.to(weight.dtype), weight, bias, *args)


def normalise(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """InstanceNormalization: of each picture by itself, so it is a batch norm of a batch of one.

    Unlike torch's own instance norm, that one takes and gives channels-last memory, and is five times as fast on a CPU;
    it accumulates in fp32 whatever the type of `x`.
    """
    parts = [torch.batch_norm(one, scale, bias, None, None, True, 0.0, epsilon, True) for one in x.chunk(x.shape[0])]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def pad(
    x: Tensor,
    pads: Sequence[int],
    value: float | None = None,
    axes: Sequence[int] | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    """Adds to height and width: one number, the picture's edge, or its mirror image."""
    _expect(mode in _PADDING and x.ndim == 4, f"mode {mode}, {x.ndim} axes")
    given = [axis % x.ndim for axis in axes] if axes is not None else list(range(x.ndim))
    before, after = [dict(zip(given, half, strict=True)) for half in (pads[: len(given)], pads[len(given) :])]
    _expect(not any(each.get(axis, 0) for each in (before, after) for axis in (0, 1)), "pads of pictures or channels")
    top, left, bottom, right = (each.get(axis, 0) for each in (before, after) for axis in (2, 3))
    if mode != "constant" and x.device.type == "cuda":
        return extend(extend(x, 2, top, bottom, mode), 3, left, right, mode)
    sides = (left, right, top, bottom)
    return F.pad(x, sides, _PADDING[mode], value) if mode == "constant" else F.pad(x, sides, _PADDING[mode])


def extend(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Pads one axis with its edge or its mirror image; channels-last memory stays so.

    On CUDA torch's own padding walks channels-last memory plane by plane and gives planes, which every convolution
    would then have to turn again.
    """
    if not before and not after:
        return x
    last = x.shape[axis] - 1
    first_places = [0] * before if mode == "edge" else range(before, 0, -1)
    last_places = [last] * after if mode == "edge" else range(last - 1, last - 1 - after, -1)
    left, right = ([x.narrow(axis, place, 1) for place in places] for places in (first_places, last_places))
    return torch.cat([*left, x, *right], axis)


def resize(
    x: Tensor,
    roi: object = None,
    scales: Sequence[float] | None = None,
    sizes: Sequence[int] | None = None,
    *,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
) -> Tensor:
    """Enlarges or shrinks height and width, bilinearly or by repeating pixels."""
    form = coordinate_transformation_mode
    _expect(not antialias and axes is None and x.ndim == 4, "antialias, axes")
    _expect(keep_aspect_ratio_policy == "stretch", f"keep_aspect_ratio_policy {keep_aspect_ratio_policy}")
    if scales:
        wanted: dict[str, Any] = {"scale_factor": list(scales[2:])}
        whole = all(float(scale).is_integer() for scale in scales)
    else:
        assert sizes is not None
        wanted, whole = {"size": list(sizes[2:])}, all(new % old == 0 for new, old in zip(sizes, x.shape, strict=True))
    if mode == "nearest":  # a whole number of times, all ways to round agree with repeating
        repeats = whole and (form, nearest_mode) in (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"))
        _expect(repeats, f"nearest with {form}, {nearest_mode}, {wanted}")
        return F.interpolate(x, **wanted, mode="nearest")
    smooth = mode == "linear" and form in ("half_pixel", "pytorch_half_pixel", "align_corners")
    _expect(smooth, f"mode {mode} with {form}")
    return F.interpolate(x, **wanted, mode="bilinear", align_corners=form == "align_corners")


def average(
    x: Tensor, axes: Sequence[int] | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    """The mean over axes, all of them if none is named; in fp32."""
    if not axes and noop_with_empty_axes:
        return x
    return x.mean(tuple(axes) if axes else tuple(range(x.ndim)), keepdim=bool(keepdims), dtype=torch.float32)


def multiply_all(x: Tensor, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    """ReduceProd over all entries, as of the sides of a picture."""
    _expect(not noop_with_empty_axes, "noop_with_empty_axes")
    return x.prod().reshape([1] * x.ndim if keepdims else [])


def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    strides: Sequence[int] = (1, 1),
) -> Tensor:
    """The mean of every window."""
    plain = auto_pad == "NOTSET" and not any(pads) and not ceil_mode and set(dilations) == {1}
    _expect(plain, f"auto_pad {auto_pad}, pads {tuple(pads)}, ceil_mode {ceil_mode}")
    return F.avg_pool2d(x, tuple(kernel_shape), tuple(strides))


def reshape(x: Tensor, shape: Sequence[int], *, allowzero: int = 0) -> Tensor:
    """The same numbers in another shape; a 0 keeps the side, unless it is allowed to mean 0."""
    return x.reshape([x.shape[axis] if not side and not allowzero else side for axis, side in enumerate(shape)])


def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    """The axes in another order, reversed by default: a view."""
    return x.permute(tuple(perm) if perm is not None else tuple(reversed(range(x.ndim))))


def concatenate(*parts: Tensor, axis: int) -> Tensor:
    """Side by side; where one is in half, in half."""
    narrow = min((part.dtype for part in parts), key=lambda each: each.itemsize)
    return torch.cat([part.to(narrow) for part in parts], axis)


def split(x: Tensor, sizes: Sequence[int] | None = None, *, axis: int = 0, num_outputs: int = 0) -> Sequence[Tensor]:
    """Cut into parts of these sizes, or into so many, of which the last may be smaller."""
    if sizes is not None:
        return torch.split(x, list(sizes), axis)
    return torch.split(x, -(-x.shape[axis] // num_outputs), axis)


def cut(
    x: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> Tensor:
    """Slice: a range of each axis that is named, forwards."""
    places = [slice(None)] * x.ndim
    count = range(len(starts))
    for axis, start, end, step in zip(axes or count, starts, ends, steps or [1 for _ in count], strict=True):
        _expect(step > 0, f"step {step}")
        places[axis] = slice(start, end, step)
    return x[tuple(places)]


def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """The entries of an axis that are numbered."""
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, (indices % x.shape[axis]).reshape(-1)).reshape(shape)


def gather_places(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """GatherND: the entries at places of several axes."""
    _expect(not batch_dims, f"batch_dims {batch_dims}")
    return x[indices.unbind(-1)]


def squeeze(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Without axes of one entry."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    """With further axes of one entry, numbered as they will be."""
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeated along axes of one entry: a view."""
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(shape)))


def cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    """The same numbers in another type."""
    _expect(to in TYPES or to in _HALF, f"type {to}")
    return x.to(TYPES.get(to, torch.float32))


def divide(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    """The quotient; of whole numbers, towards 0."""
    kinds = [each.dtype.is_floating_point if isinstance(each, Tensor) else isinstance(each, float) for each in (x, y)]
    return x / y if any(kinds) else torch.div(torch.as_tensor(x), y, rounding_mode="trunc")


def least(x: Tensor, y: Tensor | float) -> Tensor:
    """The smaller of two."""
    return torch.clamp(x, max=y)


def clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Held between two numbers."""
    return x if low is None and high is None else torch.clamp(x, low, high)


def to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    """SpaceToDepth: the pixels of a square become channels, those of one pixel side by side."""
    count, channels, height, width = x.shape
    squares = x.reshape(count, channels, height // blocksize, blocksize, width // blocksize, blocksize)
    return squares.permute(0, 3, 5, 1, 2, 4).reshape(count, -1, height // blocksize, width // blocksize)


def to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """DepthToSpace: channels become the pixels of a square."""
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    count, channels, height, width = x.shape
    parts = x.reshape(count, blocksize, blocksize, channels // blocksize**2, height, width)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(count, -1, height * blocksize, width * blocksize)


def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """x where it is positive, else alpha x."""
    return F.leaky_relu(x, alpha)


def tanh(x: Tensor) -> Tensor:
    """In fp32: it draws the picture, of which half would keep eight bits or less."""
    return torch.tanh(x.float())


def sigmoid(x: Tensor) -> Tensor:
    """In fp32, as `tanh`."""
    return torch.sigmoid(x.float())


def identity(x: Tensor) -> Tensor:
    """The same."""
    return x


def _expect(met: bool, form: str) -> None:
    """Refuses a form that is not implemented."""
    if not met:
        raise UnsupportedError(f"{form}: not implemented")


OPERATIONS: dict[str, Operation] = {
    "Abs": Operation(torch.abs),
    "Add": Operation(operator.add, elementwise=True),
    "AveragePool": Operation(average_pool),
    "Cast": Operation(cast),
    "Clip": Operation(clip, (1, 2)),
    "Concat": Operation(concatenate),
    "Conv": Operation(convolve),
    "ConvTranspose": Operation(convolve_transposed),
    "DepthToSpace": Operation(to_space),
    "Div": Operation(divide, elementwise=True),
    "Expand": Operation(expand, (1,)),
    "Floor": Operation(torch.floor),
    "Gather": Operation(gather),
    "GatherND": Operation(gather_places),
    "Identity": Operation(identity),
    "InstanceNormalization": Operation(normalise),
    "LeakyRelu": Operation(leaky_relu),
    "Less": Operation(operator.lt, elementwise=True),
    "Min": Operation(least, elementwise=True),
    "Mul": Operation(operator.mul, elementwise=True),
    "Neg": Operation(operator.neg),
    "Pad": Operation(pad, (1, 2, 3)),
    "ReduceMean": Operation(average, (1,)),
    "ReduceProd": Operation(multiply_all),
    "Relu": Operation(torch.relu),
    "Reshape": Operation(reshape, (1,)),
    "Resize": Operation(resize, (1, 2, 3)),
    "Round": Operation(torch.round),
    "Sigmoid": Operation(sigmoid),
    "Slice": Operation(cut, (1, 2, 3, 4)),
    "SpaceToDepth": Operation(to_depth),
    "Split": Operation(split, (1,)),
    "Sqrt": Operation(torch.sqrt),
    "Squeeze": Operation(squeeze, (1,)),
    "Sub": Operation(operator.sub, elementwise=True),
    "Tanh": Operation(tanh),
    "Transpose": Operation(transpose),
    "Unsqueeze": Operation(unsqueeze, (1,)),
}
"""By ONNX's name; ``Shape`` and ``Constant`` are no computation and belong to the graph."""
