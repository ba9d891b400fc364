"""The discriminators of one domain and how they judge: scales, adversarial losses, augmentation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamgan_training import losses, networks
from streamgan_training.augment import Augment, Augmentation
from streamgan_training.losses import Objective
from streamgan_training.method import Batch
from streamgan_training.recipe import Discriminator


class Discriminators(nn.Module):
    """The discriminators of one domain, each at its own scale; what they see may be augmented.

    Augmentations are drawn for real and translated pictures alike, so they do not leak into the translations (Zhao et
    al. 2020, section 3; Karras et al. 2020, section 2).
    """

    def __init__(
        self, settings: tuple[Discriminator, ...], augmentation: Augmentation, objective: Objective = "lsgan"
    ) -> None:
        super().__init__()
        self.weights = [one.weight for one in settings]
        self.judges = nn.ModuleList(
            networks.PatchDiscriminator(one.width, one.layers, networks.make_norm(one.norm), one.scale)
            for one in settings
        )
        neutral = 0.5 if objective == "lsgan" else 0.0
        self.augment = Augment(augmentation, neutral) if augmentation.policy else None
        networks.initialise(self)

    def forward(self, images: Tensor, batch: Batch, name: str) -> list[Tensor]:
        """One verdict ``(N, 1, h, w)`` a scale on ``(N, 3, H, W)`` in [-1, 1]; `name` names the randomness."""
        if self.augment is not None:
            images = self.augment(images, [batch.generator(f"augment {name}", slot) for slot in batch.slots])
        return [judge(images) for judge in self.judges]

    def adversarial(self, objective: Objective, fake: Tensor, batch: Batch, name: str) -> Tensor:
        """What a generator minimises, weighted over the scales."""
        verdicts = self(fake, batch, f"{name} adversarial")
        pairs = zip(self.weights, verdicts, strict=True)
        return torch.stack([weight * losses.generator_gan(objective, verdict) for weight, verdict in pairs]).sum()

    def loss(self, objective: Objective, real: Tensor, fake: Tensor, batch: Batch, name: str) -> Tensor:
        """What these discriminators minimise, summed over the scales; `fake` carries no gradient."""
        verdicts = self(real, batch, f"{name} real")
        if self.augment is not None:
            self.augment.collect([verdict.detach() for verdict in verdicts])
        pairs = zip(verdicts, self(fake.detach(), batch, f"{name} fake"), strict=True)
        return torch.stack([losses.discriminator_gan(objective, *pair) for pair in pairs]).sum()
