"""Motion as tensors: warps along a flow, random smooth motion, and stills set in motion.

A flow is ``(N, 2, H, W)`` float32 on the grid of the result: from a pixel to where its colour comes from, in pixels, x
then y. Sampling is bilinear with ``align_corners=True``: the centres of the outermost pixels are at -1 and 1, so a flow
of whole pixels moves the picture by exactly that. (Normalised by W - 1 but sampled with ``align_corners=False``, as in
some published code, a warp also shrinks the picture, and the translator learns a zoom.)
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from streamgan_training.method import Batch


@dataclasses.dataclass(frozen=True)
class Warp:
    """A backward warp: where each pixel of the result comes from."""

    grid: Tensor
    """``(N, H, W, 2)`` float32: sampling positions, -1 to 1 inside the frame, ``align_corners=True``."""
    valid: Tensor
    """``(N, 1, H, W)`` float32: 1 where the source lies inside the frame, else 0."""

    def __call__(self, images: Tensor, mode: Literal["bilinear", "bicubic"] = "bilinear") -> Tensor:
        """Warps ``(N, C, H, W)``, to float32; what comes from outside repeats the border and is not `valid`."""
        return F.grid_sample(images.float(), self.grid, mode=mode, padding_mode="border", align_corners=True)


def warp_along(flow: Tensor) -> Warp:
    """The warp along a flow ``(N, 2, H, W)`` in pixels, x then y."""
    _, _, height, width = flow.shape
    flow = flow.float()
    x = flow[:, 0] + torch.arange(width, device=flow.device).view(1, 1, width)
    y = flow[:, 1] + torch.arange(height, device=flow.device).view(1, height, 1)
    near = 1e-3  # what rounding may add to a position on the border
    inside = (x >= -near) & (x <= width - 1 + near) & (y >= -near) & (y <= height - 1 + near)
    grid = torch.stack((2 * x / max(1, width - 1) - 1, 2 * y / max(1, height - 1) - 1), -1)
    return Warp(grid, inside.unsqueeze(1).to(flow))


def random_flow(images: Tensor, batch: Batch, name: str, shift: float, bend: float) -> Tensor:
    """A smooth random motion for each picture: a common shift and a field that bends slowly.

    Args:
        images: ``(N, C, H, W)``, for shape and device.
        batch: the randomness, picture by picture.
        name: what it is for.
        shift: largest common shift, in pixels.
        bend: spread of the local motion, in pixels; its grain is a quarter of the frame.

    Returns:
        The flow, ``(N, 2, H, W)`` float32.
    """
    height, width = images.shape[2:]
    common, local = [], []
    for slot in batch.slots:
        generator = batch.generator(name, slot)
        common.append((torch.rand(2, 1, 1, generator=generator) * 2 - 1) * shift)
        local.append(torch.randn(2, 4, 4, generator=generator) * bend)
    field = F.interpolate(torch.stack(local), size=(height, width), mode="bicubic", align_corners=True)
    return (torch.stack(common) + field).to(images.device)


def moved_stills(stills: Tensor, batch: Batch, name: str, length: int, shift: float, bend: float) -> Tensor:
    """Clips made of stills: what a window sees that is a little smaller than the picture and moves over it smoothly.

    Every frame is resampled the same way (bicubic), so that no frame is sharper than its neighbours, and the window
    never leaves the picture, so that no border is repeated. Motion is the same from frame to frame.

    Args:
        stills: ``(N, 3, H, W)`` in [-1, 1].
        batch: the randomness, picture by picture.
        name: what it is for; clips of one name move alike.
        length: T, frames per clip.
        shift: largest common shift from the first frame to the last, in pixels.
        bend: spread of the local motion from the first frame to the last, in pixels.

    Returns:
        ``(N, T, 3, H, W)`` in [-1, 1].
    """
    height, width = stills.shape[2:]
    limit = min(0.5 * shift + bend, 0.1 * min(height, width))
    motion = (0.5 * random_flow(stills, batch, name, shift, bend)).clamp(-limit, limit)
    columns = torch.linspace(1, -1, width, device=stills.device).expand(height, width)
    rows = torch.linspace(1, -1, height, device=stills.device).unsqueeze(1).expand(height, width)
    margin = (limit + 1) * torch.stack((columns, rows))  # towards the centre; 1 more for the filter's reach
    times = torch.linspace(-1, 1, length).tolist()
    frames = [warp_along(margin + time * motion)(stills, "bicubic").clamp(-1, 1) for time in times]
    return torch.stack(frames, 1)
