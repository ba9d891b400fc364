"""Every method, from its smoke recipe: it trains, resumes bit for bit, exports through the gate, runs as a preset."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from streamgan.cli.program import execute
from streamgan.model import read_card
from streamgan.testing import make_clip
from streamgan_training import loop
from streamgan_training import recipe as recipes

ROOT = Path(__file__).resolve().parents[2]
SMOKE = sorted(path.stem for path in (ROOT / "training/recipes/smoke").glob("*.yaml"))
FALLING = re.compile(r"l1|edges|cycle|recon|recover|nce|identity|laplacian|rec$|output|feature|style|structure|channel")
"""Terms that a training must lower whatever the players' balance."""


@pytest.fixture(scope="session")
def smoke_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke recipes beside their pictures: frames of the sample film, and the same road by a simple night."""
    folder = tmp_path_factory.mktemp("smoke")
    shutil.copytree(ROOT / "training/recipes/smoke", folder, dirs_exist_ok=True)
    (folder / "smoke-data").mkdir()
    shutil.copy(ROOT / "presets/day2night.onnx", folder / "smoke-data/teacher.onnx")
    film = cv2.VideoCapture(str(ROOT / "samples/drive.mp4"))
    for index in range(24):
        film.set(cv2.CAP_PROP_POS_FRAMES, index * 8)
        frame = cv2.resize(film.read()[1], (120, 68), interpolation=cv2.INTER_AREA)
        night = (frame * np.array([0.5, 0.25, 0.2])).astype(np.uint8)
        for name, picture in (("a", frame), ("b", night)):
            (folder / "smoke-data" / name).mkdir(parents=True, exist_ok=True)
            prefix = "out" if index % 6 == 0 else "in"
            cv2.imwrite(str(folder / "smoke-data" / name / f"{prefix}{index:02d}.png"), picture)
    return folder


Play = Callable[..., Path]


@pytest.fixture
def play(smoke_folder: Path, tmp_path: Path) -> Play:
    """Trains a smoke recipe: ``play("unit", "run", train__iterations=6)`` gives the run folder."""

    def call(method: str, name: str, resume: bool = False, **changes: object) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        path = folder / "recipe.yaml" if resume else smoke_folder / f"{method}.yaml"
        values = {key.replace("__", "."): value for key, value in changes.items()}
        recipe = recipes.load(path, values)
        if recipe.train.start_from is not None:  # what tunes or distils needs something that was trained
            base = play_base(recipe.train.start_from)
            recipe = recipes.load(path, {"train.start_from": str(base)} | values)
        loop.train(recipe, folder, loop.make_fabric("32-true"), resume=resume, warn=print)
        return folder

    def play_base(start_from: str) -> Path:
        base = tmp_path / "base"
        return base if base.is_dir() else call(Path(start_from).name, "base", train__iterations=2)

    return call


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run's last checkpoint."""
    folder = sorted((run / "checkpoints").iterdir())[-1]
    return {key: value for file in sorted(folder.glob("*.safetensors")) for key, value in load_file(file).items()}


@pytest.mark.parametrize("method", SMOKE)
def test_it_resumes_bit_for_bit(method: str, play: Play) -> None:
    short = {"train__iterations": 6, "train__checkpoint_every": 3}
    whole = play(method, "whole", **short)
    cut = play(method, "cut", **short)
    shutil.rmtree(cut / "checkpoints/00000006")
    torch.manual_seed(12345)
    play(method, "cut", resume=True)
    first, second = tensors(whole), tensors(cut)
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.mark.parametrize("method", SMOKE)
def test_it_exports_and_runs_as_a_preset(
    method: str, play: Play, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = play(method, "run", train__iterations=2)
    assert execute(["export", str(run), "-o", "look.onnx"]) == 0, capsys.readouterr().err
    card = read_card(Path("look.onnx"))
    assert card.method == method
    text = "title: look\ntranslator: model\noptions: {model: look.onnx}\n"
    Path("look.yaml").write_text(text)
    make_clip(Path("clip.mp4"), size=(96, 64), frames=4)
    target = ["--set", f"domain={card.domains[-1]}"] if card.domains else []
    assert execute(["run", "clip.mp4", "--preset", "look.yaml", "-o", "out.mp4", *target]) == 0, capsys.readouterr().err
    with av.open("out.mp4") as film:
        assert len([frame for frame in film.decode(video=0)]) == 4


@pytest.mark.smoke
@pytest.mark.parametrize("method", SMOKE)
def test_its_losses_fall(method: str, play: Play) -> None:
    run = play(method, "run")
    lines = [json.loads(line)["losses"] for line in (run / "stats.jsonl").read_text().splitlines()]
    sums = [sum(value for name, value in line.items() if FALLING.search(name)) for line in lines]
    sums = [value for value in sums if value]  # a critic's turn has none of them
    part = max(1, len(sums) // 4)
    assert np.mean(sums[-part:]) < 0.9 * np.mean(sums[:part])
