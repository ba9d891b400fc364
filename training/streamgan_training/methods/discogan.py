"""DiscoGAN: Kim et al. 2017, "Learning to Discover Cross-Domain Relations with Generative Adversarial Networks".

Two generators, G_AB and G_BA, and a discriminator for each domain, D_A and D_B. What is translated and translated back
must be what it was (L_CONST, eq. 3); the translations must look like the other domain (L_GAN, eq. 4). To that the
published code adds feature matching (Salimans et al. 2016), a weight r between the two aims that changes once (the
"curriculum"), and it lets the discriminators learn at every third iteration only, at which the generators rest. All
defaults are those of the code; it takes 64×64 pictures in batches of 64.

Its networks see values in [0, 1], as there, so that the weights of the terms mean the same. The published code reads
pictures as BGR; here they are RGB, as everywhere: weights of the two cannot be exchanged.

BatchNorm and feature matching look at all pictures that a process computes at once: with more processes, or with
`micro_batch`, results change. The exported network normalises by running statistics, which are those of real pictures
(the published code tests in training mode, where a picture's translation depends on its neighbours).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamgan.api import PresetError, option
from streamgan_training import losses
from streamgan_training.augment import Augmentation
from streamgan_training.batchnorm import steady_statistics
from streamgan_training.method import Batch, Direction, Method, Published, Turn, frozen
from streamgan_training.recipe import Generator, Recipe

SMALLEST_SIDE = 64
"""Of a crop, in pixels: the last layer of the discriminators, and the fifth of the generators, cover 4×4 sixteenths."""
BOTTLENECK = 100
"""Channels of the fifth layer."""


def _strided(inputs: int, outputs: int) -> list[nn.Module]:
    """Halves the size: a 4×4 convolution, BatchNorm, LeakyReLU."""
    return [
        nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True),
    ]  # fmt: skip


def _doubling(inputs: int, outputs: int) -> list[nn.Module]:
    """Doubles the size: a transposed 4×4 convolution, BatchNorm, ReLU."""
    return [
        nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
    ]  # fmt: skip


class EncoderDecoder(nn.Module):
    """The generator of section 3: 4×4 convolutions down to 1/16 of the sides, transposed ones up again, no skips.

    Args:
        width: channels of the first layer.
        layers: down and up; with 5 the innermost one squeezes 4×4 places into one of `BOTTLENECK` channels.
    """

    def __init__(self, width: int = 64, layers: Literal[4, 5] = 4) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        body: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
        for inner in range(3):
            body += _strided(widths[inner], widths[inner + 1])
        if layers == 5:
            body += [nn.Conv2d(8 * width, BOTTLENECK, 4, bias=False), nn.BatchNorm2d(BOTTLENECK)]
            body += [nn.LeakyReLU(0.2, inplace=True), nn.ConvTranspose2d(BOTTLENECK, 8 * width, 4, bias=False)]
            body += [nn.BatchNorm2d(8 * width), nn.ReLU(inplace=True)]
        for inner in (3, 2, 1):
            body += _doubling(widths[inner], widths[inner - 1])
        body += [nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Sigmoid()]
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → the same; H and W are multiples of 16, and with 5 layers at least 64."""
        y: Tensor = self.body((x + 1) / 2)
        return 2 * y - 1


class Verdict(NamedTuple):
    """What a discriminator says of pictures."""

    logits: Tensor
    """``(N, 1, H / 16 - 3, W / 16 - 3)``: a single one at 64×64; a sigmoid makes it a probability of being real."""
    features: list[Tensor]
    """Of the second, the third and the fourth layer, each ``(N, C, h, w)``."""


class Judge(nn.Module):
    """The discriminator of section 3: four 4×4 convolutions down to 1/16 of the sides and one that judges."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True))
        self.stages = nn.ModuleList(nn.Sequential(*_strided(each * width, 2 * each * width)) for each in (1, 2, 4))
        self.last = nn.Conv2d(8 * width, 1, 4, bias=False)

    def forward(self, x: Tensor) -> Verdict:
        """Judges ``(N, 3, H, W)`` in [-1, 1]."""
        x, features = self.first((x + 1) / 2), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return Verdict(self.last(x), features)


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Σ_l mean((E[f_l(x)] − E[f_l(G(y))])²): Salimans et al. 2016, section 3.1, for several layers.

    The published code puts the squares into a hinge embedding loss with the label 1, which is their mean.

    Args:
        real: features of real pictures by layer, each ``(N, C, h, w)``; E is the mean over N.
        fake: of translations: the same shapes.
    """
    pairs = zip(real, fake, strict=True)
    return torch.stack([(one.mean(0) - other.mean(0)).square().mean() for one, other in pairs]).sum()


def reconstruction(cycled: Tensor, original: Tensor) -> Tensor:
    """L_CONST = MSE(G_BA(G_AB(x)), x): eq. 3, of values in [0, 1] (the arguments are in [-1, 1])."""
    return F.mse_loss(cycled, original) / 4


class DiscoGan(Method):
    """The method ``discogan``."""

    @dataclasses.dataclass(frozen=True)
    class Options(Method.Options):
        """Networks, weights and the curriculum."""

        width: int = option(64, minimum=1)
        """Channels of the generators' first layer."""
        discriminator_width: int = option(64, minimum=1)
        """Channels of the discriminators' first layer."""
        layers: Literal[4, 5] = 4
        """Of the generators, down and up: the paper has four or five."""
        lambda_gan: float = option(0.1, minimum=0)
        """Of the adversarial term, within the weight 1 − r."""
        lambda_feature: float = option(0.9, minimum=0)
        """Of feature matching, within the weight 1 − r."""
        rate_start: float = option(0.01, minimum=0, maximum=1)
        """r, the weight of the reconstruction, at first."""
        rate: float = option(0.5, minimum=0, maximum=1)
        """r afterwards."""
        curriculum_iterations: int = option(10_000, minimum=0)
        """Iterations with `rate_start`."""
        curriculum_fraction: float | None = option(None, minimum=0, maximum=1)
        """The same as a fraction of the training, in [0, 1]; it replaces `curriculum_iterations`."""
        update_interval: int = option(3, minimum=2)
        """The discriminators learn at every n-th iteration, the generators at all others."""

        def __post_init__(self) -> None:
            if self.curriculum_fraction is not None and not 0 <= self.curriculum_fraction <= 1:
                raise ValueError(f"curriculum_fraction: {self.curriculum_fraction} given, expected 0 to 1")

    published = Published(learning_rate=2e-4, betas=(0.5, 0.999), weight_decay=1e-5, schedule="constant")
    multiple_of = 16
    options: Options

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        check_recipe(recipe)
        options = self.options
        self.generators: nn.ModuleDict = nn.ModuleDict(
            {name: EncoderDecoder(options.width, options.layers) for name in self.directions}
        )
        self.discriminators = nn.ModuleDict({domain: Judge(options.discriminator_width) for domain in ("a", "b")})

    def players(self) -> Mapping[str, nn.Module]:
        """The discriminators against the generators."""
        return {"discriminators": self.discriminators, "generators": self.generators}

    def translator(self, generators: nn.Module, direction: str) -> nn.Module:
        """G_AB or G_BA."""
        return generators.get_submodule(direction)

    def turns(self, batch: Batch) -> Iterator[Turn]:
        """Either the discriminators or the generators."""
        (a, b), (ab, ba) = batch.images, (self.generators[name] for name in self.directions)
        if batch.step % self.options.update_interval == 0:
            with torch.no_grad():
                fakes = {"a": ba(b), "b": ab(a)}
            yield Turn("discriminators", self.discriminator_terms({"a": a, "b": b}, fakes))
            return
        fake_a, fake_b = ba(b), ab(a)
        with steady_statistics(self.generators):
            cycled_a, cycled_b = ba(fake_b), ab(fake_a)
        with frozen(self.discriminators):
            terms = self.generator_terms("ab", b, fake_b, batch.step) | self.generator_terms(
                "ba", a, fake_a, batch.step
            )
        rate = self.rate(batch.step)
        terms |= {
            "cycle_a": rate * reconstruction(cycled_a, a),
            "cycle_b": rate * reconstruction(cycled_b, b),
        }
        yield Turn(
            "generators", terms, (Direction("ab", 0, 1, a, fake_b, ab, ba), Direction("ba", 1, 0, b, fake_a, ba, ab))
        )

    def rate(self, step: int) -> float:
        """r of a step: the curriculum."""
        options, end = self.options, float(self.options.curriculum_iterations)
        if options.curriculum_fraction is not None:
            end = options.curriculum_fraction * self.recipe.train.iterations
        return options.rate_start if step < end else options.rate

    def generator_terms(self, direction: str, real: Tensor, fake: Tensor, step: int) -> dict[str, Tensor]:
        """(1 − r)(0.1 L_GAN + 0.9 L_FM) of one translation, term by term, in the eyes of the domain it goes to."""
        judge, weight = self.discriminators[direction[-1]], 1 - self.rate(step)
        with torch.no_grad():
            wanted = judge(real).features
        verdict = judge(fake)
        adversarial = losses.generator_gan("vanilla", verdict.logits)
        return {
            f"adversarial_{direction}": weight * self.options.lambda_gan * adversarial,
            f"features_{direction}": weight * self.options.lambda_feature * feature_matching(wanted, verdict.features),
        }

    def discriminator_terms(self, real: Mapping[str, Tensor], fake: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """L_D of both domains: eq. 6, halved as in the published code."""
        terms = {}
        for domain, judge in self.discriminators.items():
            verdicts = judge(real[domain]).logits, judge(fake[domain]).logits
            terms[f"discriminator_{domain}"] = losses.discriminator_gan("vanilla", *verdicts)
        return terms


def check_recipe(recipe: Recipe) -> None:
    """Refuses what DiscoGAN's networks cannot do, and keys that would have no effect.

    Raises:
        PresetError: naming the key.
    """
    for key, size in (("size", recipe.data.size), ("small_size", recipe.data.small_size)):
        if size is not None and min(size) < SMALLEST_SIDE:
            raise PresetError(f"data.{key}: {list(size)} given, discogan needs at least {SMALLEST_SIDE} pixels a side")
    if recipe.generator != Generator():
        raise PresetError("generator: discogan brings its own networks; remove it, and set method.width instead")
    if recipe.augmentation != Augmentation():
        raise PresetError("augmentation: discogan compares plain features of real and translated pictures; remove it")
