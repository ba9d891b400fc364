"""From a run to a model file, and the gate in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from streamgan.api import ModelError, SourceError, UsageError
from streamgan.model import read_card
from streamgan.testing import make_clip
from streamgan_training import checkpoint, export
from streamgan_training.measuring import classifier, clips, evaluate, metrics, quality
from streamgan_training.trained import load_trained

Train = Callable[..., Path]


def test_a_damaged_checkpoint_is_named(trained: Path) -> None:
    (trained / "checkpoints/00000006/tensors.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match="00000006"):
        export.export(trained, trained / "model.onnx")


@pytest.mark.parametrize(("direction", "words"), [(None, "bright to dark"), ("ba", "dark to bright")])
def test_export_computes_what_torch_computes_at_any_size(trained: Path, direction: str | None, words: str) -> None:
    output = trained.parent / "model.onnx"
    card, parity = export.export(trained, output, direction)
    assert parity.max_difference <= 1
    assert read_card(output) == card
    assert card.direction == words
    assert card.size.multiple_of == 16 and card.method == "cyclegan" and card.parameters > 1000
    session = onnxruntime.InferenceSession(str(output))
    model = load_trained(trained).model(direction)
    for shape in ((1, 32, 48, 3), (3, 64, 32, 3)):
        frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        (given,) = session.run(["frames_out"], {"frames": frames})
        with torch.no_grad():
            expected = model(torch.from_numpy(frames)).numpy()
        assert np.abs(given.astype(int) - expected).max() <= 1


def test_an_unknown_direction_names_those_there_are(trained: Path) -> None:
    with pytest.raises(UsageError, match="known: ab, ba"):
        export.export(trained, trained / "model.onnx", "ac")


def test_interpolation_lies_between_two_runs(recipe_file: Path, train: Train, trained: Path) -> None:
    other = train("other", train__seed=1)
    mixed = checkpoint.interpolate(trained, other, 0.25, recipe_file.parent / "mixed")
    (first, second, between) = (load_trained(folder).generators.state_dict() for folder in (trained, other, mixed))
    key = "ab.head.weight"
    assert between[key].allclose(0.75 * first[key] + 0.25 * second[key])
    assert not first[key].allclose(second[key])


def test_the_gate_stops_a_graph_that_computes_otherwise(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "check_parity", lambda *_: export.Parity(7, 0.5))
    with pytest.raises(ModelError, match="differs from torch by 7/255"):
        export.export(trained, trained / "model.onnx")
    assert not (trained / "model.onnx").exists()


def test_evaluate_measures_held_out_frames_and_writes_them_down(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "SIZE", (32, 32))
    result = evaluate.evaluate(trained)
    assert result["classifier_accuracy_real"] == 1.0
    assert result["held_out/bright"] == 2
    assert result["swd_source/ab"] > 0
    written = json.loads((trained / "metrics.json").read_text())
    assert "fid" in written.pop("protocol")["ab"]["unavailable"]
    assert written == result


def test_a_films_flicker_is_measured_with_and_without_a_translation_at_hand(trained: Path) -> None:
    clip = trained.parent / "clip.mp4"
    make_clip(clip, size=(96, 64), frames=8)
    result = evaluate.evaluate(trained, films=[clip], pairs=[(clip, clip)])
    assert result["warping_error_source/clip"] > 0
    assert result["warping_error_ratio_over_squared_contrast/clip"] == 1.0  # the pair is measured last
    assert result["tof/clip"] == 0.0
    assert (trained / "strips/clip-00000006.png").is_file()
    same = metrics.flicker(zip(clips.read_clip(clip), clips.read_clip(clip), strict=True))
    assert same.fair_ratio == 1.0
    with pytest.raises(SourceError, match="not a film"):
        list(clips.read_clip(trained / "recipe.yaml"))


def test_perceived_flicker_is_measured_where_the_network_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    film = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    assert "tlp" not in evaluate.describe(zip(film, film, strict=True))
    monkeypatch.setattr(quality, "lpips", lambda: lambda one, other: torch.tensor([float(np.abs(one - other).mean())]))
    still = np.broadcast_to(film[:1], film.shape)
    assert evaluate.describe(zip(film, film, strict=True))["tlp"] == 0.0
    assert evaluate.describe(zip(film, still, strict=True))["tlp"] > 0


def test_the_score_counts_quality_and_flicker() -> None:
    fair = evaluate.FAIR_RATIO
    assert evaluate.score({"swd_output/ab": 20.0, "swd_source/ab": 80.0}) == 0.25
    assert evaluate.score({"swd_output/ab": 20.0, "swd_source/ab": 80.0, f"{fair}clip": 0.5}) == 0.25
    assert evaluate.score({"swd_output/ab": 20.0, "swd_source/ab": 80.0, f"{fair}clip": 3.0}) == 0.75
