"""Where the time of a run goes: processor time of each step for one frame, and how much of a run holds Python's lock.

The steps are measured one after the other in one thread, decoder and encoder without threads of their own, so that
nothing overlaps; the model may use its threads. The lock is sampled in an ordinary run by py-spy, if it is there
(`pip install py-spy`).

    python benchmarks/stages.py drive.mp4 --preset day2night
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import click
import cv2

from streamgan import pipeline, plan, plugins
from streamgan.frames import convert
from streamgan.models import translate
from streamgan.plan import Budget, Plan
from streamgan.stage import TranslateStage
from streamgan.writing import coder

STEPS = ("decode", "colour in", "shrink", "model", "enlarge", "other", "colour out", "encode")
"""In the order in which a frame meets them; ``other`` is what the translation does besides."""
_RATE = 100


@dataclasses.dataclass
class Clock:
    """Adds up seconds by step."""

    cpu: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    """Of all cores together."""

    @contextlib.contextmanager
    def step(self, name: str, around: tuple[str, ...] = ()) -> Iterator[None]:
        """Counts what happens meanwhile for one step, but for what counts for others that lie within it."""
        inner, began = sum(self.cpu[other] for other in around), time.process_time()
        yield
        inner = sum(self.cpu[other] for other in around) - inner
        self.cpu[name] += time.process_time() - began - inner

    def of(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, counted for a step."""

        @functools.wraps(function)
        def counted(*args: Any, **fields: Any) -> Any:
            with self.step(name):
                return function(*args, **fields)

        return counted


def profile(work: Plan) -> dict[str, float]:
    """Processor seconds of each step for one frame, of a run without overlap; opening and closing are left out."""
    work = dataclasses.replace(
        work,
        budget=Budget(1, work.budget.translate, 1),
        encoding=dataclasses.replace(work.encoding, threads=1, copy_from=None),
    )
    clock, load = Clock(), TranslateStage._load_model
    cv2.setNumThreads(1)  # as in a run, where each of several threads translates a frame of its own

    def load_counted(stage: TranslateStage, name: str) -> Any:
        session = load(stage, name)
        session.run = clock.of("model", session.run)  # type: ignore[method-assign]
        return session

    with contextlib.ExitStack() as counted:
        counted.enter_context(mock.patch.object(TranslateStage, "_load_model", load_counted))
        for owner, name, step in (
            (convert.FrameMaker, "make", "colour in"),
            (translate, "shrink", "shrink"),
            (translate, "shrink_planes", "shrink"),
            (translate, "to_rgb", "colour in"),
            (translate, "enlarge_guided", "enlarge"),
            (translate, "enlarge_planes", "enlarge"),
            (coder, "to_picture", "colour out"),
        ):
            counted.enter_context(mock.patch.object(owner, name, clock.of(step, getattr(owner, name))))
        frames = _one_by_one(work, clock)
    return {step: seconds / frames for step, seconds in clock.cpu.items()}


def _one_by_one(work: Plan, clock: Clock) -> int:
    """Decodes, translates and encodes frame after frame; returns how many."""
    count = 0
    with plan.open_source(work) as source, TranslateStage(work, source.info) as stage, plan.open_sink(work) as sink:
        items = source.frames()
        first = next(items)
        sink.open(source.info)
        stage.apply([first])  # warms up
        clock.cpu = dict.fromkeys(STEPS, 0.0)
        while True:
            with clock.step("decode", ("colour in",)):
                frame = next(items, None)
            if frame is None:
                return max(1, count)
            with clock.step("other", ("colour in", "shrink", "model", "enlarge")):
                (made,) = stage.apply([frame])
            with clock.step("encode", ("colour out",)):
                sink.write(made)
            count += 1


def gil(work: Plan) -> str:
    """In a sentence, the share of a run in which a thread of the pipeline holds Python's lock."""
    spy = shutil.which("py-spy")
    share = None if spy is None else _spied(spy, work)
    if share is None:
        return "How much Python's lock is held was not measured: that needs py-spy (pip install py-spy)."
    return f"Python's lock is held {share:.0%} of the time (py-spy)."


def _spied(spy: str, work: Plan) -> float | None:
    """By py-spy over the program itself; None if the system forbids it."""
    with tempfile.TemporaryDirectory(prefix="streamgan-gil-") as folder:
        output, stacks = Path(folder) / "out.mp4", Path(folder) / "stacks"
        request = work.request
        program = ["-m", "streamgan", "run", request.input, "-p", request.preset, "-o", str(output), "--overwrite"]
        options = ["record", "--gil", "--nonblocking", "--format", "raw", "--rate", str(_RATE), "--output", str(stacks)]
        began = time.perf_counter()
        done = subprocess.run([spy, *options, "--", sys.executable, *program], capture_output=True, text=True)
        seconds = time.perf_counter() - began
        if done.returncode or not stacks.exists() or not output.exists():
            return None
        # Imports hold the lock, and are no part of the stages: only threads of the pipeline count.
        lines = [line for line in stacks.read_text().splitlines() if "streamgan/film.py" in line or "stage.py" in line]
        held = sum(int(found[1]) for line in lines if (found := re.search(r" (\d+)$", line)))
    return held / _RATE / seconds


def table(costs: dict[str, float]) -> str:
    """Milliseconds of each step in Markdown."""
    total = sum(costs.values())
    rows = [f"| {step} | {seconds * 1000:.1f} | {seconds / total:.0%} |" for step, seconds in costs.items()]
    head = ["| step | CPU ms for a frame | share |", "|---|---|---|"]
    return "\n".join([*head, *rows, f"| together | {total * 1000:.1f} | |"])


@click.command()
@click.argument("clip", type=click.Path(path_type=Path))
@click.option("--preset", default="day2night", show_default=True)
def main(clip: Path, preset: str) -> None:
    """Print the profile of a preset on a clip in Markdown."""
    with tempfile.TemporaryDirectory(prefix="streamgan-stages-") as folder:
        output = str(Path(folder) / "out.mp4")
        request = pipeline.Request.of(input=str(clip), preset=preset, output=output, overwrite=True)
        work = pipeline.build(request, plugins.load())
        click.echo(table(profile(work)))
        click.echo(f"\n{gil(pipeline.build(request, plugins.load()))}")


if __name__ == "__main__":
    main()
