"""The command ``streamgan``. The program is in `program`, each command in the module of its name."""

from streamgan.cli.program import main

__all__ = ["main"]
