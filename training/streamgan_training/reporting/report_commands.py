"""The command that makes a report of a run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page to write, instead of RUN/report.html.")
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
def report(run: Path, output: Path | None, show: bool) -> None:
    """Write one page about RUN: pictures, measures, curves, recipe; finished or not."""
    from streamgan_training.reporting import report as reporting

    path = reporting.make(run, output)
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    if show:
        click.launch(str(path))
