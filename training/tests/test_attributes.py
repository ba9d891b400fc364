"""Attributes against ground truth: numbers that follow from how the pictures were made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from streamgan.api import ModelError, PresetError, UsageError
from streamgan_training import checkpoint, recipe
from streamgan_training.measuring import attributes
from streamgan_training.measuring.attributes import Pair, Pictures

TONES = {"dark": 60, "medium": 128, "light": 200}
RECIPE = """
name: people
data:
  labels: {file: labels.csv, column: tone, folder: images, hold_out: ["f[67]-*"]}
  size: [16, 16]
  load_short_side: 16
method: {name: METHOD}
generator: {name: resnet6, width: 4}
train: {iterations: 1}
"""


def write_people(folder: Path) -> Path:
    """Eight figures in three tones each: noise of their own around the tone's grey; figures 6 and 7 are held out."""
    (folder / "images").mkdir()
    lines = ["file,tone,figure"]
    for figure in range(8):
        noise = np.random.default_rng(figure).integers(-20, 20, (16, 16, 3))
        for tone, level in TONES.items():
            Image.fromarray((level + noise).astype(np.uint8)).save(folder / "images" / f"f{figure}-{tone}.png")
            lines.append(f"f{figure}-{tone}.png,{tone},{figure}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def load(folder: Path, method: str = "stargan") -> recipe.Recipe:
    """The recipe of those people; domains are in alphabetical order: dark, light, medium."""
    (folder / "recipe.yaml").write_text(RECIPE.replace("METHOD", method))
    return recipe.load(folder / "recipe.yaml")


def shift(images: Tensor, domain: Tensor) -> Tensor:
    """The right translation: the same noise around the grey of the tone wanted."""
    levels = torch.tensor([60.0, 200.0, 128.0])
    pixels = (images + 1) * 127.5
    own = (pixels.mean((1, 2, 3))[:, None] - levels).abs().argmin(1)
    return (pixels + (levels[domain] - levels[own])[:, None, None, None]) / 127.5 - 1


def test_psnr_to_the_truth_is_that_of_the_difference() -> None:
    source, truth = torch.full((3, 8, 8), -1.0), torch.zeros(3, 8, 8)
    pairs = [Pair(source, 1, truth)] * 20

    def off_by_ten(images: Tensor, domain: Tensor) -> Tensor:
        assert domain.tolist() == [1] * len(images)
        return torch.full_like(images, 10 / 127.5)

    assert attributes.ground_truth_psnr(off_by_ten, pairs) == pytest.approx(20 * np.log10(255 / 10), abs=0.01)
    assert attributes.source_psnr(pairs) == pytest.approx(20 * np.log10(255 / 128), abs=0.01)
    with pytest.raises(UsageError, match="no held-out figure"):
        attributes.ground_truth_psnr(off_by_ten, [])


def test_pairs_show_one_figure_in_two_domains(tmp_path: Path) -> None:
    labels, settings = write_people(tmp_path), load(tmp_path)
    pictures = attributes.read_pictures(settings, held_out=True)
    assert len(pictures.files) == 6 and {file[:2] for file in pictures.files} == {"f6", "f7"}
    pairs = attributes.find_pairs(pictures, labels, ["figure"])
    assert len(pairs) == 2 * 3 * 2
    for pair in pairs:
        difference = (pair.truth - pair.source) * 127.5
        assert float(difference.std()) < 1e-3  # the same noise
        assert round(float(difference.abs().mean())) in (68, 72, 140)
    assert attributes.ground_truth_psnr(shift, pairs) > 60
    with pytest.raises(PresetError, match="no column 'age'"):
        attributes.find_pairs(pictures, labels, ["age"])
    with pytest.raises(PresetError, match=r"no row for x\.png"):
        attributes.find_pairs(Pictures(pictures.images, pictures.labels, ("x.png",) * 6), labels, ["figure"])


def test_the_classifier_knows_the_right_translation_from_none(tmp_path: Path) -> None:
    write_people(tmp_path)
    settings = load(tmp_path)
    classifier = attributes.train_classifier(attributes.read_pictures(settings, held_out=False), 3, steps=40)
    held_out = attributes.read_pictures(settings, held_out=True)
    right = attributes.measure(shift, classifier, held_out, 3)
    assert right == {"classification_error": 0.0, "classification_error_real": 0.0}
    nothing = attributes.measure(lambda images, domain: images, classifier, held_out, 3)
    assert nothing == {"classification_error": 100.0, "classification_error_real": 0.0}


def test_pictures_are_cut_to_the_shape_of_the_crops() -> None:
    image = torch.zeros(3, 20, 60, dtype=torch.uint8)
    image[:, :, 20:40] = 255
    assert attributes._middle(image, (16, 16)).shape == (3, 16, 16)
    assert float(attributes._middle(image, (16, 16))[:, :, 1:-1].mean()) > 0.99
    assert attributes._middle(image, (64, 16)).shape == (3, 16, 64)


def test_a_run_is_measured(tmp_path: Path) -> None:
    labels, settings = write_people(tmp_path), load(tmp_path)
    method = settings.method_class(settings)
    checkpoint.save(checkpoint.State({"ema": method.generators}, {}), tmp_path / "checkpoints", settings.digest, 1)
    measured = attributes.evaluate_attributes(tmp_path, labels, ["figure"], steps=40)
    assert measured["pairs"] == 12 and measured["classification_error_real"] == 0
    assert 0 < measured["source_psnr"] < 12 and measured["ground_truth_psnr"] > 0
    without = attributes.evaluate_attributes(tmp_path, steps=1)
    assert set(without) == {"classification_error", "classification_error_real"}


def test_a_run_without_domains_is_refused(tmp_path: Path) -> None:
    write_people(tmp_path)
    (tmp_path / "images" / "medium").mkdir()
    text = RECIPE.replace("METHOD", "cyclegan").replace("column: tone", "column: half")
    rows = (tmp_path / "labels.csv").read_text().splitlines()
    halves = [rows[0] + ",half", *(f"{row},{'a' if 'dark' in row else 'b'}" for row in rows[1:])]
    (tmp_path / "labels.csv").write_text("\n".join(halves))
    (tmp_path / "recipe.yaml").write_text(text)
    settings = recipe.load(tmp_path / "recipe.yaml")
    method = settings.method_class(settings)
    checkpoint.save(checkpoint.State({"ema": method.generators}, {}), tmp_path / "checkpoints", settings.digest, 1)
    with pytest.raises(ModelError, match="cyclegan has no domains"):
        attributes.evaluate_attributes(tmp_path)
