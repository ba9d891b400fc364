"""The loop: it trains, records, adds up micro-batches, and stops when a loss runs away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from streamgan.api import PresetError, StreamganError, UsageError
from streamgan_training import checkpoint, loop, recipe

Train = Callable[..., Path]


def tensors(run: Path, step: int = 6) -> dict[str, torch.Tensor]:
    """Everything tensor in a checkpoint."""
    folder = run / f"checkpoints/{step:08d}"
    return {key: value for file in sorted(folder.glob("*.safetensors")) for key, value in load_file(file).items()}


def losses(run: Path) -> list[dict[str, float]]:
    """The losses of each step."""
    return [json.loads(line)["losses"] for line in (run / "stats.jsonl").read_text().splitlines()]


def test_a_run_leaves_samples_losses_recipe_and_checkpoints(trained: Path) -> None:
    assert sorted(path.stem for path in (trained / "samples").iterdir()) == ["00000000", "00000003", "00000006"]
    history = [json.loads(line) for line in (trained / "stats.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history] == [1, 2, 3, 4, 5, 6]
    assert "warm_up" in history[0]["losses"]
    assert {"synthetic_ab", "exposure_ab", "cycle_a", "discriminator_b"} <= history[2]["losses"].keys()
    assert history[-1]["seconds"] > history[0]["seconds"] > 0
    assert history[0]["learning_rate"] == {"generators": 2e-4, "discriminators": 2e-4}
    assert history[-1]["learning_rate"]["generators"] == pytest.approx(2e-4 / 3)
    assert [path.name for path in checkpoint.list_checkpoints(trained / "checkpoints")] == ["00000003", "00000006"]
    assert recipe.load(trained / "recipe.yaml").digest
    assert list(trained.glob("events.out.tfevents*"))


def test_micro_batches_change_nothing_but_memory(train: Train) -> None:
    whole = losses(train("whole", generator__norm="instance", train__batch=4))
    parts = losses(train("parts", generator__norm="instance", train__batch=4, train__micro_batch=1))
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, rel=5e-3, abs=1e-4)  # rounding, after Adam


@pytest.mark.parametrize("norm", ["instance"])
def test_two_processes_compute_what_one_computes(recipe_file: Path, train: Train, norm: str) -> None:
    alone = losses(train("alone", generator__norm=norm, train__batch=4))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29611"]
    settings = [f"generator.norm={norm}", "train.batch=4"]
    options = [part for value in settings for part in ("--set", value)]
    subprocess.run(
        [*command, "-m", "streamgan", "train", recipe_file.name, *options],
        cwd=recipe_file.parent, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, capture_output=True,
    )  # fmt: skip
    (run,) = (recipe_file.parent / "runs").iterdir()
    together = losses(run)
    assert len(alone) == len(together) == 6
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert len(list((run / "checkpoints/00000006").glob("process-*.safetensors"))) == 2
    before = tensors(run)
    train(run.relative_to(recipe_file.parent).as_posix(), resume=True)  # one process can go on where two stopped
    assert before.keys() == tensors(run).keys()


def test_half_precision_stays_near_full_precision(train: Train) -> None:
    full = losses(train("full", generator__norm="instance"))
    half = losses(train("half", generator__norm="instance", train__precision="bf16-mixed"))
    for one, other in zip(full, half, strict=True):
        assert one == pytest.approx(other, rel=0.1, abs=0.02)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert loop.share(6, 1, 3) == range(2, 4)
    with pytest.raises(UsageError, match="multiple of the 2 processes"):
        loop.share(5, 0, 2)


def test_gradients_that_run_away_stop_the_run() -> None:
    for value in (float("nan"), float("inf"), 2e6):
        with pytest.raises(StreamganError, match="step 3: the loss 'cycle_a'") as raised:
            loop.check_losses({"cycle_a": torch.tensor(value)}, 3)
        assert raised.value.exit_code == 1


def test_a_full_gpu_says_what_to_lower(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(loop, "add_up", full)
    with pytest.raises(StreamganError, match=r"CUDA out of memory\); set train.micro_batch"):
        train("full")


def test_a_diverging_run_keeps_its_last_good_checkpoint(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.add_up

    def poisoned(all_losses: dict[str, torch.Tensor], terms: dict[str, torch.Tensor], weight: float) -> None:
        real(all_losses, terms, weight)
        counted.append(1)
        if len(counted) > 8:
            all_losses["cycle_a"] = torch.tensor(float("nan"))

    counted: list[int] = []
    monkeypatch.setattr(loop, "add_up", poisoned)
    with pytest.raises(StreamganError, match="cycle_a"):
        train("diverging")


def test_a_run_that_is_killed_at_any_moment_goes_on_from_a_whole_checkpoint(recipe_file: Path, trained: Path) -> None:
    command = [sys.executable, "-m", "streamgan", "train", recipe_file.name]
    killed = recipe_file.parent / "runs/001-tiny"
    process = subprocess.Popen(
        command, cwd=recipe_file.parent, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not checkpoint.list_checkpoints(killed / "checkpoints"):
        assert process.poll() is None, "it ended without a checkpoint"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = subprocess.run(
        [*command[:-1], str(killed), "--resume"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert resumed.returncode == 0, resumed.stderr
    first, second = tensors(trained), tensors(killed)
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    steps = [json.loads(line)["step"] for line in (killed / "stats.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_failed_save_keeps_the_older_checkpoints(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    state = checkpoint.State(modules={}, optimizers={}, step=9)
    with pytest.raises(OSError, match="older ones are kept"):
        checkpoint.save(state, trained / "checkpoints", "digest", keep=1)
    names = sorted(path.name for path in (trained / "checkpoints").iterdir())
    assert names == ["00000003", "00000006"]


def test_a_checkpoint_of_another_recipe_is_refused(recipe_file: Path, trained: Path) -> None:
    changed = recipe.load(recipe_file, {"train.learning_rate": 0.1})
    with pytest.raises(UsageError, match="another recipe"):
        loop.train(changed, trained, loop.make_fabric("32-true"), resume=True)


def test_evaluations_are_recorded_and_the_best_generators_kept(train: Train) -> None:
    run = train("evaluated", train__evaluate_every=2)
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    scores = [line["metrics"]["score"] for line in lines]
    assert [line["best"] for line in lines] == [score == min(scores[: index + 1]) for index, score in enumerate(scores)]
    best = lines[scores.index(min(scores))]["step"]
    assert checkpoint.step_of(run / "best") == best


def test_a_run_begins_with_the_networks_of_another(train: Train, trained: Path) -> None:
    begun = train("begun", train__start_from=str(trained), train__learning_rate=0.0, train__ema_decay=0.0)
    first, second = tensors(trained), tensors(begun)
    weight = "module.generators.ab.head.weight"
    assert torch.equal(first[weight], second[weight])


def test_an_unknown_key_of_a_recipe_names_the_nearest(recipe_file: Path) -> None:
    recipe_file.write_text(recipe_file.read_text().replace("iterations:", "iteration:"))
    with pytest.raises(PresetError, match="iterations"):
        recipe.load(recipe_file)
