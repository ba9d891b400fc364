"""How far a run has come: a bar on a terminal, a line every two seconds when piped, nothing when quiet."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import click

if TYPE_CHECKING:
    from streamgan.pipeline import Progress

OnProgress: TypeAlias = "Callable[[Progress], None]"
_INTERVAL = 2.0
"""Seconds between two plain lines."""


@contextlib.contextmanager
def shown(quiet: bool, title: str = "") -> Iterator[OnProgress | None]:
    """Gives what a run calls with its progress; everything goes to the standard error.

    Args:
        quiet: whether nothing is to be shown.
        title: what stands before it, such as ``3/12 film.mp4``.
    """
    if quiet:
        yield None
    elif sys.stderr and sys.stderr.isatty():
        with _bar(title) as on_progress:
            yield on_progress
    else:
        yield _lines(title)


@contextlib.contextmanager
def _bar(title: str) -> Iterator[OnProgress]:
    """A bar with frames, fps and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    name = (TextColumn("{task.description}", markup=False),) if title else ()
    columns = (*name, BarColumn(bar_width=None), TextColumn("{task.fields[words]}"))
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None, words="starting")

        def on_progress(progress: Progress) -> None:
            bars.update(task, completed=progress.frames, total=progress.total, words=words(progress))

        yield on_progress


def _lines(title: str) -> OnProgress:
    """Plain lines, not more than one in two seconds."""
    last = 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal last
        if progress.seconds - last >= _INTERVAL:
            last = progress.seconds
            click.echo(f"{title}: {words(progress)}" if title else words(progress), err=True)

    return on_progress


def words(progress: Progress) -> str:
    """Progress in words: ``120/900 frames, 24.5 fps, 0:32 left``."""
    fps = progress.fps
    of = f"/{progress.total}" if progress.total else ""
    left = ""
    if progress.total and fps:
        seconds = round(max(0, progress.total - progress.frames) / fps)
        minutes, hours = seconds // 60 % 60, seconds // 3600
        left = f", {hours}:{minutes:02}:{seconds % 60:02} left" if hours else f", {minutes}:{seconds % 60:02} left"
    return f"{progress.frames}{of} frames, {fps:.1f} fps{left}"
