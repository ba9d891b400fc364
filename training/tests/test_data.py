"""Frame folders: what is found, what is skipped, and that a step's batch depends on nothing but its number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from streamgan.api import UsageError
from streamgan_training import data, recipe


def loaded(recipe_file: Path, warnings: list[str]) -> tuple[recipe.Recipe, data.Batches]:
    settings = recipe.load(recipe_file)
    a, b = (data.load_domain(domain, settings.data, warnings.append) for domain in (settings.data.a, settings.data.b))
    return settings, data.Batches(settings.data, 2, 0, 6, a, b)


def test_batches_have_the_shape_and_range_that_the_networks_expect(recipe_file: Path) -> None:
    _, batches = loaded(recipe_file, [])
    sizes = [tuple(a.shape) for a, _ in batches.from_step(0)]
    assert sizes == [(2, 3, 32, 32)] * 3 + [(2, 3, 32, 48)] * 3
    a, b = next(batches.from_step(4))
    assert a.min() >= -1 and a.max() <= 1
    assert a.mean() > b.mean()


def test_a_step_sees_the_same_frames_however_one_gets_there(recipe_file: Path) -> None:
    _, batches = loaded(recipe_file, [])
    whole = list(batches.from_step(0))
    torch.manual_seed(99)
    later = list(batches.from_step(2))
    assert all(
        torch.equal(x, y) for one, two in zip(whole[2:], later, strict=True) for x, y in zip(one, two, strict=True)
    )


def test_drawing_a_batch_leaves_torchs_own_randomness_alone(recipe_file: Path) -> None:
    _, batches = loaded(recipe_file, [])
    before = torch.get_rng_state()
    next(batches.from_step(0))
    assert torch.equal(before, torch.get_rng_state())


def test_broken_images_are_named_and_skipped(recipe_file: Path) -> None:
    folder = recipe_file.parent / "a"
    whole = (folder / "in1.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no picture")
    warnings: list[str] = []
    _, batches = loaded(recipe_file, warnings)
    assert len(warnings) == 2
    assert "cut.png" in warnings[0] and "text.jpg" in warnings[1]
    assert len(batches.a[0].paths) == 6


def test_held_out_frames_are_not_trained_on(recipe_file: Path) -> None:
    settings, batches = loaded(recipe_file, [])
    assert not [path for path in batches.a[0].paths if path.name.startswith("out")]
    assert len(data.list_images(settings.data.a[0], held_out=True)) == 2


def test_an_empty_folder_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no image found; looked for \.jpg"):
        data.list_images(recipe.FrameFolder(str(tmp_path)))
    with pytest.raises(UsageError, match="no such folder"):
        data.list_images(recipe.FrameFolder(str(tmp_path / "missing")))


def test_grey_turned_and_large_pictures_become_upright_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90°
    Image.new("L", (900, 600), 80).save(tmp_path / "grey.jpg", exif=exif)
    image = data.read_image(tmp_path / "grey.jpg", 300)
    assert image.shape == (3, 450, 300)
    assert image.dtype == torch.uint8
