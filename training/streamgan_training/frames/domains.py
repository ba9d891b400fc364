"""Where the domains of a recipe come from: named footage, a tree of folders, or a label file."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from streamgan.api import PresetError

if TYPE_CHECKING:
    from streamgan_training.recipe import Data, Footage, Recipe


def read_labels(file: Path) -> dict[str, dict[str, str]]:
    """The rows of a label file by their column ``file``.

    Raises:
        PresetError: if it cannot be read, or has no such column.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = list(csv.DictReader(text))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PresetError(f"{file}: not a label file that can be read ({error})") from None
    if not rows or "file" not in rows[0]:
        raise PresetError(f"{file}: expected a CSV file whose first line names the columns, one of them 'file'")
    return {row["file"]: row for row in rows}


def column_values(file: Path, column: str) -> list[str]:
    """The different values of a column, sorted.

    Raises:
        PresetError: if there is no such column.
    """
    rows = read_labels(file)
    first = next(iter(rows.values()))
    if column not in first:
        known = ", ".join(name for name in first if name != "file")
        raise PresetError(f"{file}: no column is called '{column}' (columns: {known})")
    return sorted({row[column] for row in rows.values()} - {""})


def spelled_out(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with its domains under `Data.domains`, wherever they come from.

    Args:
        recipe: with absolute paths.
        path: the recipe's file, for messages.

    Raises:
        PresetError: if not exactly one of `domains`, `tree` and `labels` is given, or they name no domain.
    """
    from streamgan_training.recipe import Footage

    data = recipe.data
    given = [name for name in ("domains", "tree", "labels") if getattr(data, name)]
    if len(given) != 1:
        raise PresetError(f"{path}: data: {', '.join(given) or 'none'} given, expected one of domains, tree and labels")
    if data.tree is not None:
        found = _of_tree(data, Footage)
    elif data.labels is not None:
        labels = data.labels
        found = {
            value: (Footage(labels.folder, hold_out=labels.hold_out, labels=labels.file, where={labels.column: value}),)
            for value in column_values(Path(labels.file), labels.column)
        }
    else:
        found = dict(data.domains)
    changed = dataclasses.replace(data, domains=found, tree=None, labels=None, tree_hold_out=())
    return dataclasses.replace(recipe, data=changed)


def _of_tree(data: Data, make: type[Footage]) -> dict[str, tuple[Footage, ...]]:
    """The sub-folders of a tree as domains.

    Raises:
        PresetError: if it has none.
    """
    root = Path(str(data.tree))
    folders = sorted(each for each in root.iterdir() if each.is_dir()) if root.is_dir() else []
    if not folders:
        raise PresetError(f"data.tree: {root} has no sub-folder; each of them is a domain")
    return {each.name: (make(str(each), hold_out=data.tree_hold_out),) for each in folders}
