"""``streamgan plugins``: what is loaded, what it brings, and what could not be loaded."""

from __future__ import annotations

from pathlib import Path

import click

from streamgan import plugins
from streamgan.cli import table

_KINDS = tuple(hook.removeprefix("register_") for hook in plugins.HOOKS)


@click.command("plugins")
@click.option("--trace", is_flag=True, help="Print the tracebacks of those that failed.")
@click.pass_obj
def command(loose_files: tuple[Path, ...], trace: bool) -> None:
    """List plugins, what they bring, and what failed."""
    registry = plugins.load(loose_files)
    table.show("plugins", listed(registry), ("plugin", "brings", "from"))
    table.show("failed", failed(registry), ("plugin", "error"))
    for failure in registry.failures:
        if trace and failure.detail:
            click.echo(f"\n{failure.plugin}\n{failure.detail}")


def listed(registry: plugins.Registry) -> list[tuple[str, str, str]]:
    """Name, what it brings, and origin of each plugin that works."""
    rows = []
    for name, plugin in registry.plugins.items():
        brings = [
            f"{kind[:-1]} {provided.name}"
            for kind in _KINDS
            for provided in getattr(registry, kind).values()
            if provided.plugin == name
        ]
        rows.append((name, ", ".join(brings) or "nothing", plugin.origin))
    return rows


def mention_failed(registry: plugins.Registry) -> None:
    """Writes a note for each plugin that does not work: it may be one that the user has just named."""
    for name, error in failed(registry):
        click.echo(f"note: the plugin {name} failed and is not used: {error}", err=True)


def failed(registry: plugins.Registry) -> list[tuple[str, str]]:
    """Name and error of each plugin that does not work."""
    return [(failure.plugin, failure.error) for failure in registry.failures]
