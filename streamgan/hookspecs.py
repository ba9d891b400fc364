"""The hooks: the whole extension surface on one screen.

A plugin implements any of them with `streamgan.api.hookimpl`. Each gets a `register` callback and calls it once for
each thing it brings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from streamgan.api import Backend, Filter, Sink, Source, Translator

if TYPE_CHECKING:
    import click

hookspec = pluggy.HookspecMarker("streamgan")


@hookspec
def register_translators(register: Callable[[str, type[Translator]], None]) -> None:
    """Call ``register(name, cls)`` for each `Translator`; a preset names it under ``translator:``."""


@hookspec
def register_filters(register: Callable[[str, type[Filter]], None]) -> None:
    """Call ``register(name, cls)`` for each `Filter`; a preset names it under ``temporal:``."""


@hookspec
def register_backends(register: Callable[[str, type[Backend]], None]) -> None:
    """Call ``register(name, cls)`` for each `Backend`; ``--backend name`` chooses it."""


@hookspec
def register_sources(register: Callable[[str, type[Source]], None]) -> None:
    """Call ``register(name, cls)`` for each `Source`; the first whose ``accepts`` says so opens the input."""


@hookspec
def register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Call ``register(name, cls)`` for each `Sink`; the first whose ``accepts`` says so opens the output."""


@hookspec
def register_presets(register: Callable[[str, Path], None]) -> None:
    """Call ``register(name, path)`` for each preset, `path` being its YAML file."""


@hookspec
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Call ``register(command)`` for each `click.Command` to add to the ``streamgan`` program."""


@hookspec
def register_methods(register: Callable[[str, str], None]) -> None:
    """Call ``register(name, "package.module:Class")`` for each method of training; a recipe names it under ``method:``.

    The class, a `streamgan_training.method.Method`, is imported only when a recipe asks for it: it needs torch.
    """
