"""Small clips and models for the tests, made on the spot with nothing of the code under test."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from streamgan import model

Image = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Clip:
    """What `make_clip` writes."""

    name: str = "clip.mp4"
    size: tuple[int, int] = (64, 48)
    time_base: Fraction = Fraction(1, 12800)
    pts: Sequence[int] = tuple(range(0, 20 * 512, 512))
    codec: str = "libx264"
    options: dict[str, str] = dataclasses.field(default_factory=lambda: {"crf": "10", "preset": "ultrafast"})
    pixel_format: str = "yuv420p"
    colorspace: int = 2
    color_range: int = 0
    rotation: int = 0
    audio: bool = False
    subtitles: tuple[str, ...] = ()
    title: str = ""
    last_duration: int = 512


def picture(index: int, size: tuple[int, int] = (64, 48)) -> Image:
    """A gradient whose brightness tells its index: at most 60 pictures differ."""
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(40, 200, width, dtype=np.uint8)
    image[..., 1] = np.linspace(30, 220, height, dtype=np.uint8)[:, None]
    image[..., 2] = 16 + index % 60 * 4
    return image


def write_clip(path: Path, clip: Clip) -> Path:
    """Writes a clip with PyAV alone, so that it owes nothing to the code under test."""
    with av.open(str(path), "w") as output:
        video = output.add_stream(clip.codec, rate=25, options=dict(clip.options))
        context = video.codec_context
        context.width, context.height, context.pix_fmt = *clip.size, clip.pixel_format
        context.time_base = video.time_base = clip.time_base
        context.colorspace, context.color_range = clip.colorspace, clip.color_range
        context.flags |= 1 << 8
        if clip.rotation:
            video.set_display_rotation(clip.rotation)
        audio = output.add_stream("aac", rate=48000) if clip.audio else None
        texts = output.add_stream("subrip") if clip.subtitles else None
        if texts is not None:
            texts.codec_context.subtitle_header = b"[Script Info]\n"
        output.metadata["title"] = clip.title
        for index, pts in enumerate(clip.pts):
            frame = av.VideoFrame.from_ndarray(picture(index, clip.size), format="rgb24")
            matrix = 5 if clip.colorspace == 2 else clip.colorspace
            frame = frame.reformat(format=clip.pixel_format, dst_colorspace=matrix)
            frame.pts, frame.time_base = pts, clip.time_base
            later = clip.pts[index + 1] if index + 1 < len(clip.pts) else pts + clip.last_duration
            frame.duration = later - pts
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if audio is not None:
            _write_audio(output, audio, float(clip.pts[-1] * clip.time_base))
        for index, text in enumerate(clip.subtitles):
            packet = av.Packet(text.encode())
            packet.time_base, packet.pts, packet.dts, packet.duration = Fraction(1, 1000), *(index * 200,) * 2, 150
            packet.stream = texts
            output.mux(packet)
    return path


def _write_audio(output: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    """A tone whose pitch rises."""
    for index in range(int(seconds * 48000 / 1024) + 1):
        phase = np.cumsum(np.full(1024, 0.02 + index * 0.001)) + index
        samples = np.stack([np.sin(phase)] * 2).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples * 0.3, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, index * 1024, Fraction(1, 48000)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def write_model(path: Path, gain: float, bias: float, multiple_of: int = 1, of: Path | None = None) -> Path:
    """A model file that computes ``gain * x + bias`` on every number; it says that it is `of` another, quantised."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["x", "gain"], ["scaled"]),
            helper.make_node("Add", ["scaled", "bias"], ["moved"]),
            helper.make_node("Clip", ["moved", "low", "high"], ["held"]),
            helper.make_node("Round", ["held"], ["round"]),
            helper.make_node("Cast", ["round"], ["frames_out"], to=TensorProto.UINT8),
        ],
        "linear",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("frames_out", TensorProto.UINT8, ["N", "H", "W", 3])],
        [
            helper.make_tensor(name, TensorProto.FLOAT, [], [value])
            for name, value in (("gain", gain), ("bias", bias), ("low", 0.0), ("high", 255.0))
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, str(path))
    card = model.ModelCard(
        name=path.stem,
        method="none",
        direction="any",
        licence="CC0-1.0",
        creator="tests",
        size=model.SizeRule(multiple_of=multiple_of),
        quantised_from="" if of is None else model.digest(of),
    )
    model.write_card(path, card)
    return path


def read_pts(path: Path, kind: str = "video") -> list[Fraction]:
    """Times of all frames of a file, in seconds, in order."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [frame.pts * frame.time_base for frame in container.decode(stream)]
