"""What the key ``temporal`` of a recipe adds to any method: terms of the generators, and a player of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from streamgan.api import UsageError
from streamgan_training import losses
from streamgan_training.method import Batch, Clips, Direction, Turn, frozen
from streamgan_training.networks import initialise
from streamgan_training.stability import temporal
from streamgan_training.stability.clip_discriminator import ClipDiscriminator
from streamgan_training.stability.predictor import Predictor
from streamgan_training.stability.temporal import Temporal
from streamgan_training.stability.warp import moved_stills, random_flow, warp_along

PLAYER = "temporal_d"
"""The player that learns to tell real clips from translated ones."""


def check_footage(settings: Temporal, footage: Sequence[bool]) -> None:
    """Refuses to begin without the footage that the settings need.

    Args:
        settings: the recipe's ``temporal``.
        footage: by domain, whether it has films or numbered frames; one value for a method with `Method.mixed`.

    Raises:
        UsageError: if no translation that `settings` apply to starts from a domain with footage.
    """
    sources = footage if settings.domains == "all" else footage[:1]
    if settings.needs_footage and not any(sources):
        raise _no_footage(settings)


def _no_footage(settings: Temporal) -> UsageError:
    """What is said where only stills are given."""
    where = "no domain has any" if settings.domains == "all" else "the first domain has none"
    return UsageError(
        f"temporal.kind: {', '.join(settings.kinds)} needs {settings.clip_length} consecutive frames, and {where}; "
        "give it films or folders of numbered frames, or choose synthetic or temporal_d, which stills will do for"
    )


class Consistency(nn.Module):
    """Consistency in time of the translations of any method.

    The loop adds `terms` to the losses of each turn of the method that has directions, lets `generator_networks` learn
    with that turn's player, and plays `turns` after the method's own. All randomness comes from the batch, picture by
    picture; nothing is remembered between steps but parameters.

    Args:
        settings: the recipe's ``temporal``.
        iterations: steps of the whole training.
        domains: number of domains, 1 for a method with `Method.mixed`.
    """

    def __init__(self, settings: Temporal, iterations: int, domains: int = 2) -> None:
        super().__init__()
        self.settings = settings
        self.iterations = iterations
        judged = range(domains) if settings.domains == "all" or domains == 1 else range(1, domains)
        self.predictors = nn.ModuleDict()
        """P, by index of the domain whose frames it predicts."""
        self.discriminators = nn.ModuleDict()
        """By index of the domain whose clips are the real ones."""
        for domain in judged:
            if "recycle" in settings.kinds:
                self.predictors[str(domain)] = Predictor(settings.predictor_width)
            if "temporal_d" in settings.kinds:
                width = settings.discriminator_width
                self.discriminators[str(domain)] = ClipDiscriminator(settings.clip_length, width)
        initialise(self)

    @property
    def needs_clips(self) -> int:
        """T: consecutive frames of each domain that a batch must hold; 0 for none."""
        return self.settings.clip_length

    def generator_networks(self) -> nn.ModuleDict:
        """The networks that learn with the generators; empty but for `recycle`."""
        return self.predictors

    def players(self) -> Mapping[str, nn.Module]:
        """The networks that learn in `turns`, by player; empty but for `temporal_d`."""
        return {PLAYER: self.discriminators} if len(self.discriminators) else {}

    def terms(self, directions: Sequence[Direction], batch: Batch) -> dict[str, Tensor]:
        """The terms of the generators' loss, weighted, by name; none if none are due at this step.

        Args:
            directions: the translations of a turn.
            batch: with clips of `needs_clips` frames.

        Raises:
            UsageError: if no direction has the footage that the settings need, or `recycle` has no way back.
        """
        chosen = self._chosen(directions, batch)
        clips = [_clips(direction, batch) for direction in chosen]
        if chosen and self.settings.needs_footage and not any(clips):
            raise _no_footage(self.settings)
        terms: dict[str, Tensor] = {}
        for direction, clip in zip(chosen, clips, strict=True):
            if "synthetic" in self.settings.kinds:
                terms |= self._synthetic(direction, batch)
            if "flow" in self.settings.kinds and clip is not None:
                loss = temporal.flow_consistency(direction.forward, clip)
                terms[f"flow_{direction.name}"] = self.settings.weight * loss
            if "recycle" in self.settings.kinds and clip is not None:
                terms |= self._recycle(direction, clip, batch)
            if "temporal_d" in self.settings.kinds:
                terms[f"temporal_d_{direction.name}"] = self.settings.adversarial_weight * self._fooled(
                    direction, batch
                )
        return {name: self.settings.every * term for name, term in terms.items()}

    def turns(self, directions: Sequence[Direction], batch: Batch) -> Iterator[Turn]:
        """The turn of the clip discriminators, if there are any and it is due.

        The translations are computed anew, without a graph: the generators have learnt since.

        Args:
            directions: all translations of the step.
            batch: the same as for `terms`.
        """
        chosen = self._chosen(directions, batch) if len(self.discriminators) else []
        terms = {}
        for direction in chosen:
            real, source = self._real_and_source(direction, batch)
            with torch.no_grad():
                fake = torch.stack([direction.forward(frame) for frame in source.unbind(1)], 1)
            judge = self.discriminators[str(direction.target)]
            terms[f"clip_discriminator_{direction.name}"] = losses.discriminator_gan("lsgan", judge(real), judge(fake))
        if terms:
            yield Turn(PLAYER, terms)

    def _chosen(self, directions: Sequence[Direction], batch: Batch) -> list[Direction]:
        """The directions that the settings apply to, if it is their time."""
        if not self.settings.due(batch.step, self.iterations):
            return []
        return [one for one in directions if self.settings.domains == "all" or one.source == 0]

    def _synthetic(self, direction: Direction, batch: Batch) -> dict[str, Tensor]:
        """Both forms of `synthetic`, along one motion."""
        settings, name = self.settings, f"synthetic {direction.name}"
        warp = warp_along(random_flow(direction.x, batch, name, settings.shift, settings.bend))
        noise = settings.noise * batch.randn(direction.x, f"{name} noise")
        spatial = temporal.spatial_consistency(direction.forward, direction.x, direction.y, warp, noise)
        terms = {f"synthetic_{direction.name}": settings.weight * spatial}
        if settings.cycle_weight and direction.backward is not None:
            cycle = temporal.cycle_consistency(direction.backward, direction.x, direction.y, warp, noise)
            terms[f"synthetic_cycle_{direction.name}"] = settings.cycle_weight * cycle
        return terms

    def _recycle(self, direction: Direction, clips: Clips, batch: Batch) -> dict[str, Tensor]:
        """The recycle loss of a direction, and the recurrent loss of its target's predictor where there is footage.

        Without footage of the target, its predictor learns from translated frames only, through the recycle loss.
        """
        if direction.backward is None:
            raise UsageError(
                "temporal.kind: recycle given, but the method has no translation back; choose synthetic, flow or "
                "temporal_d, or a method with a cycle, such as cyclegan"
            )
        predictor = cast(Predictor, self.predictors[str(direction.target)])
        recycle = temporal.recycle_loss(direction.forward, direction.backward, predictor, clips.frames)
        terms = {f"recycle_{direction.name}": self.settings.weight * recycle}
        target = batch.clips[direction.target]
        if target is not None:
            recurrent = temporal.recurrent_loss(predictor, target.frames)
            terms[f"recurrent_{direction.name}"] = self.settings.weight * recurrent
        return terms

    def _fooled(self, direction: Direction, batch: Batch) -> Tensor:
        """E[(D(G(x_1), …, G(x_T)) − 1)²]: how far the translated clips are from passing for real ones."""
        _, source = self._real_and_source(direction, batch)
        fake = torch.stack([direction.forward(frame) for frame in source.unbind(1)], 1)
        judge = self.discriminators[str(direction.target)]
        with frozen(judge):
            return losses.generator_gan("lsgan", judge(fake))

    def _real_and_source(self, direction: Direction, batch: Batch) -> tuple[Tensor, Tensor]:
        """Clips of the target, and clips of the source to translate: both ``(N, T, 3, H, W)``.

        Footage where both domains have it. Else both are stills set in motion, alike: if only one side were footage,
        its motion would tell the discriminator which it is, and the translator could only learn to hide it. The
        source's frames get noise, as a camera's have; a steady translation does not pass it on.
        """
        length = self.needs_clips
        source, target = _clips(direction, batch), batch.clips[direction.target] if batch.clips else None
        if source is not None and target is not None:
            return target.frames[:, :length], source.frames[:, :length]
        motion = (batch, f"temporal_d {direction.name}", length, self.settings.shift, self.settings.bend)
        real = moved_stills(batch.images[direction.target], *motion)
        moved = moved_stills(direction.x.detach(), *motion)
        return real, moved + self.settings.noise * batch.randn(moved, f"temporal_d {direction.name} noise")


def _clips(direction: Direction, batch: Batch) -> Clips | None:
    """The clips that a direction translates, if its source has footage."""
    return batch.clips[direction.source] if batch.clips else None
