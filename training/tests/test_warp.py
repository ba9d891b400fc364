"""Warps against OpenCV and closed forms; random motion and what stands in for footage."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from streamgan_training.method import Batch
from streamgan_training.stability import warp

SIZE = (32, 48)


def images() -> Tensor:
    """Smooth pictures in [-1, 1]."""
    coarse = torch.rand(2, 3, SIZE[0] // 4, SIZE[1] // 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=SIZE, mode="bicubic", align_corners=False).clamp(-1, 1)


def batch_of() -> Batch:
    return Batch(0, (images(),), slots=range(2))


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, 0), (-2, 5)])
def test_a_warp_by_whole_pixels_is_that_of_opencv(right: int, down: int) -> None:
    picture = images()
    flow = torch.tensor([float(right), float(down)]).view(1, 2, 1, 1).expand(2, 2, *SIZE)
    moved = warp.warp_along(flow)
    columns, rows = np.meshgrid(np.arange(SIZE[1], dtype=np.float32), np.arange(SIZE[0], dtype=np.float32))
    for index in range(2):
        source = picture[index].permute(1, 2, 0).numpy()
        expected = cv2.remap(source, columns + right, rows + down, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        assert np.allclose(moved(picture)[index].permute(1, 2, 0).numpy(), expected, atol=2e-5)
        inside = (columns + right >= 0) & (columns + right < SIZE[1]) & (rows + down >= 0) & (rows + down < SIZE[0])
        assert np.array_equal(moved.valid[index, 0].numpy() == 1, inside)


def test_a_warp_by_half_a_pixel_is_the_mean_of_two() -> None:
    picture = images()
    moved = warp.warp_along(torch.tensor([0.5, 0.0]).view(1, 2, 1, 1).expand(2, 2, *SIZE))(picture)
    assert moved[..., :-1].allclose((picture[..., :-1] + picture[..., 1:]) / 2, atol=1e-5)


def test_warps_stay_exact_in_mixed_precision() -> None:
    picture = images()
    motion = warp.warp_along(torch.tensor([3.0, 0.0]).view(1, 2, 1, 1).expand(2, 2, *SIZE))
    with torch.autocast("cpu", torch.bfloat16):
        moved = motion(picture)
    assert moved.dtype == torch.float32
    assert moved[..., :-3].allclose(picture[..., 3:], atol=2e-5)


def test_random_motion_is_smooth_bounded_and_of_each_picture_its_own() -> None:
    flow = warp.random_flow(images(), batch_of(), "x", shift=6.0, bend=0.0)
    assert flow.abs().max() <= 6 and flow.std((2, 3)).max() < 1e-5
    assert not flow[0].allclose(flow[1])
    bent = warp.random_flow(images(), batch_of(), "x", shift=0.0, bend=3.0)
    assert 1 < bent.std() < 6
    assert bent.diff(dim=-1).abs().max() < 2


def test_moved_stills_keep_their_colours_move_evenly_and_repeat_no_border() -> None:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 96), indexing="ij")
    ramp = torch.stack((columns, rows, 0 * rows)).expand(2, 3, 64, 96) * 0.9
    clip = warp.moved_stills(ramp, batch_of(), "x", 3, shift=6.0, bend=0.0)
    assert clip.shape == (2, 3, 3, 64, 96)
    steps = clip.diff(dim=1).mean((3, 4))  # (N, T - 1, 3)
    assert steps[:, 0].allclose(steps[:, 1], atol=2e-4)
    assert steps[:, 0, :2].abs().amax(1).min() > 0.005 and steps[:, :, 2].abs().max() == 0
    assert clip[:, :, 0].diff(dim=-1).min() > 0  # a repeated border would have two columns alike
