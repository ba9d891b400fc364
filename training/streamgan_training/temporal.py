"""Consistency in time.

`synthetic` needs no video: a translator that commutes with small motions and noise does not flicker. After Wang et al.
2022, "Learning Temporally and Semantically Consistent Unpaired Video-to-video Translation Through Pseudo-Supervision
From Synthetic Optical Flow" (AAAI), and Eilertsen et al. 2019, "Single-frame Regularization for Temporally Stable
CNNs".
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True)
class Warp:
    """A backward warp: where each target pixel comes from."""

    grid: Tensor
    """``(N, H, W, 2)`` sampling positions in [-1, 1], ``align_corners=True``."""
    valid: Tensor
    """``(N, 1, H, W)`` 1 where the source lies inside the frame, else 0."""

    def __call__(self, images: Tensor) -> Tensor:
        """Warps ``(N, C, H, W)``; what leaves the frame repeats the border and is not `valid`."""
        return F.grid_sample(images, self.grid, padding_mode="border", align_corners=True)


def random_warp(images: Tensor, generator: torch.Generator, shift: float = 6.0, bend: float = 3.0) -> Warp:
    """A smooth random motion for each image: a common shift and a field that bends slowly.

    Args:
        images: ``(N, C, H, W)``, for shape and device.
        generator: a CPU generator: the randomness.
        shift: largest common shift, in pixels.
        bend: spread of the local motion, in pixels; its grain is a quarter of the frame.
    """
    n, _, height, width = images.shape
    common = (torch.rand(n, 2, 1, 1, generator=generator) * 2 - 1) * shift
    local = torch.randn(n, 2, 4, 4, generator=generator) * bend
    local = F.interpolate(local, size=(height, width), mode="bicubic", align_corners=True)
    flow = (common + local).to(images.device)  # (N, 2, H, W) in pixels, x then y
    rows = torch.linspace(-1, 1, height, device=images.device).view(1, height, 1).expand(n, -1, width)
    columns = torch.linspace(-1, 1, width, device=images.device).view(1, 1, width).expand(n, height, -1)
    x = columns + flow[:, 0] * 2 / (width - 1)
    y = rows + flow[:, 1] * 2 / (height - 1)
    valid = ((x.abs() <= 1) & (y.abs() <= 1)).unsqueeze(1).to(images.dtype)
    return Warp(torch.stack((x, y), -1).to(images.dtype), valid)


def synthetic_consistency(
    generator_network: nn.Module, source: Tensor, translated: Tensor, randomness: torch.Generator
) -> Tensor:
    """‖G(W x + n) − W G(x)‖₁ over the pixels that stay in the frame: Wang et al. 2022, eq. 5.

    Both sides are followed by the gradient: a side held fixed only pulls the other to its errors.

    Args:
        generator_network: G.
        source: x, ``(N, 3, H, W)`` in [-1, 1].
        translated: G(x), already computed.
        randomness: a CPU generator for motion and noise.
    """
    warp = random_warp(source, randomness)
    noise = torch.randn(source.shape, generator=randomness).to(source.device, source.dtype) * 0.01
    moved = generator_network(warp(source) + noise)
    difference = (moved - warp(translated)).abs() * warp.valid
    count = (warp.valid.sum() * source.shape[1]).clamp_min(1)
    loss: Tensor = difference.sum() / count
    return loss
