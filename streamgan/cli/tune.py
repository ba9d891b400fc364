"""``streamgan tune``: measures once more what runs a preset's model fastest here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgan import plugins
from streamgan.api import UsageError
from streamgan.cli import options, table

if TYPE_CHECKING:
    from streamgan.models.choice import Choice
    from streamgan.models.trials import Trial, Wanted

HEADINGS = ("backend", "precision", "streams", "frames/s", "PSNR", "largest error", "verdict")
"""Of the table of trials."""


@click.command("tune")
@click.option("--preset", "-p", metavar="NAME", help="Preset, or path of its YAML file; all presets by default.")
@click.option("--size", type=click.IntRange(min=1), help="Short side that the model sees, in pixels.")
@click.option("--resolution", default="1280x720", show_default=True, metavar="WxH", help="Of the films.")
@click.option("--backend", metavar="NAME", help="Try only this one; all by default.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Cores to use; all by default.")
@click.pass_obj
def command(
    loose_files: tuple[Path, ...],
    preset: str | None,
    size: int | None,
    resolution: str,
    backend: str | None,
    threads: int | None,
) -> None:
    """Measure again what runs a model fastest here.

    Every backend that is installed runs the model of a preset for a moment, in each precision that it has, with one
    picture at a time and with several; what computes other pictures than ONNX Runtime is out. `run` and `live` remember
    what was fastest: until then they measure it themselves, once for each model and size.
    """
    frame = options.resolution(resolution)
    from streamgan.models import choice

    registry = plugins.load(loose_files)
    backends = {name: provided.value for name, provided in registry.backends.items()}
    if backend is not None:
        registry.backend(backend)
    for name in sorted(registry.presets) if preset is None else [preset]:
        wanted = _wanted(registry, name, frame, size, backend, threads)
        if wanted is None and preset is not None:
            raise UsageError(f"preset {name}: names no model file, so there is nothing to measure")
        if wanted is not None:
            found = choice.choose(backends, wanted, lambda line: click.echo(line, err=True), again=True)
            title = f"{Path(name).stem} at {wanted.size[0]}x{wanted.size[1]}, {wanted.threads} threads"
            table.show(title, [row(trial, found) for trial in found.trials], HEADINGS)
            click.echo(f"{Path(name).stem}: {found.setup} ({found.reason})")


def row(trial: Trial, chosen: Choice) -> tuple[str, ...]:
    """The cells of one trial."""
    verdict = "<- used" if trial.setup == chosen.setup else "right" if trial.passed else trial.note
    return (
        trial.setup.backend,
        trial.setup.precision,
        str(trial.setup.streams),
        f"{trial.fps:.1f}" if trial.fps else "-",
        f"{trial.psnr:.1f} dB" if trial.psnr is not None else "is the reference" if trial.passed else "-",
        "-" if trial.max_error is None else str(trial.max_error),
        verdict,
    )


def _wanted(
    registry: plugins.Registry,
    name: str,
    frame: tuple[int, int],
    size: int | None,
    backend: str | None,
    threads: int | None,
) -> Wanted | None:
    """What a run of a preset would ask for; None if it has no model file.

    Raises:
        PresetError: for a preset that is broken; ModelError for a model file that is none.
    """
    from streamgan import settings
    from streamgan.models import choice
    from streamgan.plan import Budget
    from streamgan.preset import Preset

    preset = Preset.load(registry.preset_path(name))
    translator = registry.translator(preset.translator)
    given = preset.options | ({} if size is None else {"size": size})
    values = settings.parse(translator.Options, given, f"{preset.path}: options")
    path = choice.model_of(preset.path.parent, values)
    if path is None:
        return None
    seen, streams = choice.model_size(path, frame, values), choice.most_streams(translator, live=False)
    return choice.Wanted(path, seen, Budget.of(threads).translate, streams, backend)
