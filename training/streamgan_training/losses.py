"""Losses as pure functions. Images are ``(N, 3, H, W)`` float in [-1, 1]; every loss is a scalar tensor.

Sources: Zhu et al. 2017 (CycleGAN), Mao et al. 2017 (least-squares GAN), Reinhard et al. 2001 (colour transfer).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Objective = Literal["lsgan", "vanilla", "hinge", "wgan"]

LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of R, G, B in luma, BT.709."""


def least_squares(verdict: Tensor, target: float) -> Tensor:
    """E[(D(x) − target)²]: Mao et al. 2017, eq. 2, with a = 0, b = c = 1."""
    return (verdict - target).square().mean()


def generator_gan(objective: Objective, fake: Tensor) -> Tensor:
    """What a generator minimises so that its pictures are judged real.

    `lsgan`: E[(D(G(x)) − 1)²], Mao et al. 2017, eq. 9. `vanilla`: −E[log σ(D(G(x)))], the non-saturating form of
    Goodfellow et al. 2014, section 3. `hinge`: −E[D(G(x))], Lim and Ye 2017. `wgan`: the same, Arjovsky et al. 2017.
    """
    if objective == "lsgan":
        return least_squares(fake, 1.0)
    if objective == "vanilla":
        return F.softplus(-fake).mean()
    return -fake.mean()


def discriminator_gan(objective: Objective, real: Tensor, fake: Tensor) -> Tensor:
    """What a discriminator minimises; halved for `lsgan` and `vanilla` as in Zhu et al. 2017, section 4.

    `lsgan`: ½ E[(D(y) − 1)²] + ½ E[D(G(x))²]. `vanilla`: −½ E[log σ(D(y))] − ½ E[log(1 − σ(D(G(x))))]. `hinge`:
    E[max(0, 1 − D(y))] + E[max(0, 1 + D(G(x)))]. `wgan`: E[D(G(x))] − E[D(y)].
    """
    if objective == "lsgan":
        return 0.5 * (least_squares(real, 1.0) + least_squares(fake, 0.0))
    if objective == "vanilla":
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    if objective == "hinge":
        return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()
    return fake.mean() - real.mean()


def gradient_penalty(judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, epsilon: Tensor) -> Tensor:
    """E[(‖∇D(x̂)‖₂ − 1)²], x̂ = ε x + (1 − ε) G(x): Gulrajani et al. 2017, eq. 3. In fp32 whatever the precision.

    Args:
        judge: D, from ``(N, 3, H, W)`` to any shape.
        real: ``(N, 3, H, W)``.
        fake: the same shape.
        epsilon: ``(N, 1, 1, 1)`` uniform in [0, 1).
    """
    with torch.autocast(real.device.type, enabled=False):
        mixed = torch.lerp(fake.detach().float(), real.float(), epsilon.float()).requires_grad_(True)
        (gradient,) = torch.autograd.grad(judge(mixed).sum(), mixed, create_graph=True)
        norm = (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()
        return (norm - 1.0).square().mean()


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


def total_variation(images: Tensor, beta: float = 2.0) -> Tensor:
    """R_Vβ(x) = Σ ((x_{i,j+1} − x_{i,j})² + (x_{i+1,j} − x_{i,j})²)^{β/2}, the mean over pixels and channels.

    Mahendran & Vedaldi 2015, "Understanding Deep Image Representations by Inverting Them", section 3.

    Args:
        images: x.
        beta: β: 1 is total variation proper, which leaves edges sharp; 2, the paper's usual choice, leaves no spikes.
    """
    images = images.float()
    corner = images[..., :-1, :-1]
    squares = (images[..., :-1, 1:] - corner).square() + (images[..., 1:, :-1] - corner).square()
    # The root's slope at 0 is infinite.
    return (squares if beta == 2 else (squares + 1e-8).pow(beta / 2)).mean()


def laplacian_pyramid(images: Tensor, levels: int = 5) -> list[Tensor]:
    """L⁰, L¹, …: what each halving of the sides takes away, finest first, and the small picture that is left.

    Burt & Adelson 1983, "The Laplacian Pyramid as a Compact Image Code": REDUCE (eq. 1) and EXPAND (eq. 2) with the
    five taps [1, 4, 6, 4, 1] / 16; the frame is mirrored at its border.

    Args:
        images: ``(N, C, H, W)`` of any range, at least 3 pixels high and wide.
        levels: entries of the result, at most: it ends early where a side falls below 3 pixels.
    """
    pyramid: list[Tensor] = []
    current = images.float()
    while len(pyramid) < levels - 1 and (min(current.shape[-2:]) + 1) // 2 >= 3:
        smaller = _five_taps(current)[..., ::2, ::2]
        spread = torch.zeros_like(current)
        spread[..., ::2, ::2] = 4 * smaller
        pyramid.append(current - _five_taps(spread))
        current = smaller
    return [*pyramid, current]


def _five_taps(images: Tensor) -> Tensor:
    """Each channel blurred by [1, 4, 6, 4, 1] / 16 along both axes."""
    taps = images.new_tensor([1, 4, 6, 4, 1]) / 16
    kernel = torch.outer(taps, taps).expand(images.shape[1], 1, 5, 5)
    with torch.autocast(images.device.type, enabled=False):  # half precision is coarser than the finest details
        return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=images.shape[1])


def laplacian(images: Tensor, reference: Tensor, levels: int = 5) -> Tensor:
    """Lap₁(x, x') = Σⱼ 2^{2j} ‖Lʲ(x) − Lʲ(x')‖₁ / (values of x): the sum over the levels of their mean difference.

    Bojanowski et al. 2018, "Optimizing the Latent Space of Generative Networks" (GLO), section 2: level j has 2^{2j}
    times fewer values than the picture, so the weight makes each norm a mean. (Others read 2^{−2j}, which all but
    leaves out the coarse levels.)

    Args:
        images: x.
        reference: x'.
        levels: of the pyramid.
    """
    pairs = zip(laplacian_pyramid(images, levels), laplacian_pyramid(reference, levels), strict=True)
    return torch.stack([F.l1_loss(one, other) for one, other in pairs]).sum()
