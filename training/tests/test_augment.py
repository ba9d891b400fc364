"""DiffAugment against its definition, ADA against a simulation of the paper's rule."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from streamgan import settings
from streamgan.api import PresetError
from streamgan_training.augment import Augment, Augmentation, Operation, cut_out, jitter_color, translate

EVERYTHING: tuple[Operation, ...] = ("color", "translation", "cutout")
ALWAYS = torch.tensor([True, True])


def images(n: int = 2, size: tuple[int, int] = (32, 48)) -> torch.Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_color_is_brightness_then_saturation_then_contrast() -> None:
    x = images()
    chances = torch.tensor([[0.9, 0.25, 0.2], [0.1, 0.75, 0.7]])
    got = jitter_color(x, chances, torch.ones(2, 3, dtype=torch.bool)).numpy()
    for picture, (b, s, c), found in zip(x.numpy(), chances.numpy(), got, strict=True):
        wanted = picture + (b - 0.5)
        grey = wanted.mean(0)
        wanted = grey + (wanted - grey) * 2 * s
        wanted = wanted.mean() + (wanted - wanted.mean()) * (c + 0.5)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_translation_moves_by_whole_pixels_up_to_an_eighth_and_fills_with_zeros() -> None:
    x = images(2, (32, 48))
    moved = translate(x, torch.tensor([[0.999, 0.0], [0.5, 0.5]]), ALWAYS)
    wanted = torch.zeros_like(x[0])
    wanted[:, 4:, :-6] = x[0, :, :-4, 6:]  # ⅛ of 32 down, ⅛ of 48 to the left
    assert moved[0].equal(wanted)
    assert moved[1].equal(x[1])


def test_cutout_masks_half_of_each_side() -> None:
    x = images(2, (32, 48))
    cut = cut_out(x, torch.tensor([[0.5, 0.5], [0.0, 0.999]]), ALWAYS)
    wanted = x.clone()
    wanted[0, :, 8:24, 12:36] = 0  # round the middle
    wanted[1, :, :8, 36:] = 0  # round the upper right corner
    assert cut.equal(wanted)


def test_the_randomness_of_a_picture_is_its_generator_alone() -> None:
    x = images(3)
    augment = Augment(Augmentation(EVERYTHING), neutral=0.5)
    together = augment(x, generators(1, 2, 3))
    apart = torch.cat([augment(x[i : i + 1], generators(i + 1)) for i in range(3)])
    assert together.equal(apart)
    assert not together.equal(augment(x, generators(4, 5, 6)))


def test_an_operation_draws_the_same_beside_others() -> None:
    x = images(8)
    moved = Augment(Augmentation(("translation",)), neutral=0.5)(x, generators(*range(8)))
    both = Augment(Augmentation(("translation", "cutout")), neutral=0.5)(x, generators(*range(8)))
    kept = both != 0
    assert kept.any() and both[kept].equal(moved[kept])


def test_the_gradient_passes_to_what_is_left_of_the_picture() -> None:
    x = images().requires_grad_()
    Augment(Augmentation(EVERYTHING), neutral=0.5)(x, generators(1, 2)).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert 0.2 < (x.grad != 0).float().mean() <= 1


def test_no_policy_and_no_probability_change_nothing() -> None:
    x = images()
    assert Augment(Augmentation(), neutral=0.5)(x, []) is x
    assert Augment(Augmentation(EVERYTHING, probability=0), neutral=0.5)(x, generators(1, 2)).equal(x)


def test_each_operation_happens_with_the_probability() -> None:
    x = images(1, (8, 8)).expand(400, -1, -1, -1)
    out = Augment(Augmentation(("cutout",), probability=0.3), neutral=0.5)(x, generators(*range(400)))
    changed = (out != x).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(0.3, abs=0.07)  # three standard deviations


def ada(ramp: int = 100, neutral: float = 0.5, target: float = 0.6) -> Augment:
    return Augment(Augmentation(EVERYTHING, adaptive=True, target=target, ramp_images=ramp), neutral)


def test_p_climbs_while_the_discriminator_is_too_sure_and_falls_when_it_is_not() -> None:
    augment = ada()
    sure, unsure = torch.full((5, 1, 3, 3), 0.9), torch.full((5, 1, 3, 3), 0.1)
    for _ in range(4 * 2):
        augment.update(sure)
    assert augment.sign.item() == 1
    assert augment.probability.item() == pytest.approx(2 * 4 * 5 / 100)
    for _ in range(4 * 3):
        augment.update(unsure)
    assert augment.probability.item() == 0  # not below


def test_an_adaptive_p_stays_below_the_probability_of_the_recipe() -> None:
    augment = Augment(Augmentation(EVERYTHING, 0.4, adaptive=True, ramp_images=10), neutral=0.5)
    assert augment.probability == 0
    for _ in range(8):
        augment.update(torch.ones(5, 1))
    assert augment.probability.item() == pytest.approx(0.4)


def test_the_neutral_verdict_decides_the_sign() -> None:
    logits, least_squares = ada(neutral=0.0), ada(neutral=0.5)
    for _ in range(4):
        logits.update(torch.full((5, 1), 0.3))
        least_squares.update(torch.full((5, 1), 0.3))
    assert (logits.sign.item(), least_squares.sign.item()) == (1, -1)


def test_p_follows_the_rule_of_the_paper() -> None:
    random = np.random.default_rng(0)
    augment, p, seen = ada(ramp=50), 0.0, []
    for step in range(60):
        verdict = random.normal(0.5 + 0.6 * (step % 20 < 12), 0.5, (3, 1, 4, 4)).astype(np.float32)
        augment.update([torch.from_numpy(verdict[..., :2]), torch.from_numpy(verdict[..., 2:])])
        seen.append(np.sign(verdict - 0.5))
        if len(seen) == 4:
            p = min(1.0, max(0.0, p + np.sign(np.mean(seen) - 0.6) * 12 / 50))
            seen.clear()
        assert augment.probability.item() == pytest.approx(p, abs=1e-5)
    assert 0 < p < 1


def test_a_state_dict_continues_exactly() -> None:
    verdicts = torch.rand(11, 3, 1, 2, 2, generator=torch.Generator().manual_seed(5)) + 0.3
    whole, first, second = ada(), ada(), ada()
    for verdict in verdicts:
        whole.update(verdict)
    for verdict in verdicts[:6]:
        first.update(verdict)
    second.load_state_dict(first.state_dict())
    for verdict in verdicts[6:]:
        second.update(verdict)
    assert whole.probability > 0
    for name, value in whole.state_dict().items():
        assert value.equal(second.state_dict()[name])


def test_parts_of_a_batch_count_as_the_batch() -> None:
    verdicts = torch.rand(9, 4, 1, 2, 2, generator=torch.Generator().manual_seed(6)) + 0.4
    whole, parts = ada(), ada()
    for verdict in verdicts:
        whole.update(verdict)
        parts.collect(verdict[:1])
        parts.collect(verdict[1:])
        parts.adjust()
    assert parts.probability.item() == whole.probability.item() > 0


HALF_OF_EACH_BATCH = """
import sys, torch
from streamgan_training.augment import Augment, Augmentation

rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", "file://" + sys.argv[2], rank=rank, world_size=2)
augment = Augment(Augmentation(("color",), adaptive=True, ramp_images=100), neutral=0.5)
for verdict in torch.rand(9, 4, 1, 2, 2, generator=torch.Generator().manual_seed(6)) + 0.4:
    augment.update(verdict[2 * rank : 2 * rank + 2])
print(augment.probability.item())
torch.distributed.destroy_process_group()
"""


def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", HALF_OF_EACH_BATCH]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    found = [float(process.communicate(timeout=60)[0]) for process in processes]
    whole = ada()
    for verdict in torch.rand(9, 4, 1, 2, 2, generator=torch.Generator().manual_seed(6)) + 0.4:
        whole.update(verdict)
    assert found == [whole.probability.item()] * 2


def test_a_recipe_reads_it_and_refuses_nonsense() -> None:
    read = settings.parse(Augmentation, {"policy": ["color", "cutout"], "adaptive": True}, "x")
    assert read.policy == ("color", "cutout")
    with pytest.raises(PresetError, match="policy"):
        settings.parse(Augmentation, {"policy": ["colour"]}, "x")
    with pytest.raises(PresetError, match="probability"):
        settings.parse(Augmentation, {"probability": 1.5}, "x")
