"""What is wrong is refused in one line, before anything is trained, and nothing that exists is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from streamgan.api import ModelError, PluginError, SourceError, StreamganError, UsageError
from streamgan.cli.program import execute
from streamgan_training import checkpoint, loop, networks, record
from streamgan_training import recipe as recipes
from streamgan_training.frames import batches, data
from streamgan_training.measuring import evaluate
from streamgan_training.method import Batch, ReplayPool, Turn

Train = Callable[..., Path]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.log_every=0", "train.log_every: 0 given, expected 1 or more"),
        ("train.checkpoint_every=-1", "train.checkpoint_every"),
        ("train.keep_checkpoints=0", "train.keep_checkpoints"),
        ("train.micro_batch=-1", "train.micro_batch: -1 given"),
        ("train.evaluate_every=-1", "train.evaluate_every"),
        ("train.seed=-1", "train.seed: -1 given, expected 0 to 4294967295"),
        ("train.learning_rate=-1", "train.learning_rate"),
        ("train.learning_rate=.inf", "train.learning_rate: inf given"),
        ("train.ema_decay=2", "train.ema_decay"),
        ("train.betas=[0.5, 1]", "betas: [0.5, 1.0] given"),
        ("train.betas=[.nan, 0.9]", "betas"),
        ("data.size=[-16, 16]", "size: [-16, 16] given, expected [width, height]"),
        ("data.size=[160000, 16]", "each 1 to"),
        ("data.crop_area=[1, 0.5]", "crop_area: [1.0, 0.5] given"),
        ("data.crop_area=[.nan, 1]", "crop_area"),
        ("data.crop_aspect=[0, 1]", "crop_aspect: [0.0, 1.0] given, expected [smallest, largest]"),
        ("data.jitter={bright: {hue: 2}}", "data.jitter.bright.hue: 2.0 given, expected 0 to 0.5"),
        ("data.workers=-1", "data.workers"),
        ("data.cache_gigabytes=.inf", "data.cache_gigabytes"),
        ("data.domains.bright=[]", "data.domains.bright: expected at least one folder"),
        ("data.domains.bright=[{path: a, weight: 0}]", "of a weight above 0"),
        ("data.domains.bright=[{path: a, weight: -1}]", "weight: -1.0 given"),
        ("data.domains.bright=[{path: a, where: {x: y}}]", "no 'labels'"),
        ("discriminators=[]", "discriminators: none given"),
        ("discriminators=[{width: 0}]", "discriminators.0.width: 0 given"),
        ("generator.width=0", "generator.width"),
        ("generator.dropout=2", "generator.dropout"),
        ("method.pool=-1", "method: pool: -1 given"),
        ("terms.paired=1", "data.paired is not set"),
        ("train.batch.size=3", "train.batch has no keys"),
        ("train.batch=[1", "the value is no YAML"),
    ],
)
def test_a_value_out_of_range_is_one_line_and_exit_code_2(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], change: str, words: str
) -> None:
    runs = recipe_file.parent / "runs"
    assert execute(["train", str(recipe_file), "--dry-run", "--runs", str(runs), "--set", change]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not runs.exists()


def test_a_discriminator_too_deep_for_the_crops_is_named_and_leaves_nothing(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = recipe_file.parent / "runs"
    changes = ["--set", "discriminators=[{layers: 9}]", "--set", "method.warm_up_iterations=0"]
    assert execute(["train", str(recipe_file), "--runs", str(runs), *changes]) == 2
    assert "at least 1536 pixels" in capsys.readouterr().err
    assert not list(runs.iterdir())


@pytest.mark.parametrize(("layers", "scale"), [(1, 1), (2, 1), (3, 1), (2, 3)])
def test_the_smallest_picture_of_a_discriminator_is_the_smallest(layers: int, scale: int) -> None:
    judge = networks.PatchDiscriminator(2, layers, scale=scale)
    side = 3 * 2**layers * scale
    assert judge(torch.zeros(1, 3, side, side)).shape == (1, 1, 1, 1)
    with pytest.raises(UsageError, match=f"at least {side} pixels"):
        judge(torch.zeros(1, 3, side - 1, side))


class Weights(nn.Module):
    """A player."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))


def test_a_method_that_breaks_the_contract_is_named(recipe_file: Path) -> None:
    recipe = recipes.load(recipe_file)
    with pytest.raises(PluginError, match="must be called 'generators'"):
        loop.check_players(recipe, {"translators": Weights()})
    with pytest.raises(PluginError, match="'judge' has no weights"):
        loop.check_players(recipe, {"generators": Weights(), "judge": nn.ReLU()})
    good = Turn("generators", {"x": torch.ones((), requires_grad=True)})
    loop.check_turn(good, None, ["generators"], 0)
    for turn, expected, words in (
        ("generators", None, "gave str, expected Turn"),
        (Turn("painter", good.terms), None, "no player is called 'painter'"),
        (Turn("generators", {}), None, "scalars with gradients"),
        (Turn("generators", {"x": torch.ones(())}), None, "scalars with gradients"),
        (Turn("generators", {"x": torch.ones(2, requires_grad=True)}), None, "scalars with gradients"),
        (good, "discriminators", "differ between two parts"),
        (None, "generators", "differ between two parts"),
    ):
        with pytest.raises(PluginError, match=words):
            loop.check_turn(turn, expected, ["generators"], 0)


def test_weights_that_are_no_numbers_are_not_saved() -> None:
    network = Weights()
    loop.check_weights({"generators": network}, 5)
    network.weight.data[1] = torch.nan
    with pytest.raises(StreamganError, match="step 5: weights of the generators"):
        loop.check_weights({"generators": network}, 5)


def test_a_folder_in_which_another_process_trains_is_refused(trained: Path, train: Train) -> None:
    before = (trained / "stats.jsonl").read_bytes()
    code = "import sys, pathlib\nfrom streamgan_training import record\n"
    code += "held = record.lock(pathlib.Path(sys.argv[1]))\nprint('held', flush=True)\nsys.stdin.read()\n"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(trained)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdin is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match="another process is training"):
        train(resume=True)
    assert (trained / "stats.jsonl").read_bytes() == before
    other.communicate()
    train(resume=True)


def test_a_torn_record_loses_its_torn_lines_only(tmp_path: Path) -> None:
    file = tmp_path / "stats.jsonl"
    file.write_bytes(b'{"step": 1}\n{"step": 2, "los\xff\xfe\n{"step": 3}\n[4]\n{"step": 9}\n{"step": 4')
    record.keep_until(file, 4)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 3]


def test_a_full_disk_does_not_cost_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("old")

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_flush", full)
    with pytest.raises(OSError, match=r"recipe\.yaml"):
        checkpoint.write_whole(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
    assert file.read_text() == "old"


def test_a_save_that_is_interrupted_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(checkpoint.State({}, {}), tmp_path, "digest", keep=1)
    assert not list(tmp_path.iterdir())


def test_interpolating_a_damaged_run_makes_no_folder(trained: Path) -> None:
    (trained / "checkpoints/00000006" / checkpoint.TENSORS).write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="not a whole checkpoint"):
        checkpoint.interpolate(trained, trained, 0.5, trained.parent / "mixed")
    assert not list(trained.parent.glob("*mixed*"))


def test_grey_of_16_bits_keeps_its_tones(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert data.read_image(tmp_path / "deep.png", 9)[0].tolist() == [[0, 1, 128, 255]]


def test_broken_images_do_not_flood(recipe_file: Path) -> None:
    for number in range(30):
        (recipe_file.parent / f"a/broken{number}.png").touch()
    recipe, told = recipes.load(recipe_file), list[str]()
    (images,) = data.load_domain(recipe.data.domains["bright"], recipe.data, told.append)
    assert len(images) == 6
    assert len(told) == data.SHOWN + 1 and "20 more images skipped" in told[-1]


def test_a_crop_of_a_tiny_picture_in_a_wide_shape_has_pixels(recipe_file: Path) -> None:
    recipe = recipes.load(recipe_file)
    for shape in ((3, 44, 60), (3, 1, 1), (3, 400, 1)):
        crop = batches.random_crop(torch.zeros(shape, dtype=torch.uint8), recipe.data, (4096, 16))
        assert crop.height >= 1 and crop.width >= 1


def test_a_pair_without_partner_is_found_before_training(recipe_file: Path, train: Train) -> None:
    (recipe_file.parent / "b/in1.png").unlink()
    with pytest.raises(UsageError, match=r"1 of 6 pictures .* such as 'in1'"):
        train(data__paired=True)


def test_films_are_looked_at_before_anything_is_measured(recipe_file: Path) -> None:
    with pytest.raises(SourceError, match=r"missing\.mp4: not a film"):
        evaluate.Evaluation(recipes.load(recipe_file), [Path("missing.mp4")])


def test_looks_that_are_the_same_have_a_score() -> None:
    assert np.isfinite(evaluate.score({"swd_output/ab": 0.0, "swd_source/ab": 0.0}))


def test_the_pool_does_not_keep_whole_batches_in_memory() -> None:
    pool = ReplayPool(4, 2)
    images = torch.zeros(2, 3, 8, 8)
    pool.exchange(images, Batch(0, (images,), slots=range(2)), "pool")
    kept: Iterator[torch.Tensor] = (frame for frames in pool.frames.values() for frame in frames)
    assert all(frame.untyped_storage().nbytes() == frame.nbytes for frame in kept)
