"""StarGAN: Choi et al. 2018, "Unified Generative Adversarial Networks for Multi-Domain Image-to-Image Translation".

One generator G(x, c) for all domains c, and one discriminator with two heads: D_src, is this real, and D_cls, of which
domain is it. A picture is of one domain, so that D_cls is a softmax, as for the paper's facial expressions (RaFD). The
domains may come from several data sets, of which each picture knows the labels of its own only (section 3.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamgan import settings
from streamgan.api import PresetError, option
from streamgan_training import losses, networks
from streamgan_training.augment import Augment
from streamgan_training.method import Batch, Direction, Method, Published, Turn, frozen
from streamgan_training.recipe import Recipe


def label_codes(domains: Sequence[str], sets: Sequence[Sequence[str]]) -> Tensor:
    """What the generator is told for each domain: its label c, or c̃ = [c₁, …, cₙ, m] of eq. 7 for several data sets.

    Args:
        domains: all names.
        sets: those of each data set; one set, or none, needs no mask.

    Returns:
        ``(domains, domains)`` float one-hot, with several sets ``(domains, domains + sets)``: the labels of the other
        sets are 0, the mask m is one-hot over the sets.
    """
    labels = torch.eye(len(domains))
    if len(sets) < 2:
        return labels
    masks = torch.tensor([[float(name in one) for one in sets] for name in domains])
    return torch.cat((labels, masks), 1)


def same_set(domains: Sequence[str], sets: Sequence[Sequence[str]]) -> Tensor:
    """``(domains, domains)`` bool: whether two domains are of one data set."""
    groups = sets or [domains]
    return torch.tensor([[any(a in one and b in one for one in groups) for b in domains] for a in domains])


def label_planes(codes: Tensor, images: Tensor) -> Tensor:
    """Codes ``(N, K)`` as constant planes ``(N, K, H, W)`` of the size of the images: a view, no copy."""
    return codes.to(images.dtype)[:, :, None, None].expand(-1, -1, images.shape[2], images.shape[3])


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with zero padding: table 4, bottleneck."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolve(nn.Conv2d(channels, channels, 3, 1, 1, bias=False)),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.InstanceNorm2d(channels, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        y: Tensor = self.body(x)
        return x + y


def convolve(conv: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    """A convolution with its norm and its ReLU.

    The norm learns a scale and a shift for each channel, so the convolution needs no bias. It always takes the
    statistics of the picture at hand, unlike the authors' code, which tracks running ones and never switches to them:
    there ``eval()``, as before an export, changes the pictures.
    """
    return [conv, nn.InstanceNorm2d(conv.out_channels, affine=True, track_running_stats=False), nn.ReLU(inplace=True)]


class StarGenerator(nn.Module):
    """G(x, c) of table 4: c as further planes of the picture, two strided levels, residual blocks, and up again.

    The label is a constant plane, of which an instance norm keeps nothing but what happens at the border: there the
    zeros of the first convolution's padding differ from it. With reflected padding, or folded into a bias of that
    convolution, the label would have no effect at all.

    Args:
        codes: ``(domains, K)`` as `label_codes` makes them.
        width: channels of the first level.
        blocks: residual blocks.
    """

    codes: Tensor

    def __init__(self, codes: Tensor, width: int = 64, blocks: int = 6) -> None:
        super().__init__()
        self.register_buffer("codes", codes, persistent=False)
        self.body = nn.Sequential(
            *convolve(nn.Conv2d(3 + codes.shape[1], width, 7, 1, 3, bias=False)),
            *convolve(nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)),
            *convolve(nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False)),
            *(ResidualBlock(4 * width) for _ in range(blocks)),
            *convolve(nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False)),
            *convolve(nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False)),
            nn.Conv2d(width, 3, 7, 1, 3, bias=False),
            nn.Tanh(),
        )

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Translates.

        Args:
            x: ``(N, 3, H, W)`` in [-1, 1]; H and W are multiples of 4.
            domain: c, ``(N,)`` int64, the number of the domain to translate each picture to.

        Returns:
            The shape and range of `x`.
        """
        y: Tensor = self.body(torch.cat((x, label_planes(self.codes[domain], x)), 1))
        return y


class CompactStarGenerator(networks.CompactGenerator):
    """`networks.CompactGenerator`, told a domain: for films in real time, and for trainings of minutes.

    Not of the paper. The label planes stand beside the picture at half its size. The norms are batch norms, which keep
    a constant plane, so that unlike `StarGenerator` this one does as much on a film's frames as on the smaller crops it
    was trained on; in training a picture's result depends on the others of its batch.

    Args:
        codes: ``(domains, K)`` as `label_codes` makes them.
        width: channels at half the size.
    """

    codes: Tensor

    def __init__(self, codes: Tensor, width: int = 24) -> None:
        norm = networks.make_norm("batch")
        super().__init__(width, norm)
        self.register_buffer("codes", codes, persistent=False)
        self.stem = networks.ConvNormRelu(12 + codes.shape[1], width, norm)
        networks.initialise(self)

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:  # type: ignore[override]
        """As `StarGenerator.forward`; H and W are multiples of 16."""
        half = F.pixel_unshuffle(x, 2)
        return self.decode(x, self.stem(torch.cat((half, label_planes(self.codes[domain], half)), 1)))


class Verdict(NamedTuple):
    """What the discriminator says of N pictures."""

    source: Tensor
    """D_src, ``(N, 1, h, w)``: one verdict a patch, the larger the more real."""
    domain: Tensor
    """D_cls before the softmax, ``(N, domains)``."""


class StarDiscriminator(nn.Module):
    """D of table 5: strided convolutions without norms, and two heads on the last of them.

    As in the paper D_cls is a convolution as large as what is left of the picture (there h/64 × w/64), so that the size
    of the training's crops is part of its weights. A level halves the sides and rounds down; where six of them would
    leave nothing, as below 64 pixels, there are fewer.

    Args:
        size: (width, height) of the pictures it will judge, in pixels.
        domains: how many.
        width: channels of the first level, doubled by each further one.
        levels: strided levels, at most.
    """

    def __init__(self, size: tuple[int, int], domains: int, width: int = 64, levels: int = 6) -> None:
        super().__init__()
        levels = min(levels, min(size).bit_length() - 1)
        body: list[nn.Module] = []
        for level in range(levels):
            inputs = width * 2 ** (level - 1) if level else 3
            body += [nn.Conv2d(inputs, width * 2**level, 4, 2, 1), nn.LeakyReLU(0.01)]
        channels, kernel = width * 2 ** (levels - 1), (size[1] >> levels, size[0] >> levels)
        self.body = nn.Sequential(*body)
        self.source = nn.Conv2d(channels, 1, 3, 1, 1, bias=False)
        self.domain = nn.Conv2d(channels, domains, kernel, bias=False)

    def forward(self, x: Tensor) -> Verdict:
        """Judges ``(N, 3, H, W)`` in [-1, 1]."""
        features = self.body(x)
        return Verdict(self.source(features), self.domain(features).flatten(1))


def classification(logits: Tensor, labels: Tensor, comparable: Tensor) -> Tensor:
    """L_cls = E[−log D_cls(c | x)] of eq. 2 and 3, over the domains of the picture's own data set.

    Args:
        logits: ``(N, domains)``, before the softmax.
        labels: c, ``(N,)`` int64.
        comparable: ``(domains, domains)`` bool as `same_set` makes it.
    """
    return F.cross_entropy(logits.masked_fill(~comparable[labels], -torch.inf), labels)


class StarGan(Method):
    """The method ``stargan``."""

    @dataclasses.dataclass(frozen=True)
    class Options(Method.Options):
        """Weights of the objective, and the paper's networks made narrower."""

        lambda_cls: float = option(1.0, minimum=0)
        """λ_cls of eq. 5 and 6."""
        lambda_rec: float = option(10.0, minimum=0)
        """λ_rec of eq. 6."""
        lambda_gp: float = option(10.0, minimum=0)
        """λ_gp of eq. 8."""
        n_critic: int = option(5, minimum=1)
        """The generator learns in every so manieth step, the discriminator in all: section 4 of the supplement."""
        sets: tuple[tuple[str, ...], ...] = ()
        """The domains of each data set, by name; empty if all are of one."""
        architecture: Literal["published", "compact"] = "published"
        """The generator's: `StarGenerator` or `CompactStarGenerator`."""
        generator_width: int = option(64, minimum=1)
        """Channels of the first level: 64 in the paper, 24 for `compact`."""
        generator_blocks: int = option(6, minimum=0)
        """Residual blocks, of `published` only."""
        discriminator_width: int = option(64, minimum=1)
        discriminator_levels: int = option(6, minimum=1)
        """At most; see `StarDiscriminator`."""

    published = Published(learning_rate=1e-4, betas=(0.5, 0.999), schedule="linear", decay_start=0.5)
    mixed = True
    domains = None
    options: Options
    comparable: Tensor

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        check(recipe, self.options)
        names, options = recipe.domains, self.options
        codes = label_codes(names, options.sets)
        compact = options.architecture == "compact"
        self.generators: StarGenerator | CompactStarGenerator = (
            CompactStarGenerator(codes, options.generator_width)
            if compact
            else StarGenerator(codes, options.generator_width, options.generator_blocks)
        )
        self.multiple_of = networks.MULTIPLE_OF["compact"] if compact else 4
        self.discriminator = StarDiscriminator(
            recipe.data.size, len(names), options.discriminator_width, options.discriminator_levels
        )
        self.register_buffer("comparable", same_set(names, options.sets), persistent=False)
        self.augment = Augment(recipe.augmentation, neutral=0.0) if recipe.augmentation.policy else None

    @property
    def directions(self) -> tuple[str, ...]:
        """One, whose translator is told the domain."""
        return ("domain",)

    def players(self) -> Mapping[str, nn.Module]:
        """The generator against the discriminator."""
        return {"generators": self.generators, "discriminators": self.discriminator}

    def translator(self, generators: nn.Module, direction: str) -> nn.Module:
        """G(x, c), from ``(N, 3, H, W)`` in [-1, 1] and ``(N,)`` int64."""
        return generators

    def turns(self, batch: Batch) -> Iterator[Turn]:
        """The discriminator; after `n_critic` of its steps the generator, with the same pictures."""
        (x,), labels = batch.images, batch.labels
        assert labels is not None  # `mixed`
        targets = self.targets(batch)
        yield Turn("discriminators", self.discriminator_terms(batch, x, labels, targets))
        if (batch.step + 1) % self.options.n_critic:
            return
        fake = self.generators(x, targets)
        with frozen(self.discriminator):
            terms = self.generator_terms(batch, fake, targets)
        terms["reconstruction"] = self.options.lambda_rec * losses.cycle(self.generators(fake, labels), x)
        direction = Direction(
            "domain", 0, 0, x, fake, lambda images: self.generators(images, targets),
            lambda images: self.generators(images, labels),
        )  # fmt: skip
        yield Turn("generators", terms, (direction,))

    def targets(self, batch: Batch) -> Tensor:
        """c', the domain to translate each picture to: ``(N,)`` int64, any of the picture's own data set.

        The authors shuffle the labels of the batch. To do that one would need the labels of the other processes, and
        the result would depend on how many pictures are computed at once; drawing is the same on average.
        """
        assert batch.labels is not None  # `mixed`
        drawn = []
        for slot, label in zip(batch.slots, batch.labels, strict=True):
            (candidates,) = self.comparable[label].nonzero(as_tuple=True)
            drawn.append(candidates[int(torch.randint(len(candidates), (), generator=batch.generator("target", slot)))])
        return torch.stack(drawn)

    def discriminator_terms(self, batch: Batch, x: Tensor, labels: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """L_D, eq. 5 and 8, term by term, weighted."""
        with torch.no_grad():
            fake = self.generators(x, targets)
        real, fake = self.seen(x, batch, "real"), self.seen(fake, batch, "fake")
        verdict = self.discriminator(torch.cat((real, fake)))  # no norm: as in two passes
        source_real, source_fake = verdict.source.chunk(2)
        epsilon = batch.rand(x[:, :1, :1, :1], "epsilon")
        penalty = losses.gradient_penalty(lambda mixed: self.discriminator(mixed).source, real, fake, epsilon)
        cls = classification(verdict.domain.chunk(2)[0], labels, self.comparable)
        return {
            "discriminator": losses.discriminator_gan("wgan", source_real, source_fake),
            "gradient_penalty": self.options.lambda_gp * penalty,
            "classification_real": self.options.lambda_cls * cls,
        }

    def generator_terms(self, batch: Batch, fake: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """What the discriminator says of the translations, eq. 6 without L_rec, weighted."""
        verdict = self.discriminator(self.seen(fake, batch, "adversarial"))
        cls = classification(verdict.domain, targets, self.comparable)
        return {
            "adversarial": losses.generator_gan("wgan", verdict.source),
            "classification_fake": self.options.lambda_cls * cls,
        }

    def seen(self, images: Tensor, batch: Batch, name: str) -> Tensor:
        """Pictures as the discriminator sees them: augmented, if the recipe says so."""
        if self.augment is None:
            return images
        augmented: Tensor = self.augment(images, [batch.generator(f"augment {name}", slot) for slot in batch.slots])
        return augmented


def check(recipe: Recipe, options: StarGan.Options) -> None:
    """Refuses what StarGAN cannot be trained with.

    Raises:
        PresetError: if `sets` is no partition of the domains, if there is a `small_size`, or the augmentation adapts.
    """
    names, where = recipe.domains, f"{recipe.name}: method.sets"
    given = [name for one in options.sets for name in one]
    for name in given:
        if name not in names:
            near = settings.nearest(name, names)
            raise PresetError(f"{where}: no domain is called '{name}'{near} (domains: {', '.join(names)})")
        if given.count(name) > 1:
            raise PresetError(f"{where}: '{name}' stands in two sets; a domain is of one data set")
    missing = [name for name in names if given and name not in given]
    if missing:
        raise PresetError(f"{where}: {', '.join(missing)} in no set; name every domain once, or leave 'sets' out")
    if recipe.data.small_size is not None:
        raise PresetError(f"{recipe.name}: data.small_size: D_cls has the size of the crops built in; leave it out")
    if recipe.augmentation.adaptive:
        raise PresetError(
            f"{recipe.name}: augmentation.adaptive: the verdicts of a Wasserstein critic have no zero to go by; "
            "give a fixed 'probability'"
        )
