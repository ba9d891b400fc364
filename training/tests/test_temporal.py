"""Consistency in time: losses against closed forms, and the player around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from streamgan.api import UsageError
from streamgan_training.method import Batch, Clips, Direction
from streamgan_training.stability import temporal, warp
from streamgan_training.stability.consistency import Consistency, check_footage
from streamgan_training.stability.predictor import Predictor
from streamgan_training.stability.temporal import Temporal

SIZE = (32, 48)
Translate = Callable[[Tensor], Tensor]


def images(seed: int = 0, count: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    """Smooth pictures in [-1, 1]."""
    coarse = torch.rand(count, 3, size[0] // 4, size[1] // 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False).clamp(-1, 1)


def moving_clips(seed: int = 0, count: int = 2, length: int = 3, speed: int = 2) -> Clips:
    """Clips whose contents move to the right by `speed` pixels a frame, with the flow that says so."""
    wide = images(seed, count, (SIZE[0], SIZE[1] + 16))
    frames = torch.stack([wide[..., 16 - t * speed : 16 - t * speed + SIZE[1]] for t in range(length)], 1)
    flow = torch.zeros(count, length - 1, 2, *SIZE)
    flow[:, :, 0] = -speed
    return Clips(frames, flow, torch.ones(count, length - 1, 1, *SIZE))


def identity(x: Tensor) -> Tensor:
    return x


def pinned(x: Tensor) -> Tensor:
    """A translation that depends on the place."""
    return x * torch.linspace(-1, 1, x.shape[-1])


class Flickering:
    """A translation that adds another pattern each time."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(9)

    def __call__(self, x: Tensor) -> Tensor:
        return x + 0.5 * torch.randn(x.shape, generator=self.generator)


def direction(forward: Translate, x: Tensor, backward: Translate | None = None, source: int = 0) -> Direction:
    return Direction("ba" if source else "ab", source, 1 - source, x, forward(x), forward, backward)


def batch_of(clips: Clips | None = None, target: Clips | None = None, step: int = 0, seed: int = 0) -> Batch:
    return Batch(step, (images(1), images(2)), clips=(clips, target), slots=range(2), seed=seed)


def colour(x: Tensor) -> Tensor:
    """A translation of each pixel by itself."""
    return (-0.8 * x).tanh()


# Losses


def test_masked_l1_is_a_mean_over_valid_pixels_of_each_picture() -> None:
    first, second = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    second[0, :, 0, 0], second[1, :, 0, 0] = 1.0, 3.0
    valid = torch.zeros(2, 1, 2, 2)
    valid[0, 0, 0] = 1  # two pixels, one of which differs by 1
    assert temporal.masked_l1(first, second, valid).item() == pytest.approx((0.5 + 0) / 2)
    assert temporal.masked_l1(first, second, torch.zeros(2, 1, 2, 2)).item() == 0


def test_spatial_form_is_free_for_a_translation_of_pixels_and_costs_one_that_depends_on_place() -> None:
    x = images()
    flow = torch.tensor([4.0, 0.0]).view(1, 2, 1, 1).expand(2, 2, *SIZE)
    motion, none = warp.warp_along(flow), torch.zeros_like(x)
    assert temporal.spatial_consistency(colour, x, colour(x), motion, none).item() < 1e-5
    loss = temporal.spatial_consistency(pinned, x, pinned(x), motion, none).item()
    shifted = x[..., 4:].numpy()  # W x, where it is in the frame; the factor differs by 4 columns: 8 / 47
    assert loss == pytest.approx(np.abs(shifted).mean() * 8 / 47, rel=1e-3)


def test_cycle_form_is_free_for_an_inverse_and_counts_the_noise_otherwise() -> None:
    x, noise = images(), torch.full((2, 3, *SIZE), 0.1)
    motion = warp.warp_along(warp.random_flow(x, batch_of(), "x", 4.0, 2.0))
    half, double = (lambda image: image / 2), (lambda image: image * 2)
    assert temporal.cycle_consistency(double, x, half(x), motion, 0 * noise).item() < 1e-6
    assert temporal.cycle_consistency(double, x, half(x), motion, noise).item() == pytest.approx(0.2, rel=1e-4)


@pytest.mark.parametrize("translate", [identity, colour])
def test_flow_is_free_for_a_translation_that_goes_with_the_motion(translate: Translate) -> None:
    assert temporal.flow_consistency(translate, moving_clips()).item() < 1e-5


def test_flow_costs_flicker_what_it_is_worth() -> None:
    loss = temporal.flow_consistency(Flickering(), moving_clips(count=8)).item()
    # two independent N(0, 0.5²) differ by E|N(0, 0.5)| = sqrt(0.5) * sqrt(2 / π)
    assert loss == pytest.approx(np.sqrt(0.5) * np.sqrt(2 / np.pi), rel=0.02)
    assert temporal.flow_consistency(pinned, moving_clips()).item() > 0.01


class Patching:
    """A translation that adds a patch to every second frame."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        patch = torch.zeros_like(x)
        patch[..., 10:20, 10:20] = float(self.calls % 2 == 0)
        return x + patch


def test_flow_counts_only_what_is_valid_and_in_the_frame() -> None:
    clips = moving_clips(length=2)
    assert clips.flow is not None and clips.valid is not None
    counted = 32 * (48 - 2)  # two columns have just come into view
    assert temporal.flow_consistency(Patching(), clips).item() == pytest.approx(100 / counted, rel=1e-3)
    valid = clips.valid.clone()
    valid[..., 10:20, 10:20] = 0
    assert temporal.flow_consistency(Patching(), dataclasses.replace(clips, valid=valid)).item() < 1e-5
    frames = clips.frames.clone()
    frames[:, 1, :, :, :2] = 1.0
    assert temporal.flow_consistency(identity, dataclasses.replace(clips, frames=frames)).item() < 1e-5


def test_flow_counts_less_where_the_source_does_not_look_alike() -> None:
    before, now = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    now[..., 0, 0] = 0.2
    expected = torch.tensor([[np.exp(-50 * 3 * 0.1**2), 1.0], [1.0, 1.0]]).float()
    assert temporal.visibility(before, now)[0, 0].allclose(expected)
    clips = moving_clips(length=2)
    frames = clips.frames.clone()
    frames[:, 1, :, 10:20, 10:20] += 2.0  # what the flow misses, a lane mark that jumps
    assert temporal.flow_consistency(identity, dataclasses.replace(clips, frames=frames)).item() < 1e-5


def test_flow_pulls_at_the_later_frame_alone() -> None:
    bias = nn.Parameter(torch.zeros(()))
    outputs = []

    def translate(x: Tensor) -> Tensor:
        outputs.append(x * 0 + bias + float(len(outputs)))
        return outputs[-1]

    temporal.flow_consistency(translate, moving_clips(length=2)).backward()
    assert not outputs[0].requires_grad
    assert bias.grad is not None and bias.grad.item() == pytest.approx(1.0)  # both sides would cancel out


def test_flow_without_flow_is_refused() -> None:
    with pytest.raises(ValueError, match="without flow"):
        temporal.flow_consistency(identity, Clips(moving_clips().frames))


def test_recurrent_and_recycle_losses_are_zero_for_one_that_knows_the_future() -> None:
    ramp = torch.arange(4.0).view(1, 4, 1, 1, 1).expand(2, 4, 3, *SIZE) * 0.1
    extrapolate = lambda first, second: 2 * second - first  # noqa: E731
    repeat = lambda first, second: second  # noqa: E731
    negative = lambda x: -x  # noqa: E731
    assert temporal.recurrent_loss(extrapolate, ramp).item() == pytest.approx(0, abs=1e-6)
    assert temporal.recurrent_loss(repeat, ramp).item() == pytest.approx(0.1, rel=1e-5)
    assert temporal.recycle_loss(negative, negative, extrapolate, ramp).item() == pytest.approx(0, abs=1e-6)
    assert temporal.recycle_loss(negative, negative, repeat, ramp).item() == pytest.approx(0.1, rel=1e-5)
    assert temporal.recycle_loss(negative, identity, extrapolate, ramp).item() == pytest.approx(0.5, rel=1e-5)


def test_a_predictor_learns_a_motion() -> None:
    torch.manual_seed(0)
    clips, predictor = moving_clips(count=2), Predictor(8)
    adam = torch.optim.Adam(predictor.parameters(), 3e-3)
    values = []
    for _ in range(30):
        loss = temporal.recurrent_loss(predictor, clips.frames)
        adam.zero_grad()
        loss.backward()
        adam.step()
        values.append(loss.item())
    assert values[-1] < 0.6 * values[0]
    odd = torch.zeros(1, 3, 37, 50)
    assert predictor(odd, odd).shape == odd.shape


# The player


class Generator(nn.Module):
    """The smallest network with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → the same."""
        return torch.tanh(self.conv(x))


def made(**values: Any) -> Consistency:
    torch.manual_seed(0)
    chosen = {"start": 0.0, "predictor_width": 4, "discriminator_width": 4} | values
    return Consistency(Temporal(**chosen), iterations=100)


KINDS: Mapping[str, set[str]] = {
    "synthetic": {"synthetic_ab", "synthetic_cycle_ab"},
    "flow": {"flow_ab"},
    "recycle": {"recycle_ab", "recurrent_ab"},
    "temporal_d": {"temporal_d_ab"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_reaches_the_generator(kind: str) -> None:
    consistency, forward, backward = made(kind=kind, cycle_weight=10.0), Generator(), Generator()
    batch = batch_of(moving_clips(0), moving_clips(1))
    terms = consistency.terms([direction(forward, batch.images[0], backward)], batch)
    assert terms.keys() == KINDS[kind]
    sum(terms.values(), torch.zeros(())).backward()
    gradient = forward.conv.weight.grad
    assert gradient is not None and gradient.abs().sum() > 0
    assert all(weight.grad is not None for weight in consistency.generator_networks().parameters())
    assert all(weight.grad is None for weight in consistency.discriminators.parameters())


@pytest.mark.parametrize("kind", ["synthetic", "flow"])
def test_what_is_consistent_costs_next_to_nothing(kind: str) -> None:
    consistency, batch = made(kind=kind, weight=1.0, noise=0.0), batch_of(moving_clips())
    values = []
    for forward in (colour, pinned, Flickering()):
        (term,) = consistency.terms([direction(forward, batch.images[0])], batch).values()
        values.append(term.item())
    assert values[0] < 0.01  # bilinear sampling and a curve do not quite commute
    assert values[1] > 4 * values[0] and values[2] > 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_results_do_not_depend_on_how_pictures_are_spread_over_processes(kind: str) -> None:
    consistency, forward, backward = made(kind=kind, cycle_weight=3.0), Generator(), Generator()
    clips, target = moving_clips(0), moving_clips(1)
    stills = kind == "temporal_d"  # its random half is the motion of stills

    def part(slots: slice) -> dict[str, float]:
        cut = [
            None if stills else Clips(one.frames[slots], one.flow[slots], one.valid[slots]) for one in (clips, target)
        ]  # type: ignore[index]
        pictures = tuple(image[slots] for image in (images(1), images(2)))
        batch = Batch(4, pictures, clips=tuple(cut), slots=range(2)[slots], seed=7)
        chosen = [direction(forward, pictures[0], backward)]
        terms = consistency.terms(chosen, batch)
        for turn in consistency.turns(chosen, batch):
            terms |= turn.terms
        return {name: term.item() for name, term in terms.items()}

    whole, first, second = part(slice(0, 2)), part(slice(0, 1)), part(slice(1, 2))
    assert KINDS[kind] <= whole.keys()
    for name, value in whole.items():
        assert value == pytest.approx((first[name] + second[name]) / 2, rel=1e-5)
        assert first[name] != pytest.approx(second[name], rel=1e-3)


def test_terms_are_weighted_and_of_one_step_always_the_same() -> None:
    batch = batch_of(step=4)
    chosen = [direction(pinned, batch.images[0])]
    one = made(kind="synthetic", weight=1.0).terms(chosen, batch)["synthetic_ab"].item()
    assert made(kind="synthetic", weight=5.0, every=4).terms(chosen, batch)["synthetic_ab"].item() == pytest.approx(
        20 * one
    )
    assert made(kind="synthetic", weight=1.0).terms(chosen, batch_of(step=8))["synthetic_ab"].item() != one
    assert made(kind="synthetic", every=4).terms(chosen, batch_of(step=6)) == {}
    assert made(kind="synthetic", start=0.5).terms(chosen, batch_of(step=49)) == {}
    assert made(kind="none").terms(chosen, batch) == {}


def test_first_and_all_domains() -> None:
    batch = batch_of(moving_clips(0), moving_clips(1))
    both = [direction(colour, batch.images[0], colour), direction(colour, batch.images[1], colour, source=1)]
    assert made(kind="recycle").terms(both, batch).keys() == {"recycle_ab", "recurrent_ab"}
    every = made(kind=("recycle", "flow"), domains="all")
    names = {f"{kind}_{one}" for kind in ("recycle", "recurrent", "flow") for one in ("ab", "ba")}
    assert every.terms(both, batch).keys() == names
    assert list(made(kind="recycle").predictors) == ["1"] and list(every.predictors) == ["0", "1"]


def test_recycle_works_with_footage_of_the_source_alone() -> None:
    consistency, batch = made(kind="recycle"), batch_of(moving_clips())
    terms = consistency.terms([direction(Generator(), batch.images[0], Generator())], batch)
    assert terms.keys() == {"recycle_ab"}
    terms["recycle_ab"].backward()
    assert all(weight.grad is not None for weight in consistency.predictors.parameters())


def test_missing_footage_and_a_missing_way_back_are_said() -> None:
    batch = batch_of()
    chosen = [direction(colour, batch.images[0])]
    with pytest.raises(UsageError, match=r"flow needs 2 consecutive frames"):
        made(kind="flow").terms(chosen, batch)
    with pytest.raises(UsageError, match="no translation back"):
        made(kind="recycle").terms(chosen, batch_of(moving_clips()))
    with pytest.raises(UsageError, match="first domain"):
        check_footage(Temporal(kind="flow"), [False, True])
    check_footage(Temporal(kind="flow", domains="all"), [False, True])
    check_footage(Temporal(kind="temporal_d"), [False, False])


def test_the_clip_discriminator_learns_to_see_flicker_in_footage_of_the_same_pictures() -> None:
    consistency = made(kind="temporal_d", discriminator_width=8)
    (player,) = consistency.players()
    adam = torch.optim.Adam(consistency.players()[player].parameters(), 2e-3, (0.5, 0.999))
    values = []
    for step in range(40):
        clips = moving_clips(step, length=3)
        batch = Batch(step, (images(1), images(2)), clips=(clips, clips), slots=range(2))
        (turn,) = consistency.turns([direction(Flickering(), batch.images[0])], batch)
        assert turn.player == player and turn.directions == ()
        (loss,) = turn.terms.values()
        adam.zero_grad()
        loss.backward()
        adam.step()
        values.append(loss.item())
    assert np.mean(values[-5:]) < 0.1 < values[0]
    fooled = [
        consistency.terms([direction(one, images(1))], batch)["temporal_d_ab"].item()
        for one in (identity, Flickering())
    ]
    assert fooled[0] < 0.3 < 0.6 < fooled[1]


def test_the_generators_learn_nothing_in_the_discriminators_turn() -> None:
    consistency, forward = made(kind="temporal_d"), Generator()
    batch = batch_of()
    (turn,) = consistency.turns([direction(forward, batch.images[0])], batch)
    sum(turn.terms.values(), torch.zeros(())).backward()
    assert all(weight.grad is None for weight in forward.parameters())
    assert all(weight.grad is not None for weight in consistency.discriminators.parameters())


def test_stills_stand_in_for_footage_on_both_sides_or_none() -> None:
    seen = []

    def watch(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    consistency = made(kind="temporal_d", noise=0.0)
    batch = batch_of(moving_clips())  # footage of the source alone
    same = dataclasses.replace(batch, images=(images(2), images(2)))
    one = dataclasses.replace(direction(identity, images(2)), forward=watch)
    (turn,) = consistency.turns([one], same)
    real, _ = consistency._real_and_source(one, same)
    assert torch.equal(torch.stack(seen, 1), real)  # the same picture moves alike on either side
    assert len(turn.terms) == 1


def test_a_method_of_mixed_domains_has_one_of_each_network() -> None:
    clips = moving_clips()
    batch = Batch(0, (images(1),), torch.tensor([0, 1]), (clips,), range(2))
    torch.manual_seed(0)
    chosen = Temporal(
        kind=("synthetic", "flow", "recycle", "temporal_d"), start=0.0, predictor_width=4, discriminator_width=4
    )
    consistency = Consistency(chosen, 100, domains=1)
    one = Direction("change", 0, 0, images(1), colour(images(1)), colour, colour)
    names = {"synthetic_change", "flow_change", "recycle_change", "recurrent_change", "temporal_d_change"}
    assert consistency.terms([one], batch).keys() == names
    assert consistency.needs_clips == 3
    assert len(list(consistency.turns([one], batch))) == 1
