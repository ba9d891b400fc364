"""How well a multi-domain translator hits its target, on held-out pictures.

Two measures: the error of a classifier trained on real pictures, as in Choi et al. 2018 (StarGAN), section 5.5, and,
where a label file says which pictures show the same figure in another domain, PSNR to that true picture.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as VF

from streamgan.api import ModelError, PresetError, UsageError
from streamgan_training.frames import data
from streamgan_training.frames.domains import read_labels
from streamgan_training.measuring import quality
from streamgan_training.measuring.metrics import Image
from streamgan_training.recipe import Recipe
from streamgan_training.trained import load_trained

Translate = Callable[[Tensor, Tensor], Tensor]
"""From ``(N, 3, H, W)`` in [-1, 1] and ``(N,)`` int64, the domains wanted, to the shape and range of the first."""

CHUNK = 16
"""Pictures that are computed at once."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """One figure in two domains."""

    source: Tensor
    """What is translated: ``(3, H, W)`` in [-1, 1]."""
    target: int
    """The domain to translate it to."""
    truth: Tensor
    """The figure in that domain: the same shape and range."""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures of all domains."""

    images: Tensor
    """``(N, 3, H, W)`` in [-1, 1]."""
    labels: Tensor
    """``(N,)`` int64: the domain of each."""
    files: tuple[str, ...]
    """The name of each."""


def ground_truth_psnr(translator: Translate, pairs: Sequence[Pair]) -> float:
    """PSNR between translations and true pictures in dB: the mean over pairs, over whole pictures of 8 bits.

    Raises:
        UsageError: if there is no pair.
    """
    return _psnr([made for made, _ in _translated(translator, pairs)], pairs)


def source_psnr(pairs: Sequence[Pair]) -> float:
    """What `ground_truth_psnr` is of a translator that does nothing: the number to beat.

    Raises:
        UsageError: if there is no pair.
    """
    return _psnr([pair.source for pair in pairs], pairs)


def _psnr(made: Sequence[Tensor], pairs: Sequence[Pair]) -> float:
    """Mean PSNR of pictures to the pairs' truth."""
    if not pairs:
        raise UsageError("no held-out figure is in two domains: mend the columns that make a figure, or 'hold_out'")
    return quality.psnr(_bytes(torch.stack(list(made))), _bytes(torch.stack([pair.truth for pair in pairs])))


def _translated(translator: Translate, pairs: Sequence[Pair]) -> Iterator[tuple[Tensor, Pair]]:
    """Each pair with its translation ``(3, H, W)``."""
    for start in range(0, len(pairs), CHUNK):
        chunk = pairs[start : start + CHUNK]
        with torch.no_grad():
            made = translator(
                torch.stack([pair.source for pair in chunk]), torch.tensor([pair.target for pair in chunk])
            )
        yield from zip(made, chunk, strict=True)


def _bytes(images: Tensor) -> Image:
    """``(N, 3, H, W)`` in [-1, 1] as ``(N, H, W, 3)`` uint8."""
    levels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels: Image = levels.permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def read_pictures(settings: Recipe, held_out: bool) -> Pictures:
    """All pictures of a recipe's domains that are trained on, or that are held out: their middle, as large as a crop.

    Raises:
        UsageError: if a folder is missing or there is none.
        SourceError: if one is broken.
    """
    images, labels, files = [], [], []
    for label, footages in enumerate(settings.data.domains.values()):
        for path in (path for footage in footages for path in data.list_images(footage, held_out)):
            images.append(_middle(data.read_image(path, settings.data.load_short_side), settings.data.size))
            labels.append(label)
            files.append(path.name)
    if not images:
        raise UsageError(f"{settings.name}: no picture is {'held out' if held_out else 'trained on'}; see 'hold_out'")
    return Pictures(torch.stack(images), torch.tensor(labels), tuple(files))


def _middle(image: Tensor, size: tuple[int, int]) -> Tensor:
    """``(3, H, W)`` uint8 as its largest middle of the shape of `size`, resized to it: float in [-1, 1]."""
    width, height = size
    scale = max(width / image.shape[2], height / image.shape[1])
    covering = [max(height, math.ceil(image.shape[1] * scale)), max(width, math.ceil(image.shape[2] * scale))]
    cut = VF.center_crop(VF.resize(image, covering, antialias=True), [height, width])
    pixels: Tensor = cut.float() / 127.5 - 1
    return pixels


def find_pairs(pictures: Pictures, labels_file: Path, figures: Sequence[str]) -> list[Pair]:
    """Every ordered pair of pictures that show one figure in two domains.

    Args:
        pictures: held out.
        labels_file: a CSV file with a column ``file`` and those of `figures`.
        figures: the columns that together say who is shown, whatever the domain.

    Raises:
        PresetError: if the file cannot be read or lacks a column or a picture.
    """
    rows, by_figure = read_labels(labels_file), dict[tuple[str, ...], dict[int, int]]()
    for index, (file, label) in enumerate(zip(pictures.files, pictures.labels.tolist(), strict=True)):
        row = rows.get(file)
        missing = [column for column in figures if row is not None and column not in row]
        if row is None or missing:
            raise PresetError(f"{labels_file}: {f'no column {missing[0]!r}' if missing else f'no row for {file}'}")
        by_figure.setdefault(tuple(row[column] for column in figures), {}).setdefault(label, index)
    return [
        Pair(pictures.images[domains[source]], target, pictures.images[domains[target]])
        for domains in by_figure.values()
        for source, target in itertools.permutations(sorted(domains), 2)
    ]


def make_classifier(domains: int, width: int = 32) -> nn.Module:
    """A small classifier, from ``(N, 3, H, W)`` in [-1, 1] to logits ``(N, domains)``; the paper has a ResNet-18."""
    layers: list[nn.Module] = []
    channels = 3
    for following in (width, 2 * width, 4 * width, 4 * width):
        layers += [nn.Conv2d(channels, following, 3, 2, 1, bias=False), nn.BatchNorm2d(following), nn.ReLU()]
        channels = following
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, domains))


def train_classifier(pictures: Pictures, domains: int, steps: int = 400, batch: int = 32, seed: int = 0) -> nn.Module:
    """Trains a classifier of domains on real pictures, half of them mirrored: Adam, the rate falling along a cosine.

    Args:
        pictures: those of the training.
        domains: how many.
        steps: of the optimiser.
        batch: pictures of one step; every domain is drawn as often.
        seed: of weights and draws.

    Returns:
        The classifier in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = make_classifier(domains)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    counts = torch.bincount(pictures.labels, minlength=domains)
    weights = 1 / counts[pictures.labels]
    for _ in range(steps):
        chosen = torch.multinomial(weights, batch, replacement=True, generator=random)
        mirrored = (torch.rand(batch, 1, 1, 1, generator=random) < 0.5).to(pictures.images.dtype)
        images = pictures.images[chosen]
        images = torch.lerp(images, images.flip(3), mirrored)
        optimizer.zero_grad()
        loss = F.cross_entropy(classifier(images), pictures.labels[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return classifier.eval()


def classification_error(classifier: nn.Module, images: Sequence[Tensor], labels: Sequence[int]) -> float:
    """How many pictures ``(3, H, W)`` are taken for another domain than that of `labels`: percent."""
    wrong = 0
    for start in range(0, len(images), CHUNK):
        with torch.no_grad():
            found = classifier(torch.stack(list(images[start : start + CHUNK]))).argmax(1)
        wrong += int((found.cpu() != torch.tensor(labels[start : start + CHUNK])).sum())
    return 100 * wrong / len(images)


def evaluate_attributes(
    run: Path, labels_file: Path | None = None, figures: Sequence[str] = (), steps: int = 400
) -> dict[str, float]:
    """Measures the newest checkpoint of a multi-domain run on its held-out pictures.

    Args:
        run: a run folder.
        labels_file: with `figures`, to compare with true pictures; None where there are none.
        figures: the columns of `labels_file` that say who is shown, such as gender, age, hair and outfit.
        steps: for which the classifier is trained.

    Returns:
        ``classification_error`` of the translations to every other domain and ``classification_error_real`` of the
        held-out pictures themselves, both in percent; with `labels_file` also ``ground_truth_psnr``, ``source_psnr``
        (of doing nothing) in dB, and ``pairs``, how many were compared.

    Raises:
        ModelError: if the run has no checkpoint, or its method has one direction only.
        UsageError: if nothing is held out.
    """
    trained = load_trained(run)
    settings = trained.recipe
    if not trained.method.mixed:
        raise ModelError(f"{run}: the method {settings.method.name} has no domains to choose from")
    translator = trained.method.translator(trained.generators, trained.method.directions[0])
    held_out = read_pictures(settings, held_out=True)
    classifier = train_classifier(read_pictures(settings, held_out=False), len(settings.domains), steps)
    measured = measure(translator, classifier, held_out, len(settings.domains))
    if labels_file is not None:
        pairs = find_pairs(held_out, labels_file, figures)
        measured |= {"ground_truth_psnr": ground_truth_psnr(translator, pairs), "source_psnr": source_psnr(pairs)}
        measured["pairs"] = len(pairs)
    return measured


def measure(translator: Translate, classifier: nn.Module, held_out: Pictures, domains: int) -> dict[str, float]:
    """The classifier's error, in percent, on all translations of held-out pictures and on the pictures themselves."""
    tasks = [
        Pair(image, target, image)
        for image, label in zip(held_out.images, held_out.labels.tolist(), strict=True)
        for target in range(domains)
        if target != label
    ]
    made = [translation for translation, _ in _translated(translator, tasks)]
    return {
        "classification_error": classification_error(classifier, made, [task.target for task in tasks]),
        "classification_error_real": classification_error(classifier, list(held_out.images), held_out.labels.tolist()),
    }
