"""Losses as pure functions. Images are ``(N, 3, H, W)`` float in [-1, 1]; every loss is a scalar tensor.

Sources: Zhu et al. 2017 (CycleGAN), Mao et al. 2017 (least-squares GAN), Reinhard et al. 2001 (colour transfer).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of R, G, B in luma, BT.709."""


def least_squares(verdict: Tensor, target: float) -> Tensor:
    """E[(D(x) − target)²]: Mao et al. 2017, eq. 2, with a = 0, b = c = 1."""
    return (verdict - target).square().mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """½ E[(D(y) − 1)²] + ½ E[D(G(x))²]: Zhu et al. 2017, section 4."""
    return 0.5 * (least_squares(real, 1.0) + least_squares(fake, 0.0))


def cycle(reconstructed: Tensor, original: Tensor) -> Tensor:
    """‖F(G(x)) − x‖₁, the mean over pixels: Zhu et al. 2017, eq. 2."""
    return F.l1_loss(reconstructed, original)


def identity(translated: Tensor, target: Tensor) -> Tensor:
    """‖G(y) − y‖₁, the mean over pixels: Zhu et al. 2017, section 5.2."""
    return F.l1_loss(translated, target)


def luma(images: Tensor) -> Tensor:
    """Brightness in [0, 1] of images in [-1, 1]: ``(N, 1, H, W)``, BT.709 weights on gamma-encoded values."""
    weights = images.new_tensor(LUMA).view(1, 3, 1, 1)
    return ((images + 1) / 2 * weights).sum(1, keepdim=True)


def exposure_prior(translated: Tensor, source: Tensor, ceiling: float, region: int = 16, floor: float = 0.12) -> Tensor:
    """Mean square by which regions of a translation are brighter than allowed. One-sided: darker is free.

    Args:
        translated: the translation of `source`.
        source: the frames.
        ceiling: brightness allowed, as a fraction of the source's brightness of the same region.
        region: side of a region, in pixels; lamps are smaller than that and stay free to shine.
        floor: brightness that is always allowed, in [0, 1].
    """
    allowed = (ceiling * F.avg_pool2d(luma(source), region)).clamp_min(floor)
    return F.relu(F.avg_pool2d(luma(translated), region) - allowed).square().mean()


def colour_match(source: Tensor, target: Tensor) -> Tensor:
    """`source` with the mean and the spread of each colour channel of `target`, image by image, in [-1, 1].

    The idea of Reinhard et al. 2001, eq. 10 and 11, in RGB; no gradient flows.
    """
    with torch.no_grad():
        mean_s, std_s = source.mean((2, 3), keepdim=True), source.std((2, 3), keepdim=True)
        mean_t, std_t = target.mean((2, 3), keepdim=True), target.std((2, 3), keepdim=True)
        return ((source - mean_s) / (std_s + 1e-4) * std_t + mean_t).clamp(-1, 1)
