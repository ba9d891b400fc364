"""CycleGAN: Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks".

Two generators, G_AB (the paper's G) and G_BA (F), and a discriminator for each domain. Beside the paper's objective
(eq. 3) a recipe may add a warm-up on colour statistics, an exposure prior and consistency in time; all weights default
to none of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from streamgan_training import losses, networks, temporal
from streamgan_training.recipe import CycleGan, Discriminator, Recipe


class ReplayPool:
    """The last translated frames: the discriminators see half of the time an older one (Shrivastava et al. 2017).

    Args:
        size: frames remembered; 0 passes everything through.
        generator: a CPU generator: the randomness.
    """

    def __init__(self, size: int, generator: torch.Generator) -> None:
        self.size = size
        self.generator = generator
        self.frames: list[Tensor] = []

    def exchange(self, images: Tensor) -> Tensor:
        """Stores new frames and returns as many: each is the new one or, with probability ½, one from the pool."""
        if self.size == 0:
            return images
        out = []
        for image in images.detach():
            if self.frames and self.frames[0].shape != image.shape:
                self.frames.clear()  # the crops' size has changed
            if len(self.frames) < self.size:
                self.frames.append(image)
                out.append(image)
            elif torch.rand((), generator=self.generator) < 0.5:
                index = int(torch.randint(self.size, (), generator=self.generator))
                out.append(self.frames[index].to(image.device))
                self.frames[index] = image
            else:
                out.append(image)
        return torch.stack(out)


class Translations(NamedTuple):
    """What one pass through both cycles gives; each ``(N, 3, H, W)`` in [-1, 1]."""

    fake_b: Tensor
    """G_AB(a)"""
    fake_a: Tensor
    """G_BA(b)"""
    cycled_a: Tensor
    """G_BA(G_AB(a))"""
    cycled_b: Tensor
    """G_AB(G_BA(b))"""


class Generators(nn.Module):
    """Both generators. One `forward` makes the whole cycle, so that a wrapper (DDP) sees a single pass."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.ab = networks.make_generator(recipe.generator)
        self.ba = networks.make_generator(recipe.generator)

    def forward(self, a: Tensor, b: Tensor) -> Translations:
        """Translates both ways and back."""
        fake_b, fake_a = self.ab(a), self.ba(b)
        return Translations(fake_b, fake_a, self.ba(fake_b), self.ab(fake_a))


class Discriminators(nn.Module):
    """The discriminators of both domains, each at one or several scales."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.a = networks.make_discriminators(recipe.discriminators)
        self.b = networks.make_discriminators(recipe.discriminators)


def warm_up_loss(generators: Generators, a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Both generators learn to match colour statistics: a start from which the translation need not be found."""
    warm_ab = losses.identity(generators.ab(a), losses.colour_match(a, b))
    warm_ba = losses.identity(generators.ba(b), losses.colour_match(b, a))
    return {"warm_up": 5.0 * (warm_ab + warm_ba)}


def adversarial(judges: nn.ModuleList, fake: Tensor, settings: tuple[Discriminator, ...]) -> Tensor:
    """E[(D(G(x)) − 1)²], weighted over the scales."""
    verdicts = zip(settings, (judge(fake) for judge in judges), strict=True)
    return torch.stack([one.weight * losses.least_squares(verdict, 1.0) for one, verdict in verdicts]).sum()


def generator_loss(
    generators: Generators, discriminators: Discriminators, a: Tensor, b: Tensor, out: Translations, recipe: Recipe
) -> dict[str, Tensor]:
    """The generators' objective, term by term, weighted: Zhu et al. 2017, eq. 3, and what the recipe adds."""
    method: CycleGan = recipe.method
    terms = {
        "adversarial_ab": method.lambda_adversarial * adversarial(discriminators.b, out.fake_b, recipe.discriminators),
        "adversarial_ba": method.lambda_adversarial * adversarial(discriminators.a, out.fake_a, recipe.discriminators),
        "cycle_a": method.lambda_cycle * losses.cycle(out.cycled_a, a),
        "cycle_b": method.lambda_cycle * losses.cycle(out.cycled_b, b),
    }
    if method.lambda_identity:
        weight = method.lambda_cycle * method.lambda_identity
        terms["identity"] = weight * (losses.identity(generators.ab(b), b) + losses.identity(generators.ba(a), a))
    if method.lambda_exposure:
        prior = losses.exposure_prior(out.fake_b, a, method.exposure_ceiling, method.exposure_region)
        terms["exposure"] = method.lambda_exposure * prior
    return terms


def temporal_loss(
    generators: Generators, a: Tensor, fake_b: Tensor, recipe: Recipe, randomness: torch.Generator
) -> Tensor:
    """The recipe's consistency in time of G_AB, weighted."""
    consistency = temporal.synthetic_consistency(generators.ab, a, fake_b, randomness)
    return recipe.temporal.weight * recipe.temporal.every * consistency


def discriminator_loss(judges: nn.ModuleList, real: Tensor, fake: Tensor) -> Tensor:
    """½ E[(D(y) − 1)²] + ½ E[D(G(x))²], summed over the scales: Zhu et al. 2017, section 4."""
    return torch.stack([losses.discriminator_loss(judge(real), judge(fake)) for judge in judges]).sum()
