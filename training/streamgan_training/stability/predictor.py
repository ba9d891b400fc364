"""The predictor of Recycle-GAN: the next frame from two (Bansal et al. 2018, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Predictor(nn.Module):
    """P: a small U-Net on the channels of two consecutive frames.

    Four strided levels instead of the eight of the paper's own code, so that it takes crops of any size from 16 pixels
    on; up-sampling is bilinear, to the size of the level above.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        channels = (6, width, 2 * width, 4 * width, 8 * width)  # of the two frames, then of each level
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels[level], channels[level + 1], 4, 2, 1),
                nn.InstanceNorm2d(channels[level + 1]) if level in (1, 2) else nn.Identity(),
                nn.LeakyReLU(0.2),
            )
            for level in range(4)
        )
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels[level + 1] + channels[level], channels[level], 3, padding=1),
                nn.ReLU(),
            )
            for level in (3, 2, 1)
        )
        self.head = nn.Conv2d(width + 6, 3, 3, padding=1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two frames, each (N, 3, H, W) in [-1, 1] → the one after them, the same."""
        levels = [torch.cat((first, second), 1)]
        for down in self.down:
            levels.append(down(levels[-1]))
        y = levels.pop()
        for up in self.up:
            y = up(_beside(y, levels.pop()))
        return torch.tanh(self.head(_beside(y, levels.pop())))


def _beside(coarse: Tensor, fine: Tensor) -> Tensor:
    """A coarse level, enlarged, beside the finer one: (N, C + c, H, W)."""
    larger = F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)
    return torch.cat((larger, fine), 1)
