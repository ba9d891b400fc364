"""CycleGAN++: what it adds to CycleGAN, term by term, its generator, and that without its weights it is CycleGAN."""

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
from streamgan_training import export, losses, recipe
from streamgan_training.method import Batch, Turn
from streamgan_training.methods.cyclegan import CycleGan
from streamgan_training.methods.cycleganpp import CycleGanPlusPlus, MultiScaleGenerator, make_multi_scale
from streamgan_training.recipe import Generator

RECIPE = """
name: tiny
data: {domains: {day: [{path: a}], night: [{path: b}]}, size: [32, 32]}
method: {name: cycleganpp}
generator: {name: resnet6, width: 4}
discriminators: [{width: 4, layers: 2}]
train: {batch: 2, learning_rate: 2.0e-3}
"""
ADDED = ("lambda_laplacian", "lambda_regulariser", "lambda_consistency")


def make(folder: Path, **changes: object) -> CycleGan:
    path = folder / "tiny.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    torch.manual_seed(0)
    settings = recipe.load(path, {f"method.{key}": value for key, value in changes.items()})
    method = settings.method_class(settings)
    assert isinstance(method, CycleGan)
    return method


def batch(step: int = 0, slots: range = range(2)) -> Batch:
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 6, 6, generator=random) * 2 - 1
    smooth = nn.functional.interpolate(coarse, (32, 32), mode="bilinear")
    chosen = slice(slots.start, slots.stop)
    return Batch(step, (smooth[:2][chosen], smooth[2:][chosen] - 0.3), slots=slots, seed=7)


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def test_without_its_weights_it_is_cyclegan(tmp_path: Path) -> None:
    plain = make(tmp_path, name="cyclegan")
    without = make(tmp_path, multi_scale=False, **dict.fromkeys(ADDED, 0))
    assert isinstance(without, CycleGanPlusPlus) and type(plain) is CycleGan
    for ours, theirs in zip(without.turns(batch()), plain.turns(batch()), strict=True):
        assert ours.player == theirs.player and ours.terms.keys() == theirs.terms.keys()
        assert all(torch.equal(ours.terms[name], value) for name, value in theirs.terms.items())


def test_each_weight_adds_its_term_alone(tmp_path: Path) -> None:
    names = {}
    for chosen in ADDED:
        method = make(tmp_path, **{name: float(name == chosen) for name in ADDED})
        names[chosen] = {name for turn in method.turns(batch()) for name in turn.terms}
    common = names["lambda_laplacian"] & names["lambda_regulariser"]
    assert [sorted(names[chosen] - common) for chosen in ADDED] == [
        ["laplacian"], ["regulariser_ab"], ["consistency_ba", "discriminator_cycled_a"],
    ]  # fmt: skip


def test_the_added_terms_are_those_of_the_docstring(tmp_path: Path) -> None:
    method = make(tmp_path, lambda_laplacian=2.0, lambda_regulariser=3.0, lambda_consistency=0.25)
    now = batch()
    a, b = now.images
    first, second = method.turns(now)
    with torch.no_grad():
        out = method.generators(a, b)
        real, cycled = (method.judge("a")(images, now, "x")[0].numpy() for images in (a, out.cycled_a))
    change = (out.fake_b - a).double().numpy()
    slopes = [np.diff(change, axis=axis) for axis in (2, 3)]
    variation = np.sqrt(slopes[0][..., :-1] ** 2 + slopes[1][..., :-1, :] ** 2).mean()
    assert first.terms["regulariser_ab"].item() == pytest.approx(3 * variation, rel=1e-2)
    assert first.terms["consistency_ba"].item() == pytest.approx(0.25 * ((cycled - 1) ** 2).mean(), rel=1e-5)
    judged = 0.25 * 0.5 * (((real - 1) ** 2).mean() + (cycled**2).mean())
    assert second.terms["discriminator_cycled_a"].item() == pytest.approx(judged, rel=1e-5)
    expected = 0.0
    for one, other in ((out.cycled_a, a), (out.cycled_b, b)):
        bands = zip(losses.laplacian_pyramid(one), losses.laplacian_pyramid(other), strict=True)
        expected += sum(4**level * np.abs((x - y).numpy()).sum() for level, (x, y) in enumerate(bands)) / one.numel()
    assert first.terms["laplacian"].item() == pytest.approx(2 * expected, rel=1e-4)


def test_a_pure_change_of_tone_is_not_regularised(tmp_path: Path) -> None:
    method = make(tmp_path, lambda_regulariser=1.0)
    now = batch()
    out = method.generators(*now.images)
    values = []
    for change in (torch.full_like(out.fake_b, -0.2), 0.2 * torch.randn(out.fake_b.shape)):
        moved = out._replace(fake_b=now.images[0] + change)
        values.append(method.generator_terms(now, moved)["regulariser_ab"].item())
    assert values[0] == pytest.approx(0, abs=2e-4) and values[1] > 0.1


def test_the_generator_has_the_size_of_its_description() -> None:
    def conv(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + outputs

    w = 64
    encoder = conv(3, w, 7) + conv(w, 2 * w, 3) + conv(2 * w, 4 * w, 3) + conv(4 * w, 8 * w, 3)
    decoder = conv(4 * w, 2 * w, 3) + conv(2 * w, w, 3) + conv(w, 3, 7)
    blocks = 9 * 2 * conv(4 * w, 4 * w, 3)
    network = MultiScaleGenerator()
    assert sum(p.numel() for p in network.parameters()) == encoder + conv(15 * w, 4 * w, 1) + blocks + decoder


def test_features_of_all_scales_stand_side_by_side() -> None:
    network = make_multi_scale(Generator("resnet6", 4, "none"))
    picture = torch.rand(1, 3, 48, 32, requires_grad=True)
    features = network.features(picture)
    assert features.shape == (1, 60, 12, 8)
    maps = [picture]
    for level in network.levels:
        maps.append(level(maps[-1]))
    finest = maps[1].detach().numpy().reshape(1, 4, 12, 4, 8, 4).mean((3, 5))
    np.testing.assert_allclose(features[:, :4].detach().numpy(), finest, atol=1e-6)
    assert torch.equal(features[:, 12:28], maps[3])


@pytest.mark.parametrize("upsampling", ["transpose", "antialiased"])
def test_the_generator_keeps_the_size(upsampling: str) -> None:
    network = make_multi_scale(Generator("resnet9", 4, upsampling=upsampling))  # type: ignore[arg-type]
    assert network(torch.zeros(2, 3, 24, 40)).shape == (2, 3, 24, 40)


def test_another_kind_of_generator_is_refused() -> None:
    with pytest.raises(PresetError, match="multi_scale"):
        make_multi_scale(Generator("compact"))


def test_only_the_player_learns_in_its_turn(tmp_path: Path) -> None:
    method = make(tmp_path)
    order = []
    for turn in method.turns(batch()):
        order.append(turn.player)
        method.zero_grad()
        total(turn).backward()
        touched = {weight for weight in method.parameters() if weight.grad is not None and weight.grad.any()}
        assert touched and touched <= {*method.players()[turn.player].parameters()}
    assert order == ["generators", "discriminators"]


def test_a_batch_of_two_is_the_mean_of_its_pictures(tmp_path: Path) -> None:
    method = make(tmp_path)
    whole = list(method.turns(batch()))
    parts = [list(make(tmp_path).turns(batch(slots=range(slot, slot + 1)))) for slot in (0, 1)]
    for turn, first, second in zip(whole, *parts, strict=True):
        for name, value in turn.terms.items():
            mean = (first.terms[name] + second.terms[name]).item() / 2
            assert value.item() == pytest.approx(mean, rel=1e-4)


def test_a_few_steps_lower_the_distance_of_the_cycles(tmp_path: Path) -> None:
    method = make(tmp_path)
    optimizers = {name: method.optimizer(name, module.parameters()) for name, module in method.players().items()}
    history = []
    for step in range(25):
        for turn in method.turns(dataclasses.replace(batch(), step=step)):
            optimizers[turn.player].zero_grad()
            total(turn).backward()
            optimizers[turn.player].step()
            if turn.player == "generators":
                history.append((turn.terms["cycle_a"] + turn.terms["laplacian"]).item())
    assert np.mean(history[-3:]) < 0.88 * history[0]


def test_the_generator_exports_at_any_size(tmp_path: Path) -> None:
    assert make(tmp_path).multiple_of == 8
    model = export.FrameModel(MultiScaleGenerator(4, 1)).eval()
    file = tmp_path / "model.onnx"
    export.write_graph(model, file, SizeRule(8, (32, 32)))
    frames = np.random.default_rng(0).integers(0, 256, (1, 40, 72, 3), dtype=np.uint8)
    (given,) = onnxruntime.InferenceSession(str(file)).run(None, {"frames": frames})
    with torch.no_grad():
        expected = model(torch.from_numpy(frames)).numpy()
    assert np.abs(given.astype(int) - expected).max() <= 1
