"""A discriminator on short clips: are these consecutive frames of one film of the target domain?"""

from __future__ import annotations

from torch import Tensor, nn


class ClipDiscriminator(nn.Module):
    """A PatchGAN (Isola et al. 2017) on the channels of T consecutive frames (Wang et al. 2018, section 3).

    What flickers differs from frame to frame in the same patch, so its first convolution sees it.

    Args:
        frames: T.
        width: channels of the first level.
        layers: strided levels: 3 for a receptive field of 70² pixels.
    """

    def __init__(self, frames: int = 3, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(3 * frames, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels = width
        for level in range(1, layers + 1):
            following = width * min(2**level, 8)
            stride = 2 if level < layers else 1
            conv = nn.Conv2d(channels, following, 4, stride, 1)
            body += [conv, nn.InstanceNorm2d(following), nn.LeakyReLU(0.2)]
            channels = following
        self.body = nn.Sequential(*body, nn.Conv2d(channels, 1, 4, 1, 1))

    def forward(self, clips: Tensor) -> Tensor:
        """(N, T, 3, H, W) in [-1, 1] → (N, 1, h, w), one verdict a patch: 1 is real, 0 is translated."""
        y: Tensor = self.body(clips.flatten(1, 2))
        return y
