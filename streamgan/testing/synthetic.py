"""A tiny model file, synthetic pictures and clips: made on the spot, so that tests need no data."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from streamgan import api, model

_WEIGHTS = np.linspace(-0.25, 0.4, 81, dtype=np.float32).reshape(3, 3, 3, 3)  # (out, in, row, column)
_DOMAIN_STEP = 0.25


def make_images(count: int = 2, height: int = 48, width: int = 64, seed: int = 0) -> api.Images:
    """Noise over a gradient: ``(count, height, width, 3)`` uint8 RGB, read-only, as the runtime passes pictures."""
    random = np.random.default_rng(seed)
    gradient = np.linspace(0, 200, width)[None, None, :, None]  # (1, 1, W, 1)
    images: api.Images = (gradient + random.integers(0, 56, (count, height, width, 3))).astype(np.uint8)
    images.setflags(write=False)
    return images


def make_model(path: Path, domains: Sequence[str] = ()) -> Path:
    """Writes a tiny model file with a card: one convolution of 3x3. `reference` says what it computes.

    Args:
        path: the ``.onnx`` file.
        domains: names; with them the model has the further input ``domain``, ``(N,)`` int64.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    shape: list[str | int | None] = ["N", "H", "W", 3]
    constants: dict[str, Any] = {"half": np.float32(127.5), "one": np.float32(1), "minus_one": np.float32(-1)}
    nodes = [
        node("Cast", [model.INPUT], ["float"], to=TensorProto.FLOAT),
        node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        node("Div", ["planes", "half"], ["scaled"]),
        node("Sub", ["scaled", "one"], ["centred"]),
        node("Conv", ["centred", "weights"], ["made"], pads=[1, 1, 1, 1]),
        *_domain_nodes(bool(domains)),
        node("Clip", ["moved", "minus_one", "one"], ["clipped"]),
        node("Add", ["clipped", "one"], ["shifted"]),
        node("Mul", ["shifted", "half"], ["levels"]),
        node("Round", ["levels"], ["rounded"]),
        node("Transpose", ["rounded"], ["pictures"], perm=[0, 2, 3, 1]),
        node("Cast", ["pictures"], [model.OUTPUT], to=TensorProto.UINT8),
    ]
    constants["weights"] = _WEIGHTS
    inputs = [helper.make_tensor_value_info(model.INPUT, TensorProto.UINT8, shape)]
    if domains:
        inputs.append(helper.make_tensor_value_info("domain", TensorProto.INT64, ["N"]))
        constants |= {"quarter": np.float32(_DOMAIN_STEP), "as_planes": np.array([-1, 1, 1, 1])}
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        [helper.make_tensor_value_info(model.OUTPUT, TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, str(path))
    card = model.ModelCard("tiny", "none", "any to any", "CC0-1.0", "streamgan.testing", model.SizeRule(1, (64, 48), 3))
    card = dataclasses.replace(card, domains=tuple(domains), inputs=("domain",) if domains else ())
    model.write_card(path, card)
    return path


def _domain_nodes(wanted: bool) -> list[Any]:
    """The nodes that brighten each picture by its domain's number; one that does nothing if there are no domains."""
    from onnx import TensorProto, helper

    if not wanted:
        return [helper.make_node("Identity", ["made"], ["moved"])]
    cast = helper.make_node("Cast", ["domain"], ["numbers"], to=TensorProto.FLOAT)
    shape = helper.make_node("Reshape", ["numbers", "as_planes"], ["planes_of_numbers"])
    scale = helper.make_node("Mul", ["planes_of_numbers", "quarter"], ["steps"])
    return [cast, shape, scale, helper.make_node("Add", ["made", "steps"], ["moved"])]


def reference(images: api.Images, domain: npt.NDArray[np.int64] | None = None) -> api.Images:
    """What the model of `make_model` must return, computed in float64 with numpy alone.

    Args:
        images: ``(N, H, W, 3)`` uint8 RGB.
        domain: ``(N,)``, for a model with domains.
    """
    centred = np.pad(images.astype(np.float64) / 127.5 - 1, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    made = np.zeros(images.shape, dtype=np.float64)
    for row, column in itertools.product(range(3), range(3)):
        made += centred[:, row : row + height, column : column + width] @ _WEIGHTS[:, :, row, column].T
    if domain is not None:
        made += _DOMAIN_STEP * domain[:, None, None, None]
    return np.rint((np.clip(made, -1, 1) + 1) * 127.5).astype(np.uint8)


def make_clip(
    path: Path,
    *,
    size: tuple[int, int] = (64, 48),
    frames: int = 12,
    fps: int = 30,
    variable_rate: bool = False,
    audio: bool = False,
    codec: str = "libx264",
) -> list[Fraction]:
    """Writes a clip of a bright square that moves over a gradient.

    Args:
        path: the file; its ending decides the container.
        size: (width, height) in pixels; odd sizes are written as 4:4:4.
        frames: how many.
        fps: frames per second.
        variable_rate: whether some frames last two and three times as long.
        audio: whether a tone of the same length goes with it.
        codec: FFmpeg's name of the encoder.

    Returns:
        The time of each frame in seconds.
    """
    import av

    ticks = list(itertools.accumulate(itertools.islice(itertools.cycle((1, 2, 3) if variable_rate else (1,)), frames)))
    times = [Fraction(tick - 1, fps) for tick in ticks]
    with av.open(str(path), "w") as container:
        video = cast(av.VideoStream, container.add_stream(codec, rate=fps))
        video.width, video.height = size
        video.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
        video.codec_context.time_base = video.time_base = Fraction(1, fps * 100)
        sound = container.add_stream("aac", rate=48_000, layout="mono") if audio else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(_scene(size, number), format="rgb24")
            frame.pts, frame.time_base = int(time * fps * 100), Fraction(1, fps * 100)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            for part in _tone(float(times[-1]) + 1 / fps):
                container.mux(sound.encode(part))
            container.mux(sound.encode(None))
    return times


def _scene(size: tuple[int, int], number: int) -> npt.NDArray[np.uint8]:
    """Picture `number` of a synthetic clip: ``(H, W, 3)`` uint8 RGB."""
    width, height = size
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[..., 0] = np.linspace(30, 200, width)
    image[..., 1] = np.linspace(30, 200, height)[:, None]
    image[..., 2] = 100
    side = max(1, min(size) // 4)
    left = (number * 2) % max(1, width - side)
    image[height // 3 : height // 3 + side, left : left + side] = 240
    return image


def _tone(seconds: float) -> Iterator[Any]:
    """Frames of a 440 Hz tone, 48,000 samples a second, mono."""
    import av

    for start in range(0, int(seconds * 48_000), 1024):
        samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(start, start + 1024) / 48_000)
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
        yield frame
