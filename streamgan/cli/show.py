"""``streamgan show``: prints the record of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from streamgan import record
from streamgan.cli import table

_MEANINGS = {
    "frames.in": "decoded from the input",
    "frames.out": "written to the output",
    "frames.dropped": "decoded, but not wanted any more",
    "frames.lost": "could not be decoded, and were left out",
    "frames.repeated": "stand in for some that could not be decoded",
    "frames.resumed": "made by an interrupted run before",
    "seconds.total": "from start to end",
    "run.warping_error": "not measured: only a film that goes from a file to a file is",
    "warping_error.input": "mean squared change along the motion, of 1",
    "warping_error.output": "the same, along the input's motion",
    "warping_error.contrast_ratio": "spread of the output's values over the input's",
    "warping_error.ratio_over_squared_contrast": "output over input at equal contrast: 1 is as steady",
    "warping_error.pairs": "neighbouring frames that were compared",
    "warping_error.followed": "part of their pixels whose motion was clear",
}
"""What numbers of a record mean, by part and key."""


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
    single = {key: value for key, value in content.items() if not isinstance(value, Mapping | list) and key != "format"}
    found = [("run", _explained("run", single))]
    for key, value in content.items():
        if isinstance(value, Mapping):
            found.append((key, _explained(key, value)))
        elif isinstance(value, list):
            found.append((key, [row for each in value for row in _entry(each)]))
    return found


def _explained(part: str, values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Key and value of each entry, and what it means if that is known of any."""
    rows = [(*row, _MEANINGS.get(f"{part}.{row[0]}", "")) for row in _rows(values)]
    return [row if any(each[-1] for each in rows) else row[:-1] for row in rows]


def _entry(value: Any) -> list[tuple[str, ...]]:
    """The rows of one entry of a list: each key of a mapping, or a line of text."""
    return list(_rows(value)) if isinstance(value, Mapping) else [(_words(value),)]


def _rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, ...]]:
    """Key and value of each entry, the entries of inner mappings after their names."""
    rows: list[tuple[str, ...]] = []
    for key, value in values.items():
        inner = isinstance(value, Mapping) and value
        rows += _rows(value, f"{prefix}{key}.") if inner else [(f"{prefix}{key}", _words(value))]
    return rows


def _words(value: Any) -> str:
    """A value in one line for people."""
    if value is None or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if 0 < abs(value) < 0.1 else f"{value:.3f}".rstrip("0").rstrip(".")
    return " ".join(str(value).split())
