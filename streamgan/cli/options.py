"""Options that several commands take, and how their texts are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, TypeVar, get_args, get_type_hints

import click

from streamgan.api import Encoding, UsageError

F = TypeVar("F", bound=Callable[..., Any])
_SMALLEST, _LARGEST = 16, 8192
"""Pixels of a side of ``--resolution``."""
_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?|\.\d+)")


class Grouped(click.Command):
    """A command whose help shows its options in groups.

    Args:
        groups: names of parameters by the title of their group, in the order of the help; those that are in none of
            them stand in the first.
    """

    def __init__(self, *args: Any, groups: Mapping[str, tuple[str, ...]], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.groups = groups
        """As given."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes a section for each group."""
        every = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        left = {param.name: param.get_help_record(ctx) for param in every}
        grouped = [(title, [left.pop(name, None) for name in names]) for title, names in self.groups.items()]
        grouped[0][1].extend(left.values())
        for title, records in grouped:
            with formatter.section(title):
                formatter.write_dl([record for record in records if record is not None])


class Time(click.ParamType[Fraction]):
    """A time: seconds, or HH:MM:SS.mmm; becomes an exact `Fraction` of seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """Reads the text."""
        if isinstance(value, Fraction):
            return value
        match = _TIME.fullmatch(value.strip())
        if not match:
            self.fail(f"'{value}' is no time; expected seconds (12.5) or HH:MM:SS.mmm (00:01:02.500)", param, ctx)
        hours, minutes, seconds = match.groups()
        return Fraction(int(hours or 0) * 3600 + int(minutes or 0) * 60) + Fraction(seconds)


def assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Reads the values of ``--set key=value``; those in brackets are read as YAML lists.

    Raises:
        UsageError: for a text without "=", or a list that does not read.
    """
    import yaml

    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {text}: expected key=value, such as --set size=360")
        try:
            values[key.strip()] = yaml.safe_load(value) if value.startswith(("[", "{")) else value
        except (yaml.YAMLError, ValueError, TypeError, RecursionError):  # the others of values such as 2026-99-99
            raise UsageError(f"--set {text}: the value does not read as a YAML list") from None
    return values


def resolution(text: str) -> tuple[int, int]:
    """Reads the width and height of ``--resolution``, such as ``640x360``.

    Raises:
        UsageError: for anything else, and sides that no film has.
    """
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(_SMALLEST <= side <= _LARGEST for side in size):
        sides = f"each from {_SMALLEST} to {_LARGEST}"
        raise UsageError(f"--resolution {text}: expected WIDTHxHEIGHT in pixels, {sides}, such as 640x360")
    return size


def translation(command: F) -> F:
    """The options that say how to translate."""
    return _apply(
        command,
        click.option("--preset", "-p", required=True, metavar="NAME", help="Preset, or path of its YAML file."),
        click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Option of the translator."),
        click.option("--strength", type=click.FloatRange(0, 1), help="0 keeps the source, 1 is the full effect."),
        click.option("--size", type=click.IntRange(min=1), help="Short side that the model sees, in pixels."),
        click.option("--backend", metavar="NAME", help="What runs the model (see streamgan doctor); auto by default."),
        click.option(
            "--precision",
            type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]),
            default="auto",
            help="Arithmetic of the backend.",
        ),
        click.option("--threads", type=click.IntRange(1, 1024), help="Cores to use; all by default."),
    )


def encoding(command: F) -> F:
    """The options that say how to write."""
    codecs = get_args(get_type_hints(Encoding)["codec"])
    return _apply(
        command,
        click.option("--codec", type=click.Choice(codecs), default="h264", show_default=True, help="Compression."),
        click.option("--encoder", metavar="NAME", help="What compresses; auto takes hardware that works here."),
        click.option("--lossless", is_flag=True, help="Lose nothing that the pixel format can hold."),
        click.option(
            "--alpha",
            type=click.Choice(["keep", "drop"]),
            default="keep",
            help="What becomes of transparency: an output that cannot keep it is refused.",
        ),
        click.option("--crf", type=click.IntRange(0, 63), help="Quality, the lower the better."),
        click.option("--encoder-preset", metavar="NAME", help="Effort of the encoder, such as veryfast or slow."),
        click.option("--overwrite", is_flag=True, help="Replace an output that exists."),
    )


def _apply(command: F, *options: Callable[[F], F]) -> F:
    """Puts decorators on a command so that the help shows them in the order given."""
    for option in reversed(options):
        command = option(command)
    return command
