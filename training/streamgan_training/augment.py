"""Augmentation of what the discriminators see, for small data sets.

DiffAugment: Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training": real *and* translated
pictures are augmented, in the step of the discriminators *and* in that of the generators, through which the gradient
passes. ADA: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data": each operation happens
with a probability p that follows how much the discriminator overfits. The operations are those of DiffAugment in both
cases; with an adaptive p the control is that of ADA, section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from streamgan import api

Operation = Literal["color", "translation", "cutout"]
DRAWS = 12
"""Random numbers of a picture; always all of them, so that one operation does not change what another draws."""
INTERVAL = 4
"""Steps between two changes of p: Karras et al. 2020, section 3.1."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to the pictures before the discriminators judge them."""

    policy: tuple[Operation, ...] = ()
    """Of `color`, `translation` and `cutout`; all three is DiffAugment's choice for small data sets, none is off."""
    probability: float = api.option(1.0, minimum=0, maximum=1)
    """p of each operation and each picture; 1 is DiffAugment. With `adaptive` it is the most that p can become, which
    begins with 0: from about 0.8 on the operations may leak into the translations (Karras et al. 2020, section 2.2)."""
    adaptive: bool = False
    """Whether p follows the discriminator (ADA)."""
    target: float = api.option(0.6, minimum=-1, maximum=1)
    """r_t, the expected sign of the discriminator's verdict on real pictures, that an adaptive p steers toward."""
    ramp_images: int = api.option(500_000, minimum=1)
    """Real pictures judged, over all processes, while an adaptive p goes from 0 to 1, at the fastest. The paper's value
    suits trainings of millions of pictures; a tenth of the pictures of a shorter training is a good start."""


class _Chances(NamedTuple):
    """The random numbers of a batch by their use: each ``(N, k)``, uniform in [0, 1)."""

    gates: Tensor
    """k = 5: brightness, saturation, contrast, translation, cutout happen where this is below p."""
    color: Tensor
    """k = 3: how bright, how saturated, how contrasty."""
    shift: Tensor
    """k = 2: along rows and columns."""
    center: Tensor
    """k = 2: row and column of the square that is cut out."""


class Augment(nn.Module):
    """DiffAugment, or ADA where the settings are adaptive. Its strength and statistics are buffers: part of a state.

    Args:
        settings: what is done, and how often.
        neutral: the verdict on a picture that may as well be real as translated, for ADA's
            r_t = E[sign(D(x) − neutral)]. For logits (vanilla and hinge losses) it is 0, as in the paper; for the
            least-squares loss, whose verdicts tend to 1 on real and to 0 on translated pictures, it is ½.
    """

    probability: Tensor
    """p: a scalar float32 in [0, 1]."""
    sign: Tensor
    """r_t as last measured: a scalar float32 in [-1, 1]; 0 before the first time."""
    tally: Tensor
    """``(3,)`` float32 since p last changed, of all processes: the sum of the pictures' mean signs, the pictures, the
    steps."""

    def __init__(self, settings: Augmentation, neutral: float) -> None:
        super().__init__()
        self.settings = settings
        self.neutral = neutral
        self.register_buffer("probability", torch.tensor(0.0 if settings.adaptive else float(settings.probability)))
        self.register_buffer("sign", torch.tensor(0.0))
        self.register_buffer("tally", torch.zeros(3))
        self._step = torch.zeros(2)  # of this step and this process, until `adjust`: signs and pictures

    def forward(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Augments each picture by itself.

        Args:
            images: ``(N, 3, H, W)`` in [-1, 1], on any device.
            generators: a CPU generator for each picture, such as `Batch.generator` gives: all of the randomness.

        Returns:
            The same shape, type and device. Colours may leave [-1, 1]; what comes from outside the frame and what is
            cut out is 0, a medium grey.
        """
        if not self.settings.policy:
            return images
        numbers = [torch.rand(DRAWS, generator=one) for one, _ in zip(generators, images, strict=True)]
        chances = _Chances(*torch.split(torch.stack(numbers).to(images.device), [5, 3, 2, 2], dim=1))
        happens = chances.gates < self.probability.to(images.device)
        if "color" in self.settings.policy:
            images = jitter_color(images, chances.color, happens[:, :3])
        if "translation" in self.settings.policy:
            images = translate(images, chances.shift, happens[:, 3])
        if "cutout" in self.settings.policy:
            images = cut_out(images, chances.center, happens[:, 4])
        return images

    def update(self, real_verdict: Tensor | Sequence[Tensor]) -> None:
        """`collect` and `adjust`: for a step whose batch is judged at once."""
        self.collect(real_verdict)
        self.adjust()

    @torch.no_grad()
    def collect(self, real_verdict: Tensor | Sequence[Tensor]) -> None:
        """Remembers what the discriminator said of (augmented) real pictures; call it for each part of a batch.

        Args:
            real_verdict: ``(N, …)``, or one such tensor for each scale: the scales count alike, so do the patches.
        """
        if not (self.settings.adaptive and self.settings.policy):
            return
        scales = [real_verdict] if isinstance(real_verdict, Tensor) else list(real_verdict)
        signs = torch.stack([(one.float() - self.neutral).sign().flatten(1).mean(1) for one in scales]).mean(0)
        self._step = self._step.to(signs.device) + torch.stack((signs.sum(), signs.new_tensor(len(signs))))

    @torch.no_grad()
    def adjust(self) -> None:
        """Ends a step: every fourth one moves p by the pictures seen since, divided by `ramp_images`.

        Every process must call it: what they collected is added up, so that p is the same for all of them.
        """
        if not (self.settings.adaptive and self.settings.policy):
            return
        fresh, self._step = self._step.to(self.tally.device), torch.zeros(2)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(fresh)
        self.tally += torch.cat((fresh, fresh.new_ones(1)))
        if int(self.tally[2]) < INTERVAL:
            return
        signs, pictures, _ = self.tally.unbind()
        self.sign.copy_(signs / pictures.clamp_min(1))
        step = (self.sign - self.settings.target).sign() * pictures / self.settings.ramp_images
        self.probability.copy_((self.probability + step).clamp(0, self.settings.probability))
        self.tally.zero_()


def jitter_color(images: Tensor, chances: Tensor, happens: Tensor) -> Tensor:
    """Brightness ±0.5, then saturation ×[0, 2), then contrast ×[0.5, 1.5): Zhao et al. 2020, section 3.2, `color`.

    Args:
        images: ``(N, 3, H, W)``; a step of brightness is a quarter of the range [-1, 1].
        chances: ``(N, 3)`` uniform in [0, 1), one for each of the three.
        happens: ``(N, 3)`` bool, which of the three happen.
    """
    amounts = torch.where(happens, torch.stack((chances[:, 0] - 0.5, 2 * chances[:, 1] - 1, chances[:, 2] - 0.5), 1), 0)
    brightness, saturation, contrast = amounts.to(images.dtype).view(-1, 3, 1, 1, 1).unbind(1)
    images = images + brightness
    images = images + saturation * (images - images.mean(1, keepdim=True))
    return images + contrast * (images - images.mean((1, 2, 3), keepdim=True))


def translate(images: Tensor, chances: Tensor, happens: Tensor) -> Tensor:
    """Moves each picture by whole pixels, at most ⅛ of its sides; zeros come in: Zhao et al. 2020, section 3.2.

    Args:
        images: ``(N, 3, H, W)``.
        chances: ``(N, 2)`` uniform in [0, 1), for rows and columns.
        happens: ``(N,)`` bool.
    """
    for axis, chance in zip((2, 3), chances.unbind(1), strict=True):
        side = images.shape[axis]
        largest = round(side / 8)
        shift = torch.where(happens, (chance * (2 * largest + 1)).floor().long() - largest, 0)
        origin = torch.arange(side, device=images.device) - shift[:, None]  # (N, side)
        shape = (-1, 1, side, 1) if axis == 2 else (-1, 1, 1, side)
        inside = ((origin >= 0) & (origin < side)).view(shape)
        moved = images.gather(axis, origin.clamp(0, side - 1).view(shape).expand_as(images))
        images = moved * inside.to(images.dtype)
    return images


def cut_out(images: Tensor, chances: Tensor, happens: Tensor) -> Tensor:
    """Masks a rectangle of half the height and half the width with zeros: Zhao et al. 2020, section 3.2.

    Args:
        images: ``(N, 3, H, W)``.
        chances: ``(N, 2)`` uniform in [0, 1), for the row and the column of its centre, which may lie on the border.
        happens: ``(N,)`` bool.
    """
    hit = happens.view(-1, 1, 1, 1)
    for axis, chance in zip((2, 3), chances.unbind(1), strict=True):
        side = images.shape[axis]
        first = (chance * (side + 1)).floor() - side // 4
        place = torch.arange(side, device=images.device)
        covered = (place >= first[:, None]) & (place < first[:, None] + side // 2)  # (N, side)
        hit = hit & covered.view((-1, 1, side, 1) if axis == 2 else (-1, 1, 1, side))
    return images.masked_fill(hit, 0.0)
