"""``streamgan bench``: how fast each stage is, and all of them together."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamgan import plugins
from streamgan.api import UsageError
from streamgan.cli import options, table

if TYPE_CHECKING:
    from streamgan.bench import Measurement

_SMALLEST, _LARGEST = 16, 8192
_HEADINGS = ("clip", "size", "frames", "decode", "translate", "encode", "end to end", "possible", "efficiency")


@click.command("bench")
@click.argument("clips", nargs=-1)
@options.translation
@click.option("--encoder-preset", metavar="NAME", help="Effort of the encoder, such as veryfast or slow.")
@click.option("--frames", type=click.IntRange(min=2), default=100, show_default=True, help="Frames of each clip.")
@click.option("--resolution", default="640x360", show_default=True, metavar="WxH", help="Of the synthetic clip.")
@click.pass_obj
def command(
    loose_files: tuple[Path, ...],
    /,
    clips: tuple[str, ...],
    settings: tuple[str, ...],
    frames: int,
    resolution: str,
    **given: Any,
) -> None:
    """Measure how fast a preset is here.

    A synthetic clip is measured, and CLIPS if some are given. Prints frames per second of each stage alone and of all
    together, and the efficiency: end to end over the best that these stages allow on these cores.
    """
    size, values = _size(resolution), options.assignments(settings)
    from streamgan import bench, pipeline

    registry = plugins.load(loose_files)
    measured = []
    with tempfile.TemporaryDirectory(prefix="streamgan-bench-") as folder:
        synthetic = bench.synthetic_clip(Path(folder) / "synthetic.mp4", size, frames)
        for clip in (str(synthetic), *clips):
            click.echo(f"measuring {Path(clip).name} ...", err=True)
            request = pipeline.Request.of(input=clip, options=values, **given)
            measured.append(bench.measure(request, registry, frames))
    table.show("frames per second", [row(each) for each in measured], _HEADINGS)


def row(measured: Measurement) -> tuple[str, ...]:
    """The cells of one clip."""
    alone = [f"{measured.costs[stage].fps:.1f}" for stage in ("decode", "translate", "encode")]
    whole = (f"{measured.end_to_end:.1f}", f"{measured.bound:.1f}", f"{measured.efficiency:.2f}")
    return (measured.clip, "x".join(map(str, measured.size)), str(measured.frames), *alone, *whole)


def _size(text: str) -> tuple[int, int]:
    """Width and height from ``640x360``."""
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(_SMALLEST <= side <= _LARGEST for side in size):
        sides = f"each from {_SMALLEST} to {_LARGEST}"
        raise UsageError(f"--resolution {text}: expected WIDTHxHEIGHT in pixels, {sides}, such as 640x360")
    return size
