"""Architectures: sizes, receptive field, cost, and what the compact generator promises."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from streamgan_training import networks
from streamgan_training.augment import Augmentation
from streamgan_training.discriminators import Discriminators
from streamgan_training.method import Batch
from streamgan_training.recipe import Discriminator, Generator, Upsampling


def macs(network: nn.Module, side: int = 256) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, side, side))
    return counter.get_total_flops() / 2e9


def weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", ["resnet9", "resnet6", "compact", "swift"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_generators_keep_the_size(name: str, norm: str) -> None:
    network = networks.make_generator(Generator(name, 6, norm)).eval()  # type: ignore[arg-type]
    assert network(torch.zeros(1, 3, 32, 48)).shape == (1, 3, 32, 48)


def test_the_papers_generator_has_the_papers_size() -> None:
    assert weights(networks.make_generator(Generator())) == pytest.approx(11.38e6, rel=0.001)


def test_the_papers_discriminator_has_the_papers_size_and_receptive_field() -> None:
    judge = networks.PatchDiscriminator()
    assert weights(judge) == pytest.approx(2.76e6, rel=0.005)
    plain = networks.PatchDiscriminator(norm=networks.make_norm("none"))
    picture = torch.zeros(1, 3, 256, 256, requires_grad=True)
    plain(picture)[0, 0, 15, 15].backward()
    assert picture.grad is not None
    touched = picture.grad[0].abs().sum((0,)).nonzero()
    assert (touched.max(0).values - touched.min(0).values + 1).tolist() == [70, 70]


def test_the_compact_generator_is_within_its_budget() -> None:
    network = networks.make_generator(Generator("compact", 24, "batch")).eval()
    assert 1.0 < macs(network) < 3.0
    assert weights(network) * 2 < 8e6


def test_the_compact_generator_sees_the_whole_frame_and_begins_near_the_identity() -> None:
    network = networks.make_generator(Generator("compact", 6, "batch")).eval()
    picture = torch.rand(1, 3, 64, 96) * 2 - 1
    assert network(picture).allclose(torch.tanh(picture), atol=1e-6)


def test_the_swift_generator_is_within_its_budget() -> None:
    network = networks.make_generator(Generator("swift", 16, "batch")).eval()
    assert 0.45 < macs(network) < 0.55
    assert 0.5e6 < weights(network) < 0.65e6


def test_the_swift_generator_sees_the_whole_frame_and_begins_near_the_identity() -> None:
    network = networks.make_generator(Generator("swift", 8, "batch")).eval()
    picture = torch.rand(1, 3, 64, 96) * 2 - 1
    assert network(picture).allclose(torch.tanh(picture), atol=1e-6)
    for module in network.modules():
        if getattr(module, "zero_init", False):
            torch.nn.init.normal_(module.weight, 0, 0.5)  # type: ignore[arg-type]
    picture.requires_grad_()
    network(picture)[0, :, 0, 0].sum().backward()
    assert picture.grad is not None and (picture.grad[0, :, -4:, -4:] != 0).any()


def test_the_swift_generator_convolves_nothing_but_the_picture_at_full_size() -> None:
    network = networks.make_generator(Generator("swift", 16, "batch")).eval()
    seen: list[tuple[int, int]] = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _module, inputs, _output: seen.append(tuple(inputs[0].shape[1:3])))
    network(torch.zeros(1, 3, 64, 64))
    assert [channels for channels, height in seen if height >= 64] == [3]


def test_scaled_discriminators_judge_a_smaller_picture() -> None:
    both = Discriminators((Discriminator(width=4), Discriminator(width=4, scale=2)), Augmentation())
    full, quarter = both(torch.zeros(1, 3, 128, 128), Batch(0, ()), "test")
    assert quarter.shape[-1] < full.shape[-1]


@pytest.mark.parametrize("kind", ["transpose", "resize", "antialiased"])
def test_every_up_sampling_keeps_the_size(kind: Upsampling) -> None:
    network = networks.make_generator(Generator("resnet6", width=4, upsampling=kind))
    assert network(torch.zeros(1, 3, 32, 48)).shape == (1, 3, 32, 48)


def test_blur_keeps_a_plain_picture_and_removes_the_finest_checks() -> None:
    blur = networks.Blur(1)
    assert blur(torch.ones(1, 1, 8, 8)).allclose(torch.ones(1, 1, 8, 8))
    checks = (torch.arange(8)[:, None] + torch.arange(8)[None, :]) % 2 * 2.0 - 1
    assert blur(checks[None, None])[..., 1:-1, 1:-1].abs().max() < 1e-6


def test_the_u_net_has_the_papers_size() -> None:
    network = networks.make_generator(Generator("unet256"))
    assert network(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 256, 256)
    assert weights(network) == pytest.approx(54.4e6, rel=0.01)
