"""Measures the filter on films: warping error and sharpness of a preset's translation with and without it.

    python plugins/smooth/measure.py [--preset day2night] [--strength 0.8] [--skip N] FILM...

Needs streamgan-training, whose measures these are: the warping error of Lai et al. 2018 along the motion of the source,
and the variance of the Laplacian.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import click
import cv2
import numpy as np

from streamgan import api, plugins, settings
from streamgan.model import read_card
from streamgan.models.backends import OnnxRuntime
from streamgan.preset import Preset
from streamgan_smooth.smoothing import Smooth
from streamgan_training.frames.shots import sharpness
from streamgan_training.measuring import clips, metrics
from streamgan_training.measuring.metrics import Image

FRAMES = 60


@click.command()
@click.argument("films", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--preset", default="day2night")
@click.option("--strength", default=Smooth.Options().strength)
@click.option("--skip", default=0, help="Frames to leave out at the beginning of each film.")
def main(films: tuple[Path, ...], preset: str, strength: float, skip: int) -> None:
    """Prints a row for each film."""
    click.echo("| film | input | without | with | fair without | fair with | sharpness | model ms | filter ms |")
    click.echo("|---|---|---|---|---|---|---|---|---|")
    for film in films:
        sources = np.stack([*itertools.islice(clips.read_clip(film, None, 2), skip, skip + FRAMES)])
        click.echo(f"| {film.stem} {sources.shape[2]}×{sources.shape[1]} | {row(sources, preset, strength)} |")


def row(sources: Image, preset: str, strength: float) -> str:
    """The measures of one film, ``(N, H, W, 3)``."""
    info = api.VideoInfo(sources.shape[2], sources.shape[1], Fraction(1, 25))
    seconds = {"model": list[float](), "filter": list[float]()}
    pairs = list(translate(sources, info, preset, strength, seconds))
    without = metrics.flicker((source, made) for source, made, _ in pairs)
    smoothed = metrics.flicker((source, result) for source, _, result in pairs)
    sharp = [float(np.mean([sharpness(pair[side]) for pair in pairs])) for side in (1, 2)]
    errors = [f"{1e4 * error:.2f}" for error in (without.source, without.output, smoothed.output)]
    fair = [f"{flicker.fair_ratio:.2f}" for flicker in (without, smoothed)]
    times = [f"{1e3 * float(np.median(spent)):.1f}" for spent in seconds.values()]
    return " | ".join([*errors, *fair, f"{sharp[1] / sharp[0]:.3f}", *times])


def translate(
    sources: Image, info: api.VideoInfo, name: str, strength: float, seconds: dict[str, list[float]]
) -> Iterator[tuple[Image, Image, Image]]:
    """(source, translation, the same smoothed) of each frame."""
    registry = plugins.load()
    preset = Preset.load(registry.preset_path(name))
    cls = registry.translator(preset.translator)
    translator = cls(settings.parse(cls.Options, preset.options, name))
    smooth = Smooth(Smooth.Options(strength=strength))
    context = api.Context(info, lambda location: load(preset.path.parent / location), threads=cv2.getNumThreads())
    for worker in (translator, smooth):
        worker.open(context)
        worker.reset()
    for source in sources:
        began = time.perf_counter()
        made = translator.translate(source[None])
        between = time.perf_counter()
        result = smooth.apply(source[None], made)
        seconds["model"].append(between - began)
        seconds["filter"].append(time.perf_counter() - between)
        yield source, made[0], result[0]
    translator.close()
    smooth.close()


def load(path: Path) -> api.Session:
    """A model file in ONNX Runtime."""
    session, card = OnnxRuntime().load(path, threads=cv2.getNumThreads()), read_card(path)
    session.multiple_of, session.domains = card.size.multiple_of, card.domains
    return session


if __name__ == "__main__":
    main()
