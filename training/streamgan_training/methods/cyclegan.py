"""CycleGAN: Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks".

Two generators, G_AB (the paper's G) and G_BA (F), and a discriminator for each domain, D_A (D_X) and D_B (D_Y). Beside
the paper's objective (eq. 3) a recipe may ask for a warm-up on colour statistics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from torch import Tensor, nn

from streamgan.api import option
from streamgan_training import losses, networks
from streamgan_training.discriminators import Discriminators
from streamgan_training.method import Batch, Direction, Method, Published, ReplayPool, Turn, frozen
from streamgan_training.recipe import Recipe


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
    """Both generators."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.ab = networks.make_generator(recipe.generator)
        self.ba = networks.make_generator(recipe.generator)

    def forward(self, a: Tensor, b: Tensor) -> Translations:
        """Translates both ways and back."""
        fake_b, fake_a = self.ab(a), self.ba(b)
        return Translations(fake_b, fake_a, self.ba(fake_b), self.ab(fake_a))


class CycleGan(Method):
    """The method ``cyclegan``."""

    @dataclasses.dataclass(frozen=True)
    class Options(Method.Options):
        """Weights of the objective."""

        objective: Literal["lsgan", "vanilla", "hinge"] = "lsgan"
        """The adversarial loss: least squares as in the paper, or another."""
        lambda_adversarial: float = option(1.0, minimum=0)
        lambda_cycle: float = option(10.0, minimum=0)
        """λ of the paper, for both cycles."""
        lambda_identity: float = option(0.5, minimum=0)
        """λ_idt, relative to `lambda_cycle`."""
        pool: int = option(50, minimum=0)
        """Translated frames remembered for the discriminators."""
        warm_up_iterations: int = option(0, minimum=0)
        """First iterations, in which both generators only learn to match colour statistics (Reinhard et al. 2001)."""

    published = Published(learning_rate=2e-4, betas=(0.5, 0.999), schedule="linear", decay_start=0.5)
    options: Options

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.generators: Generators = Generators(recipe)
        self.discriminators = nn.ModuleDict(
            {
                domain: Discriminators(recipe.discriminators, recipe.augmentation, self.options.objective)
                for domain in ("a", "b")
            }
        )
        self.multiple_of = networks.MULTIPLE_OF[recipe.generator.name]
        self.pools = {domain: ReplayPool(self.options.pool, recipe.train.batch) for domain in ("a", "b")}

    def players(self) -> Mapping[str, nn.Module]:
        """The generators against the discriminators."""
        return {"generators": self.generators, "discriminators": self.discriminators}

    def translator(self, generators: nn.Module, direction: str) -> nn.Module:
        """G_AB or G_BA."""
        return generators.get_submodule(direction)

    def turns(self, batch: Batch) -> Iterator[Turn]:
        """Generators, then discriminators: the latter see half of the time a frame from the pools."""
        a, b = batch.images
        if batch.step < self.options.warm_up_iterations:
            yield Turn("generators", warm_up_loss(self.generators, a, b))
            return
        out = self.generators(a, b)
        with frozen(self.discriminators):
            terms = self.generator_terms(batch, out)
        yield Turn("generators", terms, self.translations(a, b, out))
        yield Turn("discriminators", self.discriminator_terms(batch, out))

    def translations(self, a: Tensor, b: Tensor, out: Translations) -> tuple[Direction, ...]:
        """Both directions, for further terms."""
        ab, ba = self.generators.ab, self.generators.ba
        return (
            Direction("ab", 0, 1, a, out.fake_b, ab, ba, out.cycled_a),
            Direction("ba", 1, 0, b, out.fake_a, ba, ab, out.cycled_b),
        )

    def generator_terms(self, batch: Batch, out: Translations) -> dict[str, Tensor]:
        """The generators' objective, term by term, weighted: eq. 3, and the identity loss of section 5.2."""
        a, b = batch.images
        options, generators = self.options, self.generators
        adversarial_ab = self.judge("b").adversarial(options.objective, out.fake_b, batch, "b")
        adversarial_ba = self.judge("a").adversarial(options.objective, out.fake_a, batch, "a")
        terms = {
            "adversarial_ab": options.lambda_adversarial * adversarial_ab,
            "adversarial_ba": options.lambda_adversarial * adversarial_ba,
            "cycle_a": options.lambda_cycle * losses.cycle(out.cycled_a, a),
            "cycle_b": options.lambda_cycle * losses.cycle(out.cycled_b, b),
        }
        if options.lambda_identity:
            weight = options.lambda_cycle * options.lambda_identity
            terms["identity"] = weight * (losses.identity(generators.ab(b), b) + losses.identity(generators.ba(a), a))
        return terms

    def discriminator_terms(self, batch: Batch, out: Translations) -> dict[str, Tensor]:
        """L_GAN for D_A and D_B."""
        terms = {}
        for domain, real, fake in zip("ab", batch.images, (out.fake_a, out.fake_b), strict=True):
            old = self.pools[domain].exchange(fake, batch, f"pool {domain}")
            terms[f"discriminator_{domain}"] = self.judge(domain).loss(self.options.objective, real, old, batch, domain)
        return terms

    def judge(self, domain: str) -> Discriminators:
        """D_A or D_B."""
        judges = self.discriminators[domain]
        assert isinstance(judges, Discriminators)
        return judges


def warm_up_loss(generators: Generators, a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Both generators learn to match colour statistics: a start from which the translation need not be found."""
    warm_ab = losses.identity(generators.ab(a), losses.colour_match(a, b))
    warm_ba = losses.identity(generators.ba(b), losses.colour_match(b, a))
    return {"warm_up": 5.0 * (warm_ab + warm_ba)}
