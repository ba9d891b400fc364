"""The commands for data: ``streamgan frames`` makes a frame data set, ``streamgan data check`` looks at one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamgan.api import UsageError

if TYPE_CHECKING:
    from streamgan_training.frames.check import Pair, Report
    from streamgan_training.frames.extract import Taken, Wanted

_SHOWN = 20


@click.command()
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where frames go.")
@click.option("--every", type=click.FloatRange(0, min_open=True), default=0.5, show_default=True,
              help="Seconds between frames.")  # fmt: skip
@click.option("--sharpness", type=click.FloatRange(0, 1), default=0.5, show_default=True,
              help="Drop frames less sharp than this part of their neighbours; 0 keeps all.")  # fmt: skip
@click.option("--duplicates", type=click.IntRange(-1, 64), default=4, show_default=True, metavar="BITS",
              help="Drop frames whose perceptual hash is this close to an earlier one; -1 keeps all.")  # fmt: skip
@click.option("--short-side", type=click.IntRange(1), help="Reduce larger frames to this, in pixels.")
@click.option("--limit", type=click.IntRange(1), help="Frames of one film, at most, spread evenly.")
@click.option("--format", "form", type=click.Choice(["png", "jpg"]), default="png", show_default=True,
              help="What to write.")  # fmt: skip
@click.option("--append", is_flag=True, help="Add to a folder that is not empty.")
def frames(videos: tuple[Path, ...], output: Path, append: bool, form: str, **numbers: Any) -> None:
    """Take sharp, different frames of every shot of VIDEO... (files, or folders of them) into DIR, with a manifest."""
    from streamgan_training.frames.extract import Wanted

    taken = _extract_with_progress(videos, output, Wanted(suffix=f".{form}", **numbers), append)
    shots = len({(row.video, row.shot) for row in taken})
    films = len({row.video for row in taken})
    click.echo(f"{output}: {len(taken)} frames of {shots} shots of {films} films; next: streamgan data check {output}")


def _extract_with_progress(videos: tuple[Path, ...], output: Path, wanted: Wanted, append: bool) -> list[Taken]:
    """Extracts with a bar for each film."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from streamgan_training.frames import extract

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:

        def on_film(film: Any, count: int) -> Any:
            task = progress.add_task(film.name, total=count)
            return lambda done: progress.update(task, completed=done)

        def warn(text: str) -> None:
            progress.console.print(f"warning: {text}", highlight=False, markup=False, soft_wrap=True)

        return extract.extract(videos, output, wanted, append, warn, on_film)


@click.group()
def data() -> None:
    """Look at training data."""


@data.command()
@click.argument("places", nargs=-1, required=True, metavar="DIR...|RECIPE", type=click.Path(path_type=Path))
@click.option("--hold-out", multiple=True, metavar="PATTERN", help="Names of held-out files, such as 'scene03_*'.")
@click.option("--sheet", type=click.Path(path_type=Path), metavar="PNG", help="Draw a contact sheet.")
def check(places: tuple[Path, ...], hold_out: tuple[str, ...], sheet: Path | None) -> None:
    """Report sizes, broken files, duplicates, and pictures that are both trained on and held out.

    A DIR with images is one domain; of any other, each sub-folder is one. A RECIPE brings its own folders and patterns.
    Ends with 1 if a file is broken, something leaks, or a domain has nothing to train on.
    """
    from rich.progress import Progress

    from streamgan_training.frames import check as checking

    if len(places) == 1 and places[0].is_file():
        if hold_out:
            raise UsageError("--hold-out: a recipe names what it holds out; mend it there")
        domains = checking.recipe_domains(places[0])
    else:
        domains = checking.find_domains(places, hold_out)
    total = sum(len(trained) + len(held) for trained, held in domains.values())
    # Closed here and by nobody else: a bar left to the garbage collector may be ended by its own drawing thread, and
    # hang there for ever.
    with Progress(transient=True) as bars:
        task = bars.add_task("reading images", total=total)
        report = checking.check(domains, on_file=lambda: bars.advance(task))
    _show(report)
    if sheet is not None:
        checking.write_sheet(domains, sheet)
        click.echo(f"contact sheet: {sheet}")
    if not report.sound:
        raise SystemExit(1)


def _show(report: Report) -> None:
    """Prints a report."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    names = ("domain", "train", "held out", "smallest", "median", "largest", "broken", "repeated")
    table = Table(*names, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for each in report.domains:
        sizes = (f"{width}x{height}" for width, height in (each.smallest, each.median, each.largest))
        counts = (each.trained, each.held_out)
        found = (len(each.broken), len({pair.second for pair in each.duplicates}))
        table.add_row(each.name, *map(str, counts), *sizes, *map(str, found))
    Console().print(table)
    broken = [line for each in report.domains for line in each.broken]
    _list("broken files", broken)
    _list("pairs of near duplicates on one side of the split", _lines(*(each.duplicates for each in report.domains)))
    _list("the same file in two domains", _lines(report.shared))
    _list("LEAKAGE: trained on, and held out", _lines(report.leaks))
    verdict = f"{len(broken)} broken, {len(report.leaks)} leaking"
    click.echo(f"sound: {verdict}" if report.sound else f"not sound: {verdict}")


def _lines(*groups: tuple[Pair, ...]) -> list[str]:
    """One line for each pair."""
    return [
        f"{pair.first} = {pair.second}" if pair.exact else f"{pair.first} ~ {pair.second} ({pair.bits} of 64 bits)"
        for group in groups
        for pair in group
    ]


def _list(title: str, lines: list[str]) -> None:
    """Prints the first of some lines, if there are any."""
    if lines:
        click.echo(f"{title}: {len(lines)}")
        for line in lines[:_SHOWN]:
            click.echo(f"  {line}")
        if len(lines) > _SHOWN:
            click.echo(f"  and {len(lines) - _SHOWN} more")
