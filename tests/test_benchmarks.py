"""The benchmark of the training: both loops compute the same thing, and the table comes out."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("streamgan_training")

FOLDER = Path(__file__).parents[1] / "benchmarks"
TINY = {"size": 32, "width": 4, "discriminator_width": 4, "steps": 1, "warm_up": 0, "threads": 1}


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module benchmarks/train.py."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("train", "training_loops"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("train")


def tiny(train: ModuleType, folder: Path, **changes: Any) -> Any:
    """The smallest setting, with pictures."""
    a, b = train.write_pictures(folder, count=2)
    return train.Setting(**TINY | {"a": a, "b": b} | changes)


@pytest.mark.parametrize("means", [(), ("contiguous", "fused"), ("foreach",)])
def test_both_loops_compute_the_same(train: ModuleType, tmp_path: Path, means: tuple[str, ...]) -> None:
    from streamgan_training import loop

    torch.manual_seed(0)
    recipe = train.make_recipe(tiny(train, tmp_path, batch=2))
    published = train.Published(recipe, torch.device("cpu"))
    ours = train.Ours(recipe, frozenset(means), loop.make_fabric("32-true"))
    pairs = {
        "generators.ab": published.g, "generators.ba": published.f,
        "discriminators.a.judges.0": published.d_x, "discriminators.b.judges.0": published.d_y,
    }  # fmt: skip
    for name, network in pairs.items():
        ours.method.get_submodule(name).load_state_dict(network.double().state_dict())
    ours.method.double()  # type: ignore[attr-defined]
    ours.average.double()
    made = train.make_batches(recipe)
    for step in range(2):  # the second one shows that both have learnt the same
        batch = next(made)
        batch = dataclasses.replace(batch, images=tuple(images.double() for images in batch.images))
        expected, given = published.step(*batch.images), ours.step(batch)
        assert expected.keys() == given.keys()
        for name, loss in expected.items():
            assert given[name].item() == pytest.approx(loss.item(), rel=1e-5), (step, name)


def test_the_pool_gives_older_frames_half_of_the_time(train: ModuleType) -> None:
    pool = sys.modules["training_loops"].FramePool(size=4)
    frames = torch.arange(400.0).view(400, 1, 1, 1).expand(-1, 3, 2, 2)
    given = torch.cat([pool.exchange(frame[None]) for frame in frames])[:, 0, 0, 0]
    assert given[:4].tolist() == [0, 1, 2, 3]
    older = (given[4:] < torch.arange(4.0, 400.0)).float().mean()
    assert 0.4 < older < 0.6
    assert len(pool.frames) == 4


def test_prints_the_table_and_writes_every_figure(
    train: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "call", train.measure)  # every row in this process
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    file = tmp_path / "train.json"
    rows = "--rows=published,ours,ours+malloc"
    result = CliRunner().invoke(train.main, [*options, rows, "--rounds=2", f"--json={file}"], catch_exceptions=False)
    assert result.exit_code == 0
    lines = [line.split("|")[1].strip() for line in result.output.splitlines() if line.startswith("|")]
    assert lines[2:] == ["published", "ours", "ours+malloc"]
    assert ("cannot be judged here" in result.output) == ("no avx512_bf16, no amx_bf16" in result.output)
    written = json.loads(file.read_text())
    assert [len(runs) for runs in written["runs"].values()] == [2, 2, 2, 0]
    assert all(run["peak_bytes"] >= run["start_bytes"] > 0 for run in written["runs"]["ours"])
    assert written["setting"]["size"] == 32


def test_a_row_runs_in_a_process_of_its_own(train: ModuleType, tmp_path: Path) -> None:
    run = train.call("published+malloc", tiny(train, tmp_path, steps=2))
    assert len(run.seconds) == 2
    assert all(0 < reading < step for reading, step in zip(run.reading, run.seconds, strict=True))
    assert run.peak_bytes >= run.start_bytes > 0


def test_says_why_a_row_failed(train: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.sys, "executable", "/bin/false")
    with pytest.raises(click.ClickException, match="row ours failed"):
        train.call("ours", train.Setting())


def test_measures_the_loader(train: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "LOADER_PICTURES", 4)
    found = train.measure_loader(tiny(train, tmp_path), workers=(0,))
    assert [*found] == ["0, cached", "0, decoded each time"]
    assert all(rate > 0 for rate in found.values())


@pytest.mark.parametrize("rows", ["ours", "published,ours+jemalloc", "published,theirs", "published+compile"])
def test_refuses_rows_that_it_does_not_know(train: ModuleType, rows: str) -> None:
    result = CliRunner().invoke(train.main, ["--rows", rows])
    assert result.exit_code == 2
    assert "expected" in result.output


def test_ratios_are_taken_round_by_round(train: ModuleType) -> None:
    slow, fast = train.Run(seconds=[4.0], reading=[2.0]), train.Run(seconds=[2.0], reading=[1.0])
    base = [slow, dataclasses.replace(slow, seconds=[8.0], reading=[0.0])]
    cells = train.row("ours", [fast, fast], base).split("|")
    assert cells[4].strip() == "3 (2.5–3.5)"  # 4 / 2 and 8 / 2
    assert cells[5].strip() == "5.00"  # (4 − 2) / (2 − 1) and 8 / (2 − 1)
    assert cells[6].strip() == "50.0%"
