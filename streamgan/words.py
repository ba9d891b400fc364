"""What is known of a film, for people."""

from __future__ import annotations

import dataclasses
from typing import Any

from streamgan.api import Selection, VideoInfo


def color_words(info: VideoInfo) -> str:
    """The colours of a stream for people."""
    names = {1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020"}
    matrix = names.get(info.color.matrix, f"matrix {info.color.matrix}")
    guessed = ", guessed from the height" if info.color.guessed else ""
    return f"{matrix}, {'full' if info.color.full_range else 'limited'} range{guessed}"


def part_words(selection: Selection) -> str | None:
    """A selection for people; None for the whole film."""
    if selection == Selection():
        return None
    end = "the end" if selection.end is None else f"{float(selection.end):g} s"
    return f"from {float(selection.start or 0):g} s to {end}"


def option_words(options: Any) -> str:
    """Options for people."""
    return " ".join(f"{field.name}={getattr(options, field.name)}" for field in dataclasses.fields(options))
