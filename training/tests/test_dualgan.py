"""DualGAN: its objective against the formulas, the critics' bounds, who learns when, and what is exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from streamgan.api import PresetError
from streamgan.model import SizeRule
from streamgan_training import export, networks, recipe
from streamgan_training.method import Batch, Turn
from streamgan_training.methods.dualgan import DualGan, penalty

RECIPE = """
name: tiny
data: {domains: {oil: [{path: a}], print: [{path: b}]}, size: [64, 64]}
method: {name: dualgan}
generator: {name: unet64, width: 4}
discriminators: [{width: 4, layers: 2, norm: none}, {width: 4, layers: 1, norm: none, scale: 2}]
train: {batch: 2}
"""


def make(folder: Path, **changes: object) -> DualGan:
    path = folder / "tiny.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    torch.manual_seed(0)
    settings = recipe.load(path, {key.replace("__", "."): value for key, value in changes.items()})
    method = settings.method_class(settings)
    assert isinstance(method, DualGan)
    return method


def batch(step: int = 1, slots: range = range(2)) -> Batch:
    random = torch.Generator().manual_seed(0)
    both = nn.functional.interpolate(torch.rand(4, 3, 4, 4, generator=random) * 2 - 1, (64, 64))
    a, b = both[:2], both[2:] * 0.5
    return Batch(step, (a[slots.start : slots.stop], b[slots.start : slots.stop]), slots=slots, seed=7)


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def verdict(method: DualGan, domain: str, images: Tensor) -> float:
    """The sum over scales of the mean over patches and pictures."""
    with torch.no_grad():
        return sum(float(judge(images).numpy().mean()) for judge in method.judge(domain).judges)


def test_the_objective_is_the_papers(tmp_path: Path) -> None:
    method = make(tmp_path, method__lambda_a=100, method__lambda_b=1000)
    a, b = batch().images
    critics, translators = method.turns(batch())
    g_ab, g_ba = method.generators.ab, method.generators.ba
    with torch.no_grad():
        fake_b, fake_a = g_ab(a), g_ba(b)
        recovered_a, recovered_b = g_ba(fake_b), g_ab(fake_a)
    expected = {
        "adversarial_ab": -verdict(method, "b", fake_b),
        "adversarial_ba": -verdict(method, "a", fake_a),
        "recovery_a": 100 * np.abs((recovered_a - a).numpy()).mean(),
        "recovery_b": 1000 * np.abs((recovered_b - b).numpy()).mean(),
    }
    assert {name: term.item() for name, term in translators.terms.items()} == pytest.approx(expected, rel=1e-4)
    judged = {
        "discriminator_a": verdict(method, "a", fake_a) - verdict(method, "a", a),
        "discriminator_b": verdict(method, "b", fake_b) - verdict(method, "b", b),
    }
    assert {name: term.item() for name, term in critics.terms.items()} == pytest.approx(judged, rel=1e-4, abs=1e-7)


def test_the_penalty_takes_a_verdict_as_the_mean_over_patches(tmp_path: Path) -> None:
    method = make(tmp_path, method__lipschitz="penalty")
    critics = method.judge("a")
    critics.judges = nn.ModuleList([nn.Conv2d(3, 1, 4, 4, bias=False), nn.Conv2d(3, 1, 8, 8, bias=False)])
    real, fake = batch().images
    expected = 0.0
    for judge, side in zip(critics.judges, (4, 8), strict=True):
        norm = float(judge.weight.detach().norm())  # each of (64 / side)² patches has this slope, on pixels of its own
        patches = (64 // side) ** 2
        expected += (norm / patches * patches**0.5 - 1) ** 2
    epsilon = torch.rand(2, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    assert penalty(critics, real, fake, epsilon).item() == pytest.approx(expected, rel=1e-4)
    critic_turn = next(iter(method.turns(batch())))
    assert critic_turn.terms["penalty_a"].item() == pytest.approx(10 * expected, rel=1e-4)
    total(critic_turn).backward()
    assert all(weight.grad is not None for weight in method.discriminators.parameters())


def test_clipping_bounds_the_critics_and_nothing_else(tmp_path: Path) -> None:
    method = make(tmp_path, method__clip=0.01)
    largest = max(float(weight.detach().abs().max()) for weight in method.discriminators.parameters())
    before = [weight.clone() for weight in method.generators.parameters()]
    assert largest > 0.01
    method.after_step("generators")
    assert max(float(weight.detach().abs().max()) for weight in method.discriminators.parameters()) == largest
    method.after_step("discriminators")
    assert max(float(weight.detach().abs().max()) for weight in method.discriminators.parameters()) == pytest.approx(
        0.01
    )
    assert all(torch.equal(*pair) for pair in zip(before, method.generators.parameters(), strict=True))
    free = make(tmp_path, method__lipschitz="penalty")
    free.after_step("discriminators")
    assert max(float(weight.detach().abs().max()) for weight in free.discriminators.parameters()) == largest


@pytest.mark.parametrize("critic_steps", [1, 2, 4])
def test_translators_learn_after_every_n_critic_steps(tmp_path: Path, critic_steps: int) -> None:
    method = make(tmp_path, method__critic_steps=critic_steps)
    played = ["".join(turn.player[0] for turn in method.turns(batch(step))) for step in range(8)]
    assert played == (["d"] * (critic_steps - 1) + ["dg"]) * (8 // critic_steps)


def test_a_player_receives_gradients_in_its_own_turn_alone(tmp_path: Path) -> None:
    method = make(tmp_path, method__lipschitz="penalty")
    for turn in method.turns(batch()):
        method.zero_grad(set_to_none=True)
        total(turn).backward()
        for name, module in method.players().items():
            weights = dict(module.named_parameters())
            given = {key for key, weight in weights.items() if weight.grad is not None}
            assert given == (set(weights) if name == turn.player else set())
    assert turn.player == "generators" and [one.name for one in turn.directions] == ["ab", "ba"]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_two_slots_are_the_mean_of_one_and_one(tmp_path: Path, dropout: float) -> None:
    method = make(tmp_path, method__lipschitz="penalty", generator__dropout=dropout)
    both = list(method.turns(batch()))
    apart = [list(method.turns(batch(slots=range(slot, slot + 1)))) for slot in range(2)]
    for turn, first, second in zip(both, *apart, strict=True):
        for name, term in turn.terms.items():
            mean = (first.terms[name] + second.terms[name]).item() / 2
            assert term.item() == pytest.approx(mean, rel=1e-4, abs=1e-6)


def test_dropout_is_drawn_by_step_and_slot_and_leaves_the_global_randomness_alone(tmp_path: Path) -> None:
    method = make(tmp_path, generator__name="unet64", generator__dropout=0.5)
    a = batch().images[0]
    torch.manual_seed(1)
    first = method.translate("ab", a, batch(), "z")
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))
    assert torch.equal(first, method.translate("ab", a, batch(), "z"))
    for other in (method.translate("ab", a, batch(step=2), "z"), method.translate("ab", a, batch(), "z'")):
        assert not torch.equal(first, other)
    direction = list(method.turns(batch()))[-1].directions[0]
    assert torch.equal(direction.y, direction.forward(direction.x))


def test_the_recipe_names_the_translators(tmp_path: Path) -> None:
    u_net = make(tmp_path)
    assert isinstance(u_net.generators.ab, networks.UnetGenerator) and u_net.multiple_of == 64
    resnet = make(tmp_path, generator__name="resnet6")
    assert isinstance(resnet.generators.ab, networks.ResnetGenerator) and resnet.multiple_of == 4


def test_a_deep_critic_judges_the_whole_picture() -> None:
    critic = networks.PatchDiscriminator(2, 5, networks.make_norm("none"))
    picture = torch.zeros(1, 3, 512, 512, requires_grad=True)
    judged = critic(picture)
    judged[0, 0, judged.shape[2] // 2, judged.shape[3] // 2].backward()
    assert picture.grad is not None
    touched = picture.grad[0].abs().sum(0).nonzero()
    assert (touched.max(0).values - touched.min(0).values + 1).tolist() == [286, 286]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method.critic_steps": 0}, "critic_steps"),
        ({"method.clip": 0.0}, "clip"),
        ({"method.lipschitz": "penalty", "discriminators": [{"norm": "batch"}]}, "norm 'batch'"),
    ],
)
def test_it_refuses_what_cannot_be_trained(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(PresetError, match=message):
        make(tmp_path, **changes)


def test_it_optimises_as_published(tmp_path: Path) -> None:
    method = make(tmp_path)
    optimizer = method.optimizer("discriminators", method.discriminators.parameters())
    assert isinstance(optimizer, torch.optim.RMSprop)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["alpha"], group["momentum"], group["weight_decay"]) == (5e-5, 0.9, 0, 0)
    assert {method.learning_rate("generators", step) for step in (0, 100_000, 199_999)} == {5e-5}


def test_a_few_steps_recover_better(tmp_path: Path) -> None:
    method = make(tmp_path, train__learning_rate=3e-3)
    optimizers = {name: method.optimizer(name, module.parameters()) for name, module in method.players().items()}
    history = []
    for step in range(24):
        for turn in method.turns(batch(step)):
            optimizers[turn.player].zero_grad()
            total(turn).backward()
            optimizers[turn.player].step()
            method.after_step(turn.player)
            if turn.player == "generators":
                history.append((turn.terms["recovery_a"] + turn.terms["recovery_b"]).item())
    assert len(history) == 12
    assert np.mean(history[-3:]) < 0.8 * np.mean(history[:3])


def test_it_exports_with_any_size_and_without_dropout(tmp_path: Path) -> None:
    method = make(tmp_path, generator__dropout=0.5).eval()
    model = export.FrameModel(method.translator(method.generators, "ba")).eval()
    path = tmp_path / "model.onnx"
    export.write_graph(model, path, SizeRule(method.multiple_of, (128, 128)))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for shape in ((1, 128, 192, 3), (2, 192, 128, 3)):
        frames = random.integers(0, 256, shape, dtype=np.uint8)
        (given,) = session.run(None, {session.get_inputs()[0].name: frames})
        with torch.no_grad():
            expected = model(torch.from_numpy(frames)).numpy()
        assert np.abs(given.astype(int) - expected.astype(int)).max() <= 1
