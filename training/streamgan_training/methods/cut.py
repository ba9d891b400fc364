"""CUT and FastCUT: Park et al. 2020, "Contrastive Learning for Unpaired Image-to-Image Translation".

One direction only: a generator G and a discriminator D. In place of the way back, a patch of the translation must be
recognised as the patch of the picture at the same place, among other patches of that picture (eq. 3). Patches are
compared by the features of G's own encoder, G_enc, each level through a small network H_l.

Where our networks differ from the published ones: D has plain strided convolutions (the published one blurs before it
strides), and the anti-aliased G, a recipe's ``generator: {upsampling: antialiased}``, blurs before the norm instead of
after the ReLU. The first level is the picture itself, without the mirrored frame that the published code adds to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamgan.api import UsageError, option
from streamgan_training import networks
from streamgan_training.batchnorm import steady_statistics
from streamgan_training.discriminators import Discriminators
from streamgan_training.method import Batch, Direction, Method, Published, ReplayPool, Turn, frozen
from streamgan_training.recipe import Recipe

SURVEY_SIDE = 64
"""Side of the blank picture from which the shapes of the levels are read, in pixels."""


@dataclasses.dataclass(frozen=True)
class Encoder:
    """G_enc, the part of a generator whose features are compared; its layers are the generator's own."""

    layers: nn.Sequential
    """Applied one after another, they compute every level."""
    taps: tuple[int, ...]
    """A level is what is there after so many of the layers; 0 is the picture itself."""
    whole: bool
    """Whether `layers` go on to the translation, which then yields the levels for free."""


class Level(NamedTuple):
    """One level l of the encoder."""

    channels: int
    stride: int
    """Pixels of the picture from one place to the next."""


def encoder_of(generator: nn.Module) -> Encoder:
    """Where features are taken.

    `resnet`: as in the paper's appendix on training: the picture, both down-sampling convolutions, the first and the
    fifth residual block. These are the layers 0, 4, 8, 12 and 16 of the published code, which counts padding as a
    layer; of `ResnetGenerator.body` they are the input and the outputs of 3, 7, 11, 15 (antialiased; receptive fields
    of 1, 9, 15, 35 and 99 pixels, as in the paper) or of 3, 6, 9, 13 (strided).

    `compact`: the picture, then the last layer at 1/2, 1/4 and 1/8 of its sides, and the first block at 1/16, with
    receptive fields of 1, 6, 26, 66 and 146 pixels. Later layers hold the global modulation, after which each place
    knows of all others and a patch would be told from its negatives by what is not in it.

    `unet`: the picture and the first four strided convolutions: 1, 4, 10, 22 and 46 pixels.

    Raises:
        UsageError: if the generator is of none of these kinds.
    """
    if isinstance(generator, networks.ResnetGenerator):
        layers = list(generator.body)
        convolutions = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
        blocks = [index for index, layer in enumerate(layers) if isinstance(layer, networks.ResnetBlock)]
        taps = (0, *(1 + index for index in (convolutions[1], convolutions[2], blocks[0], blocks[4])))
        return Encoder(nn.Sequential(*layers), taps, whole=True)
    if isinstance(generator, networks.CompactGenerator):
        downs = (generator.down_quarter, generator.down_eighth, generator.down_coarse, generator.coarse[0])
        return Encoder(nn.Sequential(nn.PixelUnshuffle(2), generator.stem, *downs), (0, 2, 3, 4, 6), whole=False)
    if isinstance(generator, networks.UnetGenerator):
        layers, level = [generator.body[0]], generator.body[1]
        for _ in range(3):
            assert isinstance(level, networks.UnetLevel)  # there are at least five
            layers += level.body[:3]
            level = level.body[3]
        return Encoder(nn.Sequential(*layers[:-1]), (0, 1, 3, 6, 9), whole=False)
    known = "resnet, unet or compact"
    raise UsageError(f"generator: cut takes features of {known}, {type(generator).__name__} given; choose one of them")


def survey(encoder: Encoder) -> tuple[Level, ...]:
    """The shapes of the levels, which must be known before there is a batch: H_l is made with everything else."""
    encoder.layers.eval()
    x, levels = torch.zeros(1, 3, SURVEY_SIDE, SURVEY_SIDE), []
    with torch.no_grad():
        for done in range(max(encoder.taps) + 1):
            if done in encoder.taps:
                levels.append(Level(x.shape[1], SURVEY_SIDE // x.shape[-1]))
            x = encoder.layers[done](x) if done < len(encoder.layers) else x
    encoder.layers.train()
    return tuple(levels)


def patches_at(features: Tensor, places: Tensor, mirrored: Sequence[bool]) -> Tensor:
    """The features of some places: ``(N, P, C)`` of ``(N, C, h, w)``.

    Args:
        features: of one level.
        places: ``(N, P)`` int64: row · w + column.
        mirrored: by picture, whether `features` show its mirror image, while `places` are those of the picture.
    """
    width = features.shape[-1]
    rows, columns = places // width, places % width
    flips = torch.tensor(mirrored, device=features.device)[:, None]
    columns = torch.where(flips, width - 1 - columns, columns)
    picture = torch.arange(len(features), device=features.device)[:, None]
    return features[picture, :, rows, columns]


def _walk(
    encoder: Encoder, layers: int, x: Tensor, places: Sequence[Tensor], mirrored: Sequence[bool]
) -> tuple[Tensor, list[Tensor]]:
    """Applies the first so many layers, and takes patches on the way: at once, as a later ReLU may write in place."""
    found: list[Tensor] = []
    for done in range(layers + 1):
        if done in encoder.taps:
            found.append(patches_at(x, places[len(found)], mirrored))
        x = encoder.layers[done](x) if done < layers else x
    return x, found


def encode(generator: nn.Module, images: Tensor, places: Sequence[Tensor], mirrored: Sequence[bool]) -> list[Tensor]:
    """The features G_enc(x) of patches, by level: each ``(N, P, C)``.

    Args:
        generator: G, of a kind that `encoder_of` knows. Running statistics of its norms stay as they are.
        images: x, ``(N, 3, H, W)`` in [-1, 1].
        places: by level, as `patches_at` takes them.
        mirrored: by picture, whether x is the mirror image of the picture that `places` are in.
    """
    encoder = encoder_of(generator)
    with steady_statistics(encoder.layers):
        return _walk(encoder, max(encoder.taps), images, places, mirrored)[1]


def translate(generator: nn.Module, images: Tensor, places: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """G(x), and the features of x at some places, without gradient: of the same pass where G is one chain of layers."""
    encoder, mirrored = encoder_of(generator), [False] * len(images)
    if encoder.whole:
        translation, found = _walk(encoder, len(encoder.layers), images, places, mirrored)
        return translation, [patches.detach() for patches in found]
    with torch.no_grad():
        found = encode(generator, images, places, mirrored)
    return generator(images), found


def patch_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """ℓ(v, v⁺, v⁻): Park et al. 2020, eq. 2, the mean over patches and pictures. In fp32 whatever the precision.

    The negatives v⁻ of a patch are the other patches of the same picture.

    Args:
        queries: v, ``(N, P, D)`` of length 1: patches of the translation.
        keys: the same shape: patches of the picture; v⁺ is the one of the same index. No gradient flows.
        temperature: τ.
    """
    with torch.autocast(queries.device.type, enabled=False):
        similarity = torch.bmm(queries.float(), keys.detach().float().transpose(1, 2)) / temperature
        match = torch.arange(keys.shape[1], device=keys.device).repeat(len(keys))
        return F.cross_entropy(similarity.flatten(0, 1), match)


class Projections(nn.Module):
    """H_l, two layers of 256 for each level: from features to vectors of length 1 that are compared (section 3)."""

    def __init__(self, levels: Sequence[Level], width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(level.channels, width), nn.ReLU(), nn.Linear(width, width)) for level in levels
        )

    def forward(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """By level: ``(N, P, C)`` → ``(N, P, width)``, fp32."""
        pairs = zip(self.heads, patches, strict=True)
        return [F.normalize(head(each).float(), dim=-1, eps=1e-7) for head, each in pairs]


def initialise_xavier(network: nn.Module, gain: float = 0.02) -> None:
    """Draws all weights as Glorot and Bengio 2010, eq. 12, from a normal distribution of the same variance, times a
    gain: what the published code does; layers marked ``zero_init`` begin at 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if getattr(module, "zero_init", False):
                nn.init.zeros_(module.weight)
            else:
                nn.init.xavier_normal_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Pass(NamedTuple):
    """What one pass of the generator gives, and where patches of it are compared."""

    x: Tensor
    """What the generator was shown, ``(N, 3, H, W)`` in [-1, 1]: some pictures mirrored."""
    y: Tensor
    """G(x): the same shape."""
    keys: list[Tensor]
    """Features of the pictures, not mirrored, at `places`: by level ``(N, P, C)``, without gradient."""
    places: list[Tensor]
    """By level ``(N, P)``: see `patches_at`."""
    mirrored: list[bool]
    """By picture."""


class Cut(Method):
    """The method ``cut``."""

    @dataclasses.dataclass(frozen=True)
    class Options(Method.Options):
        """Weights of the objective, eq. 5, and how patches are compared."""

        objective: Literal["lsgan", "vanilla", "hinge"] = "lsgan"
        """The adversarial loss of eq. 1: least squares as published, or another."""
        lambda_gan: float = option(1.0, minimum=0)
        """λ_GAN"""
        lambda_nce: float = option(1.0, minimum=0)
        """λ_NCE: λ_X, and λ_Y where there is an identity term."""
        nce_identity: bool = True
        """Whether pictures of B, translated, must keep their patches too. Both terms then count half, as in the
        published code; eq. 5 would have them in full (set `lambda_nce` to 2 for that)."""
        flip_equivariance: bool = False
        """Whether G is shown half of the pictures mirrored, and must translate them as it would without."""
        patches: int = option(256, minimum=2)
        """Places that are compared at each level, at most; drawn for each picture on its own."""
        temperature: float = option(0.07, minimum=0.001)
        """τ"""
        projection: int = option(256, minimum=1)
        """Channels of both layers of H_l."""
        pool: int = option(0, minimum=0)
        """Translated frames remembered for the discriminator."""

    published = Published(learning_rate=2e-4, betas=(0.5, 0.999), schedule="linear", decay_start=0.5)
    options: Options

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        generator = networks.make_generator(recipe.generator)
        self.generators: nn.ModuleDict = nn.ModuleDict({"ab": generator})
        self.levels = survey(encoder_of(generator))
        self.projections = Projections(self.levels, self.options.projection)
        self.discriminators = Discriminators(recipe.discriminators, recipe.augmentation, self.options.objective)
        for network in (self.generators, self.projections, self.discriminators):
            initialise_xavier(network)
        self.multiple_of = networks.MULTIPLE_OF[recipe.generator.name]
        self.pools = {"b": ReplayPool(self.options.pool, recipe.train.batch)}

    @property
    def directions(self) -> tuple[str, ...]:
        """One only."""
        return ("ab",)

    def players(self) -> Mapping[str, nn.Module]:
        """The discriminator against the generator with H: one optimiser for both, as the published two are alike."""
        learners = nn.ModuleDict({"generators": self.generators, "projections": self.projections})
        return {"discriminators": self.discriminators, "generators": learners}

    def translator(self, generators: nn.Module, direction: str) -> nn.Module:
        """G."""
        return generators.get_submodule(direction)

    def turns(self, batch: Batch) -> Iterator[Turn]:
        """The discriminator, then the generator, as in the published code."""
        options, (a, b) = self.options, batch.images
        out = self.run(a, batch)
        shown = self.pools["b"].exchange(out.y, batch, "pool b")
        yield Turn(
            "discriminators", {"discriminator_b": self.discriminators.loss(options.objective, b, shown, batch, "b")}
        )
        with frozen(self.discriminators):
            terms = self.generator_terms(batch, out)
        yield Turn("generators", terms, (Direction("ab", 0, 1, out.x, out.y, self.generators["ab"]),))

    def run(self, images: Tensor, batch: Batch, domain: str = "a") -> Pass:
        """Translates pictures; only those of A, which it is there for, reach the running statistics of its norms."""
        generator, places = self.generators["ab"], self.places(images, batch, domain)
        mirrored = [self._is_mirrored(batch, slot) for slot in batch.slots]
        with contextlib.nullcontext() if domain == "a" else steady_statistics(generator):
            if not any(mirrored):
                return Pass(images, *translate(generator, images, places), places, mirrored)
            flips = torch.tensor(mirrored, device=images.device).view(-1, 1, 1, 1)
            x = torch.where(flips, images.flip(3), images)
            with torch.no_grad():
                keys = encode(generator, images, places, [False] * len(images))
            return Pass(x, generator(x), keys, places, mirrored)

    def places(self, images: Tensor, batch: Batch, domain: str) -> list[Tensor]:
        """Where patches are taken: by level ``(N, P)``, of each picture its own, none twice."""
        height, width = images.shape[-2:]
        found = []
        for number, level in enumerate(self.levels):
            count = (height // level.stride) * (width // level.stride)
            draws = [
                torch.randperm(count, generator=batch.generator(f"patches {domain} {number}", slot))
                for slot in batch.slots
            ]
            found.append(torch.stack(draws)[:, : self.options.patches].to(images.device))
        return found

    def _is_mirrored(self, batch: Batch, slot: int) -> bool:
        """Whether the generator is shown the mirror image of a slot's pictures."""
        return self.options.flip_equivariance and bool(torch.rand((), generator=batch.generator("mirror", slot)) < 0.5)

    def generator_terms(self, batch: Batch, out: Pass) -> dict[str, Tensor]:
        """The objective of G and H, term by term, weighted: eq. 5."""
        options = self.options
        adversarial = self.discriminators.adversarial(options.objective, out.y, batch, "b")
        terms = {"adversarial_ab": options.lambda_gan * adversarial}
        weight = options.lambda_nce * (0.5 if options.nce_identity else 1.0)
        if weight:
            terms["nce_x"] = weight * self.contrast(out)
        if weight and options.nce_identity:
            terms["nce_y"] = weight * self.contrast(self.run(batch.images[1], batch, "b"))
        return terms

    def contrast(self, out: Pass) -> Tensor:
        """L_PatchNCE(G, H, X): eq. 3, the mean over levels, patches and pictures, as in the published code."""
        queries = self.projections(encode(self.generators["ab"], out.y, out.places, out.mirrored))
        with torch.no_grad():
            keys = self.projections(out.keys)
        pairs = zip(queries, keys, strict=True)
        return torch.stack([patch_nce(one, other, self.options.temperature) for one, other in pairs]).mean()


class FastCut(Cut):
    """The method ``fastcut``: no identity term, patches weigh ten times as much, and G is shown mirror images."""

    @dataclasses.dataclass(frozen=True)
    class Options(Cut.Options):
        """As `Cut.Options`, with other defaults."""

        lambda_nce: float = option(10.0, minimum=0)
        """λ_X"""
        nce_identity: bool = False
        """λ_Y is 0."""
        flip_equivariance: bool = True
        """As in `Cut.Options`."""

    published = Published(learning_rate=2e-4, betas=(0.5, 0.999), schedule="linear", decay_start=0.75)
    options: Options
