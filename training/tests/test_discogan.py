"""DiscoGAN: its networks, each term against arithmetic of its own, the curriculum, and who learns when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from streamgan.api import PresetError
from streamgan.model import SizeRule
from streamgan_training import export, recipe
from streamgan_training.method import Batch
from streamgan_training.methods import discogan

RECIPE = """
name: tiny
data: {domains: {a: [{path: a}], b: [{path: b}]}, size: [64, 64]}
method: {name: discogan, width: 4, discriminator_width: 4}
train: {iterations: 100, batch: 4, precision: 32-true, learning_rate: 2.0e-3}
"""


def load(folder: Path, **changes: object) -> recipe.Recipe:
    file = folder / "tiny.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return recipe.load(file, {key.replace("__", "."): value for key, value in changes.items()})


def make(folder: Path, **changes: object) -> discogan.DiscoGan:
    settings = load(folder, **changes)
    torch.manual_seed(0)
    return discogan.DiscoGan(settings)


def batch_of(step: int, count: int = 3) -> Batch:
    random = torch.Generator().manual_seed(1)
    coarse = torch.rand(2, count, 3, 2, 2, generator=random) * 2 - 1
    a, b = (nn.functional.interpolate(each, size=(64, 64)) for each in coarse)
    return Batch(step, (a, 0.5 * b - 0.5), slots=range(count))


def weights(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def sigmoid(logits: Tensor) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits.detach().double().numpy())))


def test_the_networks_have_the_published_sizes() -> None:
    ends = 2 * 3 * 64 * 16
    steps = 2 * 16 * (64 * 128 + 128 * 256 + 256 * 512)
    norms = 2 * (128 + 256 + 512) + 2 * (256 + 128 + 64)
    assert weights(discogan.EncoderDecoder()) == ends + steps + norms
    fifth = 2 * 512 * 100 * 16 + 2 * 100 + 2 * 512
    assert weights(discogan.EncoderDecoder(layers=5)) == ends + steps + norms + fifth
    assert weights(discogan.Judge()) == ends // 2 + steps // 2 + 2 * (128 + 256 + 512) + 512 * 16


@pytest.mark.parametrize("layers", [4, 5])
def test_generators_keep_the_size_and_discriminators_give_one_verdict(layers: int) -> None:
    generator = discogan.EncoderDecoder(4, layers)  # type: ignore[arg-type]
    assert generator(torch.zeros(2, 3, 64, 96)).shape == (2, 3, 64, 96)
    verdict = discogan.Judge(4)(torch.zeros(2, 3, 64, 64))
    assert verdict.logits.shape == (2, 1, 1, 1)
    assert [tuple(each.shape[1:]) for each in verdict.features] == [(8, 16, 16), (16, 8, 8), (32, 4, 4)]


def test_feature_matching_is_the_hinge_embedding_of_the_published_code() -> None:
    random = np.random.default_rng(0)
    real, fake = ([random.normal(size=(3, 2, 4, 4)), random.normal(size=(3, 5, 2, 2))] for _ in range(2))
    squares = [torch.tensor((one.mean(0) - other.mean(0)) ** 2) for one, other in zip(real, fake, strict=True)]
    expected = sum(nn.functional.hinge_embedding_loss(each, torch.ones_like(each)).item() for each in squares)
    assert expected == pytest.approx(sum(each.numpy().mean() for each in squares))
    given = discogan.feature_matching([torch.tensor(x) for x in real], [torch.tensor(x) for x in fake])
    assert given.item() == pytest.approx(expected)


def test_reconstruction_is_the_squared_error_of_values_from_0_to_1() -> None:
    one, other = batch_of(0).images
    expected = (((one.numpy() + 1) / 2 - (other.numpy() + 1) / 2) ** 2).mean()
    assert discogan.reconstruction(one, other).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("step", "rate"), [(1, 0.01), (10_000, 0.5)])
def test_the_generators_objective_is_the_published_one(tmp_path: Path, step: int, rate: float) -> None:
    method, batch = make(tmp_path), batch_of(step)
    a, b = batch.images
    (turn,) = method.turns(batch)
    ab, ba = (method.generators[name] for name in ("ab", "ba"))
    for direction, source, target, forward, back in (("ab", a, b, ab, ba), ("ba", b, a, ba, ab)):
        judge, fake = method.discriminators[direction[-1]], forward(source)
        adversarial = -np.log(sigmoid(judge(fake).logits)).mean()
        means = [(x.mean(0), y.mean(0)) for x, y in zip(judge(target).features, judge(fake).features, strict=True)]
        features = sum(((x - y) ** 2).mean().item() for x, y in means)
        cycle = (((back(fake) - source) / 2) ** 2).mean().item()
        assert turn.terms[f"adversarial_{direction}"].item() == pytest.approx((1 - rate) * 0.1 * adversarial, rel=1e-4)
        assert turn.terms[f"features_{direction}"].item() == pytest.approx((1 - rate) * 0.9 * features, rel=1e-4)
        assert turn.terms[f"cycle_{direction[0]}"].item() == pytest.approx(rate * cycle, rel=1e-4)
    assert len(turn.terms) == 6
    assert [each.name for each in turn.directions] == ["ab", "ba"]


def test_the_discriminators_objective_is_binary_cross_entropy(tmp_path: Path) -> None:
    method, batch = make(tmp_path), batch_of(0)
    a, b = batch.images
    (turn,) = method.turns(batch)
    for domain, real, fake in (("a", a, method.generators["ba"](b)), ("b", b, method.generators["ab"](a))):
        judge = method.discriminators[domain]
        on_real, on_fake = sigmoid(judge(real).logits), sigmoid(judge(fake).logits)
        expected = -0.5 * np.log(on_real).mean() - 0.5 * np.log(1 - on_fake).mean()
        assert turn.terms[f"discriminator_{domain}"].item() == pytest.approx(expected, rel=1e-4)


def test_discriminators_learn_at_every_third_step_and_generators_at_the_others(tmp_path: Path) -> None:
    method = make(tmp_path)
    players = method.players()
    order = []
    for step in range(6):
        (turn,) = method.turns(batch_of(step))
        order.append(turn.player)
        method.zero_grad()
        torch.stack(list(turn.terms.values())).sum().backward()
        touched = {weight for weight in method.parameters() if weight.grad is not None}
        assert touched == {*players[turn.player].parameters()} or (
            turn.player == "generators" and touched == {*method.generators.parameters()}
        )
    assert order == ["discriminators", "generators", "generators"] * 2


def test_the_curriculum_switches_once(tmp_path: Path) -> None:
    published = make(tmp_path)
    assert [published.rate(step) for step in (0, 9_999, 10_000)] == [0.01, 0.01, 0.5]
    fraction = make(tmp_path, method__curriculum_fraction=0.25)
    assert [fraction.rate(step) for step in (24, 25)] == [0.01, 0.5]


def test_it_is_optimised_as_published(tmp_path: Path) -> None:
    settings = load(tmp_path, train__learning_rate=None)
    method = discogan.DiscoGan(settings)
    (group,) = method.optimizer("generators", method.generators.parameters()).param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (2e-4, (0.5, 0.999), 1e-5)
    assert method.learning_rate("generators", 99) == 2e-4


def test_running_statistics_are_those_of_real_pictures(tmp_path: Path) -> None:
    method, batch = make(tmp_path), batch_of(1)
    convolutions, norm = method.generators["ab"].body[:3], method.generators["ab"].body[3]
    with torch.no_grad():
        mean = convolutions((batch.images[0] + 1) / 2).mean((0, 2, 3))
    list(method.turns(batch))
    assert torch.allclose(norm.running_mean, 0.1 * mean, atol=1e-6)


def test_a_few_steps_lower_the_reconstruction(tmp_path: Path) -> None:
    method = make(tmp_path, method__curriculum_iterations=0, method__lambda_gan=0, method__lambda_feature=0)
    optimizers = {name: method.optimizer(name, module.parameters()) for name, module in method.players().items()}
    history: list[float] = []
    for step in range(45):
        (turn,) = method.turns(Batch(step, batch_of(0).images))
        optimizers[turn.player].zero_grad()
        torch.stack(list(turn.terms.values())).sum().backward()
        optimizers[turn.player].step()
        if turn.player == "generators":
            history.append((turn.terms["cycle_a"] + turn.terms["cycle_b"]).item())
    assert np.mean(history[-3:]) < 0.7 * np.mean(history[:3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__size": [48, 48]}, "at least 64"),
        ({"generator": {"name": "compact"}}, "own networks"),
        ({"augmentation": {"policy": ["color"]}}, "augmentation"),
    ],
)
def test_what_has_no_effect_or_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(PresetError, match=message):
        make(tmp_path, **changes)
    with pytest.raises(PresetError, match="curriculum_fraction"):
        load(tmp_path, method__curriculum_fraction=1.5)


def test_both_translators_export(tmp_path: Path) -> None:
    method = make(tmp_path)
    assert method.directions == ("ab", "ba")
    model = export.FrameModel(method.translator(method.generators, "ba")).eval()
    file = tmp_path / "model.onnx"
    export.write_graph(model, file, SizeRule(method.multiple_of, (64, 64)))
    frames = np.random.default_rng(0).integers(0, 256, (2, 80, 64, 3), dtype=np.uint8)
    (given,) = onnxruntime.InferenceSession(str(file)).run(None, {"frames": frames})
    with torch.no_grad():
        expected: Tensor = model(torch.from_numpy(frames))
    assert np.abs(given.astype(int) - expected.numpy()).max() <= 1
