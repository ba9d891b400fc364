"""Ways between the planes of a video and RGB: what each costs, and how far it is from ITU-T H.273 in doubles.

    python benchmarks/colour.py FILM --size 1280x720

CPU milliseconds a picture, the least of several rounds in which all ways take turns; errors in levels of 0..255 on the
way in, in codes on the way out. The last table compares whole lines: RGB at full size, and Y, Cb and Cr throughout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import click
import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from av.video.reformatter import Interpolation, VideoReformatter
from onnx import TensorProto, helper, numpy_helper

from streamgan.api import Color, Frame
from streamgan.frames.convert import FrameMaker, to_picture
from streamgan.frames.pixels import views
from streamgan.frames.planar import Planes
from streamgan.models import planes, scaling
from streamgan.models.backends import OnnxRuntime

Doubles: TypeAlias = npt.NDArray[np.float64]
Way: TypeAlias = Callable[[], Any]

ROUNDS, TICK, SHORT_SIDE = 15, Fraction(1, 25), 224
MEANING = Color(matrix=1, primaries=1, transfer=1, full_range=False)
RED, BLUE = 0.2126, 0.0722
SCALERS = {
    "bilinear": Interpolation.BILINEAR,
    "fast_bilinear": Interpolation.FAST_BILINEAR,
    "area": Interpolation.AREA,
    "area, accurate_rnd": Interpolation.AREA | Interpolation.ACCURATE_RND,
    "area, full_chroma_inp": Interpolation.AREA | Interpolation.FULL_CHR_H_INP,
    "area, full_chroma_inp, accurate_rnd": (
        Interpolation.AREA | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
    ),
    "area, full_chroma_int, accurate_rnd": (
        Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
    ),
}


def decoded(codes: list[npt.NDArray[np.uint8]]) -> Doubles:
    """Planes as RGB of 0..255 in doubles, ``(H, W, 3)``: BT.709, limited range, each chroma for 2x2 pixels."""
    luma, blue, red = (each.astype(np.float64) for each in codes)
    y = (luma - 16) / 219
    cb, cr = (((each - 128) / 224).repeat(2, 0).repeat(2, 1) for each in (blue, red))
    r, b = y + 2 * (1 - RED) * cr, y + 2 * (1 - BLUE) * cb
    return np.asarray(np.stack([r, (y - RED * r - BLUE * b) / (1 - RED - BLUE), b], -1).clip(0, 1) * 255)


def encoded(image: npt.NDArray[np.uint8]) -> list[Doubles]:
    """RGB as planes in doubles, the mean of 2x2 pixels for chroma."""
    r, g, b = np.moveaxis(image / 255.0, -1, 0)
    y = RED * r + (1 - RED - BLUE) * g + BLUE * b
    chroma = [(b - y) / (2 * (1 - BLUE)), (r - y) / (2 * (1 - RED))]
    means = [(c[::2, ::2] + c[::2, 1::2] + c[1::2, ::2] + c[1::2, 1::2]) / 4 for c in chroma]
    return [y * 219 + 16, *(mean * 224 + 128 for mean in means)]


def graph() -> bytes:
    """A model of planes in, RGB out: the same arithmetic as the first nodes of a model that takes planes."""
    luma, span = 255 / 219, 255 / 224
    cr, cb = 2 * (1 - RED) * span, 2 * (1 - BLUE) * span
    green = 1 - RED - BLUE
    rows = np.array([[luma, 0, cr], [luma, -BLUE / green * cb, -RED / green * cr], [luma, cb, 0]])
    constants = {
        "weights": rows.astype(np.float32)[:, :, None, None],
        "bias": -(rows @ [16, 128, 128]).astype(np.float32),
        "twice": np.array([1, 1, 2, 2], np.float32),
        "least": np.float32(0),
        "most": np.float32(255),
    }
    make = helper.make_node
    nodes = [make("Cast", [name], [f"{name}f"], to=TensorProto.FLOAT) for name in "yuv"]
    nodes += [make("Resize", [f"{name}f", "", "twice"], [f"{name}2"], mode="nearest") for name in "uv"]
    nodes += [
        make("Concat", ["yf", "u2", "v2"], ["yuv"], axis=1),
        make("Conv", ["yuv", "weights", "bias"], ["rgb"]),
        make("Clip", ["rgb", "least", "most"], ["held"]),
        make("Round", ["held"], ["rounded"]),
        make("Cast", ["rounded"], ["bytes"], to=TensorProto.UINT8),
        make("Transpose", ["bytes"], ["frames"], perm=[0, 2, 3, 1]),
    ]
    given = [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, 1, f"H{name}", f"W{name}"]) for name in "yuv"]
    made = [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", "H", "W", 3])]
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    built = helper.make_model(
        helper.make_graph(nodes, "planes", given, made, initial),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    onnx.checker.check_model(built)
    return bytes(built.SerializeToString())


def in_graph(picture: av.VideoFrame, threads: int) -> dict[str, Way]:
    """Conversion inside the graph, by each engine that is installed."""
    feed = {name: np.ascontiguousarray(each)[None, None] for name, each in zip("yuv", views(picture), strict=True)}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph(), options, providers=["CPUExecutionProvider"])
    ways: dict[str, Way] = {"planes into the graph, ONNX Runtime": lambda: session.run(None, feed)[0][0]}
    try:
        import openvino
    except ImportError:
        return ways
    compiled = openvino.compile_model(openvino.Core().read_model(graph()), "CPU", {"INFERENCE_NUM_THREADS": threads})
    return ways | {"planes into the graph, OpenVINO": lambda: compiled(feed, share_inputs=True)[0][0]}


def ways_in(picture: av.VideoFrame, threads: int) -> dict[str, Way]:
    """How a decoded picture becomes RGB."""
    maker, stacked = FrameMaker(picture), picture.to_ndarray(format="yuv420p")
    ways: dict[str, Way] = {
        "FrameMaker (in use)": lambda: maker.make(picture, 0, TICK, 1).image,
        'to_ndarray("rgb24")': lambda: picture.to_ndarray(format="rgb24"),
        "OpenCV I420 (BT.601 only)": lambda: cv2.cvtColor(stacked, cv2.COLOR_YUV2RGB_I420),
    }
    for name in ("bilinear", "fast_bilinear", "area, full_chroma_int, accurate_rnd"):
        ways[f"one kept reformatter, {name}"] = _into_rgb(picture, SCALERS[name])
    return ways | in_graph(picture, threads)


def _into_rgb(picture: av.VideoFrame, flags: Interpolation) -> Way:
    """FFmpeg's scaler, kept, into an array."""
    reformatter = VideoReformatter()

    def convert() -> npt.NDArray[np.uint8]:
        made = reformatter.reformat(
            picture,
            format="rgb24",
            src_colorspace=1,
            src_color_range=1,
            dst_color_range=2,
            interpolation=flags,
            threads=1,
        )
        return np.asarray(made.to_ndarray())

    return convert


def ways_out(image: npt.NDArray[np.uint8]) -> dict[str, Way]:
    """How RGB becomes a picture for an encoder."""
    reformatter, frame = VideoReformatter(), Frame(image, 0, TICK)
    ways: dict[str, Way] = {
        "to_picture (in use)": lambda: views(to_picture(reformatter, frame, MEANING, "yuv420p")),
        "OpenCV I420 (BT.601 only)": lambda: _cut(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)),
    }
    for name in ("fast_bilinear", "bilinear", "area", "area, accurate_rnd", "area, full_chroma_inp, accurate_rnd"):
        ways[f"one kept reformatter, {name}"] = _out_of_rgb(image, SCALERS[name])
    return ways


def _out_of_rgb(image: npt.NDArray[np.uint8], flags: Interpolation) -> Way:
    """FFmpeg's scaler, kept, of an array that is borrowed."""
    reformatter = VideoReformatter()
    return lambda: views(
        reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(image, format="rgb24"),
            format="yuv420p",
            dst_colorspace=1,
            dst_color_range=1,
            interpolation=flags,
            threads=1,
        )
    )


def _cut(stacked: Any) -> list[npt.NDArray[np.uint8]]:
    """The planes that OpenCV puts one below the other."""
    height, width = stacked.shape[0] * 2 // 3, stacked.shape[1]
    flat, quarter = np.asarray(stacked, np.uint8).reshape(-1), height * width // 4
    chroma = flat[height * width :].reshape(2, height // 2, width // 2)
    assert chroma.size == 2 * quarter
    return [stacked[:height], chroma[0], chroma[1]]


def lines(picture: av.VideoFrame, made: npt.NDArray[np.uint8], small: tuple[int, int]) -> dict[str, Way]:
    """From the decoder's picture to the encoder's, without the network; each stage of the line of today as well."""
    maker, out = FrameMaker(picture), VideoReformatter()
    image = maker.make(picture, 0, TICK, 1).image
    room, words = scaling.make_room(image.shape), scaling.make_room(image.shape[:2])
    shown, full = scaling.shrink(image, small), Frame(image, 0, TICK)

    def by_rgb() -> list[npt.NDArray[np.uint8]]:
        frame = maker.make(picture, 0, TICK, 1)
        large = scaling.enlarge_guided(made, scaling.shrink(frame.image, small), frame.image, room)
        return views(to_picture(out, Frame(large, 0, TICK), MEANING, "yuv420p"))

    def by_planes() -> list[npt.NDArray[np.uint8]]:
        given = Planes(picture, MEANING)
        shrunk = planes.shrink_planes(given, small)
        planes.to_rgb(shrunk, MEANING)  # what the model sees
        return list(planes.enlarge_planes(made, shrunk, given, words).samples)

    return {
        "line by RGB": by_rgb,
        "line by planes": by_planes,
        "in (FrameMaker)": lambda: maker.make(picture, 0, TICK, 1),
        "shrink": lambda: scaling.shrink(image, small),
        "enlarge_guided": lambda: scaling.enlarge_guided(made, shown, image, room),
        "out (to_picture)": lambda: to_picture(out, full, MEANING, "yuv420p"),
        "shrink, exact (cv2.INTER_AREA)": lambda: cv2.resize(image, small, interpolation=cv2.INTER_AREA),
    }


def least(ways: Mapping[str, Way], rounds: int) -> dict[str, float]:
    """CPU milliseconds of one call of each, the least of several rounds; the first round does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            way()
            found[name].append(1000 * (time.process_time() - began))
    return {name: min(values[1:]) for name, values in found.items()}


def errors(made: Any, exact: Any) -> str:
    """Largest and mean error, of one array or of several planes."""
    pairs = [(made, exact)] if isinstance(exact, np.ndarray) else list(zip(made, exact, strict=True))
    parts = [np.abs(np.asarray(one, np.float64) - other).ravel() for one, other in pairs]
    whole = np.concatenate(parts)
    return f"{whole.max():.2f} | {whole.mean():.3f}"


def table(title: str, ways: Mapping[str, Way], exact: Any, rounds: int, threads: int) -> None:
    """Prints one table in Markdown; without `exact`, without errors."""
    click.echo(
        f"\n| {title}, {threads} thread{'s' * (threads > 1)} | ms | largest error | mean error |\n|---|---|---|---|"
    )
    for name, milliseconds in least(ways, rounds).items():
        click.echo(f"| {name} | {milliseconds:.2f} | {'— | —' if exact is None else errors(ways[name](), exact)} |")


@click.command()
@click.argument("film", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--size", default="1280x720", show_default=True, help="WIDTHxHEIGHT that its picture is brought to.")
@click.option("--frame", default=60, show_default=True, help="Which of its frames.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--preset", type=click.Path(path_type=Path), default=Path(__file__).parents[1] / "presets/day2night.onnx")
def main(film: Path, size: str, frame: int, rounds: int, preset: Path) -> None:
    """Prints the tables, for one thread and for two."""
    width, height = (int(side) for side in size.split("x"))
    with av.open(str(film)) as opened:
        given = next(picture for index, picture in enumerate(opened.decode(video=0)) if index == frame)
    picture = VideoReformatter().reformat(given, width, height, "yuv420p", interpolation=Interpolation.BICUBIC)
    picture.colorspace, picture.color_range = 1, 1
    small = scaling.fit((width, height), SHORT_SIDE)
    seen = planes.to_rgb(planes.shrink_planes(Planes(picture, MEANING), small), MEANING)
    padded = scaling.pad(seen, 16)
    made = OnnxRuntime().load(preset, threads=1).run(padded[None])[0, : small[1], : small[0]]
    for threads in (1, 2):
        cv2.setNumThreads(threads)
        ways = ways_in(picture, threads)
        table("into RGB", ways, decoded(views(picture)), rounds, threads)
        image = np.asarray(ways["FrameMaker (in use)"](), np.uint8)
        table("out of RGB", ways_out(image), encoded(image), rounds, threads)
        whole = lines(picture, np.ascontiguousarray(made), small)
        table("decoder to encoder, without the network", whole, None, rounds, threads)
        rgb, direct = (whole[f"line by {name}"]() for name in ("RGB", "planes"))
        click.echo(f"\nline by planes against line by RGB, codes, largest | mean: {errors(direct, rgb)}")


if __name__ == "__main__":
    main()
