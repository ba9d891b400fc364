"""The program: its global options, its commands, and how errors end it.

Each built-in command lies in the module of its name in this package; plugins add commands of their own.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

import streamgan
from streamgan import plugins
from streamgan.api import StreamganError
from streamgan.settings import nearest

_INTERRUPTED, _STANDARD_ERROR, _TICK = 130, 2, 0.2
_signals: list[int] = []
"""Those that asked this process to end, in order."""


class Program(click.Group):
    """The group of all commands: built-in ones by module, those of plugins through the hook."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help: built-ins, then plugins'."""
        return [*plugins.BUILT_IN_COMMANDS, *sorted(self._brought(ctx).commands)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of this name; plugins are only asked for names that are not built in."""
        if name in plugins.BUILT_IN_COMMANDS:
            built_in: click.Command = importlib.import_module(f"streamgan.cli.{name}").command
            return built_in
        provided = self._brought(ctx).commands.get(name)
        return provided.value if provided else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in click, but an unknown name gets a suggestion and the plugins that could not be loaded."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            broken = "".join(f"; the plugin {each.plugin} failed: {each.error}" for each in self._brought(ctx).failures)
            near = nearest(args[0], self.list_commands(ctx))
            raise click.UsageError(f"no command is called '{args[0]}'{near} (streamgan --help lists all){broken}")
        return super().resolve_command(ctx, args)

    def _brought(self, ctx: click.Context) -> plugins.Registry:
        """What plugins bring in the way of commands; found once."""
        key = "streamgan.commands"
        if key not in ctx.meta:
            ctx.meta[key] = plugins.load_commands(ctx.params.get("plugin", ()))
        found: plugins.Registry = ctx.meta[key]
        return found


@click.command("streamgan", cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(streamgan.__version__, message="streamgan %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors (may stand anywhere in the line).")
@click.option(
    "--plugin",
    multiple=True,
    is_eager=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Load one Python file as a plugin; may be repeated.",
)
@click.pass_context
def program(ctx: click.Context, debug: bool, plugin: tuple[Path, ...]) -> None:
    """Translate video from one look to another, day to night for example.

    \b
    streamgan run drive.mp4 --preset day2night     writes drive.day2night.mp4
    streamgan live 0 --preset day2night            camera 0 in a window
    streamgan doctor                               what is installed here
    """
    ctx.obj = plugin


def main() -> None:
    """Runs the program with the arguments of the process, and ends the process.

    A request to end (SIGTERM, SIGHUP) is treated as Ctrl-C: nothing half-written is left behind.
    """
    while (spare := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass  # a standard stream was closed: else a film could be opened under its number, and be written into
    os.close(spare)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)
    code = execute(sys.argv[1:])
    if code and _hangs():
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _hangs() -> bool:
    """Whether some thread, as of a plugin that never returns, would keep the process from ending."""
    others = [each for each in threading.enumerate() if each is not threading.main_thread() and not each.daemon]
    for thread in others:
        thread.join(_TICK)
    return any(thread.is_alive() for thread in others)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raises what Ctrl-C raises, and remembers it: an import that it cuts off may turn it into an ImportError."""
    _signals.append(number)
    raise KeyboardInterrupt


def execute(arguments: Sequence[str]) -> int:
    """Runs the program.

    Returns:
        The exit code: 0, 1 if it failed, 2 if it was used wrongly, 130 if it was interrupted.
    """
    debug = "--debug" in arguments
    given = [argument for argument in arguments if argument != "--debug"]
    try:
        code: Any = program.main(args=given, prog_name="streamgan", standalone_mode=False)
        sys.stdout.flush() if sys.stdout else None
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _end(error.format_message(), error.exit_code, debug)
    except (KeyboardInterrupt, click.Abort):
        return _end("interrupted", _INTERRUPTED, debug, "")
    except BrokenPipeError:
        _silence()
        return 1
    except StreamganError as error:
        status = _end(str(error), error.exit_code, debug, "" if error.exit_code == _INTERRUPTED else "error: ")
        for note in getattr(error, "__notes__", ()):
            click.echo(f"note: {note}", err=True)
        return status
    except OSError as error:  # the machine's doing, as a full disk behind the standard output
        name = f"{error.filename}: " if error.filename else ""
        return _end(f"{name}{error.strerror or error}", 1, debug)
    except Exception as error:
        if _signals:
            return _end("interrupted", _INTERRUPTED, debug, "")
        kind = f"unexpected {type(error).__name__}: {error}"
        return _end(f"{kind}; run with --debug for the traceback; please report", 1, debug)


def _end(message: str, code: int, debug: bool, prefix: str = "error: ") -> int:
    """Says why it ends, in one line, and returns the exit code."""
    if debug:
        traceback.print_exc()
    click.echo(f"streamgan: {prefix}{' '.join(message.split())}", err=True)
    return code


def _silence() -> None:
    """Keeps the interpreter from complaining at its exit that nobody reads its output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
