"""Batches: a picture depends on nothing but seed, step and slot; clips and pairs are cut as one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from streamgan.testing import make_clip
from streamgan_training import recipe
from streamgan_training.frames import batches, data
from streamgan_training.recipe import Footage
from streamgan_training.stability.temporal import Temporal


def steps(recipe_file: Path, slots: range = range(2), **changes: object) -> batches.Steps:
    """The batches of the tiny recipe."""
    settings = recipe.load(recipe_file, {key.replace("__", "."): value for key, value in changes.items()})
    length = settings.temporal.clip_length
    sets = [
        data.load_domain(footages, settings.data, print, clip_length=length)
        for footages in settings.data.domains.values()
    ]
    return batches.Steps(settings, batches.drawings(settings, sets), slots)


def test_batches_have_the_shape_and_range_that_the_networks_expect(recipe_file: Path) -> None:
    made = list(batches.batches_from(steps(recipe_file), 0, workers=0))
    assert [tuple(batch.images[0].shape) for batch in made] == [(2, 3, 32, 32)] * 3 + [(2, 3, 32, 48)] * 3
    bright, dark = made[4].images
    assert bright.min() >= -1 and bright.max() <= 1
    assert bright.mean() > dark.mean()


def test_a_step_sees_the_same_frames_however_one_gets_there(recipe_file: Path) -> None:
    whole = list(batches.batches_from(steps(recipe_file), 0, workers=0))
    torch.manual_seed(99)
    later = list(batches.batches_from(steps(recipe_file), 2, workers=1))
    for one, other in zip(whole[2:], later, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(one.images, other.images, strict=True))


def test_processes_see_the_parts_of_one_batch(recipe_file: Path) -> None:
    whole = steps(recipe_file, range(4))[3]
    parts = [steps(recipe_file, slots)[3] for slots in (range(2), range(2, 4))]
    assert torch.equal(whole.images[1], torch.cat([part.images[1] for part in parts]))
    again = batches.parts_of(whole, 2)
    assert [part.slots for part in again] == [range(2), range(2, 4)]
    assert torch.equal(again[1].images[0], parts[1].images[0])


def test_drawing_a_batch_leaves_torchs_own_randomness_alone(recipe_file: Path) -> None:
    before = torch.get_rng_state()
    steps(recipe_file)[0]
    assert torch.equal(before, torch.get_rng_state())


def test_pairs_are_drawn_and_cropped_together(recipe_file: Path) -> None:
    same = [{"path": "a", "hold_out": ["out*"]}]
    made = steps(recipe_file, data__paired=True, data__domains={"x": same, "y": same})[4]
    assert torch.equal(made.images[0], made.images[1])
    unpaired = steps(recipe_file, data__domains={"x": same, "y": same})[4]
    assert not torch.equal(unpaired.images[0], unpaired.images[1])


@pytest.fixture
def film_file(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A film beside the recipe."""
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "cache"))
    path = recipe_file.parent / "film.mp4"
    make_clip(path, size=(96, 64), frames=8)
    return path


def warped(image: Tensor, flow: Tensor) -> Tensor:
    """`image` sampled along a flow, by plain indexing of the nearest pixel."""
    height, width = flow.shape[1:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = (columns + flow[0]).round().long().clamp(0, width - 1)
    y = (rows + flow[1]).round().long().clamp(0, height - 1)
    return image[:, y, x]


def test_clips_come_with_flow_that_fits_their_crop(recipe_file: Path, film_file: Path) -> None:
    temporal = {"kind": "flow", "start": 0.0, "flow": "dis"}
    footage = {"bright": [{"path": "film.mp4"}], "dark": [{"path": "b", "hold_out": ["out*"]}]}
    made = steps(recipe_file, temporal=temporal, data__domains=footage)[5]
    clips, none = made.clips
    assert none is None
    assert clips is not None and clips.flow is not None and clips.valid is not None
    assert clips.frames.shape == (2, 2, 3, 32, 48)
    assert clips.flow.shape == (2, 1, 2, 32, 48) and clips.valid.shape == (2, 1, 1, 32, 48)
    moved = []
    still = []
    for clip, flow, valid in zip(clips.frames, clips.flow, clips.valid, strict=True):
        inside = valid[0].expand(3, -1, -1) > 0
        moved.append((warped(clip[0], flow[0]) - clip[1])[inside].abs().mean())
        still.append((clip[0] - clip[1])[inside].abs().mean())
    assert sum(moved) < sum(still)


def test_mixed_batches_hold_pictures_of_all_domains_with_labels(recipe_file: Path) -> None:
    made = steps(recipe_file, range(16))
    mixed = dataclasses.replace(made.recipe, method_class=type("Mixed", (made.recipe.method_class,), {"mixed": True}))
    batch = dataclasses.replace(made, recipe=mixed)[1]
    assert batch.labels is not None
    (images,) = batch.images
    assert set(batch.labels.tolist()) == {0, 1}
    means = images.mean((1, 2, 3))
    assert means[batch.labels == 0].min() > means[batch.labels == 1].max()


def test_temporal_clips_are_only_drawn_when_they_are_due(recipe_file: Path, film_file: Path) -> None:
    footage = {"bright": [{"path": "film.mp4"}], "dark": [{"path": "b", "hold_out": ["out*"]}]}
    made = steps(recipe_file, temporal={"kind": "recycle", "start": 0.5}, data__domains=footage)
    assert made[0].clips == (None, None)
    assert made[4].clips[0] is not None
    assert made.recipe.temporal == Temporal(kind="recycle", start=0.5)
    assert Footage("x").film is False
