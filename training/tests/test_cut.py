"""CUT and FastCUT: each term against arithmetic of its own, where features are taken, and who learns when."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from streamgan.api import UsageError
from streamgan.model import SizeRule
from streamgan_training import export, networks, recipe
from streamgan_training.batchnorm import steady_statistics
from streamgan_training.method import Batch, Turn
from streamgan_training.methods import cut
from streamgan_training.recipe import Generator

RECIPE = """
name: tiny
data:
  domains: {{a: [{{path: a}}], b: [{{path: b}}]}}
  size: [32, 32]
method: {{name: {name}, patches: 24, projection: 16}}
generator: {{{generator}}}
discriminators: [{{width: 4, layers: 2}}]
train: {{iterations: 40, precision: 32-true, learning_rate: 2.0e-3, decay_start: 1.0}}
"""
RESNET = "name: resnet6, width: 4, upsampling: antialiased"
COMPACT = "name: compact, width: 6, norm: batch"


def make(folder: Path, name: str = "cut", generator: str = RESNET, **options: object) -> cut.Cut:
    file = folder / "tiny.yaml"
    file.write_text(RECIPE.format(name=name, generator=generator), encoding="utf-8")
    settings = recipe.load(file, {f"method.{key}": value for key, value in options.items()})
    torch.manual_seed(0)
    method = settings.method_class(settings)
    assert isinstance(method, cut.Cut)
    return method


def batch_of(count: int = 1, size: int = 32, step: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(2, count, 3, size // 4, size // 4, generator=generator) * 2 - 1
    a, b = (nn.functional.interpolate(each, size=(size, size), mode="bicubic").clamp(-1, 1) for each in coarse)
    return Batch(step, (a, b - 0.3), slots=range(count))


def slot_of(batch: Batch, slot: int) -> Batch:
    return dataclasses.replace(
        batch, images=tuple(x[slot : slot + 1] for x in batch.images), slots=range(slot, slot + 1)
    )


def unit(vectors: Tensor) -> Tensor:
    """Of length 1; at first some are so short that the published 1e-7 matters."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-7)


def turn_of(method: cut.Cut, batch: Batch, player: str) -> Turn:
    return next(turn for turn in method.turns(batch) if turn.player == player)


def test_patch_nce_is_the_cross_entropy_of_equation_2() -> None:
    random = np.random.default_rng(0)
    queries, keys = (random.normal(size=(2, 5, 4)) for _ in range(2))
    queries, keys = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (queries, keys))
    temperature, losses = 0.07, []
    for picture in range(2):
        for patch in range(5):
            scores = np.exp(keys[picture] @ queries[picture, patch] / temperature)
            positive, negatives = scores[patch], np.delete(scores, patch).sum()
            losses.append(-np.log(positive / (positive + negatives)))
    given = cut.patch_nce(torch.tensor(queries), torch.tensor(keys), temperature)
    assert given.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_keys_receive_no_gradient() -> None:
    queries, keys = (torch.randn(1, 4, 3, requires_grad=True) for _ in range(2))
    cut.patch_nce(queries, keys, 0.07).backward()
    assert queries.grad is not None and keys.grad is None


def test_patches_are_read_at_their_places_and_of_a_mirror_image_at_the_mirrored_ones() -> None:
    features = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    places = torch.tensor([[0, 7, 19], [3, 4, 11]])
    given = cut.patches_at(features, places, [False, True])
    assert given.shape == (2, 3, 3)
    for picture, shown in enumerate((features[0], features[1].flip(2))):
        for number, place in enumerate(places[picture].tolist()):
            assert torch.equal(given[picture, number], shown[:, place // 5, place % 5])


def receptive_fields(generator: nn.Module, side: int = 192) -> list[int]:
    """Width of what a place in the middle depends on, by level; of a generator without norms."""
    encoder = cut.encoder_of(generator)
    for module in generator.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.01)
            nn.init.constant_(module.bias, 1.0)  # type: ignore[arg-type]
    fields = []
    for level, tap in zip(cut.survey(encoder), encoder.taps, strict=True):
        picture = torch.rand(1, 3, side, side, requires_grad=True)
        middle = side // level.stride // 2
        encoder.layers[:tap](picture)[0, :, middle, middle].sum().backward()
        assert picture.grad is not None
        columns = picture.grad.abs().sum((0, 1, 2)).nonzero()
        fields.append(int(columns.max() - columns.min()) + 1)
    return fields


@pytest.mark.parametrize(
    ("generator", "fields"),
    [
        (Generator("resnet9", 2, "none", "antialiased"), [1, 9, 15, 35, 99]),  # the paper's
        (Generator("resnet6", 2, "none", "transpose"), [1, 9, 13, 29, 93]),
        (Generator("compact", 3, "none"), [1, 6, 26, 66, 146]),
        (Generator("unet64", 2, "none"), [1, 4, 10, 22, 46]),
    ],
)
def test_levels_see_as_much_of_the_picture_as_stated(generator: Generator, fields: list[int]) -> None:
    assert receptive_fields(networks.make_generator(generator)) == fields


def test_levels_have_the_published_shapes() -> None:
    antialiased = networks.make_generator(Generator("resnet9", 64, upsampling="antialiased"))
    assert cut.survey(cut.encoder_of(antialiased)) == ((3, 1), (128, 1), (256, 2), (256, 4), (256, 4))
    levels = cut.survey(cut.encoder_of(antialiased))
    heads = cut.Projections(levels, 256)
    expected = sum(channels * 256 + 256 + 256 * 256 + 256 for channels in (3, 128, 256, 256, 256))
    assert sum(weight.numel() for weight in heads.parameters()) == expected


def test_an_unknown_generator_is_refused() -> None:
    with pytest.raises(UsageError, match="resnet"):
        cut.encoder_of(nn.Conv2d(3, 3, 1))


@pytest.mark.parametrize("name", ["resnet6", "compact", "unet64"])
@pytest.mark.parametrize("norm", ["instance", "none"])
def test_translating_gives_the_translation_and_the_features_that_encoding_gives(name: str, norm: str) -> None:
    network = networks.make_generator(Generator(name, 4, norm))  # type: ignore[arg-type]
    side = 128 if name == "unet64" else 32
    picture, encoder = torch.rand(2, 3, side, side) * 2 - 1, cut.encoder_of(network)
    places = [torch.tensor([[0, 1], [2, 3]])] * 5
    translation, features = cut.translate(network, picture, places)
    assert torch.allclose(translation, network(picture), atol=1e-6)
    encoded = cut.encode(network, picture, places, [False, False])
    for one, other, tap in zip(features, encoded, encoder.taps, strict=True):
        whole = picture.clone()
        for layer in encoder.layers[:tap]:
            whole = layer(whole.clone())
        assert not one.requires_grad
        assert torch.allclose(one, other, atol=1e-6)
        assert torch.allclose(one[1, 0], whole.flatten(2)[1, :, 2], atol=1e-6)


def test_the_objective_is_the_published_one(tmp_path: Path) -> None:
    method, batch = make(tmp_path), batch_of()
    a, b = batch.images
    generator, level = method.generators["ab"], 3
    terms = turn_of(method, batch, "generators").terms
    y = generator(a)
    (verdict,) = method.discriminators(y, batch, "b")
    assert terms["adversarial_ab"].item() == pytest.approx(((verdict - 1) ** 2).mean().item(), rel=1e-5)
    for term, source, domain in (("nce_x", a, "a"), ("nce_y", b, "b")):
        places = method.places(source, batch, domain)
        expected = []
        for level, tap in enumerate(cut.encoder_of(generator).taps):
            layers = cut.encoder_of(generator).layers[:tap]
            spots = places[level][0]
            vectors = [
                unit(method.projections.heads[level](layers(x).flatten(2)[0, :, spots].T))
                for x in (generator(source), source)
            ]
            scores = torch.log_softmax(vectors[0] @ vectors[1].T / 0.07, 1)
            expected.append(-scores.diagonal().mean().item())
        assert terms[term].item() == pytest.approx(0.5 * np.mean(expected), rel=1e-4)


def test_fastcut_has_its_own_weights_and_no_identity(tmp_path: Path) -> None:
    method = make(tmp_path, "fastcut")
    options = method.options
    assert (options.lambda_nce, options.nce_identity, options.flip_equivariance) == (10.0, False, True)
    assert options.name == "fastcut" and method.published.decay_start == 0.75
    assert set(turn_of(method, batch_of(), "generators").terms) == {"adversarial_ab", "nce_x"}


def test_features_of_a_mirrored_picture_are_mirrored_back(tmp_path: Path) -> None:
    method, (a, b) = make(tmp_path, "fastcut"), batch_of().images
    generator, passes = method.generators["ab"], [method.run(a, Batch(step, (a, b))) for step in range(8)]
    assert {out.mirrored[0] for out in passes} == {False, True}
    out = next(out for out in passes if out.mirrored[0])
    assert torch.equal(out.x, a.flip(3)) and torch.allclose(out.y, generator(a.flip(3)), atol=1e-6)
    expected = []
    for level, tap in enumerate(cut.encoder_of(generator).taps):
        layers, head = cut.encoder_of(generator).layers[:tap], method.projections.heads[level]
        maps = layers(out.y).flip(3), layers(a)
        query, key = (unit(head(each.flatten(2)[0, :, out.places[level][0]].T)) for each in maps)
        expected.append(-torch.log_softmax(query @ key.T / 0.07, 1).diagonal().mean().item())
    assert method.contrast(out).item() == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("generator", [RESNET, COMPACT])
def test_only_the_player_learns_in_its_turn(tmp_path: Path, generator: str) -> None:
    method = make(tmp_path, generator=generator)
    players = method.players()
    assert not {*players["generators"].parameters()} & {*players["discriminators"].parameters()}
    order = []
    for turn in method.turns(batch_of()):
        order.append(turn.player)
        method.zero_grad()
        torch.stack(list(turn.terms.values())).sum().backward()
        touched = {weight for weight in method.parameters() if weight.grad is not None and weight.grad.any()}
        assert touched and touched <= {*players[turn.player].parameters()}
    assert order == ["discriminators", "generators"]
    for head in method.projections.heads:
        assert all(weight.grad is not None for weight in head.parameters())


def test_networks_are_drawn_as_published(tmp_path: Path) -> None:
    method = make(tmp_path, generator="name: resnet6, width: 16")
    for weight, fan_in, fan_out in (
        (method.generators["ab"].body[9].body[0].weight, 64 * 9, 64 * 9),
        (method.projections.heads[3][0].weight, 64, 16),
        (method.discriminators.judges[0].body[2].weight, 4 * 16, 8 * 16),
    ):
        assert weight.std().item() == pytest.approx(0.02 * np.sqrt(2 / (fan_in + fan_out)), rel=0.1)


def test_a_batch_of_two_is_the_mean_of_its_pictures(tmp_path: Path) -> None:
    for name in ("cut", "fastcut"):
        method, batch = make(tmp_path, name), batch_of(2)
        for player in ("generators", "discriminators"):
            both = turn_of(method, batch, player).terms
            single = [turn_of(method, slot_of(batch, slot), player).terms for slot in (0, 1)]
            for term, value in both.items():
                assert value.item() == pytest.approx((single[0][term] + single[1][term]).item() / 2, rel=1e-4)


def test_places_depend_on_step_and_slot_alone_and_none_is_taken_twice(tmp_path: Path) -> None:
    method, batch = make(tmp_path), batch_of(2)
    both, second = (
        method.places(batch.images[0], batch, "a"),
        method.places(batch.images[0][1:], slot_of(batch, 1), "a"),
    )
    other = method.places(batch.images[0], dataclasses.replace(batch, step=1), "a")
    for level, places in enumerate(both):
        assert torch.equal(places[1:], second[level])
        assert not torch.equal(places, other[level])
        assert all(len(set(row)) == 24 for row in places.tolist())


def test_running_statistics_are_those_of_the_source_pictures(tmp_path: Path) -> None:
    method = make(tmp_path, generator=COMPACT)
    generator, batch = method.generators["ab"], batch_of()
    norm = generator.stem[1]
    with torch.no_grad():
        mean = generator.stem[0](nn.functional.pixel_unshuffle(batch.images[0], 2)).mean((0, 2, 3))
    for _ in method.turns(batch):
        pass
    assert torch.allclose(norm.running_mean, 0.1 * mean, atol=1e-6)
    with steady_statistics(generator):
        generator(batch.images[1])
    assert torch.allclose(norm.running_mean, 0.1 * mean, atol=1e-6) and norm.momentum == 0.1


def test_a_few_steps_lower_the_contrastive_loss(tmp_path: Path) -> None:
    method, batch = make(tmp_path), batch_of()
    optimizers = {name: method.optimizer(name, module.parameters()) for name, module in method.players().items()}
    history: list[float] = []
    for _ in range(20):
        for turn in method.turns(batch):
            optimizers[turn.player].zero_grad()
            torch.stack(list(turn.terms.values())).sum().backward()
            optimizers[turn.player].step()
            if turn.player == "generators":
                history.append((turn.terms["nce_x"] + turn.terms["nce_y"]).item())
    assert np.mean(history[-3:]) < 0.75 * history[0]


def test_the_translator_exports(tmp_path: Path) -> None:
    method = make(tmp_path)
    assert method.directions == ("ab",)
    model = export.FrameModel(method.translator(method.generators, "ab")).eval()
    file = tmp_path / "model.onnx"
    export.write_graph(model, file, SizeRule(method.multiple_of, (32, 32)))
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    (given,) = onnxruntime.InferenceSession(str(file)).run(None, {"frames": frames})
    with torch.no_grad():
        expected: Tensor = model(torch.from_numpy(frames))
    assert np.abs(given.astype(int) - expected.numpy()).max() <= 1
