"""Footage: what is found, what is skipped, what is held out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from streamgan.api import PresetError, UsageError
from streamgan.testing import make_clip
from streamgan_training import recipe
from streamgan_training.frames import data, domains
from streamgan_training.recipe import Footage


def load(recipe_file: Path, domain: str, warnings: list[str]) -> data.ImageSet:
    """The one set of a domain."""
    settings = recipe.load(recipe_file)
    (images,) = data.load_domain(settings.data.domains[domain], settings.data, warnings.append)
    assert isinstance(images, data.ImageSet)
    return images


def test_broken_images_are_named_and_skipped(recipe_file: Path) -> None:
    folder = recipe_file.parent / "a"
    whole = (folder / "in1.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no picture")
    warnings: list[str] = []
    images = load(recipe_file, "bright", warnings)
    assert len(warnings) == 2
    assert "cut.png" in warnings[0] and "text.jpg" in warnings[1]
    assert len(images) == 6


def test_held_out_frames_are_not_trained_on(recipe_file: Path) -> None:
    images = load(recipe_file, "bright", [])
    assert not [path for path in images.paths if path.name.startswith("out")]
    settings = recipe.load(recipe_file)
    assert len(data.list_images(settings.data.domains["bright"][0], held_out=True)) == 2


def test_an_empty_folder_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no image found; looked for \.jpg"):
        data.list_images(Footage(str(tmp_path)))
    with pytest.raises(UsageError, match="no such folder"):
        data.list_images(Footage(str(tmp_path / "missing")))


def test_grey_turned_and_large_pictures_become_upright_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90°
    Image.new("L", (900, 600), 80).save(tmp_path / "grey.jpg", exif=exif)
    image = data.read_image(tmp_path / "grey.jpg", 300)
    assert image.shape == (3, 450, 300)
    assert image.dtype == torch.uint8


def test_a_film_is_footage_and_is_held_out_by_name(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "cache"))
    films = tmp_path / "films"
    films.mkdir()
    for name in ("first.mp4", "second.mp4"):
        make_clip(films / name, size=(64, 48), frames=6)
    settings = recipe.load(recipe_file)
    footage = Footage(str(films), hold_out=("second*",))
    (kept,) = data.load_domain([footage], settings.data, print, clip_length=2)
    (out,) = data.load_domain([footage], settings.data, print, clip_length=2, held_out=True)
    assert len(kept) == len(out) == 6
    assert {kept.name(index).split("_")[0] for index in range(6)} == {"first"}
    assert kept.clips(2) == [(index, index + 1) for index in range(5)]
    assert kept.image(0).shape == (3, 48, 64)


def test_domains_of_a_tree_and_of_a_label_file(recipe_file: Path) -> None:
    folder = recipe_file.parent
    text = recipe_file.read_text()
    begin, end = text.index("  domains:"), text.index("  size:")
    tree = folder / "tree.yaml"
    (folder / "root").mkdir()
    (folder / "a").rename(folder / "root/a")
    (folder / "b").rename(folder / "root/b")
    tree.write_text(text[:begin] + "  tree: root\n" + text[end:])
    assert recipe.load(tree).domains == ("a", "b")
    (folder / "labels.csv").write_text("file,look\na/in1.png,x\na/in2.png,y\nb/in1.png,y\n")
    labelled = folder / "labelled.yaml"
    labelled.write_text(text[:begin] + "  labels: {file: labels.csv, column: look, folder: root}\n" + text[end:])
    settings = recipe.load(labelled)
    assert settings.domains == ("x", "y")
    names = [data.list_images(settings.data.domains[domain][0]) for domain in "xy"]
    assert [[path.relative_to(folder / "root").as_posix() for path in paths] for paths in names] == [
        ["a/in1.png"],
        ["a/in2.png", "b/in1.png"],
    ]
    with pytest.raises(PresetError, match="no column is called 'mood' \\(columns: look\\)"):
        domains.column_values(folder / "labels.csv", "mood")
