"""``streamgan run``: translates one video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamgan import plugins
from streamgan.cli import options, progress
from streamgan.cli.plugins import mention_failed

if TYPE_CHECKING:
    from streamgan.pipeline import Report


@click.command("run")
@click.argument("input")
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="What to write; beside the input by default: film.PRESET.mp4, photo.PRESET.jpg, shots.PRESET/.",
)
@options.translation
@options.encoding
@click.option(
    "--audio",
    type=click.Choice(["copy", "aac", "none"]),
    default="copy",
    show_default=True,
    help="What the output cannot hold is left out (copy) or re-encoded (aac, Opus in webm); none leaves all out.",
)
@click.option("--start", type=options.Time(), help="First time wanted: seconds, or HH:MM:SS.mmm.")
@click.option("--end", type=options.Time(), help="Time to stop at: seconds, or HH:MM:SS.mmm.")
@click.option("--compare", is_flag=True, help="Put the source beside the translation.")
@click.option("--report", metavar="FILE.json", help="Write a record of the run; streamgan show prints it.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
@click.option("-v", "--verbose", is_flag=True, help="Print what will be done, then do it.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_obj
def command(
    loose_files: tuple[Path, ...],
    /,
    settings: tuple[str, ...],
    dry_run: bool,
    verbose: bool,
    quiet: bool,
    start: Fraction | None,
    end: Fraction | None,
    **given: Any,
) -> None:
    """Translate INPUT: a film, a URL, an image, a folder of images or a quoted pattern.

    Audio and subtitles are copied, and every frame keeps its time. The output appears under its name when it is
    complete.
    """
    values = options.assignments(settings)
    from streamgan import pipeline  # after the cheap checks: it loads the video libraries

    request = pipeline.Request.of(options=values, start=start, end=end, **given)
    registry = plugins.load(loose_files)
    plan = pipeline.build(request, registry)
    if not quiet:
        mention_failed(registry)
    if dry_run or verbose:
        click.echo(plan.describe(), err=not dry_run)
    if dry_run:
        return
    with progress.shown(quiet) as on_progress:
        report = pipeline.run(plan, on_progress)
    if not quiet:
        for note in report.notes:
            click.echo(f"note: {note}", err=True)
        click.echo(summary(report))


def summary(report: Report) -> str:
    """What a run did, in one line."""
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.busy.items())
    return (
        f"{report.output}: {report.frames} frames in {report.seconds:.1f} s, {report.fps:.1f} fps; "
        f"{stages}; bottleneck: {report.bottleneck}"
    )
