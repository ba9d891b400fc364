"""Local tuning: a trained CycleGAN is fitted to new footage by a small network between its generators.

Between G_AB and G_BA of a trained run stands a tuner T, y = T(G_AB(a), a), which adapts the picture patch by patch: it
sees a few pixels around each place, of the translation and of the frame. Everything else is frozen, so that minutes of
training suffice and nothing that the run has learned is lost. Our source describes the idea and gives no equations;
chosen here:

- T adds a residual to G_AB's picture. Its last layer begins at 0: at step 0 nothing has changed.
- The objective is λ_adv E[(D_B(y) − 1)²] + λ_cyc ‖G_BA(y) − a‖₁ + λ_struct (1 − ρ), ρ the local correlation of the
  Laplacian bands of y and a. The first two are those of Zhu et al. 2017 (eq. 1 and 2) for the direction A→B; the third
  keeps the frame's structure in every patch and is blind to the patch's brightness and contrast: they are the look's.
- D_B begins as the run's and learns on (`learn_discriminator`): frozen, it is soon fooled by noise of T's.

The base is the run's moving average, as exported, and normalises as exported. The exported translator is one network:
G_AB and T.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamgan import api
from streamgan_training import checkpoint, losses, networks
from streamgan_training.discriminators import Discriminators
from streamgan_training.method import Batch, Direction, Method, Published, ReplayPool, Turn, frozen
from streamgan_training.methods.cyclegan import Generators
from streamgan_training.recipe import Recipe


class FrozenGenerators(Generators):
    """Generators that never learn and always normalise as exported."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, so that no running statistics move."""
        return super().train(False)


class TunerBlock(nn.Module):
    """A residual block of two 3×3 convolutions without normalisation: what lies far away has no say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate")
        self.second = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        y: Tensor = self.second(F.relu(self.first(x)))
        return x + y


class Tuner(nn.Module):
    """T: a residual on the translation, from patches of it and of the frame; 5 + 4 × `blocks` pixels a side.

    Args:
        width: channels.
        blocks: residual blocks.
    """

    def __init__(self, width: int = 16, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(6, width, 3, padding=1, padding_mode="replicate")
        self.blocks = nn.Sequential(*(TunerBlock(width) for _ in range(blocks)))
        self.head = nn.Conv2d(width, 3, 3, padding=1, padding_mode="replicate")
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # no norm corrects a wrong scale
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.head.weight)

    def forward(self, translated: Tensor, x: Tensor) -> Tensor:
        """G_AB(x) and x, both (N, 3, H, W) in [-1, 1] → the tuned translation, the same."""
        features = F.relu(self.stem(torch.cat((translated, x), 1)))
        y: Tensor = translated + self.head(F.relu(self.blocks(features)))
        return y.clamp(-1, 1)


class TunedTranslator(nn.Module):
    """A generator and its tuner as one network."""

    def __init__(self, base: nn.Module, tuner: Tuner) -> None:
        super().__init__()
        self.base, self.tuner = base, tuner

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → the same; sides as the generator needs them."""
        y: Tensor = self.tuner(self.base(x), x)
        return y


class TunedGenerators(nn.Module):
    """The frozen base and what is trained."""

    def __init__(self, recipe: Recipe, width: int, blocks: int) -> None:
        super().__init__()
        self.base = FrozenGenerators(recipe)
        self.tuner = Tuner(width, blocks)

    def forward(self, x: Tensor) -> Tensor:
        """T(G_AB(x), x)."""
        y: Tensor = self.tuner(self.base.ab(x), x)
        return y


class LocalTuning(Method):
    """The method ``local_tuning``: ``train.start_from`` names a CycleGAN run of the recipe's networks."""

    @dataclasses.dataclass(frozen=True)
    class Options(Method.Options):
        """Weights of the objective, and the tuner's size."""

        objective: Literal["lsgan", "vanilla", "hinge"] = "lsgan"
        """The adversarial loss, as in the run."""
        lambda_adversarial: float = api.option(1.0, minimum=0)
        """λ_adv"""
        lambda_cycle: float = api.option(10.0, minimum=0)
        """λ_cyc, of the cycle through the frozen G_BA."""
        lambda_structure: float = api.option(1.0, minimum=0)
        """λ_struct"""
        structure_levels: int = api.option(3, minimum=1, maximum=8)
        """Bands of the Laplacian pyramid that are compared, from the finest on."""
        learn_discriminator: bool = True
        """Whether D_B learns along, or only judges."""
        discriminator_rate: float = api.option(0.2, minimum=0)
        """D_B's learning rate, relative to the tuner's: it has been trained before."""
        pool: int = api.option(50, minimum=0)
        """Translated frames remembered for D_B."""
        width: int = api.option(16, minimum=1)
        """Channels of the tuner."""
        blocks: int = api.option(2, minimum=0)
        """Residual blocks of the tuner: it sees 5 + 4 × `blocks` pixels a side."""

    published = Published(learning_rate=5e-4, betas=(0.5, 0.999), schedule="linear", decay_start=0.5)
    """Not published: chosen for a few hundred steps."""
    options: Options

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if recipe.train.start_from is None:
            raise api.PresetError("train.start_from: nothing given, local_tuning needs the run folder of a CycleGAN")
        self.generators: TunedGenerators = TunedGenerators(recipe, self.options.width, self.options.blocks)
        self.discriminator = Discriminators(recipe.discriminators, recipe.augmentation, self.options.objective)
        self.multiple_of = networks.MULTIPLE_OF[recipe.generator.name]
        self.pools = {"b": ReplayPool(self.options.pool, recipe.train.batch)}

    def players(self) -> Mapping[str, nn.Module]:
        """The tuner (with its frozen base, so that a checkpoint holds both) against D_B."""
        return {"generators": self.generators, "discriminators": self.discriminator}

    @property
    def directions(self) -> tuple[str, ...]:
        """A→B alone is tuned."""
        return ("ab",)

    def translator(self, generators: nn.Module, direction: str) -> nn.Module:
        """G_AB and the tuner as one network."""
        tuner = generators.get_submodule("tuner")
        assert isinstance(tuner, Tuner)
        return TunedTranslator(generators.get_submodule("base.ab"), tuner)

    def begin_from(self, run: Path) -> None:
        """Takes both averaged generators and D_B from a CycleGAN run.

        Raises:
            ModelError: if the run has no checkpoint, or its networks are not those of the recipe.
        """
        newest = checkpoint.newest(run)
        checkpoint.load_module(self.generators.base, "ema", newest)
        checkpoint.load_module(self.discriminator, "discriminators.b", newest)

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """As any player's, of what is not frozen."""
        return super().optimizer(player, [weight for weight in parameters if weight.requires_grad])

    def learning_rate(self, player: str, step: int) -> float:
        """As any player's; D_B follows slowly."""
        rate = super().learning_rate(player, step)
        return rate if player == "generators" else rate * self.options.discriminator_rate

    def turns(self, batch: Batch) -> Iterator[Turn]:
        """The tuner, then D_B where it learns."""
        a, b = batch.images
        y = self.generators(a)
        with frozen(self.discriminator):
            terms = self.tuner_terms(batch, y)
        base = self.generators.base
        yield Turn("generators", terms, (Direction("ab", 0, 1, a, y, self.generators, base.ba),))
        if self.options.learn_discriminator:
            old = self.pools["b"].exchange(y, batch, "pool b")
            loss = self.discriminator.loss(self.options.objective, b, old, batch, "b")
            yield Turn("discriminators", {"discriminator_b": loss})

    def tuner_terms(self, batch: Batch, y: Tensor) -> dict[str, Tensor]:
        """The tuner's objective, term by term, weighted: see this module's docstring."""
        a, options = batch.images[0], self.options
        adversarial = self.discriminator.adversarial(options.objective, y, batch, "b")
        return {
            "adversarial_ab": options.lambda_adversarial * adversarial,
            "cycle_a": options.lambda_cycle * losses.cycle(self.generators.base.ba(y), a),
            "structure": options.lambda_structure * structure_loss(y, a, options.structure_levels),
        }


def structure_loss(y: Tensor, x: Tensor, levels: int = 3, patch: int = 8, epsilon: float = 1e-5) -> Tensor:
    """1 − ρ, ρ = E_p[⟨Lʲ_p(y), Lʲ_p(x)⟩ / √(‖Lʲ_p(y)‖² ‖Lʲ_p(x)‖² + ε²)]: over patches p, then over the bands j.

    Args:
        y: the translation, ``(N, 3, H, W)`` in [-1, 1]; its luma is compared.
        x: the frame, the same shape.
        levels: bands of the Laplacian pyramid (Burt & Adelson 1983), finest first.
        patch: side of a patch, in pixels of the band.
        epsilon: ε: patches whose mean square is below it (about (1/255)²), such as a clear sky, count less.

    Returns:
        In [0, 2]: 0 if all patches have the same structure, up to brightness and contrast.
    """
    with torch.autocast(y.device.type, enabled=False):  # small differences of large values
        bands = [losses.laplacian_pyramid(losses.luma(images.float()), levels + 1)[:-1] for images in (y, x)]
    scores = []
    for one, other in zip(*bands, strict=True):
        side = min(patch, *one.shape[-2:])
        product, first, second = (F.avg_pool2d(each, side) for each in (one * other, one.square(), other.square()))
        scores.append((product * (first * second + epsilon**2).rsqrt()).mean())
    return 1 - torch.stack(scores).mean()
