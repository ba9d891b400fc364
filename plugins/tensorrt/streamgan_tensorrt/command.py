"""The command ``streamgan tensorrt``."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from streamgan import api
from streamgan_tensorrt import cache, cuda, engines, graph, runtime
from streamgan_tensorrt.profiles import Profile, parse_size
from streamgan_tensorrt.progress import OnProgress, announce


@click.group("tensorrt")
def tensorrt() -> None:
    """Engines of TensorRT, built ahead of the first run."""


@tensorrt.command("build")
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@click.option(
    "--size",
    "sizes",
    multiple=True,
    required=True,
    metavar="WxH",
    help="Size of the pictures that the model sees, rounded up to what it takes; may be repeated.",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Pictures at once.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp16",
    show_default=True,
    help="What to compute in; int8 needs a quantised model file.",
)
@click.option(
    "--range",
    "one_range",
    is_flag=True,
    help="One engine for all sizes between the smallest and the largest, fastest at the first; it is slower.",
)
@click.option(
    "--capability",
    "capabilities",
    multiple=True,
    metavar="N.N",
    help="Compute capability to build for, such as 8.9, an engine each; TensorRT-RTX only, by default all from 8.0.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the bare engine here, for other programs.")
def build(
    model: Path,
    sizes: tuple[str, ...],
    batch: int,
    precision: str,
    one_range: bool,
    capabilities: tuple[str, ...],
    output: Path | None,
) -> None:
    """Build an engine of a model file and keep it.

    \b
    streamgan tensorrt build day2night.onnx --size 256x144
    streamgan tensorrt build day2night.onnx --size 256x144 --size 640x360 --range

    TensorRT-RTX needs no GPU for it; TensorRT builds for the one at hand.
    """
    step = graph.multiple_of(model)
    wanted = [parse_size(size) for size in sizes]
    shapes = [(batch, math.ceil(height / step) * step, math.ceil(width / step) * step) for width, height in wanted]
    profiles = [Profile.spanning(shapes)] if one_range else [Profile.static(shape) for shape in shapes]
    loaded = runtime.load()
    device = None if loaded.portable else cuda.find_device()
    if output is not None and len(capabilities) > 1:
        raise api.UsageError("-o: one file holds one engine; name one --capability")
    if output is None and cache.open_folder() is None:
        raise api.BackendError("tensorrt: no folder to keep engines in; set STREAMGAN_CACHE, or name a file with -o")
    for capability in capabilities or ("",):
        source = engines.Source.open(loaded, model, precision, device, capability)
        with _shown(f"{model.name}, {precision}") as on_progress:
            entry = engines.make(source, profiles, on_progress)
        if output is not None:
            _write(output, entry.engine)
        built = ", ".join(map(str, profiles))
        click.echo(f"{output or entry.path}: {loaded.name}, {precision}, {built}; for {source.facts['gpu']}")


def _write(output: Path, engine: bytes) -> None:
    """Writes a bare engine."""
    try:
        cache.write(output, engine)
    except OSError as error:
        raise api.BackendError(f"tensorrt: {output}: the engine cannot be written ({error.strerror})") from None


@contextlib.contextmanager
def _shown(title: str) -> Iterator[OnProgress]:
    """Shows how far a build is, on the standard error: a bar on a terminal, else a line every ten seconds."""
    if not sys.stderr or not sys.stderr.isatty():
        yield announce(title)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=1.0)
        yield lambda done, phase: bars.update(task, completed=done)
