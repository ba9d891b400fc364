"""Distillation: each term against arithmetic of its own, who learns from whom, and what a generator costs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from streamgan.api import PresetError
from streamgan_training import checkpoint, networks, recipe
from streamgan_training.method import Batch, Turn
from streamgan_training.methods import distillation
from streamgan_training.methods.distillation import Distillation
from streamgan_training.recipe import Generator

RECIPE = """
name: tiny
data: {domains: {day: [{path: a}], prints: [{path: b}]}, size: [32, 32]}
method: {name: distillation, teacher: {name: resnet6, width: 4}}
generator: {name: compact, width: 6, norm: instance}
discriminators: [{width: 4, layers: 2}]
train: {batch: 2, learning_rate: 2.0e-3}
"""


def make(folder: Path, **changes: object) -> Distillation:
    path = folder / "tiny.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    torch.manual_seed(0)
    settings = recipe.load(path, {key.replace("__", "."): value for key, value in changes.items()})
    method = settings.method_class(settings)
    assert isinstance(method, Distillation)
    with torch.no_grad():
        for module in (method.generators.ab.head, method.generators.ab.fuse[0]):
            module.weight.normal_(0, 0.05)  # as if it had learned something
    return method


def batch(slots: range = range(2)) -> Batch:
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 6, 6, generator=random) * 2 - 1
    smooth = nn.functional.interpolate(coarse, (32, 32), mode="bilinear")
    chosen = slice(slots.start, slots.stop)
    return Batch(0, (smooth[:2][chosen], smooth[2:][chosen] - 0.3), slots=slots, seed=7)


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def last_turn(method: Distillation, now: Batch) -> Turn:
    return list(method.turns(now))[-1]


def test_the_weights_are_the_published_ones() -> None:
    options = Distillation.Options()
    assert (options.lambda_ssim, options.lambda_style, options.lambda_feature) == (10, 1e4, 10)
    assert (options.lambda_total_variation, options.lambda_channel) == (1e-5, 500)
    assert (options.teacher.name, options.teacher.width) == ("resnet9", 64)


def test_the_students_output_terms_are_the_papers(tmp_path: Path) -> None:
    method, now = make(tmp_path), batch()
    a, _ = now.images
    terms = last_turn(method, now).terms
    judge = method.teacher.judge("b").judges[0]
    assert isinstance(judge, networks.PatchDiscriminator)
    with torch.no_grad():
        given, wanted = method.generators.ab(a), method.teacher.generators.ab(a)
        maps = [[judge.body[:end](each).double().numpy() for end in (2, 5, 8)] for each in (given, wanted)]
    style = 0.0
    for ours, theirs in zip(*maps, strict=True):
        _, c, h, w = ours.shape
        grams = [np.einsum("ncij,ndij->ncd", each, each) / (c * h * w) for each in (ours, theirs)]
        style += np.abs(grams[0] - grams[1]).mean()
    assert terms["style"].item() == pytest.approx(1e4 * style, rel=1e-4)
    assert terms["feature"].item() == pytest.approx(10 * np.abs(maps[0][1] - maps[1][1]).mean(), rel=1e-4)
    pixels = given.double().numpy()
    variation = np.abs(np.diff(pixels, axis=2)).sum() + np.abs(np.diff(pixels, axis=3)).sum()
    assert terms["total_variation"].item() == pytest.approx(1e-5 * variation / 2, rel=1e-4)


def test_ssim_is_one_for_the_same_and_follows_the_formula_for_flat_pictures() -> None:
    one, other = (torch.full((1, 3, 24, 24), value) for value in (0.2, -0.4))
    assert distillation.ssim(one, one).item() == pytest.approx(1, abs=1e-3)
    x, y = 0.6, 0.3  # in [0, 1]
    assert distillation.ssim(one, other).item() == pytest.approx((2 * x * y + 1e-4) / (x**2 + y**2 + 1e-4), abs=2e-3)


def test_channel_attention_is_compared_layer_by_layer(tmp_path: Path) -> None:
    method, now = make(tmp_path), batch()
    a, _ = now.images
    student, teacher = method.generators.ab, method.teacher.generators.ab
    chosen = [teacher.body[index] for index in (9, 11, 12, 14)]
    assert distillation.distilled_blocks(teacher, 4) == chosen
    with torch.no_grad():
        taught = [teacher.body[: index + 1](a).numpy() for index in (9, 11, 12, 14)]
        with distillation.outputs_of(distillation.distilled_blocks(student, 4)) as learned:
            student(a)
    distance = 0.0
    for adapter, ours, theirs in zip(method.generators.adapters, learned, taught, strict=True):
        assert isinstance(adapter, nn.Conv2d)
        adapted = np.einsum("oi,nihw->nohw", adapter.weight.detach().numpy()[..., 0, 0], ours.numpy())
        weights = [np.maximum(each, 0).mean((2, 3)) for each in (adapted, theirs)]
        distance += ((weights[0] - weights[1]) ** 2).mean()
    assert last_turn(method, now).terms["channel"].item() == pytest.approx(500 * distance, rel=1e-4)


def test_plain_means_of_residual_blocks_would_all_be_the_same() -> None:
    torch.manual_seed(0)
    network = networks.make_generator(Generator("resnet6", 4))
    with torch.no_grad(), distillation.outputs_of(distillation.distilled_blocks(network, 4)) as found:
        network(torch.rand(1, 3, 32, 32))
    means = [each.mean((2, 3)) for each in found]
    rectified = [each.relu().mean((2, 3)) for each in found]
    assert torch.allclose(means[0], means[3], atol=1e-4) and not torch.allclose(rectified[0], rectified[3], atol=0.05)


def test_only_the_player_learns_in_its_turn(tmp_path: Path) -> None:
    method = make(tmp_path)
    order = []
    for turn in method.turns(batch()):
        order.append(turn.player)
        method.zero_grad()
        total(turn).backward()
        touched = {weight for weight in method.parameters() if weight.grad is not None and weight.grad.any()}
        assert touched and touched <= {*method.players()[turn.player].parameters()}
        assert bool(turn.directions) == (turn.player == "generators")
    assert order == ["teacher", "discriminators", "generators"]


def test_a_teacher_that_does_not_learn_comes_from_a_run(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="start_from"):
        make(tmp_path, method__teacher_learns=False)
    trained = make(tmp_path).teacher
    with torch.no_grad():
        for weight in trained.parameters():
            weight.add_(0.02 * torch.randn(weight.shape))
    modules = dict(trained.players()) | {"ema": trained.generators}
    checkpoint.save(checkpoint.State(modules, {}, {}, step=1), tmp_path / "run" / "checkpoints", "digest", 1)
    method = make(tmp_path, method__teacher_learns=False, train__start_from="run")
    method.begin_from(tmp_path / "run")
    for name, value in trained.generators.state_dict().items():
        assert torch.equal(method.teacher.generators.state_dict()[name], value)
    assert [turn.player for turn in method.turns(batch())] == ["generators"]


def test_a_generator_with_too_few_blocks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="has 6 blocks"):
        make(tmp_path, method__layers=7)


def test_what_is_exported_is_the_student(tmp_path: Path) -> None:
    method = make(tmp_path)
    assert method.directions == ("ab",) and method.multiple_of == 16
    assert method.translator(method.generators, "ab") is method.generators.ab


def test_a_batch_of_two_is_the_mean_of_its_pictures(tmp_path: Path) -> None:
    whole = list(make(tmp_path).turns(batch()))
    parts = [list(make(tmp_path).turns(batch(range(slot, slot + 1)))) for slot in (0, 1)]
    for turn, first, second in zip(whole, *parts, strict=True):
        for name, value in turn.terms.items():
            assert value.item() == pytest.approx((first.terms[name] + second.terms[name]).item() / 2, rel=1e-3)


def test_a_few_steps_bring_the_student_to_its_teacher(tmp_path: Path) -> None:
    method = make(tmp_path, method__teacher_learns=False, train__start_from="run")
    optimizer = method.optimizer("generators", method.generators.parameters())
    now, history = batch(), []
    for step in range(25):
        (turn,) = method.turns(dataclasses.replace(now, step=step))
        optimizer.zero_grad()
        total(turn).backward()
        optimizer.step()
        history.append(total(turn).item())
    assert np.mean(history[-3:]) < 0.6 * history[0]


def test_cost_is_counted_and_timed(tmp_path: Path) -> None:
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    cost = distillation.measure_cost(convolution, (64, 32), repeats=2)
    assert cost["macs"] == 3 * 3 * 9 * 64 * 32 and cost["parameters"] == 3 * 3 * 9 + 3
    assert cost["milliseconds"] > 0


def test_the_comparison_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {"student": {"macs": 2.0}, "teacher": {"macs": 30.0}}
    method = make(tmp_path)
    monkeypatch.setattr(
        distillation,
        "measure_cost",
        lambda network, *_: costs["student" if network is method.generators.ab else "teacher"],
    )
    result = distillation.write_comparison(method, (64, 32), tmp_path / "compare.json")
    assert result["ratio"] == {"macs": 15.0}
    assert json.loads((tmp_path / "compare.json").read_text()) == {"width": 64, "height": 32} | result
