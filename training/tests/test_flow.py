"""Optical flow against motion that is known, the mask against the formula, and what is kept on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_small
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as VF

from streamgan.api import UsageError
from streamgan.motion.flow import dis_flow, trusted
from streamgan_training.stability import flow
from streamgan_training.stability.warp import warp_along


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "flow"


def texture(height: int, width: int, seed: int = 0) -> flow.Image:
    """Smooth random texture, on which motion can be seen."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return np.clip(127 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def moving(right: int, down: int, length: int = 2, height: int = 96, width: int = 128) -> torch.Tensor:
    """A clip ``(T, 3, H, W)`` whose contents move by whole pixels from frame to frame."""
    large = texture(height + 80, width + 80)
    frames = [
        large[40 - t * down : 40 - t * down + height, 40 - t * right : 40 - t * right + width] for t in range(length)
    ]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def counting(calls: list[int]) -> flow.Engine:
    """DIS, which notes that it was called."""

    def estimate(first: flow.Image, second: flow.Image) -> flow.Float:
        calls.append(1)
        return dis_flow(first, second)

    return flow.Engine("counting", estimate)


def test_flow_leads_back_to_where_the_contents_were() -> None:
    vectors, valid = flow.clip_flow(moving(right=5, down=-3), flow.make_engine("dis"))
    assert vectors.shape == (1, 2, 96, 128) and valid.shape == (1, 1, 96, 128)
    assert vectors.dtype == valid.dtype == torch.float32
    inner = vectors[0, :, 16:-16, 16:-16]
    assert inner.mean((1, 2)).allclose(torch.tensor([-5.0, 3.0]), atol=0.1)
    assert valid[0, 0, 16:-16, 16:-16].mean() > 0.95


def test_what_has_just_come_into_view_is_not_valid() -> None:
    _, valid = flow.clip_flow(moving(right=8, down=0), flow.make_engine("dis"))
    assert valid[0, 0, :, :6].mean() < 0.1


def test_the_mask_is_that_of_the_formula() -> None:
    random = np.random.default_rng(3)
    backward, forward = (cv2.GaussianBlur(random.normal(0, 9, (24, 32, 2)), (0, 0), 3).astype(np.float32) for _ in "bf")
    forward += -backward
    mask = trusted(backward, forward)
    checked = 0
    for y in range(1, 23):
        for x in range(1, 31):
            to = np.float32([x, y]) + backward[y, x]
            if not (0 <= to[0] <= 31 and 0 <= to[1] <= 23):
                assert not mask[y, x]
                continue
            x0, y0 = int(min(to[0], 30)), int(min(to[1], 22))
            a, b = to[0] - x0, to[1] - y0
            f = (1 - b) * ((1 - a) * forward[y0, x0] + a * forward[y0, x0 + 1])
            f = f + b * ((1 - a) * forward[y0 + 1, x0] + a * forward[y0 + 1, x0 + 1])
            squares = (backward[y, x] ** 2).sum()
            slack = 0.01 * (squares + (f**2).sum()) + 0.5 - ((backward[y, x] + f) ** 2).sum()
            gradient = (((backward[y, x + 1] - backward[y, x - 1]) / 2) ** 2).sum()
            gradient += (((backward[y + 1, x] - backward[y - 1, x]) / 2) ** 2).sum()
            room = 0.01 * squares + 0.002 - gradient
            if min(abs(slack), abs(room)) > 0.02:  # cv2 rounds positions to 1/32 pixel
                assert mask[y, x] == (slack > 0 and room > 0)
                checked += 1
    assert checked > 200 and 0 < mask.mean() < 1


def test_what_is_kept_gives_the_same_and_clips_that_overlap_share_it(cache: Path) -> None:
    calls: list[int] = []
    frames = moving(3, 1, length=4)
    fresh = flow.clip_flow(frames[:3], counting(calls))
    assert len(calls) == 4 and len(list(cache.rglob("*.npz"))) == 2  # two pairs, there and back
    kept = flow.clip_flow(frames[:3], counting(calls))
    assert len(calls) == 4
    assert all(torch.equal(one, other) for one, other in zip(fresh, kept, strict=True))
    flow.clip_flow(frames[1:], counting(calls))
    assert len(calls) == 6 and len(list(cache.rglob("*.npz"))) == 3
    assert not list(cache.rglob("*.part"))


def test_another_picture_size_or_engine_is_another_entry(cache: Path) -> None:
    calls: list[int] = []
    frames = moving(3, 1)
    flow.clip_flow(frames, counting(calls))
    flow.clip_flow(frames.reshape(2, 3, 128, 96), counting(calls))
    flow.clip_flow(frames, flow.make_engine("dis"))
    changed = frames.clone()
    changed[1, 0, 0, 0] += 1
    flow.clip_flow(changed, counting(calls))
    assert len(list(cache.rglob("*.npz"))) == 4 and len(calls) == 6


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other"])
def test_a_damaged_entry_is_computed_anew(cache: Path, damage: str) -> None:
    calls: list[int] = []
    frames = moving(2, 2)
    fresh = flow.clip_flow(frames, counting(calls))
    (entry,) = cache.rglob("*.npz")
    whole = entry.read_bytes()
    if damage == "other":
        np.savez(entry, flow=np.zeros((4, 4, 2), np.float16), valid=np.zeros(2, np.uint8))
    else:
        flipped = bytes(byte ^ 255 if 200 < place < 4000 else byte for place, byte in enumerate(whole))
        entry.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "flipped": flipped}[damage])
    again = flow.clip_flow(frames, counting(calls))
    assert len(calls) == 4
    assert all(torch.equal(one, other) for one, other in zip(fresh, again, strict=True))
    assert entry.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "file"))
    vectors, _ = flow.clip_flow(moving(4, 0), flow.make_engine("dis"))
    assert vectors[0, 0, 20:-20, 20:-20].mean() == pytest.approx(-4, abs=0.1)


@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_carries_a_translation_with_it(flip: bool) -> None:
    vectors = torch.tensor([6.0, -4.0]).view(1, 2, 1, 1).expand(1, 2, 90, 120)
    out, valid = flow.crop_flow(
        vectors, torch.ones(1, 1, 90, 120), top=10, left=20, height=60, width=90, out_size=(30, 40), flip=flip
    )
    expected = torch.tensor([-2.0 if flip else 2.0, -4 * 40 / 60]).view(1, 2, 1, 1)
    assert out.allclose(expected.expand(1, 2, 40, 30), atol=1e-5)
    columns, rows = np.meshgrid(np.arange(30), np.arange(40))
    inside = (columns + (-2 if flip else 2) <= 29) & (columns + (-2 if flip else 2) >= 0) & (rows - 8 / 3 >= 0)
    assert np.array_equal(valid[0, 0].numpy() > 0, inside)


@pytest.mark.parametrize("flip", [False, True])
def test_a_carried_flow_fits_frames_that_are_cropped_the_same_way(flip: bool) -> None:
    columns, rows = torch.meshgrid(torch.arange(160.0), torch.arange(120.0), indexing="xy")
    vectors = torch.stack((3 + 0.04 * columns - 0.02 * rows, -2 + 0.03 * rows))[None]
    previous = torch.from_numpy(texture(120, 160)).permute(2, 0, 1)[None].float()
    current = warp_along(vectors)(previous)
    box = {"top": 12, "left": 25, "height": 90, "width": 120}
    pair = VF.resized_crop(
        torch.cat((previous, current)), **box, size=[75, 100], interpolation=InterpolationMode.BICUBIC
    )
    pair = pair.flip(-1) if flip else pair
    carried, valid = flow.crop_flow(vectors, torch.ones(1, 1, 120, 160), **box, out_size=(100, 75), flip=flip)
    error = ((warp_along(carried)(pair[:1]) - pair[1:]).abs() * valid).mean()
    still = ((pair[:1] - pair[1:]).abs() * valid).mean()
    assert valid.mean() > 0.8
    assert error < 0.05 * still


def test_a_pixel_made_of_one_that_is_not_valid_is_not_valid() -> None:
    valid = torch.ones(1, 1, 40, 40)
    valid[..., 20, 20] = 0
    _, carried = flow.crop_flow(
        torch.zeros(1, 2, 40, 40), valid, top=0, left=0, height=40, width=40, out_size=(20, 20), flip=False
    )
    assert carried[0, 0, 10, 10] == 0 and carried[0, 0, 4, 4] == 1 and carried.mean() > 0.95


def test_raft_takes_any_size_and_leads_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Fake(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.real = raft_small(weights=None).eval()

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> list[torch.Tensor]:
            seen.append((tuple(first.shape), float(first.min()), float(first.max())))
            return self.real(first, second, num_flow_updates=1)

    first, second = texture(60, 133), texture(60, 133, 1)
    out = flow.raft_flow(Fake(), first, second)
    assert out.shape == (60, 133, 2) and out.dtype == np.float32 and np.isfinite(out).all()
    assert seen[0][0] == (1, 3, 128, 136) and seen[0][1] >= -1 and seen[0][2] <= 1


def test_raft_without_weights_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(flow, "raft_small", refuse)
    flow.make_engine.cache_clear()
    assert flow.make_engine("auto").name == "dis-medium"
    with pytest.raises(UsageError, match=r"raft_small.*choose dis"):
        flow.make_engine("raft")
    flow.make_engine.cache_clear()


def test_auto_takes_raft_where_its_weights_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "checkpoints" / Path(flow.RAFT_WEIGHTS.url).name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(flow, "raft_small", lambda **_: raft_small(weights=None))
    flow.make_engine.cache_clear()
    assert flow.make_engine("auto").name == "raft-small-C_T_V2"
    flow.make_engine.cache_clear()
