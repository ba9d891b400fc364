"""DualGAN: Yi et al. 2017, "DualGAN: Unsupervised Dual Learning for Image-to-Image Translation".

Two translators, G_AB (the paper's G_A, from U to V) and G_BA (G_B), and a critic for each domain: D_B judges
translations into B (the paper's D_A), D_A those into A (D_B). The adversarial loss is that of Arjovsky et al. 2017
("Wasserstein GAN"), whose verdict on a picture is the mean of a critic's verdicts on its patches. The critics are held
to be Lipschitz by clipping their weights, as in the paper, or by the penalty of Gulrajani et al. 2017, the default of
the authors' code.

The recipe's ``generator`` names the translators, as for other methods. The paper's is a U-Net: write ``unet256``
(``unet128``, ``unet64`` for smaller pictures); a recipe that is silent gets the default ResNet. The paper's noise z is
dropout in the U-Net, ``dropout: 0.5``; the authors' code has none by default. The paper keeps it at test time too, an
exported model does not: its frames would flicker. The recipe's ``discriminators`` are the critics: 3 layers judge
patches of 70² pixels, 5 layers 286², the whole of a picture of 256² ("global"). With the penalty their norm must not be
`batch` (Gulrajani et al. 2017, section 4); with clipping an InstanceNorm undoes it for every layer but the last, so
``norm: none`` is what holds the critic as the paper means it.

A step of the training is one of the critics'; the translators learn in every `critic_steps`-th, so that the critics see
new pictures each time.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from streamgan.api import PresetError, option
from streamgan_training import losses, networks
from streamgan_training.discriminators import Discriminators
from streamgan_training.method import Batch, Direction, Method, Published, Turn, frozen, hash_seed
from streamgan_training.recipe import Recipe


class Translations(NamedTuple):
    """What the translators make of a batch; each ``(N, 3, H, W)`` in [-1, 1]."""

    fake_b: Tensor
    """G_AB(a, z)"""
    fake_a: Tensor
    """G_BA(b, z')"""


class Generators(nn.Module):
    """Both translators."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.ab = networks.make_generator(recipe.generator)
        self.ba = networks.make_generator(recipe.generator)


class DualGan(Method):
    """The method ``dualgan``."""

    @dataclasses.dataclass(frozen=True)
    class Options(Method.Options):
        """Weights of the objective, and how the critics are trained."""

        lipschitz: Literal["clip", "penalty"] = "clip"
        """What bounds the critics' slope: clipped weights as in the paper, or a penalty as in the authors' code."""
        clip: float = option(0.01, minimum=1e-6)
        """c: the critics' weights stay in [−c, c]; 0.01 to 0.1 in the paper."""
        lambda_penalty: float = option(10.0, minimum=0)
        """Of the gradient penalty, for ``lipschitz: penalty``."""
        critic_steps: int = option(2, minimum=1)
        """n_critic: steps of the critics for one of the translators; 2 to 4 in the paper."""
        lambda_a: float = option(500.0, minimum=0)
        """λ_U, of the recovery error of A; 100 to 1000 in the paper, the smaller for a domain of natural images whose
        partner has none."""
        lambda_b: float = option(500.0, minimum=0)
        """λ_V, of B."""

    published = Published(optimizer="rmsprop", learning_rate=5e-5, betas=(0.0, 0.9), schedule="constant")
    options: Options

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        _check(recipe, self.options)
        self.generators: Generators = Generators(recipe)
        self.discriminators = nn.ModuleDict(
            {domain: Discriminators(recipe.discriminators, recipe.augmentation, "wgan") for domain in ("a", "b")}
        )
        self.multiple_of = networks.MULTIPLE_OF[recipe.generator.name]

    def players(self) -> Mapping[str, nn.Module]:
        """The critics against the translators."""
        return {"discriminators": self.discriminators, "generators": self.generators}

    def translator(self, generators: nn.Module, direction: str) -> nn.Module:
        """G_AB or G_BA."""
        return generators.get_submodule(direction)

    def turns(self, batch: Batch) -> Iterator[Turn]:
        """The critics, and in every `critic_steps`-th step then the translators: the paper's algorithm 1."""
        a, b = batch.images
        translators_learn = (batch.step + 1) % self.options.critic_steps == 0
        with contextlib.nullcontext() if translators_learn else torch.no_grad():
            out = Translations(self.translate("ab", a, batch, "z"), self.translate("ba", b, batch, "z'"))
        yield Turn("discriminators", self.discriminator_terms(batch, out))
        if translators_learn:
            with frozen(self.discriminators):
                terms = self.generator_terms(batch, out)
            yield Turn("generators", terms, self.translations(batch, out))

    def translate(self, direction: str, images: Tensor, batch: Batch, noise: str) -> Tensor:
        """G_AB or G_BA.

        With dropout one picture is translated after the other, each with masks that depend on its slot alone.

        Args:
            direction: ``ab`` or ``ba``.
            images: one a slot, ``(N, 3, H, W)`` in [-1, 1].
            batch: whose slots they are.
            noise: the name of the masks.
        """
        network = self.generators.get_submodule(direction)
        if not self.recipe.generator.dropout:
            translated: Tensor = network(images)
            return translated
        results = []
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            for index, slot in enumerate(batch.slots):
                torch.manual_seed(hash_seed(batch.seed, batch.step, slot, f"dropout {noise}"))
                results.append(network(images[index : index + 1]))
        return torch.cat(results)

    def translations(self, batch: Batch, out: Translations) -> tuple[Direction, ...]:
        """Both directions, for further terms; a picture moved meets the same dropout."""

        def translator(direction: str, noise: str) -> Callable[[Tensor], Tensor]:
            return lambda images: self.translate(direction, images, batch, noise)

        ab, ba = translator("ab", "z"), translator("ba", "z'")
        a, b = batch.images
        return Direction("ab", 0, 1, a, out.fake_b, ab, ba), Direction("ba", 1, 0, b, out.fake_a, ba, ab)

    def generator_terms(self, batch: Batch, out: Translations) -> dict[str, Tensor]:
        """l^g, eq. 3: the recovery errors, a mean over pixels, and the critics' verdicts."""
        a, b = batch.images
        recovered_a = self.translate("ba", out.fake_b, batch, "z' of a")
        recovered_b = self.translate("ab", out.fake_a, batch, "z of b")
        return {
            "adversarial_ab": self.judge("b").adversarial("wgan", out.fake_b, batch, "b"),
            "adversarial_ba": self.judge("a").adversarial("wgan", out.fake_a, batch, "a"),
            "recovery_a": self.options.lambda_a * losses.cycle(recovered_a, a),
            "recovery_b": self.options.lambda_b * losses.cycle(recovered_b, b),
        }

    def discriminator_terms(self, batch: Batch, out: Translations) -> dict[str, Tensor]:
        """l^d of either critic, eq. 1 and 2, and the gradient penalty if asked for."""
        terms = {}
        for domain, real, fake in zip("ab", batch.images, (out.fake_a, out.fake_b), strict=True):
            terms[f"discriminator_{domain}"] = self.judge(domain).loss("wgan", real, fake, batch, domain)
            if self.options.lipschitz == "penalty":
                epsilon = batch.rand(real[:, :1, :1, :1], f"penalty {domain}")
                terms[f"penalty_{domain}"] = self.options.lambda_penalty * penalty(
                    self.judge(domain), real, fake, epsilon
                )
        return terms

    def after_step(self, player: str) -> None:
        """w ← clip(w, −c, c) for the critics: Arjovsky et al. 2017, algorithm 1."""
        if player == "discriminators" and self.options.lipschitz == "clip":
            with torch.no_grad():
                for weight in self.discriminators.parameters():
                    weight.clamp_(-self.options.clip, self.options.clip)

    def judge(self, domain: str) -> Discriminators:
        """The critic of A or B."""
        judges = self.discriminators[domain]
        assert isinstance(judges, Discriminators)
        return judges


def penalty(critics: Discriminators, real: Tensor, fake: Tensor, epsilon: Tensor) -> Tensor:
    """The gradient penalty of a domain's critics, summed over their scales; a verdict is the mean over patches.

    Args:
        critics: D; they judge pictures that are not augmented.
        real: ``(N, 3, H, W)`` in [-1, 1].
        fake: the same shape.
        epsilon: ε, ``(N, 1, 1, 1)`` uniform in [0, 1).
    """

    def verdict(critic: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda images: torch.flatten(critic(images), 1).mean(1)

    return torch.stack(
        [losses.gradient_penalty(verdict(critic), real, fake, epsilon) for critic in critics.judges]
    ).sum()


def _check(recipe: Recipe, options: DualGan.Options) -> None:
    """Refuses critics that cannot be trained.

    Raises:
        PresetError: if the gradient penalty meets BatchNorm.
    """
    if options.lipschitz == "penalty" and any(one.norm == "batch" for one in recipe.discriminators):
        raise PresetError(
            f"{recipe.name}: discriminators: norm 'batch' given, expected 'none' or 'instance': "
            "the gradient penalty is that of single pictures"
        )
