"""StarGAN: the paper's formulas, computed again; who learns when; and a model file that takes a domain."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from streamgan.api import PresetError
from streamgan.model import SizeRule
from streamgan_training import recipe
from streamgan_training.export import write_graph
from streamgan_training.method import Batch, Turn
from streamgan_training.methods import stargan
from streamgan_training.methods.stargan import CompactStarGenerator, StarDiscriminator, StarGan, StarGenerator
from streamgan_training.networks import CompactGenerator
from streamgan_training.trained import FrameModel

NAMES = ("day", "dusk", "night")
TEXT = """
name: tiny
data:
  domains: {day: [{path: day}], dusk: [{path: dusk}], night: [{path: night}]}
  size: [32, 32]
method:
  {name: stargan, generator_width: 4, generator_blocks: 1, discriminator_width: 4, discriminator_levels: 3}
train: {iterations: 20, batch: 2, precision: 32-true}
"""


def make(folder: Path, **changes: object) -> StarGan:
    """The method of a small recipe; nothing is read from its folders."""
    file = folder / "tiny.yaml"
    file.write_text(TEXT)
    settings = recipe.load(file, {key.replace("__", "."): value for key, value in changes.items()})
    torch.manual_seed(0)
    method = settings.method_class(settings)
    assert isinstance(method, StarGan)
    return method


def batch(labels: list[int], step: int = 0, first: int = 0, size: int = 32) -> Batch:
    """Noise; a slot always has the same picture."""
    slots = range(first, first + len(labels))
    images = [torch.rand(3, size, size, generator=torch.Generator().manual_seed(slot)) * 2 - 1 for slot in slots]
    return Batch(step, (torch.stack(images),), torch.tensor(labels), slots=slots, seed=5)


def turns(method: StarGan, given: Batch) -> dict[str, Turn]:
    """All turns of a step, of which nobody learns."""
    return {turn.player: turn for turn in method.turns(given)}


def test_parameters_are_those_of_the_paper() -> None:
    codes = stargan.label_codes("abcde", ())
    with torch.device("meta"):
        generator, judge = StarGenerator(codes), StarDiscriminator((128, 128), 5)
    counts = [sum(weight.numel() for weight in network.parameters()) for network in (generator, judge)]
    assert counts == [8_430_528, 44_762_048]  # 8.43 M and 44.76 M, together the paper's 53.2 M
    assert judge.domain.kernel_size == (2, 2)  # 128 / 64


@pytest.mark.parametrize(
    ("size", "levels", "kernel"),
    [
        ((64, 64), 6, (1, 1)),
        ((96, 96), 6, (1, 1)),
        ((128, 64), 6, (1, 2)),
        ((48, 32), 5, (1, 1)),
        ((80, 100), 6, (1, 1)),
    ],
)
def test_the_discriminator_fits_the_size_of_the_crops(
    size: tuple[int, int], levels: int, kernel: tuple[int, int]
) -> None:
    judge = StarDiscriminator(size, 4, width=2)
    assert sum(isinstance(layer, nn.Conv2d) for layer in judge.body) == levels
    assert judge.domain.kernel_size == kernel
    source, domain = judge(torch.zeros(2, 3, size[1], size[0]))
    assert source.shape == (2, 1, *kernel) and domain.shape == (2, 4)


def test_codes_of_several_data_sets_end_in_a_mask() -> None:
    assert stargan.label_codes("abc", ()).tolist() == stargan.label_codes("abc", ["abc"]).tolist() == np.eye(3).tolist()
    codes = stargan.label_codes("abc", ["ac", "b"])
    assert codes.tolist() == [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [0, 0, 1, 1, 0]]


def test_classification_counts_the_logits_of_the_own_set_only() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0], [3.0, 9.0, 1.0]], requires_grad=True)
    comparable = stargan.same_set("abc", ["ac", "b"])
    loss = stargan.classification(logits, torch.tensor([0, 2]), comparable)
    expected = np.mean([np.log(np.exp(1) + np.exp(4)) - 1, np.log(np.exp(3) + np.exp(1)) - 1])
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and logits.grad[:, 1].tolist() == [0, 0]


def test_the_label_works_through_zero_padding_and_not_through_reflection() -> None:
    torch.manual_seed(0)
    network = StarGenerator(stargan.label_codes("ab", ()), 4, 1)
    image = torch.rand(1, 3, 32, 32) * 2 - 1

    def effect() -> float:
        with torch.no_grad():
            first, second = (network(image, torch.tensor([label])) for label in (0, 1))
        return float((first - second).abs().max())

    assert effect() > 1e-2
    network.body[0].padding_mode = "reflect"
    network.body[0]._reversed_padding_repeated_twice = [3, 3, 3, 3]
    assert effect() < 1e-4


def test_eval_mode_changes_nothing() -> None:
    network = StarGenerator(stargan.label_codes("ab", ()), 4, 1)
    image, domain = torch.rand(2, 3, 16, 24), torch.tensor([1, 0])
    assert torch.equal(network.train()(image, domain), network.eval()(image, domain))


def test_terms_of_the_discriminator(tmp_path: Path) -> None:
    method, given = make(tmp_path), batch([0, 2])
    (x,), targets = given.images, method.targets(given)
    found = turns(method, given)["discriminators"].terms
    judge, fake = method.discriminator, method.generators(x, targets).detach()
    log_p = judge(x).domain.detach().double().numpy()
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    norms = []
    for slot in (0, 1):
        epsilon = torch.rand(1, 1, 1, generator=given.generator("epsilon", slot))
        mixed = (epsilon * x[slot] + (1 - epsilon) * fake[slot])[None].requires_grad_(True)
        judge(mixed).source.sum().backward()
        assert mixed.grad is not None
        norms.append(float(mixed.grad.double().norm()))
    assert found["discriminator"].item() == pytest.approx(
        float((judge(fake).source - judge(x).source).mean().detach()), abs=1e-6
    )
    assert found["gradient_penalty"].item() == pytest.approx(
        10 * np.mean([(norm - 1) ** 2 for norm in norms]), rel=1e-4
    )
    assert found["classification_real"].item() == pytest.approx(-(log_p[0, 0] + log_p[1, 2]) / 2, rel=1e-5)


def test_terms_of_the_generator(tmp_path: Path) -> None:
    method, given = make(tmp_path, method__lambda_cls=3.0), batch([0, 2], step=4)
    (x,), targets = given.images, method.targets(given)
    turn = turns(method, given)["generators"]
    fake = method.generators(x, targets)
    verdict = method.discriminator(fake)
    probability = verdict.domain.detach().double().exp().numpy()
    probability /= probability.sum(1, keepdims=True)
    back = method.generators(fake, torch.tensor([0, 2])).detach().numpy()
    assert turn.terms["adversarial"].item() == pytest.approx(-verdict.source.mean().item(), abs=1e-6)
    chosen = probability[[0, 1], targets.numpy()]
    assert turn.terms["classification_fake"].item() == pytest.approx(-3 * np.log(chosen).mean(), rel=1e-5)
    assert turn.terms["reconstruction"].item() == pytest.approx(10 * np.abs(back - x.numpy()).mean(), rel=1e-5)


def test_the_direction_goes_to_the_targets_and_back(tmp_path: Path) -> None:
    method, given = make(tmp_path), batch([0, 2], step=4)
    (direction,) = turns(method, given)["generators"].directions
    assert torch.equal(direction.forward(direction.x), direction.y) and direction.backward is not None
    assert torch.equal(direction.backward(direction.y), method.generators(direction.y, torch.tensor([0, 2])))


def test_only_the_player_learns(tmp_path: Path) -> None:
    method = make(tmp_path)
    for turn in method.turns(batch([1, 2], step=4)):
        method.zero_grad(set_to_none=True)
        sum(turn.terms.values()).backward()  # type: ignore[union-attr]
        for player, network in method.players().items():
            reached = [weight.grad is not None for weight in network.parameters()]
            assert all(reached) if player == turn.player else not any(reached), (turn.player, player)


def test_the_generator_learns_in_every_fifth_step(tmp_path: Path) -> None:
    method = make(tmp_path)
    played = [list(turns(method, batch([0, 1], step))) for step in range(10)]
    both = ["discriminators", "generators"]
    assert played == [both if step in (4, 9) else both[:1] for step in range(10)]


def test_targets_hang_on_the_slot_and_stay_in_the_set(tmp_path: Path) -> None:
    method = make(tmp_path, method__sets=[["day", "night"], ["dusk"]])
    labels = [0, 1, 2, 0, 1, 2]
    drawn = torch.stack([method.targets(batch(labels, step, size=1)) for step in range(60)])
    assert (drawn[:, [1, 4]] == 1).all()
    others = drawn[:, [0, 2, 3, 5]]
    assert set(others.unique().tolist()) == {0, 2}
    assert abs(float((others == 0).float().mean()) - 0.5) < 0.13  # 240 draws: four standard deviations
    parts = [method.targets(batch(labels[slot : slot + 2], 7, slot, size=1)) for slot in (0, 2, 4)]
    assert torch.equal(torch.cat(parts), drawn[7])


def test_a_batch_is_the_mean_of_its_parts(tmp_path: Path) -> None:
    method = make(tmp_path)
    whole, *parts = (turns(method, given) for given in (batch([0, 2], 4), batch([0], 4, 0), batch([2], 4, 1)))
    for player, turn in whole.items():
        for name, value in turn.terms.items():
            mean = (parts[0][player].terms[name] + parts[1][player].terms[name]) / 2
            assert value.item() == pytest.approx(mean.item(), rel=1e-4, abs=1e-6), name


def test_steps_lower_the_reconstruction(tmp_path: Path) -> None:
    method = make(tmp_path, method__n_critic=1, train__learning_rate=2e-3, method__generator_width=8)
    optimizers = {
        player: method.optimizer(player, network.parameters()) for player, network in method.players().items()
    }
    values = []
    for step in range(25):
        for turn in method.turns(dataclasses.replace(batch([0, 1]), step=step)):
            optimizers[turn.player].zero_grad()
            sum(turn.terms.values()).backward()  # type: ignore[union-attr]
            optimizers[turn.player].step()
        values.append(float(turn.terms["reconstruction"].detach()))
    assert np.mean(values[-3:]) < 0.8 * np.mean(values[:3])


def test_the_model_file_takes_a_domain_for_each_picture(tmp_path: Path) -> None:
    method = make(tmp_path, method__generator_blocks=0).eval()
    assert method.directions == ("domain",)
    model = FrameModel(method.translator(method.generators, "domain")).eval()
    write_graph(model, tmp_path / "m.onnx", SizeRule(method.multiple_of, (32, 32)), domains=3)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for count, height, width in ((1, 48, 64), (3, 32, 32), (2, 64, 48)):
        frames = random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
        results = []
        for domain in (np.arange(count) % 3, (np.arange(count) + 1) % 3):
            (given,) = session.run(None, {"frames": frames, "domain": domain})
            with torch.no_grad():
                expected = model(torch.from_numpy(frames), torch.from_numpy(domain)).numpy()
            assert np.abs(given.astype(int) - expected).max() <= 1
            results.append(given)
        assert (results[0] != results[1]).any()


def test_the_compact_generator_is_the_one_without_labels_where_they_weigh_nothing() -> None:
    torch.manual_seed(0)
    plain, told = CompactGenerator(6), CompactStarGenerator(stargan.label_codes("ab", ()), 6)
    for network in (plain, told):
        nn.init.normal_(network.head.weight, 0, 0.5)
    weights = {**told.state_dict(), "stem.0.weight": told.stem[0].weight[:, :12]}
    plain.load_state_dict(weights)
    nn.init.zeros_(told.stem[0].weight[:, 12:].data)
    image = torch.rand(2, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(told.eval()(image, torch.tensor([0, 1])), plain.eval()(image), atol=1e-6)


def test_the_compact_generator_keeps_its_label_inside_the_frame() -> None:
    torch.manual_seed(0)
    network = CompactStarGenerator(stargan.label_codes("ab", ()), 6)
    nn.init.normal_(network.head.weight, 0, 0.5)
    image = torch.rand(1, 3, 160, 160) * 2 - 1
    with torch.no_grad():
        first, second = network(image.expand(2, -1, -1, -1), torch.tensor([0, 1]))[..., 64:96, 64:96]
    assert float((first - second).abs().mean()) > 1e-3


def test_augmentation_is_seen_by_the_discriminator_only(tmp_path: Path) -> None:
    plain, augmented = make(tmp_path), make(tmp_path, augmentation__policy=["color", "translation"])
    given = batch([0, 2], step=4)
    terms = [
        {**turns(m, given)["discriminators"].terms, **turns(m, given)["generators"].terms} for m in (plain, augmented)
    ]
    same = {name for name in terms[0] if torch.equal(terms[0][name], terms[1][name])}
    assert same == {"reconstruction"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method__sets": [["day", "nigth"], ["dusk"]]}, "no domain is called 'nigth'; did you mean 'night'"),
        ({"method__sets": [["day", "night"], ["dusk", "day"]]}, "'day' stands in two sets"),
        ({"method__sets": [["day", "night"]]}, "dusk in no set"),
        ({"data__small_size": [16, 16]}, "small_size: D_cls has the size of the crops"),
        (
            {"augmentation__policy": ["color"], "augmentation__adaptive": True},
            "adaptive: the verdicts of a",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PresetError, match=message):
        make(tmp_path, **changes)
