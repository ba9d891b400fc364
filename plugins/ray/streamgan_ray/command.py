"""The command ``streamgan batch``."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamgan.api import StreamganError, UsageError
from streamgan.cli import options

if TYPE_CHECKING:
    from streamgan.batch import Outcome
    from streamgan.jobs import Found

_MANIFESTS = (".txt", ".list", ".jsonl")
_ELSEWHERE = re.compile(r"[a-z0-9]{2,}:")
"""What is no path: a URL, ``null:``."""
_STREAMS = ("-", "y4m:-")
_GROUPS = {
    "Options": ("output", "preset", "strength", "overwrite", "quiet", "help"),
    "Many machines": ("engine", "address", "workers", "cpus", "gpus", "retries", "split"),
    "Translation": ("settings", "size", "smooth", "backend", "precision", "threads", "timeout"),
    "Output": ("audio", "codec", "encoder", "crf", "encoder_preset", "lossless", "alpha", "segment"),
}


@click.command("batch", cls=options.Grouped, groups=_GROUPS)
@click.argument("inputs", metavar="MANIFEST|FOLDER|INPUT...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="OUT/", help="Folder for the films; beside the inputs by default.")
@options.translation
@options.encoding
@click.option("--audio", type=click.Choice(["copy", "aac", "none"]), default="copy", help="As for streamgan run.")
@click.option("--smooth", type=click.FloatRange(0, 1), help="Reduce flicker: 0 not at all, 1 as much as possible.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    help="Seconds after which a translator that does not answer is given up.",
)
@click.option("--segment", type=click.IntRange(min=1), default=250, help="Frames after which what is made is kept.")
@click.option("--engine", type=click.Choice(["ray"]), default="ray", show_default=True, help="What spreads the work.")
@click.option(
    "--address",
    metavar="HOST:PORT",
    envvar="RAY_ADDRESS",
    help="A cluster that runs already (auto finds one that this machine is part of); by default one is started here.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Translators at work at once; by default all that fit.")
@click.option(
    "--cpus",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Cores that a worker takes; it has as many threads, unless --threads says otherwise.",
)
@click.option(
    "--gpus",
    type=click.FloatRange(min=0),
    help="GPUs that a worker takes; 0.5 lets two share one. By default 1 if there are any.",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="How often a film, or a part of it, is begun again after its worker died.",
)
@click.option("--split/--no-split", default=None, help="Cut each film into parts; by default if films are fewer.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_obj
def batch(
    loose_files: tuple[Path, ...],
    /,
    inputs: tuple[str, ...],
    output: str | None,
    settings: tuple[str, ...],
    engine: str,
    address: str | None,
    workers: int | None,
    cpus: float,
    gpus: float | None,
    retries: int,
    split: bool | None,
    quiet: bool,
    **given: Any,
) -> None:
    """Translate many films on many machines, or one long film in parts.

    \b
    streamgan batch clips/ -p day2night -o out/
    streamgan batch jobs.txt -p day2night -o out/ --address auto --gpus 0.5
    streamgan batch film.mkv -p day2night --workers 8      one film, cut where its segments end

    A MANIFEST (.txt, .list, .jsonl) lists inputs, a path a line, or JSON objects with 'input' and 'output'. All
    machines must see the same files under the same names. What is complete is left as it is, and what was interrupted
    is gone on with, so a command may be repeated after any accident.
    """
    fields = {**given, "options": options.assignments(settings)}
    found = _find(inputs, output, given)
    fields["threads"] = given["threads"] or max(1, round(cpus))
    fields["preset"] = _preset(fields, loose_files)
    for note in [] if quiet else found.notes:
        click.echo(f"note: {note}", err=True)
    from streamgan.cli import progress
    from streamgan_ray import cluster  # after the cheap checks: it loads Ray

    outcomes: list[Outcome] = []
    began = time.monotonic()
    plugins = [str(path.resolve()) for path in loose_files]
    title = f"{len(found.jobs)} films" if len(found.jobs) > 1 else ""
    with cluster.connected(cluster.Resources(address, workers, cpus, gpus, retries)) as resources:
        workforce = cluster.Workforce(resources, plugins, fields)
        try:
            with workforce, progress.shown(quiet, title) as on_progress:
                for outcome in workforce.work(found.jobs, split, on_progress):
                    outcomes.append(outcome)
                    _tell(outcome, quiet)
        finally:  # also on Ctrl-C
            if not quiet:
                click.echo(_totals(outcomes, len(found.jobs), workforce.deaths, time.monotonic() - began))
    failed = sum(outcome.state == "failed" for outcome in outcomes)
    if failed:
        raise StreamganError(f"{failed} of {len(outcomes)} films failed; run again for the rest")


def _find(inputs: Sequence[str], output: str | None, given: dict[str, Any]) -> Found:
    """The jobs that the command line names, with paths that hold wherever a worker runs.

    Raises:
        UsageError: if they cannot be, or would need this program's own input and output.
    """
    from streamgan import batch, jobs

    if output == "":
        raise UsageError("-o: is empty; name a folder")
    lists = [each for each in inputs if Path(each).suffix.lower() in _MANIFESTS]
    listed = [job for each in lists for job in jobs.read_manifest(Path(each))]
    named = [each for each in inputs if each not in lists]
    found = jobs.find_all(named, listed, output, jobs.name_of(given["preset"]), ending=batch.ending_of(given["codec"]))
    for job in found.jobs:
        if job.input in _STREAMS or job.output in _STREAMS:
            raise UsageError("batch: standard input and output belong to no worker; use streamgan run, or a file")
    jobs_anywhere = (jobs.Job(_absolute(job.input), job.output and _absolute(job.output)) for job in found.jobs)
    return dataclasses.replace(found, jobs=tuple(jobs_anywhere))


def _absolute(location: str) -> str:
    """The same location, as seen from any folder."""
    return location if _ELSEWHERE.match(location) else os.path.join(os.getcwd(), location)


def _preset(fields: dict[str, Any], loose_files: Sequence[Path]) -> str:
    """The preset's name, or its path as seen from any folder.

    Raises:
        StreamganError: if it, or an option of its translator, would be refused for every film.
    """
    from streamgan import plugins, settings
    from streamgan.preset import Preset

    registry = plugins.load(loose_files)
    path = registry.preset_path(fields["preset"])
    preset = Preset.load(path)
    translator = registry.translator(preset.translator)
    settings.parse(translator.Options, {**preset.options, **fields["options"]}, f"options of preset {preset.name}")
    return fields["preset"] if fields["preset"] in registry.presets else str(path.resolve())


def _tell(outcome: Outcome, quiet: bool) -> None:
    """Prints what became of a film."""
    failed = outcome.state == "failed"
    if failed or not quiet:
        for note in (*(outcome.report.notes if outcome.report else ()), *outcome.notes):
            click.echo(f"note: {note}", err=True)
        click.echo(f"failed: {outcome}" if failed else str(outcome), err=failed)


def _totals(outcomes: Sequence[Outcome], count: int, deaths: int, seconds: float) -> str:
    """What became of all films, in one line."""
    from streamgan.cli import films

    frames = sum(outcome.report.frames - outcome.report.resumed for outcome in outcomes if outcome.report)
    counts = films.totals([dataclasses.replace(outcome, report=None) for outcome in outcomes], count)
    speed = f"; {frames} frames in {seconds:.1f} s, {frames / seconds:.1f} fps" if frames else ""
    died = f"; {deaths} worker{'s' if deaths > 1 else ''} died, others took over" if deaths else ""
    return f"{counts}{speed}{died}"
