"""The commands as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgan.cli.program import execute


def test_train_evaluate_export(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe_file.parent)
    assert execute(["train", "tiny.yaml", "--set", "train.iterations=3"]) == 0
    out = capsys.readouterr().out
    assert "runs/001-tiny" in out and "step 3/3" in out
    assert execute(["export", "runs/001-tiny", "-o", "tiny.onnx"]) == 0
    assert "bright to dark" in capsys.readouterr().out
    assert (recipe_file.parent / "tiny.onnx").is_file()


def test_a_dry_run_prints_every_value_and_counts_the_images(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["train", str(recipe_file), "--dry-run", "--set", "train.batch=7"]) == 0
    out = capsys.readouterr().out
    assert "batch: 7" in out and "lambda_cycle: 10.0" in out
    assert "# a: 6 images to train on, 2 held out" in out
    assert not (recipe_file.parent / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "missing.yaml"], "missing.yaml: no such recipe"),
        (["train", "tiny.yaml", "--set", "train.batch=many"], "batch"),
        (["train", "tiny.yaml", "--set", "train.bach=2"], "did you mean 'batch'"),
        (["train", "tiny.yaml", "--set", "train"], "expected key=value"),
        (["train", "a", "--resume"], "recipe.yaml: no such recipe"),
        (["train", "tiny.yaml", "--set", "data.size=[50, 32]"], "multiples of 16"),
        (["train", "tiny.yaml", "--set", "name=../x"], "it names a folder"),
        (["train", "tiny.yaml", "--set", "train.batch=0"], "at least 1"),
        (["train", "tiny.yaml", "--set", "data.a=[{path: .., exclude: ['*']}]"], "no image is left"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    recipe_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(recipe_file.parent)
    assert execute(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not list(recipe_file.parent.glob("runs/*"))


def test_a_folder_that_is_no_run_is_named(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe_file.parent)
    for arguments in (["export", "a", "-o", "x.onnx"], ["evaluate", "a"]):
        assert execute(arguments) == 1
        assert "not a run folder" in capsys.readouterr().err
