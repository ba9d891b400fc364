"""Local tuning: what begins unchanged, what stays frozen, what is minimised, and that tuning tunes."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from streamgan.api import ModelError, PresetError
from streamgan.model import SizeRule
from streamgan_training import checkpoint, export, losses, recipe
from streamgan_training.method import Batch, Method, Turn
from streamgan_training.methods.cyclegan import CycleGan
from streamgan_training.methods.local_tuning import LocalTuning, Tuner, structure_loss

RECIPE = """
name: tiny
data: {domains: {day: [{path: a}], night: [{path: b}]}, size: [32, 32]}
generator: {name: compact, width: 6, norm: batch}
discriminators: [{width: 4, layers: 2}]
train: {batch: 2, start_from: run}
"""


def make(folder: Path, **changes: object) -> Method:
    path = folder / "tiny.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    torch.manual_seed(0)
    given = {"method.name": "local_tuning"} | {key.replace("__", "."): value for key, value in changes.items()}
    settings = recipe.load(path, given)
    return settings.method_class(settings)


def tuning(folder: Path, **changes: object) -> LocalTuning:
    method = make(folder, **changes)
    assert isinstance(method, LocalTuning)
    return method


@pytest.fixture
def base(tmp_path: Path) -> CycleGan:
    """A CycleGAN whose networks are no longer those of the start, saved as the run ``run``."""
    method = make(tmp_path, method__name="cyclegan")
    assert isinstance(method, CycleGan)
    with torch.no_grad():
        for weight in method.parameters():
            weight.add_(0.02 * torch.randn(weight.shape))
    modules = dict(method.players()) | {"ema": method.generators}
    state = checkpoint.State(modules, {}, method.pools, step=3)
    checkpoint.save(state, tmp_path / "run" / "checkpoints", "digest", 1)
    return method


def batch(slots: range = range(2)) -> Batch:
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 6, 6, generator=random) * 2 - 1
    smooth = nn.functional.interpolate(coarse, (32, 32), mode="bilinear")
    chosen = slice(slots.start, slots.stop)
    return Batch(0, (smooth[:2][chosen], smooth[2:][chosen] - 0.3), slots=slots, seed=7)


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def test_it_begins_as_the_run_that_it_tunes(tmp_path: Path, base: CycleGan) -> None:
    method = tuning(tmp_path)
    method.begin_from(tmp_path / "run")
    a, _ = batch().images
    base.eval()
    assert torch.equal(method.translator(method.generators, "ab")(a), base.generators.ab(a))
    assert torch.equal(method.generators.base.ba(a), base.generators.ba(a))
    judges = zip(method.discriminator.parameters(), base.judge("b").parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in judges)


def test_a_run_of_other_networks_is_refused(tmp_path: Path, base: CycleGan) -> None:
    with pytest.raises(ModelError, match="not of this recipe"):
        tuning(tmp_path, generator__width=9).begin_from(tmp_path / "run")
    with pytest.raises(ModelError, match="elsewhere"):
        tuning(tmp_path).begin_from(tmp_path / "elsewhere")
    with pytest.raises(PresetError, match="start_from"):
        tuning(tmp_path, train__start_from=None)


def test_nothing_of_the_base_moves(tmp_path: Path, base: CycleGan) -> None:
    method = tuning(tmp_path)
    method.begin_from(tmp_path / "run")
    method.train()
    before = copy.deepcopy(method.generators.base.state_dict())
    optimizers = {name: method.optimizer(name, module.parameters()) for name, module in method.players().items()}
    for turn in method.turns(batch()):
        optimizers[turn.player].zero_grad()
        total(turn).backward()
        optimizers[turn.player].step()
    after = method.generators.base.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    learning = {id(weight) for group in optimizers["generators"].param_groups for weight in group["params"]}
    assert learning == {id(weight) for weight in method.generators.tuner.parameters()}


def test_only_the_player_learns_in_its_turn(tmp_path: Path) -> None:
    method = tuning(tmp_path)
    with torch.no_grad():
        method.generators.tuner.head.weight.normal_(0, 0.02)
    order = []
    for turn in method.turns(batch()):
        order.append(turn.player)
        method.zero_grad()
        total(turn).backward()
        touched = {weight for weight in method.parameters() if weight.grad is not None and weight.grad.any()}
        player = method.generators.tuner if turn.player == "generators" else method.discriminator
        assert touched and touched <= {*player.parameters()}
    assert order == ["generators", "discriminators"]
    judged = tuning(tmp_path, method__learn_discriminator=False)
    assert [turn.player for turn in judged.turns(batch())] == ["generators"]


def test_the_objective_is_that_of_the_docstring(tmp_path: Path) -> None:
    method = tuning(tmp_path, method__lambda_adversarial=2, method__lambda_cycle=3, method__lambda_structure=0.5)
    now = batch()
    a, _ = now.images
    terms = next(method.turns(now)).terms
    with torch.no_grad():
        y = method.generators.base.ab(a)
        verdict = method.discriminator(y, now, "b")[0].numpy()
        cycled = method.generators.base.ba(y)
    assert terms["adversarial_ab"].item() == pytest.approx(2 * ((verdict - 1) ** 2).mean(), rel=1e-5)
    assert terms["cycle_a"].item() == pytest.approx(3 * np.abs((cycled - a).numpy()).mean(), rel=1e-5)
    assert terms["structure"].item() == pytest.approx(0.5 * structure_loss(y, a).item(), rel=1e-5)


def test_structure_is_the_local_correlation_of_the_bands() -> None:
    random = torch.Generator().manual_seed(0)
    y, x = (torch.rand(2, 3, 32, 48, generator=random) * 2 - 1 for _ in range(2))
    one, other = (losses.laplacian_pyramid(losses.luma(each), 2)[0].double().numpy() for each in (y, x))
    scores = []
    for picture in range(2):
        for top in range(0, 32, 8):
            for left in range(0, 48, 8):
                p, q = (band[picture, 0, top : top + 8, left : left + 8] for band in (one, other))
                scores.append((p * q).mean() / np.sqrt((p**2).mean() * (q**2).mean() + 1e-10))
    assert structure_loss(y, x, levels=1).item() == pytest.approx(1 - np.mean(scores), abs=1e-4)


def test_structure_is_blind_to_brightness_and_contrast() -> None:
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert structure_loss(0.4 * x - 0.5, x).item() == pytest.approx(0, abs=0.01)
    assert structure_loss(x.flip(3), x).item() > 0.5
    assert structure_loss(-x, x).item() == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("blocks", [0, 2])
def test_the_tuner_sees_a_patch(blocks: int) -> None:
    tuner = Tuner(4, blocks)
    for weight in tuner.parameters():
        nn.init.constant_(weight, 0.001)
    picture = torch.zeros(1, 3, 41, 41, requires_grad=True)
    tuner(torch.zeros(1, 3, 41, 41), picture)[0, 0, 20, 20].backward()
    assert picture.grad is not None
    touched = picture.grad[0].abs().sum(0).nonzero()
    assert (touched.max(0).values - touched.min(0).values + 1).tolist() == [5 + 4 * blocks] * 2


def test_the_discriminator_follows_slowly(tmp_path: Path) -> None:
    method = tuning(tmp_path, train__iterations=100)
    rates = [[method.learning_rate(player, step) for step in (0, 75)] for player in ("generators", "discriminators")]
    assert rates == [[5e-4, pytest.approx(2.5e-4)], [pytest.approx(1e-4), pytest.approx(5e-5)]]


def test_a_batch_of_two_is_the_mean_of_its_pictures(tmp_path: Path) -> None:
    whole = list(tuning(tmp_path).turns(batch()))
    parts = [list(tuning(tmp_path).turns(batch(range(slot, slot + 1)))) for slot in (0, 1)]
    for turn, first, second in zip(whole, *parts, strict=True):
        for name, value in turn.terms.items():
            assert value.item() == pytest.approx((first.terms[name] + second.terms[name]).item() / 2, rel=1e-4)


def test_a_few_steps_lower_the_objective(tmp_path: Path, base: CycleGan) -> None:
    method = tuning(tmp_path, train__learning_rate=5e-3, method__learn_discriminator=False)
    method.begin_from(tmp_path / "run")
    optimizer = method.optimizer("generators", method.generators.parameters())
    history = []
    for step in range(30):
        (turn,) = method.turns(dataclasses.replace(batch(), step=step))
        optimizer.zero_grad()
        total(turn).backward()
        optimizer.step()
        history.append(total(turn).item())
    assert np.mean(history[-3:]) < 0.85 * history[0]


def test_base_and_tuner_export_as_one_model(tmp_path: Path) -> None:
    method = tuning(tmp_path)
    nn.init.normal_(method.generators.tuner.head.weight, 0, 0.05)
    model = export.FrameModel(method.translator(method.generators, "ab")).eval()
    file = tmp_path / "model.onnx"
    export.write_graph(model, file, SizeRule(method.multiple_of, (32, 32)))
    frames = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), dtype=np.uint8)
    (given,) = onnxruntime.InferenceSession(str(file)).run(None, {"frames": frames})
    with torch.no_grad():
        expected = model(torch.from_numpy(frames)).numpy()
    assert np.abs(given.astype(int) - expected).max() <= 1
