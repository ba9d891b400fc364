"""How many threads each stage should have: the same film with several budgets, in turns, as ratios to the first.

    python benchmarks/threads.py FILM --preset day2night

Wall time is what counts here, so run it on a machine that does nothing else. Budgets are ``decode/translate/encode``
and the number of frames that are translated at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from streamgan import pipeline, plugins
from streamgan.plan import Budget, Plan
from streamgan.request import Request


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to share out threads."""

    budget: Budget
    streams: int

    def __str__(self) -> str:
        budget = self.budget
        return f"{budget.decode}/{budget.translate}/{budget.encode}, {self.streams} at once"


def ways(cores: int) -> Iterator[Way]:
    """What the runtime does, then what else it could do."""
    every = Budget.of(cores)
    yield Way(every, cores)
    yield Way(every, 1)
    yield Way(dataclasses.replace(every, encode=1), cores)
    yield Way(dataclasses.replace(every, encode=2 * cores), cores)
    yield Way(dataclasses.replace(every, decode=1), cores)
    yield Way(dataclasses.replace(every, decode=1, encode=1), cores)
    yield Way(dataclasses.replace(every, translate=cores + 1), cores + 1)
    if cores > 1:
        yield Way(dataclasses.replace(every, translate=cores - 1), cores - 1)


def with_threads(plan: Plan, way: Way) -> Plan:
    """The plan, with threads shared out so."""
    setup = plan.setup and dataclasses.replace(plan.setup, streams=way.streams, threads=way.budget.translate)
    encoding = dataclasses.replace(plan.encoding, threads=way.budget.encode)
    return dataclasses.replace(plan, budget=way.budget, setup=setup, encoding=encoding)


def main() -> None:
    """Prints a row for each way: median frames per second of the rounds, and the ratio to the first way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("film")
    parser.add_argument("--preset", default="day2night")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    registry, found = plugins.load(), list(ways(len(os.sched_getaffinity(0))))
    speeds: dict[Way, list[float]] = {way: [] for way in found}
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "out.mp4")
        request = Request.of(input=given.film, preset=given.preset, output=output, frames=given.frames, overwrite=True)
        plan = pipeline.build(request, registry)
        for _ in range(given.rounds + 1):
            for way in found:
                speeds[way].append(pipeline.run(with_threads(plan, way)).fps)
    first = statistics.median(speeds[found[0]][1:])
    click.echo("| decode/translate/encode | fps | ratio | all rounds |\n|---|---|---|---|")
    for way, seen in speeds.items():
        fps = statistics.median(seen[1:])
        click.echo(f"| {way} | {fps:.1f} | {fps / first:.2f} | {' '.join(f'{each:.0f}' for each in seen[1:])} |")


if __name__ == "__main__":
    main()
