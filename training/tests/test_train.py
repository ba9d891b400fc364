"""The loop: it trains, resumes bit for bit, exports what it trained, and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from streamgan.api import ModelError, PresetError, SourceError, StreamganError, UsageError
from streamgan.model import read_card
from streamgan.testing import make_clip
from streamgan_training import checkpoint, evaluate, export, loop, metrics, recipe


def run(recipe_file: Path, folder: Path, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    settings = recipe.load(recipe_file, {key.replace("__", "."): value for key, value in changes.items()})
    return loop.train(settings, folder, warn=print, on_step=lambda *_: None)


@pytest.fixture
def trained(recipe_file: Path) -> Path:
    folder = recipe_file.parent / "run"
    run(recipe_file, folder)
    return folder


def test_a_run_leaves_samples_losses_recipe_and_checkpoints(trained: Path) -> None:
    assert sorted(path.stem for path in (trained / "samples").iterdir()) == ["00000000", "00000003", "00000006"]
    history = [json.loads(line) for line in (trained / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history] == [1, 2, 3, 4, 5, 6]
    assert "warm_up" in history[0] and "temporal" in history[2] and "exposure" in history[5]
    assert [path.name for path in checkpoint.list_checkpoints(trained / "checkpoints")] == ["00000003", "00000006"]
    assert recipe.load(trained / "recipe.yaml").digest
    assert list(trained.glob("events.out.tfevents*"))


def test_resuming_gives_the_same_weights_bit_for_bit(recipe_file: Path, trained: Path) -> None:
    other = recipe_file.parent / "interrupted"
    run(recipe_file, other)
    newest = checkpoint.list_checkpoints(other / "checkpoints")[-1]
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()  # as if it had been stopped between the two checkpoints
    torch.manual_seed(12345)
    loop.train(recipe.load(other / "recipe.yaml"), other, resume=True, warn=print, on_step=lambda *_: None)
    first, second = (load_file(folder / "checkpoints/00000006/tensors.safetensors") for folder in (trained, other))
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_a_failed_save_keeps_the_older_checkpoints(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    state = checkpoint.State(modules={}, optimizers={}, generators={}, pools={}, step=9)
    with pytest.raises(OSError, match="older ones are kept"):
        checkpoint.save(state, trained / "checkpoints", "digest", keep=1)
    names = sorted(path.name for path in (trained / "checkpoints").iterdir())
    assert names == ["00000003", "00000006"]


def test_a_checkpoint_of_another_recipe_is_refused(recipe_file: Path, trained: Path) -> None:
    changed = recipe.load(recipe_file, {"train.learning_rate": 0.1})
    with pytest.raises(UsageError, match="another recipe"):
        loop.train(changed, trained, resume=True, warn=print, on_step=lambda *_: None)


def test_a_damaged_checkpoint_is_named(trained: Path) -> None:
    (trained / "checkpoints/00000006/tensors.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match="00000006"):
        export.export(trained, trained / "model.onnx")


def test_export_computes_what_torch_computes_at_any_size(trained: Path) -> None:
    output = trained.parent / "model.onnx"
    card, parity = export.export(trained, output)
    assert parity.max_difference <= 1
    assert read_card(output) == card
    assert card.size.multiple_of == 16 and card.method == "cyclegan" and card.parameters > 1000
    session = onnxruntime.InferenceSession(str(output))
    _, generator, _ = export.load_generator(trained)
    for shape in ((1, 32, 48, 3), (3, 64, 32, 3)):
        frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        (given,) = session.run(["frames_out"], {"frames": frames})
        with torch.no_grad():
            expected = export.FrameModel(generator)(torch.from_numpy(frames)).numpy()
        assert np.abs(given.astype(int) - expected).max() <= 1


def test_interpolation_lies_between_two_runs(recipe_file: Path, trained: Path) -> None:
    other = recipe_file.parent / "other"
    run(recipe_file, other, train__seed=1)
    mixed = checkpoint.interpolate(trained, other, 0.25, recipe_file.parent / "mixed")
    (first, second, between) = (export.load_generator(folder)[1].state_dict() for folder in (trained, other, mixed))
    key = "head.weight"
    assert between[key].allclose(0.75 * first[key] + 0.25 * second[key])
    assert not first[key].allclose(second[key])


def test_the_gate_stops_a_graph_that_computes_otherwise(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "check_parity", lambda *_: export.Parity(7, 0.5))
    with pytest.raises(ModelError, match="differs from torch by 7/255"):
        export.export(trained, trained / "model.onnx")
    assert not (trained / "model.onnx").exists()


def test_evaluate_measures_held_out_frames_and_writes_them_down(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "CLASSIFIER_SIZE", (32, 32))
    result = evaluate.evaluate(trained)
    assert result["classifier_accuracy_real"] == 1.0
    assert result["swd_a_to_b"] > 0
    assert json.loads((trained / "metrics.json").read_text()) == result


def test_a_films_flicker_is_measured_with_and_without_a_translation_at_hand(trained: Path) -> None:
    clip = trained.parent / "clip.mp4"
    make_clip(clip, size=(96, 64), frames=4)
    model = export.FrameModel(export.load_generator(trained)[1]).eval()
    made = metrics.flicker(evaluate.translated_clip(model, clip, 32))
    assert made.source > 0 and made.contrast_ratio > 0
    same = metrics.flicker(zip(evaluate.read_clip(clip), evaluate.read_clip(clip), strict=True))
    assert same.fair_ratio == 1.0
    with pytest.raises(SourceError, match="not a film"):
        list(evaluate.read_clip(trained / "recipe.yaml"))


def test_diverged_losses_stop_the_run() -> None:
    with pytest.raises(StreamganError, match="cycle_a") as raised:
        loop.check_finite({"cycle_a": float("nan")}, 3)
    assert raised.value.exit_code == 1


def test_run_folders_are_numbered(tmp_path: Path) -> None:
    assert loop.new_run_folder(tmp_path, "x").name == "001-x"
    assert loop.new_run_folder(tmp_path, "y").name == "002-y"


def test_an_unknown_key_of_a_recipe_names_the_nearest(recipe_file: Path) -> None:
    recipe_file.write_text(recipe_file.read_text().replace("iterations:", "iteration:"))
    with pytest.raises(PresetError, match="iterations"):
        recipe.load(recipe_file)
