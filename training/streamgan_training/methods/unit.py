"""UNIT: Liu, Breuel and Kautz 2017, "Unsupervised Image-to-Image Translation Networks".

Pictures of both domains are coded in one latent space: an encoder E and a decoder (the paper's G) a domain, and a
translation is the code of one domain decoded in the other. With x₁ = a and x₂ = b, the objective is the paper's sum of
a variational auto-encoder, an adversarial loss and a cycle loss a domain. Its posterior is N(μ, 1), so that the
divergence from N(0, 1) is μ² / 2, here without the half, as in the published code.

Networks and weights are those that the authors' later code (2018) publishes, not those of the paper, which judged by
cross-entropy (``objective: vanilla``), shared one residual block on either side of the latent space
(``shared_blocks: 1``) and had all weights ten times as large (adversarial 10, reconstruction and cycle 100, both
divergences 0.1). The later code counts the divergence of μ(x) once, the paper again in its cycle loss. Its loss on VGG
features, off by default there too, is the term `perceptual` of any method.

The networks are the method's own. Of the recipe's ``generator`` only `width` counts: the channels of the first level,
64 as published. Each entry of ``discriminators`` is a scale; a recipe that says nothing of them (or gives the single
default discriminator of other methods) gets the published three, `JUDGES`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamgan.api import PresetError, option
from streamgan_training import losses, networks
from streamgan_training.augment import Augmentation
from streamgan_training.discriminators import Discriminators
from streamgan_training.losses import Objective
from streamgan_training.method import Batch, Direction, Method, Published, Turn, frozen
from streamgan_training.recipe import Discriminator, Recipe

BLOCKS = 4
"""Residual blocks of an encoder, and of a decoder."""
JUDGES = tuple(Discriminator(width=64, layers=4, norm="none", scale=scale) for scale in (1, 2, 4))
"""The published discriminators of a domain."""


class LayerNorm(nn.Module):
    """γ (x − m) / (s + ε) + β, over all channels and pixels of a picture: Ba et al. 2016, eq. 3, as UNIT's code has it.

    The spread s is the unbiased one, ε is added to it and not to the variance, γ and β are one number a channel, and γ
    is drawn from U(0, 1). No state: a picture's result depends on that picture alone. Always in fp32.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.rand(channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        x = x.float()
        mean, spread = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
        return self.gamma * (x - mean) / (spread + self.eps) + self.beta


class Encoder(nn.Sequential):
    """E: c7s1-`width`, two strided 4×4 convolutions, residual blocks; InstanceNorm throughout."""

    def __init__(self, width: int, blocks: int = BLOCKS) -> None:
        layers: list[nn.Module] = [*_conv(3, width, 7, 1, 3), nn.InstanceNorm2d(width), nn.ReLU(inplace=True)]
        for channels in (width, 2 * width):
            layers += [*_conv(channels, 2 * channels, 4, 2, 1), nn.InstanceNorm2d(2 * channels), nn.ReLU(inplace=True)]
        super().__init__(*layers, *_blocks(4 * width, blocks))


class Decoder(nn.Sequential):
    """G: residual blocks with InstanceNorm, twice nearest neighbour and a 5×5 convolution with `LayerNorm`, c7s1-3."""

    def __init__(self, width: int, blocks: int = BLOCKS) -> None:
        layers: list[nn.Module] = _blocks(4 * width, blocks)
        for channels in (4 * width, 2 * width):
            layers += [nn.Upsample(scale_factor=2.0, mode="nearest"), *_conv(channels, channels // 2, 5, 1, 2)]
            layers += [LayerNorm(channels // 2), nn.ReLU(inplace=True)]
        super().__init__(*layers, *_conv(width, 3, 7, 1, 3), nn.Tanh())


def _conv(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    """A convolution with reflected edges."""
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding, padding_mode="reflect")]


def _blocks(channels: int, count: int) -> list[nn.Module]:
    """Residual blocks with InstanceNorm."""
    return [networks.ResnetBlock(channels, nn.InstanceNorm2d) for _ in range(count)]


class ScaleDiscriminator(nn.Module):
    """D at one scale: `layers` strided 4×4 convolutions, doubling the channels, and a 1×1 convolution.

    With 4 layers a verdict rests on 46² pixels of its scale. Every halving of the scale is a 3×3 mean at every other
    pixel, of what lies inside the frame.
    """

    def __init__(self, settings: Discriminator) -> None:
        super().__init__()
        self.halvings = int(math.log2(settings.scale))
        norm, channels, body = networks.make_norm(settings.norm), 3, list[nn.Module]()
        for level in range(settings.layers):
            following = settings.width * 2**level
            body += [nn.Conv2d(channels, following, 4, 2, 1), norm(following) if level else nn.Identity()]
            body += [nn.LeakyReLU(0.2, inplace=True)]
            channels = following
        self.body = nn.Sequential(*body, nn.Conv2d(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → (N, 1, h, w), one verdict a patch: 1 is real, 0 is translated."""
        for _ in range(self.halvings):
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        y: Tensor = self.body(x)
        return y


class MultiScaleDiscriminators(Discriminators):
    """The discriminators of one domain, each a `ScaleDiscriminator`."""

    def __init__(
        self, settings: tuple[Discriminator, ...], augmentation: Augmentation, objective: Objective = "lsgan"
    ) -> None:
        super().__init__((), augmentation, objective)
        self.weights = [one.weight for one in settings]
        self.judges = nn.ModuleList(ScaleDiscriminator(one) for one in settings)
        networks.initialise(self)


class Noise(NamedTuple):
    """What is added to each code; standard normal, ``(N, C, H / 4, W / 4)``."""

    a: Tensor
    b: Tensor
    ab: Tensor
    """For the code of a's translation."""
    ba: Tensor


class Streams(NamedTuple):
    """One pass through all streams; pictures are ``(N, 3, H, W)`` in [-1, 1], codes ``(N, C, H / 4, W / 4)``."""

    own_a: Tensor
    """x_aa, a coded and decoded in its own domain"""
    own_b: Tensor
    fake_b: Tensor
    """x_ab, the translation of a"""
    fake_a: Tensor
    cycled_a: Tensor
    """x_aba, the translation of a translated back"""
    cycled_b: Tensor
    mean_a: Tensor
    """μ of a"""
    mean_b: Tensor
    mean_ab: Tensor
    """μ of x_ab"""
    mean_ba: Tensor


class Generators(nn.Module):
    """Encoders and decoders of both domains, and what they share on either side of the latent space.

    Args:
        width: channels of the first level.
        shared: residual blocks that the encoders end with, and the decoders begin with, in common.
    """

    def __init__(self, width: int, shared: int = 0) -> None:
        super().__init__()
        self.encoder_a, self.encoder_b = Encoder(width, BLOCKS - shared), Encoder(width, BLOCKS - shared)
        self.shared_encoder = nn.Sequential(*_blocks(4 * width, shared))
        self.shared_decoder = nn.Sequential(*_blocks(4 * width, shared))
        self.decoder_a, self.decoder_b = Decoder(width, BLOCKS - shared), Decoder(width, BLOCKS - shared)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # He et al. 2015
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def encode(self, domain: str, x: Tensor) -> Tensor:
        """μ of pictures of a domain, ``a`` or ``b``: ``(N, 3, H, W)`` → ``(N, 4 width, H / 4, W / 4)``."""
        mean: Tensor = self.shared_encoder(self.get_submodule(f"encoder_{domain}")(x))
        return mean

    def decode(self, domain: str, z: Tensor) -> Tensor:
        """The picture of a code in a domain: the reverse of `encode`."""
        y: Tensor = self.get_submodule(f"decoder_{domain}")(self.shared_decoder(z))
        return y

    def forward(self, a: Tensor, b: Tensor, noise: Noise) -> Streams:
        """Reconstructs, translates, and translates back; a code has the same noise in both domains."""
        mean_a, mean_b = self.encode("a", a), self.encode("b", b)
        z_a, z_b = mean_a + noise.a, mean_b + noise.b
        fake_b, fake_a = self.decode("b", z_a), self.decode("a", z_b)
        mean_ab, mean_ba = self.encode("b", fake_b), self.encode("a", fake_a)
        return Streams(
            own_a=self.decode("a", z_a), own_b=self.decode("b", z_b), fake_b=fake_b, fake_a=fake_a,
            cycled_a=self.decode("a", mean_ab + noise.ab), cycled_b=self.decode("b", mean_ba + noise.ba),
            mean_a=mean_a, mean_b=mean_b, mean_ab=mean_ab, mean_ba=mean_ba,
        )  # fmt: skip


class Unit(Method):
    """The method ``unit``."""

    @dataclasses.dataclass(frozen=True)
    class Options(Method.Options):
        """Weights of the objective, with the paper's symbols."""

        objective: Literal["lsgan", "vanilla"] = "lsgan"
        """The adversarial loss: least squares as in the published code, or cross-entropy as in the paper."""
        lambda_adversarial: float = option(1.0, minimum=0)
        """λ₀"""
        lambda_kl: float = option(0.01, minimum=0)
        """λ₁, of the codes of real pictures."""
        lambda_reconstruction: float = option(10.0, minimum=0)
        """λ₂"""
        lambda_cycle_kl: float = option(0.01, minimum=0)
        """λ₃, of the codes of translations."""
        lambda_cycle: float = option(10.0, minimum=0)
        """λ₄"""
        shared_blocks: int = option(0, minimum=0, maximum=BLOCKS)
        """Residual blocks that the encoders share, and as many that the decoders share: 1 in the paper's code."""

    published = Published(learning_rate=1e-4, betas=(0.5, 0.999), weight_decay=1e-4, schedule="halve", decay_start=0.1)
    options: Options

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        settings = JUDGES if recipe.discriminators == (Discriminator(),) else recipe.discriminators
        _check(recipe, settings)
        self.generators: Generators = Generators(recipe.generator.width, self.options.shared_blocks)
        self.discriminators = nn.ModuleDict(
            {
                domain: MultiScaleDiscriminators(settings, recipe.augmentation, self.options.objective)
                for domain in ("a", "b")
            }
        )

    def players(self) -> Mapping[str, nn.Module]:
        """The discriminators against the encoders and decoders."""
        return {"discriminators": self.discriminators, "generators": self.generators}

    def translator(self, generators: nn.Module, direction: str) -> nn.Module:
        """The encoder of one domain and the decoder of the other; the code is μ, without noise."""
        parts = (f"encoder_{direction[0]}", "shared_encoder", "shared_decoder", f"decoder_{direction[1]}")
        return nn.Sequential(*(generators.get_submodule(part) for part in parts))

    def turns(self, batch: Batch) -> Iterator[Turn]:
        """Discriminators, then generators, as in the published code; both see the same pictures."""
        out = self.generators(*batch.images, self.noise(batch))
        yield Turn("discriminators", self.discriminator_terms(batch, out))
        with frozen(self.discriminators):
            terms = self.generator_terms(batch, out)
        yield Turn("generators", terms, self.translations(batch, out))

    def noise(self, batch: Batch) -> Noise:
        """N(0, 1) in the shape of the codes."""
        a, channels = batch.images[0], 4 * self.recipe.generator.width
        like = a.new_empty(len(a), channels, a.shape[2] // self.multiple_of, a.shape[3] // self.multiple_of)
        return Noise(*(batch.randn(like, f"noise {name}") for name in Noise._fields))

    def translations(self, batch: Batch, out: Streams) -> tuple[Direction, ...]:
        """Both directions, for further terms.

        Their functions add no noise, as later in use. Where consistency in time compares a translation with another of
        the same picture moved, that translation is made again without noise too, so that noise is not taken for
        flicker.
        """
        steady = self.recipe.temporal.due(batch.step, self.recipe.train.iterations)
        ab, ba = (self.translator(self.generators, direction) for direction in self.directions)
        a, b = batch.images
        return (
            Direction("ab", 0, 1, a, ab(a) if steady else out.fake_b, ab, ba),
            Direction("ba", 1, 0, b, ba(b) if steady else out.fake_a, ba, ab),
        )

    def generator_terms(self, batch: Batch, out: Streams) -> dict[str, Tensor]:
        """What encoders and decoders minimise, weighted: L_VAE, L_GAN and L_CC of either domain."""
        a, b = batch.images
        options = self.options
        fooled_b = self.judge("b").adversarial(options.objective, out.fake_b, batch, "b")
        fooled_a = self.judge("a").adversarial(options.objective, out.fake_a, batch, "a")
        return {
            "adversarial_ab": options.lambda_adversarial * fooled_b,
            "adversarial_ba": options.lambda_adversarial * fooled_a,
            "reconstruction_a": options.lambda_reconstruction * losses.identity(out.own_a, a),
            "reconstruction_b": options.lambda_reconstruction * losses.identity(out.own_b, b),
            "kl": options.lambda_kl * (divergence(out.mean_a) + divergence(out.mean_b)),
            "cycle_a": options.lambda_cycle * losses.cycle(out.cycled_a, a),
            "cycle_b": options.lambda_cycle * losses.cycle(out.cycled_b, b),
            "cycle_kl": options.lambda_cycle_kl * (divergence(out.mean_ab) + divergence(out.mean_ba)),
        }

    def discriminator_terms(self, batch: Batch, out: Streams) -> dict[str, Tensor]:
        """What D_A and D_B minimise, weighted as the published code does and, as there and in the paper, not halved."""
        weight = 2 * self.options.lambda_adversarial
        terms = {}
        for domain, real, fake in zip("ab", batch.images, (out.fake_a, out.fake_b), strict=True):
            loss = self.judge(domain).loss(self.options.objective, real, fake, batch, domain)
            terms[f"discriminator_{domain}"] = weight * loss
        return terms

    def judge(self, domain: str) -> Discriminators:
        """D_A or D_B."""
        judges = self.discriminators[domain]
        assert isinstance(judges, Discriminators)
        return judges


def divergence(mean: Tensor) -> Tensor:
    """E[μ²]: twice the divergence of N(μ, 1) from N(0, 1), the mean over the code."""
    return mean.square().mean()


def _check(recipe: Recipe, judges: tuple[Discriminator, ...]) -> None:
    """Refuses discriminators that cannot judge.

    Raises:
        PresetError: if a scale is no power of two, or a crop is too small for a discriminator.
    """
    sides = [side for size in (recipe.data.size, recipe.data.small_size) if size is not None for side in size]
    for one in judges:
        if one.scale < 1 or one.scale & (one.scale - 1):
            raise PresetError(f"{recipe.name}: discriminators: scale: {one.scale} given, expected 1, 2, 4, …")
        if min(sides) < one.scale * 2**one.layers:
            raise PresetError(
                f"{recipe.name}: data: crops of {min(sides)} pixels given, the discriminator of {one.layers} layers at "
                f"scale {one.scale} needs {one.scale * 2**one.layers}; enlarge them, or give other `discriminators`"
            )
