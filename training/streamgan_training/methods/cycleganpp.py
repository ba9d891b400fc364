"""CycleGAN++: CycleGAN (Zhu et al. 2017) with further consistencies and a generator that joins features of all scales.

Our source lists four additions to CycleGAN and gives no equations. What it leaves open, and what is chosen here:

- "a Laplacian-pyramid consistency between the directions": which pictures are compared is open. Here each cycle's
  reconstruction with its input, in both directions: Lap₁(G_BA(G_AB(a)), a) + Lap₁(G_AB(G_BA(b)), b), with Lap₁ and its
  weights of 2^{2j} from Bojanowski et al. 2018 (`losses.laplacian`), beside the cycle loss of pixels.
- "a regulariser on A→B": its form is open. Here the total variation (Mahendran & Vedaldi 2015, β = 1) of the change
  that G_AB makes, R_V¹(G_AB(a) − a): moving the tones of a region is free, texture and edges that a lacks cost.
- "an adversarial consistency on B→A": which pictures are judged is open. Here D_A also judges what G_BA makes of
  translations, G_BA(G_AB(a)), and learns to tell it from real pictures, so that a reconstruction must look like domain
  A and not only be near in pixels. Zhao et al. 2020 (ACL-GAN) judge pairs instead, in the place of the cycle loss.
- "multi-scale feature concatenation in the generators": which scales, and where they meet, is open. See
  `MultiScaleGenerator`.

The weights are open too. With all of them 0 and ``multi_scale: false`` it is CycleGAN.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamgan import api
from streamgan_training import losses, networks
from streamgan_training.method import Batch
from streamgan_training.methods.cyclegan import CycleGan, Translations
from streamgan_training.networks import Norm, ResnetBlock
from streamgan_training.recipe import Generator, Recipe, Upsampling

BLOCKS = {"resnet9": 9, "resnet6": 6}
"""Residual blocks of the multi-scale generator, by what the recipe calls the generator."""


class MultiScaleGenerator(nn.Module):
    """The generator of Zhu et al. 2017, whose residual blocks see the features of four scales side by side.

    The encoder goes on to an eighth of the size: c7s1-w, d2w, d4w, d8w. The features of its four levels are brought to
    a quarter of the size (the finer ones averaged, the coarsest one resized bilinearly), concatenated, and narrowed
    from 15 w to 4 w channels by a 1×1 convolution; from there on it is the published generator: R4w × `blocks`, u2w,
    uw, c7s1-3.

    Args:
        width: w, channels of the first level.
        blocks: residual blocks.
        norm: normalisation.
        upsampling: as in a recipe's ``generator``.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = nn.InstanceNorm2d,
        upsampling: Upsampling = "transpose",
    ) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv2d(3, width, 7, padding=3, padding_mode="reflect"), norm(width), nn.ReLU(inplace=True)
        )
        downs = [
            nn.Sequential(*networks.make_down(channels, upsampling), norm(2 * channels), nn.ReLU(inplace=True))
            for channels in (width, 2 * width, 4 * width)
        ]
        self.levels = nn.ModuleList([stem, *downs])
        self.fuse = nn.Sequential(nn.Conv2d(15 * width, 4 * width, 1), norm(4 * width), nn.ReLU(inplace=True))
        decoder: list[nn.Module] = [ResnetBlock(4 * width, norm) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            decoder += [*networks.make_up(channels, upsampling), norm(channels // 2), nn.ReLU(inplace=True)]
        decoder += [nn.Conv2d(width, 3, 7, padding=3, padding_mode="reflect"), nn.Tanh()]
        self.decoder = nn.Sequential(*decoder)

    def features(self, x: Tensor) -> Tensor:
        """All scales side by side: (N, 3, H, W) → (N, 15 w, H / 4, W / 4), finest first."""
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        full, half, quarter, eighth = maps
        coarse = F.interpolate(eighth, scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.cat((F.avg_pool2d(full, 4), F.avg_pool2d(half, 2), quarter, coarse), 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → the same; H and W are multiples of 8."""
        y: Tensor = self.decoder(self.fuse(self.features(x)))
        return y


class CycleGanPlusPlus(CycleGan):
    """The method ``cycleganpp``."""

    @dataclasses.dataclass(frozen=True)
    class Options(CycleGan.Options):
        """Weights of the objective."""

        lambda_laplacian: float = api.option(1.0, minimum=0)
        """Of Lap₁ between the reconstructions of both cycles and their inputs."""
        laplacian_levels: int = api.option(5, minimum=1, maximum=10)
        """Levels of the pyramids, at most."""
        lambda_regulariser: float = api.option(0.5, minimum=0)
        """Of the total variation of G_AB(a) − a."""
        lambda_consistency: float = api.option(0.5, minimum=0)
        """Of D_A's verdict on G_BA(G_AB(a)), in the generators' loss and in D_A's."""
        multi_scale: bool = True
        """Generators that concatenate features of several scales; false for those that the recipe names."""

    options: Options

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if self.options.multi_scale:
            self.generators.ab, self.generators.ba = (make_multi_scale(recipe.generator) for _ in range(2))
            self.multiple_of = 8

    def generator_terms(self, batch: Batch, out: Translations) -> dict[str, Tensor]:
        """CycleGAN's, and the three that this module's docstring describes."""
        a, b = batch.images
        options, terms = self.options, super().generator_terms(batch, out)
        if options.lambda_laplacian:
            levels = options.laplacian_levels
            both = losses.laplacian(out.cycled_a, a, levels) + losses.laplacian(out.cycled_b, b, levels)
            terms["laplacian"] = options.lambda_laplacian * both
        if options.lambda_regulariser:
            terms["regulariser_ab"] = options.lambda_regulariser * losses.total_variation(out.fake_b - a, beta=1.0)
        if options.lambda_consistency:
            verdict = self.judge("a").adversarial(options.objective, out.cycled_a, batch, "cycled a")
            terms["consistency_ba"] = options.lambda_consistency * verdict
        return terms

    def discriminator_terms(self, batch: Batch, out: Translations) -> dict[str, Tensor]:
        """CycleGAN's, and D_A against the reconstructions."""
        options, terms = self.options, super().discriminator_terms(batch, out)
        if options.lambda_consistency:
            a, _ = batch.images
            loss = self.judge("a").loss(options.objective, a, out.cycled_a, batch, "cycled a")
            terms["discriminator_cycled_a"] = options.lambda_consistency * loss
        return terms


def make_multi_scale(settings: Generator) -> MultiScaleGenerator:
    """The multi-scale generator in the size that a recipe names, initialised.

    Raises:
        PresetError: if the recipe names a generator of another kind.
    """
    if settings.name not in BLOCKS:
        raise api.PresetError(
            f"generator.name: {settings.name} given, the multi-scale generator of cycleganpp is one of "
            f"{', '.join(BLOCKS)}; name one of these, or set method.multi_scale to false"
        )
    norm = networks.make_norm(settings.norm)
    network = MultiScaleGenerator(settings.width, BLOCKS[settings.name], norm, settings.upsampling)
    networks.initialise(network)
    return network
