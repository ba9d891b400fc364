"""The command that makes the quantised sibling of a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from streamgan_training.quantising.quantise import Quantised

_SHOWN = 8


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--frames", multiple=True, required=True, metavar="PATH", type=click.Path(path_type=Path),
              help="A folder of pictures, or a film, of the kind that the model will see. Repeatable.")  # fmt: skip
@click.option("--check", multiple=True, metavar="PATH", type=click.Path(path_type=Path),
              help="Others to judge by, instead of the last quarter of each of --frames.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to make, instead of NAME.int8.onnx.")
@click.option("--short-side", type=click.IntRange(1),
              help="What pictures are reduced to, in pixels: the size that the model will run at.")  # fmt: skip
@click.option("--psnr", type=click.FloatRange(0, 100), default=40, show_default=True, metavar="DB",
              help="Mean PSNR to the original that the gate asks for; of the worst picture 5 less.")  # fmt: skip
@click.option("--force", is_flag=True, help="Write the file even if it does not pass the gate.")
def quantise(
    model: Path,
    frames: tuple[Path, ...],
    check: tuple[Path, ...],
    output: Path | None,
    short_side: int | None,
    psnr: float,
    force: bool,
) -> None:
    """Make MODEL compute in 8-bit integers: NAME.int8.onnx, which runs use for '--precision int8'."""
    from streamgan_training.quantising import gate
    from streamgan_training.quantising import quantise as quantising

    made = quantising.quantise(
        model,
        frames,
        output,
        check=check,
        short_side=short_side or 0,
        bars=gate.Bars(mean=psnr, least=psnr - gate.SPREAD),
        force=force,
        warn=lambda text: click.echo(f"warning: {text}", err=True),
        on_step=lambda text: click.echo(text, err=True),
    )
    _show(made)


def _show(made: Quantised) -> None:
    """Prints what was made."""
    click.echo(f"{made.output}: {made.output.stat().st_size / 1e6:.1f} MB, {made.integer} convolutions in int8")
    if made.kept:
        more = f" and {len(made.kept) - _SHOWN} more" if len(made.kept) > _SHOWN else ""
        click.echo(f"in fp32: {', '.join(made.kept[:_SHOWN])}{more}")
    click.echo(f"against the original: {made.quality}")
    for fault in made.faults:
        click.echo(f"warning: forced: {fault}", err=True)
