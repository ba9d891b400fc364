"""``streamgan batch``: many films, or the parts of long ones, on a Ray cluster or on this machine."""

from __future__ import annotations

from collections.abc import Callable

import click

from streamgan.api import hookimpl


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Brings ``batch``; Ray is imported only when it runs."""
    from streamgan_ray.command import batch

    register(batch)
