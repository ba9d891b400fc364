"""How the cost of a frame grows: with its pixels, with the model's batch, with the film's length; as tables and plots.

python benchmarks/growth.py --plots docs        writes docs/performance-pixels.svg, -batch.svg and -length.svg
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import footage
import plots

# isort: split
import numpy as np

from streamgan import bench, pipeline, plugins
from streamgan.api import Session
from streamgan.models import choice, loading
from streamgan.pipeline import STAGES
from streamgan.plan import Plan
from streamgan.plugins import Registry
from streamgan.request import Request

SIZES = ((320, 180), (640, 360), (960, 540), (1280, 720), (1920, 1080))
BATCHES = (1, 2, 4, 8)
LENGTHS = (10, 25, 50, 100, 200)
MIDDLE = (640, 360)
"""Where length and batch are measured."""
_ROUNDS = 5


def by_pixels(folder: Path, preset: str, frames: int, registry: Registry) -> dict[str, list[tuple[float, float]]]:
    """Millions of pixels and milliseconds of all cores for a frame: of each stage, and of the whole run."""
    series: dict[str, list[tuple[float, float]]] = {name: [] for name in (*STAGES, "together")}
    for width, height in SIZES:
        measured = bench.measure(_request(folder, preset, (width, height), frames), registry, frames)
        pixels = width * height / 1e6
        for stage in STAGES:
            series[stage].append((pixels, measured.costs[stage].cpu * 1000))
        series["together"].append((pixels, measured.cpu * 1000))
        click.echo(f"  {width}x{height}: {measured.cpu * 1000:.1f} ms of all cores a frame", err=True)
    return series


def by_length(folder: Path, preset: str, registry: Registry) -> dict[str, list[tuple[float, float]]]:
    """Frames of a film, and milliseconds that a frame takes, opening and closing included."""
    points = []
    for frames in LENGTHS:
        request = _request(folder, preset, MIDDLE, frames)
        report = pipeline.run(pipeline.build(request, registry))
        points.append((float(frames), report.seconds / report.frames * 1000))
        click.echo(f"  {frames} frames: {points[-1][1]:.1f} ms a frame", err=True)
    return {"a frame": points}


def by_batch(folder: Path, preset: str, registry: Registry) -> dict[str, list[tuple[float, float]]]:
    """Pictures given to the model at once, and milliseconds for one: passing time, and that of all cores.

    The model is loaded as a run of this preset loads it, and called by one thread; the best of five calls counts.
    """
    work = pipeline.build(_request(folder, preset, MIDDLE, max(BATCHES)), registry)
    session, size = _session(work)
    wall, cpu = list[tuple[float, float]](), list[tuple[float, float]]()
    pictures = np.random.default_rng(0).integers(0, 256, (max(BATCHES), size[1], size[0], 3), np.uint8)
    for batch in BATCHES:
        session.run(pictures[:batch])
        spent = [_spent(lambda batch=batch: session.run(pictures[:batch])) for _ in range(_ROUNDS)]  # type: ignore[misc]
        wall.append((float(batch), min(each[0] for each in spent) / batch * 1000))
        cpu.append((float(batch), min(each[1] for each in spent) / batch * 1000))
        click.echo(f"  batch {batch}: {wall[-1][1]:.1f} ms a picture", err=True)
    session.close()
    return {"passing time": wall, "time of all cores": cpu}


def _session(work: Plan) -> tuple[Session, tuple[int, int]]:
    """The model of a plan, and the (width, height) that it sees."""
    path, setup = work.model, work.setup
    if path is None or setup is None or work.info is None:
        raise click.UsageError(f"preset {work.preset.name} runs no model file; choose another with --preset")
    size = choice.model_size(path, (work.info.width, work.info.height), work.options)
    ways = loading.ladder(setup, work.backends)
    return loading.load(path, ways, work.backends, size).session, size


def _spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that passed, and seconds of all cores."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _request(folder: Path, preset: str, size: tuple[int, int], frames: int) -> Request:
    """A run on a clip of a size and length."""
    place = folder / f"{size[1]}-{frames}"
    place.mkdir(exist_ok=True)
    (clip, *_) = footage.clips(place, size, frames, names=footage.REAL[:1])
    return Request.of(input=str(clip), preset=preset, output=str(place / "out.mp4"), overwrite=True)


def table(series: dict[str, list[tuple[float, float]]], across: str) -> str:
    """The points in Markdown, a line for each place on the axis."""
    names, (first, *_) = list(series), series.values()
    lines = [f"| {across} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for number, (place, _) in enumerate(first):
        lines.append(f"| {place:g} | {' | '.join(f'{series[name][number][1]:.1f}' for name in names)} |")
    return "\n".join(lines)


def told(series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """First and last point of each line in words."""
    return "; ".join(
        f"{name} {p[0][1]:.1f} at {p[0][0]:g}, {p[-1][1]:.1f} at {p[-1][0]:g}" for name, p in series.items()
    )


@click.command()
@click.option("--preset", default="day2night", show_default=True)
@click.option(
    "--frames", type=click.IntRange(min=2), default=40, show_default=True, help="Of a clip, where not varied."
)
@click.option("--plots", "folder", type=click.Path(path_type=Path), help="Folder to write the plots into.")
def main(preset: str, frames: int, folder: Path | None) -> None:
    """Print how cost grows in Markdown."""
    registry = plugins.load()
    with tempfile.TemporaryDirectory(prefix="streamgan-growth-") as name:
        place = Path(name)
        found = {
            "pixels": (by_pixels(place, preset, frames, registry), "million pixels", "CPU milliseconds a frame"),
            "batch": (by_batch(place, preset, registry), "pictures at once", "milliseconds a picture, model alone"),
            "length": (by_length(place, preset, registry), "frames of the film", "milliseconds a frame, end to end"),
        }
    for kind, (series, across, up) in found.items():
        click.echo(f"{table(series, across)}\n")
        if folder is not None:
            drawn = plots.lines(series, across, up, f"{up}, by {across}: {told(series)}")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"performance-{kind}.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
