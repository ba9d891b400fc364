"""``streamgan live``: translates a camera, a stream or a file as it comes."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamgan import plugins
from streamgan.cli import options
from streamgan.cli.plugins import mention_failed

if TYPE_CHECKING:
    from streamgan.live import LiveStatus

_TERMINAL_INTERVAL, _PLAIN_INTERVAL = 0.5, 2.0
"""Seconds between two status lines."""


@click.command("live")
@click.argument("source", default="0")
@click.option("-o", "--output", default="window:", metavar="FILE|URL", help="Where to write; a window by default.")
@options.translation
@options.encoding
@click.option("--compare", is_flag=True, help="Put the source beside the translation.")
@click.option("--frames", type=click.IntRange(min=1), help="Stop after so many frames.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_obj
def command(
    loose_files: tuple[Path, ...],
    /,
    source: str,
    settings: tuple[str, ...],
    frames: int | None,
    dry_run: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Translate a camera or a stream as it comes.

    SOURCE is a camera's number (0 by default), a URL, or a file, which is played at its own speed.

    Frames that come too late are dropped, so that the picture never lags behind. In the window, q quits and s saves a
    snapshot.
    """
    values = options.assignments(settings)
    from streamgan import live, pipeline

    request = pipeline.Request.of(input=source, options=values, **given)
    registry = plugins.load(loose_files)
    announce = None if quiet else functools.partial(click.echo, err=True)
    plan = pipeline.build(request, registry, announce)
    if not quiet:
        mention_failed(registry)
    if dry_run:
        click.echo(plan.describe())
        return
    status = live.run_live(plan, None if quiet else _reporter(), frames, announce)
    if not quiet:
        for note in status.notes:
            click.echo(f"note: {note}", err=True)
        click.echo("\n" if sys.stderr.isatty() else "", err=True, nl=False)
        click.echo(f"{plan.output.rstrip(':')}: {status.frames} frames, {status}")


def _reporter() -> Callable[[LiveStatus], None]:
    """Writes the status now and then: over itself on a terminal, in lines when piped."""
    terminal = bool(sys.stderr) and sys.stderr.isatty()
    interval = _TERMINAL_INTERVAL if terminal else _PLAIN_INTERVAL
    due = 0.0

    def on_status(status: LiveStatus) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + interval
            click.echo(f"\r{status} " if terminal else str(status), err=True, nl=not terminal)

    return on_status
