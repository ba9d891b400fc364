"""Presets: a translator with its options under a name, as a YAML file beside the model files it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamgan import api, settings


@dataclasses.dataclass(frozen=True)
class Preset:
    """What ``--preset`` names: one way to translate a video."""

    title: str
    """One line for people."""
    translator: str
    """Name of a registered translator, such as ``model``."""
    name: str = dataclasses.field(default="", metadata=settings.NOT_A_KEY)
    """Name of the file without its ending."""
    description: str = ""
    """What it does, and where it fails, in words."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the translator; checked against its `Options` when the run is built."""
    strength: float = api.option(1.0, minimum=0, maximum=1, live=True, help="0 keeps the source, 1 is the full effect")
    """How much of the translation is blended over the source, 0 to 1."""
    temporal: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Filters over the translation, in order, by name, each with its options; a number alone is a ``strength``."""
    path: Path = dataclasses.field(default=Path(), metadata=settings.NOT_A_KEY)
    """The YAML file; paths in `options` are relative to its folder."""

    @classmethod
    def load(cls, path: Path) -> Preset:
        """Reads a preset.

        Raises:
            PresetError: if the file is missing or broken, with its line; for an unknown key or a wrong value.
        """
        preset = settings.parse(cls, settings.read_yaml(path), where=str(path))
        temporal = {name: _filter_options(name, given, path) for name, given in preset.temporal.items()}
        return dataclasses.replace(preset, temporal=temporal, name=path.stem, path=path)


def _filter_options(name: str, given: Any, path: Path) -> dict[str, Any]:
    """The options of a filter as a mapping, whichever way they are given."""
    if isinstance(given, dict):
        return given
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return {"strength": given}
    raise api.PresetError(f"{path}: temporal.{name}: {given!r} given, expected a strength or its options, 'key: value'")


def shipped_folder() -> Path:
    """The folder of the presets that come with streamgan: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_presets"
    return installed if installed.is_dir() else package.parent / "presets"


@api.hookimpl
def register_presets(register: Callable[[str, Path], None]) -> None:
    """Brings the shipped presets."""
    for path in sorted(shipped_folder().glob("*.yaml")):
        register(path.stem, path)
