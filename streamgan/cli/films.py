"""How ``streamgan run`` works through its films: one, or many of which some may fail."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from streamgan import batch
from streamgan.api import StreamganError
from streamgan.cli import progress
from streamgan.jobs import Job
from streamgan.pipeline import Plan, Report
from streamgan.plugins import Registry
from streamgan.writing import encoders, pipes

_PICTURES = ("streamgan.images", "streamgan.writing.animations")
"""Modules of the sinks that have no use for the options below, and do not know whether they were given."""
_OF_FILMS = ("codec", "encoder", "lossless", "audio")


@dataclasses.dataclass(frozen=True)
class Manner:
    """How films are to be worked through."""

    fields: Mapping[str, Any]
    """Of `pipeline.Request`, beside input and output."""
    registry: Registry
    given: frozenset[str]
    """Names of the options that stand on the command line."""
    tracked: bool
    """Whether folders are made and receipts left."""
    skip_existing: bool = False
    fail_fast: bool = False
    dry_run: bool = False
    verbose: bool = False
    quiet: bool = False


def work(jobs: Sequence[Job], manner: Manner) -> None:
    """Does all jobs, or only describes them.

    Raises:
        StreamganError: if the only job fails, or some of many did; the others are done then.
        Interrupted: on Ctrl-C.
    """
    if manner.dry_run:
        _describe_all(jobs, manner)
    elif len(jobs) == 1:
        with progress.shown(manner.quiet) as on_progress:
            outcome = batch.attempt(
                jobs[0],
                manner.fields,
                manner.registry,
                on_progress,
                on_plan=_teller(manner),
                announce=_announcer(manner),
                skip_existing=manner.skip_existing,
                tracked=manner.tracked,
            )
        _tell(outcome, manner.quiet)
    else:
        _work_many(jobs, manner)


def summary(report: Report) -> str:
    """What a run did, in one line."""
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.busy.items())
    return (
        f"{report.output}: {report.frames} frames in {report.seconds:.1f} s, {report.fps:.1f} fps; "
        f"{stages}; bottleneck: {report.bottleneck}"
    )


def totals(outcomes: Sequence[batch.Outcome], count: int) -> str:
    """What became of all films, in one line: ``12 films: 9 made, 2 skipped, 1 failed; 8100 frames, 27.0 fps``."""
    states = Counter(outcome.state for outcome in outcomes)
    reports = [outcome.report for outcome in outcomes if outcome.report is not None]
    frames, seconds = sum(report.frames for report in reports), sum(report.seconds for report in reports)
    words = [f"{states[state]} {state}" for state in ("made", "skipped", "failed") if states[state]]
    words += [f"{count - len(outcomes)} not done"] if len(outcomes) < count else []
    speed = f"; {frames} frames in {seconds:.1f} s, {frames / seconds:.1f} fps" if seconds else ""
    return f"{count} film{'s' * (count != 1)}: {', '.join(words)}{speed}"


def _work_many(jobs: Sequence[Job], manner: Manner) -> None:
    """Does one job after the other; those that fail are told at once, and again at the end."""
    outcomes: list[batch.Outcome] = []
    on_plan, skip = _teller(manner), manner.skip_existing
    try:
        for number, job in enumerate(jobs, 1):
            place = f"{number}/{len(jobs)} "
            with progress.shown(manner.quiet, place + Path(job.input).name) as on_progress:
                outcome = batch.run_job(
                    job,
                    manner.fields,
                    manner.registry,
                    on_progress,
                    on_plan=on_plan,
                    announce=_announcer(manner),
                    skip_existing=skip,
                )
            outcomes.append(outcome)
            _tell(outcome, manner.quiet, place)
            if manner.fail_fast and outcome.state == "failed":
                break
    finally:  # also on Ctrl-C
        if not manner.quiet:
            click.echo(totals(outcomes, len(jobs)), err=len(outcomes) < len(jobs))
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        click.echo(f"failed: {' '.join(str(outcome).split())}", err=True)
    if failed:
        raise StreamganError(f"{len(failed)} of {len(jobs)} films failed; run again with --skip-existing for the rest")


def _tell(outcome: batch.Outcome, quiet: bool, place: str = "") -> None:
    """Prints what became of a job; out of the way of a film that goes to the standard output."""
    if quiet:
        return
    for note in (*(outcome.report.notes if outcome.report else ()), *outcome.notes):
        click.echo(f"note: {note}", err=True)
    if outcome.report is not None:
        click.echo(place + summary(outcome.report), err=outcome.output in (encoders.STANDARD_OUTPUT, pipes.RAW))
    elif outcome.state == "failed":
        click.echo(f"{place}failed: {' '.join(str(outcome).split())}", err=True)
    else:
        click.echo(f"{place}{outcome.output}: complete already, skipped")


def _teller(manner: Manner) -> Callable[[Plan], None]:
    """What tells the user of a plan before it is done."""

    def tell(plan: Plan) -> None:
        if manner.verbose:
            click.echo(plan.describe(), err=True)
        for note in [] if manner.quiet else _idle_options(plan, manner.given):
            click.echo(f"note: {note}", err=True)

    return tell


def _announcer(manner: Manner) -> Callable[[str], None]:
    """What tells the user of something that takes seconds, before it begins."""
    return lambda line: None if manner.quiet else click.echo(line, err=True)


def _idle_options(plan: Plan, given: frozenset[str]) -> Iterator[str]:
    """Says which of the options given mean nothing to the output."""
    idle = [f"--{name}" for name in _OF_FILMS if name in given]
    if idle and plan.sink.__module__ in _PICTURES:
        yield f"{plan.output}: {', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no meaning for images"


def _describe_all(jobs: Sequence[Job], manner: Manner) -> None:
    """Prints what would be done: all of a single film, a line for each of many."""
    failed = 0
    for number, job in enumerate(jobs, 1):
        try:
            text = _describe(job, manner, len(jobs) == 1)
        except StreamganError as error:
            if len(jobs) == 1:
                raise
            failed += 1
            click.echo(f"{number}/{len(jobs)} would fail: {batch.Outcome(job, 'failed', error=str(error))}", err=True)
            continue
        click.echo(text if len(jobs) == 1 else f"{number}/{len(jobs)} {text}")
    if failed:
        raise StreamganError(f"{failed} of {len(jobs)} films would fail; nothing was written")


def _describe(job: Job, manner: Manner, whole: bool) -> str:
    """What would be done for a job, checked as far as it can be: the whole plan, or a line."""
    with batch.folder_for(job, keep=False) if manner.tracked else contextlib.nullcontext():
        prepared = batch.prepare(
            job, manner.fields, manner.registry, _announcer(manner), skip_existing=manner.skip_existing
        )
    plan = prepared.plan
    batch.check_models(plan)
    notes = [*_idle_options(plan, manner.given), *(["complete already: would be skipped"] * prepared.finished)]
    if whole:
        return "\n".join([plan.describe(), *(f"{'note':<11}{note}" for note in notes)])
    description = "live" if plan.info is None else plan.info.description
    return "; ".join([f"{job.input} ({description}) -> {plan.output}", *notes])
