"""UNIT: its sizes, its objective against the formulas, who learns when, and what is exported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from streamgan.api import PresetError
from streamgan.model import SizeRule
from streamgan_training import export, recipe
from streamgan_training.method import Batch, Turn
from streamgan_training.methods.unit import JUDGES, Decoder, Encoder, LayerNorm, ScaleDiscriminator, Unit

RECIPE = """
name: tiny
data: {domains: {day: [{path: a}], night: [{path: b}]}, size: [32, 32]}
method: {name: unit}
generator: {width: 4}
discriminators: [{width: 4, layers: 2, norm: none}, {width: 4, layers: 2, norm: none, scale: 2}]
train: {batch: 2}
"""


def make(folder: Path, text: str = RECIPE, **changes: object) -> Unit:
    path = folder / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    torch.manual_seed(0)
    settings = recipe.load(path, {key.replace("__", "."): value for key, value in changes.items()})
    method = settings.method_class(settings)
    assert isinstance(method, Unit)
    return method


def pictures(count: int = 2, seed: int = 0, side: int = 32) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    smooth = nn.functional.interpolate(torch.rand(2 * count, 3, 4, 4, generator=random) * 2 - 1, (side, side))
    return smooth[:count], smooth[count:]


def batch(step: int = 0, slots: range = range(2)) -> Batch:
    a, b = pictures()
    return Batch(step, (a[slots.start : slots.stop], b[slots.start : slots.stop]), slots=slots, seed=7)


def weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def l1(x: Tensor, y: Tensor) -> float:
    return float(np.abs(x.detach().numpy() - y.detach().numpy()).mean())


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def test_layer_norm_is_that_of_the_published_code() -> None:
    norm = LayerNorm(5)
    with torch.no_grad():
        norm.beta.copy_(torch.arange(5.0).view(5, 1, 1))
    x = torch.randn(3, 5, 8, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    for picture, result in zip(x.numpy(), norm(x).detach().numpy(), strict=True):
        plain = (picture - picture.mean()) / (picture.std(ddof=1) + 1e-5)
        expected = norm.gamma.detach().numpy() * plain + np.arange(5.0).reshape(5, 1, 1)
        np.testing.assert_allclose(result, expected, atol=1e-5)
    flat = torch.zeros(1, 5, 4, 4, requires_grad=True)
    norm(flat).sum().backward()
    assert flat.grad is not None and bool(flat.grad.isfinite().all())


def test_the_published_networks_have_the_published_sizes() -> None:
    def conv(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + outputs

    blocks = 4 * 2 * conv(256, 256, 3)
    assert weights(Encoder(64)) == conv(3, 64, 7) + conv(64, 128, 4) + conv(128, 256, 4) + blocks
    scaled = 2 * 128 + 2 * 64  # γ and β
    assert weights(Decoder(64)) == blocks + conv(256, 128, 5) + conv(128, 64, 5) + scaled + conv(64, 3, 7)
    one = conv(3, 64, 4) + conv(64, 128, 4) + conv(128, 256, 4) + conv(256, 512, 4) + conv(512, 1, 1)
    assert [weights(ScaleDiscriminator(each)) for each in JUDGES] == [one] * 3


@pytest.mark.parametrize(("scale", "field"), [(1, 46), (2, 2 * 45 + 3)])
def test_a_verdict_rests_on_46_pixels_of_its_scale(scale: int, field: int) -> None:
    judge = ScaleDiscriminator(dataclasses.replace(JUDGES[0], width=2, scale=scale))
    picture = torch.zeros(1, 3, 256, 256, requires_grad=True)
    verdict = judge(picture)
    assert verdict.shape == (1, 1, 16 // scale, 16 // scale)
    verdict[0, 0, 8 // scale, 8 // scale].backward()
    assert picture.grad is not None
    touched = picture.grad[0].abs().sum(0).nonzero()
    assert (touched.max(0).values - touched.min(0).values + 1).tolist() == [field, field]


def test_a_recipe_without_discriminators_gets_the_published_ones(tmp_path: Path) -> None:
    text = "\n".join(line for line in RECIPE.splitlines() if not line.startswith("discriminators"))
    method = make(tmp_path, text, data__size=[64, 64])
    assert [judge.halvings for judge in method.judge("a").judges] == [0, 1, 2]
    with pytest.raises(PresetError, match="crops of 32 pixels"):
        make(tmp_path, text)


def test_the_objective_is_the_published_one(tmp_path: Path) -> None:
    method = make(tmp_path)
    now = batch()
    a, b = now.images
    g = method.generators
    noise = method.noise(now)
    judge_turn, turn = method.turns(now)
    method.requires_grad_(False)
    mean_a, mean_b = g.encode("a", a), g.encode("b", b)
    fake_b, fake_a = g.decode("b", mean_a + noise.a), g.decode("a", mean_b + noise.b)
    mean_ab, mean_ba = g.encode("b", fake_b), g.encode("a", fake_a)
    square = [float((mean.detach().numpy() ** 2).mean()) for mean in (mean_a, mean_b, mean_ab, mean_ba)]
    judges_a, judges_b = method.judge("a").judges, method.judge("b").judges
    expected = {
        "adversarial_ab": sum(float(((judge(fake_b) - 1) ** 2).mean()) for judge in judges_b),
        "adversarial_ba": sum(float(((judge(fake_a) - 1) ** 2).mean()) for judge in judges_a),
        "reconstruction_a": 10 * l1(g.decode("a", mean_a + noise.a), a),
        "reconstruction_b": 10 * l1(g.decode("b", mean_b + noise.b), b),
        "kl": 0.01 * (square[0] + square[1]),
        "cycle_a": 10 * l1(g.decode("a", mean_ab + noise.ab), a),
        "cycle_b": 10 * l1(g.decode("b", mean_ba + noise.ba), b),
        "cycle_kl": 0.01 * (square[2] + square[3]),
    }
    assert {name: term.item() for name, term in turn.terms.items()} == pytest.approx(expected, rel=1e-4)
    judged = sum(float((judge(fake_a) ** 2).mean() + ((judge(a) - 1) ** 2).mean()) for judge in judges_a)
    assert judge_turn.terms["discriminator_a"].item() == pytest.approx(judged, rel=1e-4)


def test_the_papers_cross_entropy(tmp_path: Path) -> None:
    method = make(tmp_path, method__objective="vanilla")
    now = batch()
    out = method.generators(*now.images, method.noise(now))
    terms = method.discriminator_terms(now, out)
    expected = 0.0
    for judge in method.judge("b").judges:
        real, fake = (1 / (1 + np.exp(-judge(x).detach().numpy())) for x in (now.images[1], out.fake_b))
        expected += -np.log(real).mean() - np.log(1 - fake).mean()
    assert terms["discriminator_b"].item() == pytest.approx(expected, rel=1e-4)


def test_noise_is_standard_normal_and_hangs_on_step_and_slot_alone(tmp_path: Path) -> None:
    method = make(tmp_path)
    wide = torch.zeros(1, 3, 512, 512)
    noise = method.noise(Batch(0, (wide, wide)))
    assert noise.a.shape == (1, 16, 128, 128)
    assert float(noise.a.mean()) == pytest.approx(0, abs=0.01) and float(noise.a.std()) == pytest.approx(1, abs=0.01)
    both, second = method.noise(batch()), method.noise(batch(slots=range(1, 2)))
    assert torch.equal(both.ba[1:], second.ba)
    assert not torch.equal(both.a, method.noise(batch(step=1)).a)


def test_a_player_receives_gradients_in_its_own_turn_alone(tmp_path: Path) -> None:
    method = make(tmp_path)
    players = method.players()
    for turn in method.turns(batch()):
        method.zero_grad(set_to_none=True)
        total(turn).backward()
        for name, module in players.items():
            given = [parameter.grad is not None for parameter in module.parameters()]
            assert all(given) if name == turn.player else not any(given)
    assert turn.player == "generators" and [one.name for one in turn.directions] == ["ab", "ba"]


def test_two_slots_are_the_mean_of_one_and_one(tmp_path: Path) -> None:
    method = make(tmp_path)
    both = list(method.turns(batch()))
    apart = [list(method.turns(batch(slots=range(slot, slot + 1)))) for slot in range(2)]
    for turn, first, second in zip(both, *apart, strict=True):
        for name, term in turn.terms.items():
            assert term.item() == pytest.approx((first.terms[name] + second.terms[name]).item() / 2, rel=1e-4)


def test_shared_blocks_are_shared_and_saved_once(tmp_path: Path) -> None:
    apart, shared = make(tmp_path), make(tmp_path, method__shared_blocks=1)
    block = 2 * (16 * 16 * 9 + 16)
    assert weights(apart.generators) - weights(shared.generators) == 2 * block
    state = shared.generators.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    method = make(tmp_path, method__shared_blocks=4)
    a = pictures()[0]
    assert method.translator(method.generators, "ab")(a).shape == a.shape
    assert make(tmp_path, method__shared_blocks=1).generators.encode("a", a).shape == (2, 16, 8, 8)
    with pytest.raises(PresetError, match="shared_blocks"):
        make(tmp_path, method__shared_blocks=5)


def test_a_translation_in_use_has_no_noise(tmp_path: Path) -> None:
    method = make(tmp_path)
    a = pictures()[0]
    translator = method.translator(method.generators, "ab")
    assert torch.equal(translator(a), method.generators.decode("b", method.generators.encode("a", a)))
    noisy = list(method.turns(batch()))[-1].directions[0]
    steady = list(make(tmp_path, temporal__kind="synthetic", temporal__start=0.0).turns(batch()))[-1].directions[0]
    assert steady.y.allclose(steady.forward(steady.x), atol=1e-6)
    assert not noisy.y.allclose(noisy.forward(noisy.x), atol=1e-2)


def test_it_optimises_as_published(tmp_path: Path) -> None:
    method = make(tmp_path, train__iterations=1_000_000)
    optimizer = method.optimizer("generators", method.generators.parameters())
    assert isinstance(optimizer, torch.optim.Adam)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-4, (0.5, 0.999), 1e-4)
    rates = [method.learning_rate("generators", step) for step in (0, 99_999, 100_000, 250_000, 999_999)]
    assert rates == pytest.approx([1e-4, 1e-4, 5e-5, 2.5e-5, 1e-4 / 2**9])


def test_a_few_steps_reconstruct_better(tmp_path: Path) -> None:
    method = make(tmp_path, train__learning_rate=2e-3)
    optimizers = {name: method.optimizer(name, module.parameters()) for name, module in method.players().items()}
    history = []
    for step in range(24):
        for turn in method.turns(batch(step)):
            optimizers[turn.player].zero_grad()
            total(turn).backward()
            optimizers[turn.player].step()
        history.append((turn.terms["reconstruction_a"] + turn.terms["reconstruction_b"]).item())
    assert np.mean(history[-4:]) < 0.75 * np.mean(history[:4])


def test_it_exports_with_any_size(tmp_path: Path) -> None:
    method = make(tmp_path, method__shared_blocks=1).eval()
    model = export.FrameModel(method.translator(method.generators, "ba")).eval()
    path = tmp_path / "model.onnx"
    export.write_graph(model, path, SizeRule(method.multiple_of, (32, 32)))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for shape in ((1, 32, 32, 3), (3, 44, 60, 3)):
        frames = random.integers(0, 256, shape, dtype=np.uint8)
        (given,) = session.run(None, {session.get_inputs()[0].name: frames})
        with torch.no_grad():
            expected = model(torch.from_numpy(frames)).numpy()
        assert np.abs(given.astype(int) - expected.astype(int)).max() <= 1
