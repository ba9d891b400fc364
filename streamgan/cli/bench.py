"""``streamgan bench``: how fast each stage is, and all of them together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamgan import plugins
from streamgan.api import SinkError, UsageError
from streamgan.cli import options, table

if TYPE_CHECKING:
    from streamgan.bench import Measurement
    from streamgan.request import Request
    from streamgan.rounds import Job, Measured, Ratio, Result

STAGES = ("decode", "translate", "encode")
_SPEEDS = ("clip", "size", "frames", *STAGES, "end to end", "possible", "efficiency")
_COSTS = ("clip", *STAGES, "end to end", "bound by", "peak MB", "first frame", "cold")
_COLORS: dict[int, dict[str, Any]] = {1: {"fg": "green"}, -1: {"fg": "red"}, 0: {"dim": True}}
_WORDS = {1: "better", -1: "worse", 0: "no difference beyond the noise"}


@click.command("bench")
@click.argument("clips", nargs=-1)
@options.translation
@click.option("--encoder-preset", metavar="NAME", help="Effort of the encoder, such as veryfast or slow.")
@click.option("--frames", type=click.IntRange(min=2), default=100, show_default=True, help="Frames of each clip.")
@click.option("--resolution", default="640x360", show_default=True, metavar="WxH", help="Of the synthetic clip.")
@click.option(
    "--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Fresh processes for each clip."
)
@click.option("--json", "file", type=click.Path(path_type=Path), metavar="FILE", help="Write every run there as JSON.")
@click.option(
    "--compare", type=click.Path(path_type=Path), metavar="FILE", help="Show ratios to what --json wrote earlier."
)
@click.pass_obj
def command(
    loose_files: tuple[Path, ...],
    /,
    clips: tuple[str, ...],
    settings: tuple[str, ...],
    frames: int,
    resolution: str,
    repeat: int,
    file: Path | None,
    compare: Path | None,
    **given: Any,
) -> None:
    """Measure how fast a preset is here.

    A synthetic clip is measured, and CLIPS if some are given: each stage alone, all together, and the efficiency, which
    is end to end over the best that these stages allow on these cores. Each run is a process of its own that warms up
    before; medians are shown, and after ± half of what lies between the least and the largest.
    """
    from streamgan import bench, rounds
    from streamgan.request import Request

    size, values = options.resolution(resolution), options.assignments(settings)
    _check_target(file)
    old = None if compare is None else rounds.from_json(_read(compare), f"--compare {compare}")
    with tempfile.TemporaryDirectory(prefix="streamgan-bench-") as folder:
        synthetic = bench.synthetic_clip(Path(folder) / "synthetic.mp4", size, frames)
        given |= {"options": values, "output": str(Path(folder) / "bench.mp4")}
        requests = [Request.of(input=clip, **given) for clip in (str(synthetic), *clips)]
        preset = _check(requests, loose_files)
        if old is not None:
            rounds.check_preset(preset, old)
        jobs = [rounds.Job(request, frames, loose_files) for request in requests]
        results = tuple(_measure(jobs, repeat))
    new = rounds.Measured(preset, results, rounds.settings_of(requests[0], preset), rounds.machine())
    _show(new, repeat)
    if old is not None:
        show_ratios(rounds.compare(new, old), rounds.differences(new, old))
    if file is not None:
        file.write_text(rounds.to_json(new))


def speeds(result: Result) -> tuple[str, ...]:
    """The cells of one clip in frames per second."""
    from streamgan.rounds import FIGURES

    first = result.runs[0]
    size, frames = "x".join(map(str, first.size)), str(first.frames)
    cells = [_cell(result, FIGURES[name], ".1f") for name in (*STAGES, "end to end", "possible")]
    return (first.clip, size, frames, *cells, _cell(result, FIGURES["efficiency"]))


def costs(result: Result) -> tuple[str, ...]:
    """The cells of one clip: milliseconds of all cores for a frame, what bounds it, memory, and how it starts."""
    parts: list[Callable[[Measurement], float]] = [
        lambda run: run.costs["decode"].cpu,
        lambda run: run.costs["translate"].cpu,
        lambda run: run.costs["encode"].cpu,
        lambda run: run.cpu,
    ]
    cells = [_cell(result, part, ".1f", 1000) for part in parts]
    bounds = [run.bound_by for run in result.runs]
    peak = result.spread(lambda run: run.peak).high / 1e6
    cold = "" if result.cold is None else f"{result.cold:.2f} s"
    start = f"{_cell(result, lambda run: run.start)} s"
    return (
        result.runs[0].clip,
        *cells,
        max(bounds, key=bounds.count),
        f"{peak:.0f}" if peak else "unknown",
        start,
        cold,
    )


def show_ratios(ratios: Sequence[Ratio], differences: Sequence[str]) -> None:
    """Prints ratios, new over old; green where every new run was better than every old one, red where worse."""
    clip = ""
    for ratio in ratios:
        if ratio.clip != clip:
            clip = ratio.clip
            click.echo(f"{clip}: new over old, and what the noise allows")
        text = f"  {ratio.figure:<12}{ratio.value:6.2f}  ({ratio.low:.2f} to {ratio.high:.2f})  {_WORDS[ratio.change]}"
        click.secho(text, **_COLORS[ratio.change])
    for difference in differences:
        click.echo(f"note: not the same: {difference}", err=True)


def _show(measured: Measured, repeat: int) -> None:
    """Prints both tables."""
    of = f"median of {repeat} processes" if repeat > 1 else "one process"
    table.show(f"frames per second, {of}", [speeds(each) for each in measured.results], _SPEEDS)
    rows = [costs(each) for each in measured.results]
    table.show("milliseconds of all cores for a frame; seconds from the start of the program", rows, _COSTS)


def _cell(result: Result, figure: Callable[[Measurement], float], form: str = ".2f", scale: float = 1) -> str:
    """A median, times `scale`, and its noise if there is more than one run."""
    spread = result.spread(figure)
    return f"{spread.median * scale:{form}}" + (f" ±{spread.noise:.0%}" if len(result.runs) > 1 else "")


def _measure(jobs: Sequence[Job], repeat: int) -> Iterator[Result]:
    """Measures clip after clip, saying so."""
    from streamgan import rounds

    for job in jobs:
        yield rounds.measure(job, repeat, lambda text: click.echo(f"measuring {text} ...", err=True))


def _check(requests: Sequence[Request], loose_files: tuple[Path, ...]) -> str:
    """Builds what will be measured, so that what cannot be is said at once; returns the preset's name."""
    from streamgan import plan

    registry = plugins.load(loose_files)
    built = [plan.build(request, registry, lambda line: click.echo(line, err=True)) for request in requests]
    return built[0].preset.name


def _check_target(file: Path | None) -> None:
    """Refuses a JSON file that must not or cannot be written, before anything is measured."""
    if file is None:
        return
    if file.suffix.lower() != ".json":  # so it is never a film
        raise UsageError(f"--json {file}: expected a name that ends in .json")
    folder = file.absolute().parent
    if file.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise SinkError(f"--json {file}: cannot be written; choose a file in a folder that exists and takes files")


def _read(path: Path) -> str:
    """The text of a file to compare with; what is not UTF-8 is none of ours."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"--compare {path}: cannot be read ({error.strerror})") from None
