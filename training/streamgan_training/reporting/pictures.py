"""Pictures of a run for its report: which of them, and small enough to live inside a page."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image

MOST_SAMPLES = 5
"""Sample grids that a report shows: the first, the last and some between."""
MOST_STRIPS = 16
WIDEST = 1600
"""Wider pictures are reduced, in pixels."""
QUALITY = 85
"""Of JPEG, which a grid of photographs takes a fifth of the room of a PNG in."""
Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class PictureFile:
    """A picture of a run folder, by what its file name says."""

    path: Path
    name: str
    """What the file name says besides the step, such as the clip's name; empty if nothing."""
    step: int | None


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture, ready for a page."""

    name: str
    step: int | None
    data: str
    """A ``data:`` address with the whole picture in it."""
    width: int
    """In pixels."""
    height: int


def find(folder: Path) -> list[PictureFile]:
    """The pictures of a folder by name and step: ``00000100.png``, ``drive-00000100.png``, ``drive.png``."""
    found = []
    for path in sorted([*folder.glob("*.png"), *folder.glob("*.jpg")]):
        digits = re.search(r"(?:^|[-_])(\d{4,})(?:$|[-_])", path.stem)
        name = path.stem.replace(digits[0], "-").strip("-_") if digits else path.stem
        found.append(PictureFile(path, name, int(digits[1]) if digits else None))
    return sorted(found, key=lambda one: (one.name, one.step or 0))


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def ends(found: Sequence[PictureFile]) -> list[PictureFile]:
    """The first and the last picture of each name: before and after the training."""
    by_name: dict[str, list[PictureFile]] = {}
    for one in found:
        by_name.setdefault(one.name, []).append(one)
    chosen = [one for group in by_name.values() for one in spread(group, 2)]
    return chosen[:MOST_STRIPS]


def read(found: Sequence[PictureFile], notes: list[str]) -> tuple[Picture, ...]:
    """Reads pictures for a page; adds to `notes` which ones do not read."""
    kept = []
    for one in found:
        try:
            with Image.open(one.path) as image:
                kept.append(_embed(image.convert("RGB"), one))
        except (OSError, SyntaxError):  # Pillow says SyntaxError of a broken PNG
            notes.append(f"{one.path.parent.name}/{one.path.name}: is no whole picture and is left out")
    return tuple(kept)


def _embed(image: Image.Image, file: PictureFile) -> Picture:
    """A picture reduced and coded."""
    if image.width > WIDEST:
        height = max(1, round(image.height * WIDEST / image.width))
        image = image.resize((WIDEST, height), Image.Resampling.LANCZOS)
    coded = io.BytesIO()
    image.save(coded, "JPEG", quality=QUALITY, optimize=True)
    data = f"data:image/jpeg;base64,{base64.b64encode(coded.getvalue()).decode('ascii')}"
    return Picture(file.name, file.step, data, image.width, image.height)
