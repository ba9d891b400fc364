"""Losses and temporal terms against independent arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamgan_training import losses


def images(seed: int = 0, size: tuple[int, int] = (32, 48)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, *size, generator=generator) * 2 - 1


def test_least_squares_is_the_mean_squared_distance_to_the_target() -> None:
    verdict = torch.tensor([0.0, 1.0, 3.0])
    assert losses.least_squares(verdict, 1.0).item() == pytest.approx((1 + 0 + 4) / 3)


def test_discriminator_loss_is_zero_for_a_perfect_judge_and_half_for_the_reverse() -> None:
    ones, zeros = torch.ones(4), torch.zeros(4)
    assert losses.discriminator_gan("lsgan", ones, zeros).item() == 0
    assert losses.discriminator_gan("lsgan", zeros, zeros).item() == 0.5


def test_cycle_is_the_mean_absolute_difference() -> None:
    a, b = images(0), images(1)
    assert losses.cycle(a, b).item() == pytest.approx(np.abs(a.numpy() - b.numpy()).mean(), rel=1e-5)


def test_luma_of_white_is_one_and_of_black_zero() -> None:
    assert losses.luma(torch.ones(1, 3, 2, 2)).allclose(torch.ones(1, 1, 2, 2))
    assert losses.luma(-torch.ones(1, 3, 2, 2)).allclose(torch.zeros(1, 1, 2, 2))


def test_exposure_prior_is_free_below_the_ceiling_and_quadratic_above() -> None:
    white, grey, black = (torch.full((1, 3, 32, 32), value) for value in (1.0, 0.0, -1.0))
    assert losses.exposure_prior(black, white, ceiling=0.5).item() == 0
    assert losses.exposure_prior(grey, white, ceiling=0.5).item() == pytest.approx(0, abs=1e-6)
    assert losses.exposure_prior(white, white, ceiling=0.5).item() == pytest.approx(0.25, rel=1e-4)


def test_exposure_prior_leaves_a_lamp_alone() -> None:
    source = torch.zeros(1, 3, 32, 32)
    lamp = torch.full((1, 3, 32, 32), -1.0)
    lamp[..., 8:12, 8:12] = 1.0
    assert losses.exposure_prior(lamp, source, ceiling=0.5).item() == 0


def test_colour_match_takes_mean_and_spread_of_the_target() -> None:
    source, target = images(0) * 0.3, images(1) * 0.2 - 0.4
    matched = losses.colour_match(source, target)
    assert matched.mean((2, 3)).allclose(target.mean((2, 3)), atol=1e-3)
    assert matched.std((2, 3)).allclose(target.std((2, 3)), atol=1e-3)
