"""``streamgan show``: prints the record of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from streamgan import record
from streamgan.cli import table


@click.command("show")
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Print the record of a run, the FILE that run --report wrote."""
    for title, rows in sections(record.read(file)):
        table.show(title, rows)


def sections(content: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Title and rows of each part of a record; what a newer streamgan added is shown too.

    Args:
        content: as `streamgan.record.read` returns it.
    """
    single = [(key, _words(value)) for key, value in content.items() if not isinstance(value, Mapping | list)]
    found: list[tuple[str, list[tuple[str, ...]]]] = [("run", [row for row in single if row[0] != "format"])]
    for key, value in content.items():
        if isinstance(value, Mapping):
            found.append((key, list(_rows(value))))
        elif isinstance(value, list):
            found.append((key, [row for each in value for row in _entry(each)]))
    return found


def _entry(value: Any) -> list[tuple[str, ...]]:
    """The rows of one entry of a list: each key of a mapping, or a line of text."""
    return list(_rows(value)) if isinstance(value, Mapping) else [(_words(value),)]


def _rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, ...]]:
    """Key and value of each entry, the entries of inner mappings after their names."""
    rows: list[tuple[str, ...]] = []
    for key, value in values.items():
        inner = isinstance(value, Mapping)
        rows += _rows(value, f"{prefix}{key}.") if inner else [(f"{prefix}{key}", _words(value))]
    return rows


def _words(value: Any) -> str:
    """A value in one line for people."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return " ".join(str(value).split())
