"""``streamgan presets``: which there are, and what one of them is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from streamgan import plugins, settings
from streamgan.api import StreamganError, Translator
from streamgan.cli import table
from streamgan.preset import Preset


@click.group("presets", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the presets that --preset takes."""
    if ctx.invoked_subcommand is None:
        registry = plugins.load(ctx.obj)
        table.show("presets", listed(registry), ("name", "title", "from"))


@command.command("show")
@click.argument("name")
@click.pass_obj
def show(loose_files: tuple[Path, ...], name: str) -> None:
    """Print everything about the preset NAME (or a YAML file)."""
    registry = plugins.load(loose_files)
    preset = Preset.load(registry.preset_path(name))
    translator = registry.translator(preset.translator)
    options = settings.parse(translator.Options, preset.options, f"{preset.path}: options")
    rows = [("title", preset.title), ("description", preset.description), ("file", str(preset.path))]
    rows += [("translator", preset.translator), ("strength", f"{preset.strength:g}")]
    table.show(preset.name, [(key, " ".join(value.split())) for key, value in rows if value])
    table.show("options (--set key=value)", _options(translator, options), ("key", "value", "meaning"))
    for key, value in _models(preset):
        table.show(f"model file ({key})", _card(value))


def listed(registry: plugins.Registry) -> list[tuple[str, str, str]]:
    """Name, title and origin of each preset; a broken one says what is wrong."""
    rows = []
    for name, provided in sorted(registry.presets.items()):
        try:
            title = Preset.load(provided.value).title
        except StreamganError as error:
            title = f"broken: {error}"
        rows.append((name, title, "streamgan" if provided.plugin == "streamgan.preset" else provided.plugin))
    return rows


def _options(translator: type[Translator], options: object) -> list[tuple[str, str, str]]:
    """Each option with its value in this preset and what it means."""
    rows = []
    for field in dataclasses.fields(translator.Options):
        live = " (live)" if field.metadata.get("live") else ""
        rows.append((field.name, str(getattr(options, field.name)), field.metadata.get("help", "") + live))
    return rows


def _models(preset: Preset) -> list[tuple[str, Path]]:
    """The model files that a preset names."""
    texts = [(key, value) for key, value in preset.options.items() if isinstance(value, str)]
    return [(key, preset.path.parent / value) for key, value in texts if value.endswith(".onnx")]


def _card(path: Path) -> list[tuple[str, str]]:
    """The card of a model file, a row for each entry that says something."""
    from streamgan import model

    card = dataclasses.asdict(model.read_card(path))
    rows = [("file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)")]
    return rows + [(key, _plain(value)) for key, value in card.items() if value not in ("", (), {}, 0)]


def _plain(value: object) -> str:
    """A value of the card for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return " ".join(f"{value:g}".split() if isinstance(value, float) else str(value).split())
