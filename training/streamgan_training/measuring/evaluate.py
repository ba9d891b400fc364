"""Measures a training on held-out frames and on clips; writes ``metrics.json`` into the run folder.

A measure of one translation or one film is named ``NAME/TRANSLATION`` or ``NAME/FILM``. Beside every measure of the
output stands the same of the input, its floor: ``…_output`` and ``…_source``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

from streamgan.api import ModelError, UsageError
from streamgan_training import checkpoint
from streamgan_training.frames import data
from streamgan_training.frames.data import Pictures
from streamgan_training.measuring import classifier, clips, metrics, quality
from streamgan_training.measuring.metrics import Image
from streamgan_training.method import Method
from streamgan_training.recipe import Recipe
from streamgan_training.trained import FrameModel, load_trained, translate

CLIP_FRAMES = 100
"""The first frames of a film that are measured, at most."""
SMALLEST_DISTANCE = 1e-9
"""Below this the two looks are the same."""
SHORTEST_TOF = 6
"""Frames that tOF needs: two at each end are left out."""


@dataclasses.dataclass(frozen=True)
class Translation:
    """One way to translate held-out frames."""

    name: str
    """Such as ``ab``, or ``to_night``."""
    model: FrameModel
    target: int
    """Index of the domain."""
    domain: int | None = None
    """What the model is told, if it has several."""
    back: FrameModel | None = None

    def __call__(self, frames: Image) -> Image:
        """Translates ``(N, H, W, 3)`` uint8."""
        return translate(self.model, frames, self.domain, _device(self.model))


class Evaluation:
    """Held-out frames and clips of a recipe, read once, on which generators are measured again and again."""

    def __init__(self, recipe: Recipe, films: Sequence[Path] = (), limit: int | None = None) -> None:
        """Reads the frames.

        Args:
            recipe: whose held-out frames.
            films: of the source look.
            limit: how many held-out frames of each domain to use, spread evenly; None for all.

        Raises:
            UsageError: if the recipe holds nothing out.
            SourceError: if a film cannot be read.
        """
        self.recipe, self.films = recipe, films
        for film in films:
            clips.check_film(film)
        self.frames = {name: held_out(recipe, name, limit) for name in recipe.domains}
        if not any(len(frames) for frames in self.frames.values()):
            raise UsageError(
                "the recipe holds no frames out; name some under data.domains.NAME.hold_out, whole scenes at a time"
            )

    @functools.cached_property
    def judge(self) -> nn.Module:
        """The classifier of domains; trained when it is asked for first."""
        sets = [data.load_domain(footages, self.recipe.data, lambda _: None) for footages in self.domains]
        return classifier.train_classifier(self.recipe, sets)

    @property
    def domains(self) -> Iterator[Sequence[Any]]:
        """The footage of each domain."""
        return iter(self.recipe.data.domains.values())

    def measure(
        self, method: Method, generators: nn.Module, deep: bool = True
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """All measures of generators, and the protocol of those that need pretrained networks.

        Args:
            method: what they belong to.
            generators: in eval mode.
            deep: whether to compute those of pretrained networks, where their weights are.
        """
        result = {f"held_out/{name}": float(len(frames)) for name, frames in self.frames.items()}
        right = [
            accuracy * len(frames)
            for label, frames in enumerate(self.frames.values())
            if len(frames)
            for accuracy in [classifier.accuracy(self.judge, frames, label)]
        ]
        result["classifier_accuracy_real"] = sum(right) / sum(len(frames) for frames in self.frames.values())
        protocol: dict[str, Any] = {}
        translations = list(self.translations(method, generators))
        for translation in translations:
            measured, protocol[translation.name] = self._measure_one(translation, deep)
            result |= {f"{name}/{translation.name}": value for name, value in measured.items()}
        for film in self.films:
            pairs = clips.translated(film, _onward(translations), method.multiple_of)
            result |= {f"{name}/{film.stem}": value for name, value in describe(pairs).items()}
        return result, protocol

    def translations(self, method: Method, generators: nn.Module) -> Iterator[Translation]:
        """Every direction; of a multi-domain method, one to each domain."""
        if method.mixed:
            model = FrameModel(method.translator(generators, method.directions[0])).eval()
            for index, name in enumerate(self.recipe.domains):
                yield Translation(f"to_{name}", model, index, index)
            return
        models = {name: FrameModel(method.translator(generators, name)).eval() for name in method.directions}
        for name, model in models.items():
            yield Translation(name, model, "ab".index(name[-1]), None, models.get(name[::-1]))

    def write_strips(self, method: Method, generators: nn.Module, folder: Path, step: int) -> None:
        """A picture of each film, frames above their translations: ``FILM-STEP.png``."""
        translation = _onward(list(self.translations(method, generators)))
        for film in self.films:
            folder.mkdir(exist_ok=True)
            picture = clips.strip(film, translation, method.multiple_of)
            Pillow.fromarray(picture).save(folder / f"{film.stem}-{step:08d}.png")

    def sources(self, translation: Translation) -> Image:
        """The held-out frames that a translation applies to: those of the other domains."""
        others = [frames for index, frames in enumerate(self.frames.values()) if index != translation.target]
        return np.concatenate(others)

    def _measure_one(self, translation: Translation, deep: bool) -> tuple[dict[str, float], dict[str, Any]]:
        """The measures of one translation."""
        source, target = self.sources(translation), [*self.frames.values()][translation.target]
        if not len(source):
            return {}, {}
        output = translation(source)
        found = {
            "classifier_calls_output": classifier.accuracy(self.judge, output, translation.target),
            "edge_correlation": float(
                np.mean([metrics.edge_correlation(*pair) for pair in zip(source, output, strict=True)])
            ),
        }
        if translation.back is not None:
            cycled = translate(translation.back, output, None, _device(translation.back))
            found |= {"cycle_psnr": quality.psnr(source, cycled), "cycle_ssim": quality.ssim(source, cycled)}
        if not len(target):
            return found, {}
        found["swd_output"] = metrics.sliced_wasserstein(output, target)
        found["swd_source"] = metrics.sliced_wasserstein(source, target)
        if not deep:
            return found, {}
        measured = quality.deep_metrics(target, output, source, device=_device(translation.model))
        return found | measured.values, measured.protocol | {"unavailable": measured.unavailable}


def evaluate(
    run: Path,
    films: Sequence[Path] = (),
    pairs: Sequence[tuple[Path, Path]] = (),
    plugin_files: Sequence[Path] = (),
) -> dict[str, float]:
    """Measures a run on the frames its recipe holds out, and its flicker on clips.

    Args:
        run: a run folder, or one checkpoint of it.
        films: of the source look, translated here at a short side of 256 pixels.
        pairs: (source, output) films that exist already, such as those of ``streamgan run``.
        plugin_files: single-file plugins that may bring the method.

    Returns:
        The measures by name; also written to ``metrics.json`` in the run folder, with how they were measured.

    Raises:
        UsageError: if the recipe holds nothing out.
        SourceError: if a film cannot be read.
    """
    trained = load_trained(run, plugin_files)
    for film in itertools.chain.from_iterable(pairs):
        clips.check_film(film)
    evaluation = Evaluation(trained.recipe, films)
    result, protocol = evaluation.measure(trained.method, trained.generators)
    result["step"] = float(trained.step)
    for source, output in pairs:
        both = zip(clips.read_clip(source), clips.read_clip(output), strict=False)
        result |= {f"{name}/{output.stem}": value for name, value in describe(both).items()}
    home = run.parent.parent if run.parent.name == "checkpoints" else run
    evaluation.write_strips(trained.method, trained.generators, home / "strips", trained.step)
    content = result | {"protocol": protocol}
    checkpoint.write_whole(home / "metrics.json", json.dumps(content, indent=1))
    return result


def add_measures(run: Path, measured: dict[str, float]) -> None:
    """Adds further measures to the ``metrics.json`` that `evaluate` wrote into a run folder."""
    file = run / "metrics.json"
    content = json.loads(file.read_text(encoding="utf-8")) | measured
    checkpoint.write_whole(file, json.dumps(content, indent=1))


def score(measured: dict[str, float]) -> float:
    """What the best checkpoint has the least of: quality times flicker.

    Quality is the distance to the target look as a fraction of the source's (mean over translations); flicker is the
    warping error over the source's and the squared contrast ratio, at least 1, so that blur earns nothing.
    """
    distances = [
        value / max(measured[name.replace("swd_output", "swd_source")], SMALLEST_DISTANCE)
        for name, value in measured.items()
        if name.startswith("swd_output/")
    ]
    flickers = [value for name, value in measured.items() if name.startswith(FAIR_RATIO)]
    return float(np.mean(distances or [np.inf])) * max(1.0, float(np.mean(flickers or [1.0])))


FAIR_RATIO = "warping_error_ratio_over_squared_contrast/"


def describe(pairs: Iterable[tuple[Image, Image]], frame_rate: float = 25.0) -> dict[str, float]:
    """The flicker of a film's translation, as named measures; what a short or wild film does not allow is left out.

    Args:
        pairs: (source, output) frames; the first `CLIP_FRAMES` are measured.
        frame_rate: in 1/s, for the error over half a second.
    """
    frames = list(itertools.islice(pairs, CLIP_FRAMES))
    found: dict[str, float] = {}
    gap = max(2, round(frame_rate / 2))
    if len(frames) > 1:
        flicker = metrics.flicker(frames)
        found |= {
            "warping_error_source": flicker.source,
            "warping_error_output": flicker.output,
            "warping_error_ratio": flicker.ratio,
            FAIR_RATIO.rstrip("/"): flicker.fair_ratio,
        }
    if len(frames) > gap:
        flicker = metrics.flicker(frames, gap)
        found |= {"warping_error_long_source": flicker.source, "warping_error_long_output": flicker.output}
    if len(frames) >= SHORTEST_TOF:
        found["tof"] = metrics.motion_difference(frames)
        with contextlib.suppress(UsageError, ModelError):  # where LPIPS has its weights
            found["tlp"] = quality.temporal_perception_difference(frames, quality.lpips())
    return {name: value for name, value in found.items() if math.isfinite(value)}


def held_out(recipe: Recipe, domain: str, limit: int | None = None) -> Image:
    """The held-out frames of a domain, cut to the middle: ``(N, height, width, 3)`` uint8 RGB."""
    width, height = recipe.data.size
    sets: list[Pictures] = data.load_domain(recipe.data.domains[domain], recipe.data, lambda _: None, held_out=True)
    places = [(one, index) for one in sets for index in range(len(one))]
    if limit is not None and len(places) > limit:
        places = [places[number * len(places) // limit] for number in range(limit)]
    frames = [middle(one.image(index), (width, height)) for one, index in places]
    return np.stack(frames) if frames else np.empty((0, height, width, 3), np.uint8)


def middle(image: Tensor, size: tuple[int, int]) -> Image:
    """The largest middle part of `size`'s shape, reduced to `size`: ``(height, width, 3)`` uint8."""
    width, height = size
    pixels = image.permute(1, 2, 0).numpy()
    scale = max(width / pixels.shape[1], height / pixels.shape[0])
    cut_w, cut_h = min(round(width / scale), pixels.shape[1]), min(round(height / scale), pixels.shape[0])
    left, top = (pixels.shape[1] - cut_w) // 2, (pixels.shape[0] - cut_h) // 2
    part = np.ascontiguousarray(pixels[top : top + cut_h, left : left + cut_w])
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _onward(translations: Sequence[Translation]) -> Translation:
    """The translation of films, which are of the first domain: the first one that leads to another."""
    return next((one for one in translations if one.target != 0), translations[0])


def _device(model: nn.Module) -> torch.device:
    """Where a network lies."""
    return next(model.parameters()).device
