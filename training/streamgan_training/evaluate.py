"""Evaluates a trained run on held-out frames and on clips, and writes ``metrics.json`` into the run folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamgan.api import SourceError, UsageError
from streamgan_training import data, metrics
from streamgan_training.export import FrameModel, load_generator
from streamgan_training.recipe import Data, FrameFolder

Image = npt.NDArray[np.uint8]
CLASSIFIER_SIZE = (128, 80)
"""(width, height) at which the classifier looks, in pixels."""


def evaluate(run: Path, clips: Sequence[Path] = (), pairs: Sequence[tuple[Path, Path]] = ()) -> dict[str, float]:
    """Measures a run on the frames its recipe holds out, and its flicker on clips.

    Args:
        run: a run folder, or one checkpoint of it.
        clips: films of the source look, translated here at a short side of 256 pixels.
        pairs: (source, output) films that exist already, such as those of ``streamgan run``.

    Returns:
        The measures by name; also written to ``metrics.json`` in the run folder.

    Raises:
        UsageError: if the recipe holds nothing out.
        SourceError: if a clip cannot be read.
    """
    recipe, generator, step = load_generator(run)
    model = FrameModel(generator).eval()
    size = recipe.data.size
    day, night = (held_out(folders, recipe.data, size) for folders in (recipe.data.a, recipe.data.b))
    translated = np.concatenate([translate(model, frame[None]) for frame in day])
    result = {"step": float(step), "held_out_a": float(len(day)), "held_out_b": float(len(night))}
    classifier = train_classifier(recipe.data)
    result["classifier_accuracy_real"] = (
        accuracy(classifier, day, 0) * len(day) + accuracy(classifier, night, 1) * len(night)
    ) / (len(day) + len(night))
    result["classifier_calls_output_b"] = accuracy(classifier, translated, 1)
    result["swd_output_to_b"] = metrics.sliced_wasserstein(translated, night)
    result["swd_a_to_b"] = metrics.sliced_wasserstein(day, night)
    correlations = [metrics.edge_correlation(a, b) for a, b in zip(day, translated, strict=True)]
    result["edge_correlation"] = float(np.mean(correlations))
    for clip in clips:
        result |= describe(clip.stem, metrics.flicker(translated_clip(model, clip, 256)))
    for source, output in pairs:
        result |= describe(output.stem, metrics.flicker(zip(read_clip(source), read_clip(output), strict=False)))
    home = run.parent.parent if run.parent.name == "checkpoints" else run
    (home / "metrics.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def describe(name: str, flicker: metrics.Flicker) -> dict[str, float]:
    """A clip's flicker as named measures."""
    return {
        f"warping_error_source/{name}": flicker.source,
        f"warping_error_output/{name}": flicker.output,
        f"warping_error_ratio/{name}": flicker.ratio,
        f"warping_error_ratio_over_squared_contrast/{name}": flicker.fair_ratio,
    }


def held_out(folders: Sequence[FrameFolder], settings: Data, size: tuple[int, int]) -> Image:
    """The held-out frames of a domain, cut to the middle: ``(N, height, width, 3)`` uint8 RGB.

    Raises:
        UsageError: if there is none.
    """
    paths = [path for folder in folders for path in data.list_images(folder, held_out=True)]
    if not paths:
        raise UsageError("the recipe holds no frames out; name some under data.*.hold_out, whole scenes at a time")
    return np.stack([middle(data.read_image(path, settings.load_short_side), size) for path in paths])


def middle(image: Tensor, size: tuple[int, int]) -> Image:
    """The largest middle part of `size`'s shape, reduced to `size`: ``(height, width, 3)`` uint8."""
    width, height = size
    pixels = image.permute(1, 2, 0).numpy()
    scale = max(width / pixels.shape[1], height / pixels.shape[0])
    cut_w, cut_h = min(round(width / scale), pixels.shape[1]), min(round(height / scale), pixels.shape[0])
    left, top = (pixels.shape[1] - cut_w) // 2, (pixels.shape[0] - cut_h) // 2
    part = np.ascontiguousarray(pixels[top : top + cut_h, left : left + cut_w])
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def translate(model: nn.Module, frames: Image) -> Image:
    """Runs the model on ``(N, H, W, 3)`` uint8 RGB."""
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(frames)).numpy())


def make_classifier() -> nn.Sequential:
    """A small convolutional network that tells the two looks apart."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 2))


def train_classifier(settings: Data, steps: int = 150, batch: int = 16) -> nn.Module:
    """Trains the classifier on the frames that the recipe trains on; held-out ones stay unseen."""
    sets = [data.load_domain(domain, settings, lambda _: None) for domain in (settings.a, settings.b)]
    transform = data.crop_transform(settings, CLASSIFIER_SIZE)
    labels = torch.arange(2).repeat_interleave(batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = make_classifier()
        optimizer = torch.optim.Adam(classifier.parameters(), 1e-3)
        for step in range(steps):
            images = torch.cat([data.draw(one, transform, batch, ("classifier", step)) for one in sets])
            loss = F.cross_entropy(classifier(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return classifier.eval()


def accuracy(classifier: nn.Module, frames: Image, label: int) -> float:
    """The fraction of frames that the classifier gives `label`."""
    small = np.stack([cv2.resize(frame, CLASSIFIER_SIZE, interpolation=cv2.INTER_AREA) for frame in frames])
    with torch.no_grad():
        images = torch.from_numpy(small).permute(0, 3, 1, 2).float() / 127.5 - 1
        return float((classifier(images).argmax(1) == label).float().mean())


def read_clip(path: Path, short_side: int | None = None) -> Iterator[Image]:
    """The frames of a film, reduced to a short side and cut to multiples of 16: ``(H, W, 3)`` uint8 RGB.

    Raises:
        SourceError: if it cannot be read.
    """
    film = cv2.VideoCapture(str(path))
    if not film.isOpened():
        raise SourceError(f"{path}: not a film that can be read")
    try:
        while True:
            more, frame = film.read()
            if not more:
                return
            height, width = frame.shape[:2]
            scale = 1.0 if short_side is None else short_side / min(height, width)
            height, width = (round(side * scale) // 16 * 16 for side in (height, width))
            small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            yield np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        film.release()


def translated_clip(model: nn.Module, path: Path, short_side: int) -> Iterator[tuple[Image, Image]]:
    """(source, output) frames of a film."""
    for frame in read_clip(path, short_side):
        yield frame, translate(model, frame[None])[0]
