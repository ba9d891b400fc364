"""Tables: drawn on a terminal, aligned plain text when piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


def on_terminal() -> bool:
    """Whether people read the standard output."""
    return bool(sys.stdout) and sys.stdout.isatty()


def show(title: str, rows: Sequence[Sequence[str]], headings: Sequence[str] = ()) -> None:
    """Prints a titled table; nothing but the title and "none" if there are no rows."""
    if not rows:
        click.echo(f"{title}: none")
    elif on_terminal():
        _draw(title, rows, headings)
    else:
        _write(title, rows, headings)


def _draw(title: str, rows: Sequence[Sequence[str]], headings: Sequence[str]) -> None:
    """The table for a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title, title_justify="left", show_header=bool(headings), box=None, pad_edge=False)
    for number in range(max(len(row) for row in rows)):
        drawn.add_column(headings[number] if number < len(headings) else "", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn, "")


def _write(title: str, rows: Sequence[Sequence[str]], headings: Sequence[str]) -> None:
    """The table for a file or another program; the last column is not padded."""
    click.echo(title)
    lines = [headings, *rows] if headings else rows
    widths = [max(len(row[number]) for row in lines) for number in range(len(lines[0]) - 1)]
    for row in lines:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  " + "  ".join([*padded, row[-1]]).rstrip())
