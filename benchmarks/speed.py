"""Every bar of speed in one run: streamgan against the clock, against what its stages allow, against a plain script.

Each figure is the median of fresh processes; streamgan and the script take turns, so that what else the machine does
meets both. The clips are real footage if it lies beside the checkout, else a synthetic one (see `footage.py`).

    python benchmarks/speed.py --json speed.json                about a quarter of an hour
    python benchmarks/speed.py --frames 40 --repeat 1           a few minutes, to see that it works
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import footage
import stages

from streamgan import pipeline, plugins, rounds
from streamgan.api import StreamganError
from streamgan.bench import Measurement
from streamgan.model import read_card
from streamgan.preset import Preset
from streamgan.request import Request
from streamgan.rounds import Spread

SIZES = ((1280, 720), (640, 360))
LARGE, LARGE_FRAMES = (1920, 1080), 300
"""Where memory is measured: over this many frames, more than a segment has, and over three times as many."""
WAITER = """import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(used.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A small program that starts another and says its peak: a child's counts what its parent held when it was started."""
FLAT = 1.05
"""How much more memory the long run may take than the short one."""
CRF = 20
WHOLE = 4
"""Of how many frames the plain script translates one where it shows the model whole frames."""


@dataclasses.dataclass(frozen=True)
class Bar:
    """One figure against what it should be."""

    what: str
    figure: Spread
    wanted: float
    least: bool
    """Whether `wanted` is the least that it may be, else the most."""
    unit: str
    detail: str = ""
    """The figure of each clip."""

    @property
    def passed(self) -> bool:
        """Whether the median is as wanted."""
        return self.figure.median >= self.wanted if self.least else self.figure.median <= self.wanted

    def row(self) -> str:
        """A line of the table."""
        sign, verdict = "≥" if self.least else "≤", "pass" if self.passed else "**miss**"
        figure = f"{self.figure.median:.3g} {self.unit} ({self.figure.low:.3g}–{self.figure.high:.3g})"
        return f"| {self.what} | {sign} {self.wanted:g} {self.unit} | {figure} | {verdict} | {self.detail} |"


@dataclasses.dataclass
class Film:
    """One clip with all that was measured of it."""

    clip: str
    size: tuple[int, int]
    ours: list[Measurement] = dataclasses.field(default_factory=list)
    plain: list[float] = dataclasses.field(default_factory=list)
    """Frames per second of the plain script, run by run."""
    small: list[float] = dataclasses.field(default_factory=list)
    """The same where it shows the model as small a picture as the preset does."""

    def ratio(self, scripts: Sequence[float]) -> float:
        """How many times faster than a plain script: the median over the turns."""
        return statistics.median(run.end_to_end / fps for run, fps in zip(self.ours, scripts, strict=True))


def request_for(clip: Path, preset: str) -> Request:
    """What is run on a clip: the encoder as the plain script sets it."""
    return Request.of(
        input=str(clip), preset=preset, output=str(clip.with_suffix(".out.mp4")), crf=CRF, encoder_preset="veryfast"
    )


def plain_arguments(preset: str) -> tuple[list[str], list[str]]:
    """For the plain script: the preset's model file, and what makes it show the model pictures of the preset's size."""
    chosen = Preset.load(plugins.load().preset_path(preset))
    model = chosen.path.parent / chosen.options["model"]
    card = read_card(model)
    size = str(chosen.options.get("size", 0))
    return [str(model), "--multiple-of", str(card.size.multiple_of)], ["--short-side", size]


def plain_fps(clip: Path, arguments: Sequence[str], frames: int) -> float:
    """Frames per second of the plain script, in a fresh process."""
    script, target = Path(__file__).with_name("straightforward.py"), clip.with_suffix(".plain.mp4")
    command = [sys.executable, str(script), str(clip), str(target), *arguments]
    done = subprocess.run([*command, "--frames", str(frames), "--crf", str(CRF)], capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"the plain script failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout)


def measure_film(
    clip: Path, size: tuple[int, int], preset: str, frames: int, repeat: int, say: Callable[[str], None]
) -> Film:
    """Takes turns with the plain script."""
    film, (arguments, smaller) = Film(clip.name, size), plain_arguments(preset)
    job = rounds.Job(request_for(clip, preset), frames)
    for turn in range(repeat):
        say(f"{clip.name}: turn {turn + 1} of {repeat}")
        film.ours += rounds.measure(job, 1, cold=False).runs
        film.plain.append(plain_fps(clip, arguments, max(10, frames // WHOLE)))
        film.small.append(plain_fps(clip, [*arguments, *smaller], frames))
    return film


def measure_memory(folder: Path, preset: str, frames: int, say: Callable[[str], None]) -> list[int]:
    """Bytes that the program holds at most in a short and in a long run."""
    peaks = []
    for count in (frames, 3 * frames):
        (clip, *_) = footage.clips(folder, LARGE, count, names=footage.REAL[:1])
        say(f"{clip.name}: memory over {count} frames")
        target = str(clip.with_suffix(".out.mp4"))
        command = ["-m", "streamgan", "run", str(clip), "-p", preset, "-o", target, "--crf", str(CRF), "--overwrite"]
        ended = subprocess.run([sys.executable, "-c", WAITER, sys.executable, *command], stdout=subprocess.PIPE)
        if ended.returncode:
            raise click.ClickException(f"{clip.name}: streamgan run ended with {ended.returncode}")
        peaks.append(int(ended.stdout))
    return peaks


def over_clips(films: Sequence[Film], figure: Callable[[Film], float]) -> tuple[Spread, str]:
    """A figure over clips, each of which has one; and what it is of each."""
    values = {film.clip: figure(film) for film in films}
    return Spread.of(list(values.values())), ", ".join(f"{name} {value:.3g}" for name, value in values.items())


def bars(films: Sequence[Film], peaks: Sequence[int]) -> list[Bar]:
    """The table of the bars. Of each clip the median over its runs counts; of the clips the median."""

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    found = []
    for size, wanted in ((SIZES[0], 30.0), (SIZES[1], 60.0)):
        these, name = [film for film in films if film.size == size], f"{size[0]}×{size[1]}"
        if not these:
            continue
        speed, clips = over_clips(these, lambda film: median([run.end_to_end for run in film.ours]))
        found.append(Bar(f"end to end, {name}", speed, wanted, True, "fps", clips))
        share, clips = over_clips(these, lambda film: median([run.efficiency for run in film.ours]))
        found.append(Bar(f"efficiency, {name}", share, 0.9, True, "", clips))
        ratio, clips = over_clips(these, lambda film: film.ratio(film.plain))
        found.append(Bar(f"against a plain script, {name}", ratio, 2.5, True, "×", clips))
        ratio, clips = over_clips(these, lambda film: film.ratio(film.small))
        found.append(Bar(f"against one that shrinks for the model, {name}", ratio, 2.5, True, "×", clips))
    starts = [run.start for film in films for run in film.ours]
    found.append(Bar("start to first frame, warm cache", Spread.of(starts), 1.0, False, "s"))
    if peaks:
        large = f"{LARGE[0]}×{LARGE[1]}"
        found.append(Bar(f"peak memory, {large}", Spread.of([peak / 1e6 for peak in peaks]), 600, False, "MB"))
        grown = Spread.of([peaks[-1] / peaks[0]])
        found.append(Bar(f"memory of three times the frames, {large}", grown, FLAT, False, "×"))
    return found


def stage_table(films: Sequence[Film]) -> str:
    """Each stage alone, of each clip."""
    lines = [
        "| clip | decode fps | translate fps | encode fps | possible | end to end | bound by | backend |",
        "|---" * 8 + "|",
    ]
    for film in films:
        result = rounds.Result(tuple(film.ours))
        names = ("decode", "translate", "encode", "possible", "end to end")
        cells = [result.spread(rounds.FIGURES[name]) for name in names]
        numbers = " | ".join(f"{each.median:.1f} ±{each.noise:.0%}" for each in cells)
        lines.append(f"| {film.clip} | {numbers} | {film.ours[0].bound_by} | {film.ours[0].backend} |")
    return "\n".join(lines)


def profiles(folder: Path, preset: str, frames: int, gil: bool) -> str:
    """The profile of each size on the first clip, and the lock's share."""
    parts = []
    for size in SIZES:
        (clip, *_) = footage.clips(folder, size, frames, names=footage.REAL[:1])
        request = dataclasses.replace(request_for(clip, preset), overwrite=True)
        parts.append(f"{clip.name}\n\n{stages.table(stages.profile(pipeline.build(request, plugins.load())))}")
        if gil:
            parts.append(stages.gil(pipeline.build(request, plugins.load())))
    return "\n\n".join(parts)


@click.command()
@click.option("--preset", default="day2night", show_default=True)
@click.option("--frames", type=click.IntRange(min=10), default=300, show_default=True, help="Of each clip.")
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Fresh processes for each.")
@click.option("--clips", type=click.IntRange(1, 3), default=3, show_default=True, help="How many of the clips.")
@click.option(
    "--memory-frames", type=click.IntRange(min=0), default=LARGE_FRAMES, show_default=True, help="0 for none."
)
@click.option("--gil/--no-gil", default=True, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every run there.")
def main(preset: str, frames: int, repeat: int, clips: int, memory_frames: int, gil: bool, file: Path | None) -> None:
    """Print the bars, the stages and the profile in Markdown."""

    def say(text: str) -> None:
        click.echo(text, err=True)

    try:
        with tempfile.TemporaryDirectory(prefix="streamgan-speed-") as name:
            folder, films = Path(name), list[Film]()
            for size in SIZES:
                for clip in footage.clips(folder, size, frames, names=footage.REAL[:clips]):
                    films.append(measure_film(clip, size, preset, frames, repeat, say))
            peaks = measure_memory(folder, preset, memory_frames, say) if memory_frames else []
            profiled = profiles(folder, preset, frames, gil)
    except StreamganError as error:
        raise click.ClickException(str(error)) from None
    found = bars(films, peaks)
    _print(found, films, profiled)
    if file is not None:
        file.write_text(json.dumps(_record(found, films, peaks), indent=1) + "\n")


def _print(found: Sequence[Bar], films: Sequence[Film], profiled: str) -> None:
    """The report."""
    where = rounds.machine()
    click.echo(f"{where['processor']}, {where['cores']} cores; {len(films[0].ours)} fresh processes for each clip.\n")
    click.echo("| what | bar | measured (least–largest) | | clips |\n|---|---|---|---|---|")
    for bar in found:
        click.echo(bar.row())
    click.echo(f"\n{stage_table(films)}\n\n{profiled}")


def _record(found: Sequence[Bar], films: Sequence[Film], peaks: Sequence[int]) -> dict[str, Any]:
    """All of it, as JSON holds it."""
    return {
        "machine": rounds.machine(),
        "bars": [dataclasses.asdict(bar) | {"passed": bar.passed} for bar in found],
        "films": [dataclasses.asdict(film) for film in films],
        "peaks": list(peaks),
    }


if __name__ == "__main__":
    main()
