"""A small classifier of domains: trained on real frames, it says which look a translation has."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamgan_training.frames import batches
from streamgan_training.frames.data import Pictures
from streamgan_training.measuring.metrics import Image
from streamgan_training.recipe import Recipe

SIZE = (128, 80)
"""(width, height) at which it looks, in pixels."""


def make_classifier(domains: int) -> nn.Sequential:
    """A small convolutional network that tells looks apart."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, domains))


def train_classifier(
    recipe: Recipe, sets: Sequence[Sequence[Pictures]], steps: int = 150, batch: int = 16
) -> nn.Module:
    """Trains it on the frames that the recipe trains on; held-out ones stay unseen.

    Args:
        recipe: for how crops are made.
        sets: the pictures by domain.
        steps: of Adam.
        batch: pictures of each domain in a step.
    """
    drawn = batches.drawings(recipe, sets)
    labels = torch.arange(len(drawn)).repeat_interleave(batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = make_classifier(len(drawn))
        optimizer = torch.optim.Adam(classifier.parameters(), 1e-3)
        for step in range(steps):
            images = torch.stack(
                [one.picture(("classifier", step, slot), SIZE)[0] for one in drawn for slot in range(batch)]
            )
            loss = F.cross_entropy(classifier(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return classifier.eval()


def classify(classifier: nn.Module, frames: Image) -> Tensor:
    """The domain of each frame of ``(N, H, W, 3)`` uint8 RGB: ``(N,)`` int64."""
    small = np.stack([cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA) for frame in frames])
    with torch.no_grad():
        images = torch.from_numpy(small).permute(0, 3, 1, 2).float() / 127.5 - 1
        found: Tensor = classifier(images).argmax(1)
    return found


def accuracy(classifier: nn.Module, frames: Image, label: int) -> float:
    """The fraction of frames that it gives `label`."""
    return float((classify(classifier, frames) == label).float().mean())
