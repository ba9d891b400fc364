"""How far a quantised model is from its original, in pictures and in time, and how far it may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from streamgan.model import DOMAIN, INPUT
from streamgan_training import modelfile
from streamgan_training.frames.film import Image
from streamgan_training.measuring import metrics
from streamgan_training.quantising.graph import Feed
from streamgan_training.quantising.pictures import Pictures

SPREAD = 5.0
"""How much less than the mean PSNR the worst picture may have, in dB."""
_BLOCK = 16
_ROUNDING = (0.5 / 255) ** 2
"""Flicker that rounding to 8 bits alone may make: below it, a ratio says nothing."""


@dataclasses.dataclass(frozen=True)
class Bars:
    """What the gate asks for."""

    mean: float = 40.0
    """Mean PSNR of the held-out pictures, in dB: an error of 2.5 levels, as much as H.264 at its usual quality adds.
    At 39 dB nobody saw a difference side by side on the shipped presets."""
    least: float = 35.0
    """PSNR of the worst of them, in dB."""
    drift: float = 8.0
    """Largest change of the mean colour of any 16x16 pixels, in steps of 1/255: a stain in a flat wall, which the mean
    over a picture hides."""
    flicker: float = 1.15
    """Flicker of the clips over that of the original."""


@dataclasses.dataclass(frozen=True)
class Quality:
    """What was measured."""

    mean: float
    """Mean PSNR against the original, in dB."""
    least: float
    """The same of the worst picture."""
    drift: float
    """See `Bars.drift`."""
    flicker: float | None
    """See `Bars.flicker`; None if there were no films."""

    def faults(self, bars: Bars) -> list[str]:
        """What fails, in words; nothing if it passes."""
        found = []
        if self.mean < bars.mean:
            found.append(f"mean PSNR {self.mean:.1f} dB (at least {bars.mean:g})")
        if self.least < bars.least:
            found.append(f"PSNR of the worst picture {self.least:.1f} dB (at least {bars.least:g})")
        if self.drift > bars.drift:
            found.append(f"a place is off by {self.drift:.1f}/255 (at most {bars.drift:g})")
        if self.flicker is not None and self.flicker > bars.flicker:
            found.append(f"flicker {self.flicker:.2f} of the original's (at most {bars.flicker:g})")
        return found

    def __str__(self) -> str:
        flicker = "not measured, no film given" if self.flicker is None else f"{self.flicker:.2f} of the original's"
        return (
            f"PSNR {self.mean:.1f} dB, worst picture {self.least:.1f} dB, largest drift of a place "
            f"{self.drift:.1f}/255, flicker {flicker}"
        )


@dataclasses.dataclass(frozen=True)
class Results:
    """What a model makes of the pictures that judge."""

    held_out: tuple[Image, ...]
    clips: tuple[tuple[Image, ...], ...]


def feed(image: Image, domain: int | None = None) -> Feed:
    """One picture, ``(H, W, 3)`` uint8 RGB, as the inputs of a model; with its domain, if the model has several."""
    return {INPUT: image[None]} | ({} if domain is None else {DOMAIN: np.array([domain])})


def labels(count: int, domains: int) -> list[int | None]:
    """The domain that each of so many pictures is shown in, one after the other; None for a model of one direction."""
    return [number % domains if domains else None for number in range(count)]


def translate(model: Path, images: Sequence[Image], domains: Sequence[int | None]) -> tuple[Image, ...]:
    """What ONNX Runtime makes of pictures on the CPU, each ``(H, W, 3)`` uint8 RGB, each in its domain."""
    session = modelfile.load_session(model)
    return tuple(modelfile.draw(session, feed(*shown), model)[0] for shown in zip(images, domains, strict=True))


def results(model: Path, pictures: Pictures, domains: int = 0) -> Results:
    """What a model makes of all pictures that judge; `domains` is how many it has."""
    clips = [
        translate(model, clip, [domain] * len(clip))
        for clip, domain in zip(pictures.clips, labels(len(pictures.clips), domains), strict=True)
    ]
    return Results(translate(model, pictures.held_out, labels(len(pictures.held_out), domains)), tuple(clips))


def compare(original: Results, made: Results, pictures: Pictures) -> Quality:
    """Measures what was made against the original."""
    psnr = [float(cv2.PSNR(*pair)) for pair in zip(original.held_out, made.held_out, strict=True)]
    drift = max(largest_drift(*pair) for pair in zip(original.held_out, made.held_out, strict=True))
    before, after = (flicker(pictures.clips, each.clips) for each in (original, made))
    ratio = None if before is None or after is None else (after + _ROUNDING) / (before + _ROUNDING)
    return Quality(float(np.mean(psnr)), min(psnr), drift, ratio)


def largest_drift(original: Image, made: Image) -> float:
    """The largest difference of the mean colours of two pictures in any block of 16x16 pixels, in steps of 1/255."""
    height, width = original.shape[:2]
    size = max(1, width // _BLOCK), max(1, height // _BLOCK)
    means = [cv2.resize(each.astype(np.float32), size, interpolation=cv2.INTER_AREA) for each in (original, made)]
    return float(np.abs(means[0] - means[1]).max())


def flicker(clips: Sequence[Sequence[Image]], made: Sequence[Sequence[Image]]) -> float | None:
    """Mean warping error of translated clips along the motion of their sources; None if there are none."""
    errors = [
        metrics.flicker(zip(source, output, strict=True)).output for source, output in zip(clips, made, strict=True)
    ]
    return float(np.nanmean(errors)) if errors and not np.isnan(errors).all() else None
