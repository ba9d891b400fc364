"""``python -m streamgan_tensorrt``: ``streamgan tensorrt``, where the program itself is not at hand."""

from __future__ import annotations

import sys

import click

from streamgan import api
from streamgan_tensorrt.command import tensorrt

if __name__ == "__main__":
    try:
        tensorrt()
    except api.StreamganError as error:
        click.echo(f"streamgan_tensorrt: error: {error}", err=True)
        sys.exit(error.exit_code)
