"""Translates a video the way that one writes first: decode, shrink, run, enlarge, encode, one frame after the other.

It is what `benchmarks/speed.py` measures streamgan against: the same model file, the same encoder with the same
settings. Nothing in it is slow on purpose. It shows the model whole frames, or as small ones as streamgan does.

    python benchmarks/straightforward.py drive.mp4 night.mp4 presets/day2night.onnx --multiple-of 16
    python benchmarks/straightforward.py drive.mp4 night.mp4 presets/day2night.onnx --multiple-of 16 --short-side 144
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
import onnxruntime


def translate(
    session: onnxruntime.InferenceSession, image: npt.NDArray[np.uint8], size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """A frame ``(H, W, 3)`` uint8 RGB, shown to the model at `size`, and enlarged again."""
    height, width = image.shape[:2]
    seen = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    made = session.run(None, {"frames": seen[None]})[0][0]
    return np.asarray(cv2.resize(made, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def model_size(size: tuple[int, int], short_side: int, multiple_of: int) -> tuple[int, int]:
    """The (width, height) that the model sees: the shape kept, as nearly as multiples allow; 0 for the video's own."""
    scale = short_side / min(size) if 0 < short_side < min(size) else 1.0
    width, height = (max(1, round(side * scale / multiple_of)) * multiple_of for side in size)
    return width, height


def run(source: Path, target: Path, model: Path, short_side: int, multiple_of: int, frames: int, crf: int) -> int:
    """Translates at most so many frames; returns how many."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    count = 0
    with av.open(str(source)) as film, av.open(str(target), "w") as output:
        stream = film.streams.video[0]
        made = output.add_stream("libx264", rate=stream.average_rate, options={"preset": "veryfast", "crf": str(crf)})
        made.width, made.height, made.pix_fmt = stream.width, stream.height, "yuv420p"
        size = model_size((stream.width, stream.height), short_side, multiple_of)
        for frame in film.decode(stream):
            if count == frames:
                break
            image = translate(session, np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), size)
            output.mux(made.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            count += 1
        output.mux(made.encode(None))
    return count


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--short-side", type=int, default=0, help="That the model sees, in pixels; 0 for the video's own.")
@click.option("--multiple-of", type=int, default=1, help="What the sides must be multiples of.")
@click.option("--frames", type=int, default=-1, help="At most.")
@click.option("--crf", type=int, default=20, show_default=True)
def main(source: Path, target: Path, model: Path, short_side: int, multiple_of: int, frames: int, crf: int) -> None:
    """Print frames per second, the model's loading and the opening and closing of files included."""
    began = time.perf_counter()
    count = run(source, target, model, short_side, multiple_of, frames, crf)
    click.echo(f"{count / (time.perf_counter() - began):.3f}")


if __name__ == "__main__":
    main()
