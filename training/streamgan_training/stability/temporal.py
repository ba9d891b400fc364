"""Consistency in time: the key ``temporal`` of a recipe, and its losses as pure functions.

`synthetic` needs no video: a translator that commutes with small motions and noise does not flicker. After Wang et al.
2022, "Learning Temporally and Semantically Consistent Unpaired Video-to-video Translation Through Pseudo-Supervision
From Synthetic Optical Flow" (AAAI), and Eilertsen et al. 2019, "Single-frame Regularization for Temporally Stable
CNNs".

`flow` compares neighbouring frames along the source's motion: the short-term loss of Lai et al. 2018, "Learning Blind
Video Temporal Consistency", eq. 3, with both their masks: that of the training and that of the evaluation.

`recycle` predicts: Bansal et al. 2018, "Recycle-GAN: Unsupervised Video Retargeting".

`temporal_d` judges clips: a discriminator on a few consecutive frames, as in Wang et al. 2018, "Video-to-Video
Synthesis", section 3, here unconditional and with least squares.

Images are ``(N, 3, H, W)`` in [-1, 1], clips ``(N, T, 3, H, W)``. Every loss is first averaged for each picture, so the
loss of a batch is the mean over its pictures however they are spread over processes. Doing nothing and blurring both
minimise the L1 terms: begin after the translation has formed (`Temporal.start`) and look at what comes out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from streamgan.api import option
from streamgan_training.method import Clips
from streamgan_training.stability.warp import Warp, warp_along

KindName = Literal["none", "synthetic", "flow", "recycle", "temporal_d"]
EngineName = Literal["auto", "dis", "raft"]
Translate = Callable[[Tensor], Tensor]
FRAMES: dict[KindName, int] = {"none": 0, "synthetic": 0, "flow": 2, "recycle": 3, "temporal_d": 3}
"""The fewest consecutive frames that each kind is computed on."""


@dataclasses.dataclass(frozen=True)
class Temporal:
    """Consistency in time: which kinds, how strong, from when on."""

    kind: KindName | tuple[KindName, ...] = "none"
    """One kind, or several that are added up."""
    weight: float = option(10.0, minimum=0)
    """λ of every L1 term: 10 in Wang et al. 2022 and in Bansal et al. 2018."""
    start: float = option(0.4, minimum=0, maximum=1)
    """Fraction of the training after which it counts: before the translation has formed it teaches to do nothing."""
    every: int = option(1, minimum=1)
    """It is computed on every n-th iteration (and weighted n times)."""
    domains: Literal["first", "all"] = "first"
    """Which translations it applies to: those from the first domain, or all."""
    length: int = option(0, minimum=0)
    """Frames per clip; 0 for the fewest that the kind takes: 2 for `flow`, 3 for `recycle` and `temporal_d`."""
    cycle_weight: float = option(0.0, minimum=0)
    """`synthetic`: λ of the cycle form, for methods that translate back; 10 in Wang et al. 2022."""
    shift: float = option(6.0, minimum=0)
    """`synthetic`, `temporal_d`: largest common shift of a random motion, in pixels."""
    bend: float = option(3.0, minimum=0)
    """`synthetic`, `temporal_d`: spread of its local part, in pixels."""
    noise: float = option(0.01, minimum=0)
    """`synthetic`, `temporal_d`: spread of the noise on moved frames; frames are in [-1, 1]."""
    flow: EngineName = "auto"
    """`flow`: the estimator; `auto` is RAFT where its weights are on this machine, else DIS."""
    predictor_width: int = option(32, minimum=1)
    """`recycle`: channels of the predictors' first level; 64 in the paper's own code, 8 in its variant ReCycle."""
    adversarial_weight: float = option(1.0, minimum=0)
    """`temporal_d`: weight of the clip discriminator's verdict in the generators' loss."""
    discriminator_width: int = option(64, minimum=1)
    """`temporal_d`: channels of the discriminator's first level."""

    def __post_init__(self) -> None:
        shortest = max(FRAMES[kind] for kind in self.kinds) if self.kinds else 0
        if 0 < self.length < shortest:
            raise ValueError(f"length: {self.length} given, {self.kind} takes at least {shortest} frames")

    @property
    def kinds(self) -> tuple[KindName, ...]:
        """The kinds, without `none`."""
        given = (self.kind,) if isinstance(self.kind, str) else self.kind
        return tuple(kind for kind in dict.fromkeys(given) if kind != "none")

    @property
    def clip_length(self) -> int:
        """T: how many consecutive frames of each domain a batch must hold; 0 for none."""
        shortest = max((FRAMES[kind] for kind in self.kinds), default=0)
        return max(shortest, self.length) if shortest else 0

    @property
    def needs_flow(self) -> bool:
        """Whether clips must come with their flow."""
        return "flow" in self.kinds

    @property
    def needs_footage(self) -> bool:
        """Whether stills alone will not do."""
        return "flow" in self.kinds or "recycle" in self.kinds

    def due(self, step: int, iterations: int) -> bool:
        """Whether it counts when `step` of `iterations` steps are done."""
        return bool(self.kinds) and step >= self.start * iterations and step % self.every == 0


def masked_l1(first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute difference weighted by `valid`, over pixels and channels of each picture, then over pictures.

    Args:
        first: ``(N, C, H, W)``.
        second: the same shape.
        valid: ``(N, 1, H, W)`` in [0, 1]: how much a pixel counts; a picture without a valid pixel counts as 0.
    """
    count = (valid.sum((1, 2, 3)) * first.shape[1]).clamp_min(1)
    return (((first - second).abs() * valid).sum((1, 2, 3)) / count).mean()


def spatial_consistency(forward: Translate, x: Tensor, y: Tensor, warp: Warp, noise: Tensor) -> Tensor:
    """‖G(W x + n) − W G(x)‖₁ over the pixels that stay in the frame: Wang et al. 2022, unsupervised spatial loss.

    Both sides are followed by the gradient: motion and noise are drawn anew each time, and a side held fixed would only
    pull the other to its errors.

    Args:
        forward: G.
        x: source frames.
        y: G(x), already computed.
        warp: W, a small smooth motion.
        noise: n, the shape of `x`.
    """
    return masked_l1(forward(warp(x) + noise), warp(y), warp.valid)


def cycle_consistency(backward: Translate, x: Tensor, y: Tensor, warp: Warp, noise: Tensor) -> Tensor:
    """‖G'(W G(x) + n) − W x‖₁: Wang et al. 2022, unsupervised recycle loss; the arguments of `spatial_consistency`."""
    return masked_l1(backward(warp(y) + noise), warp(x), warp.valid)


def visibility(before: Tensor, now: Tensor) -> Tensor:
    """M = exp(−α ‖I_t − W I_{t−1}‖²), α = 50, of values in [0, 1]: Lai et al. 2018, section 3.2. No gradient flows.

    Args:
        before: W I_{t−1}, the source's earlier frame moved along the flow, ``(N, 3, H, W)`` in [-1, 1].
        now: I_t, the same shape.

    Returns:
        ``(N, 1, H, W)`` in [0, 1]: near 0 where the flow joins what does not look alike.
    """
    return torch.exp(-50 * ((now - before) / 2).square().sum(1, keepdim=True)).detach()


def flow_consistency(forward: Translate, clips: Clips) -> Tensor:
    """‖M (G(x_{t+1}) − W G(x_t))‖₁, the mean over neighbouring frames: Lai et al. 2018, eq. 3, between translations.

    M is the paper's `visibility` where the clips' mask trusts the flow and the pixel comes from inside the frame, else
    0. Exactly one side is followed by the gradient, the later frame: the earlier one, moved along the flow and so a
    little blurred, is a fixed aim. It saves the earlier frame's graph, and no frame is pulled at through a flow that
    may be wrong. The networks being the same, what is an earlier frame now is a later one in other clips.

    Args:
        forward: G.
        clips: with flow and mask.

    Raises:
        ValueError: if the clips come without flow.
    """
    if clips.flow is None or clips.valid is None:
        raise ValueError("clips without flow: the loader must compute it where Temporal.needs_flow")
    with torch.no_grad():
        before = forward(clips.frames[:, 0])
    losses = []
    for step in range(clips.frames.shape[1] - 1):
        frame, warp = clips.frames[:, step + 1], warp_along(clips.flow[:, step])
        mask = clips.valid[:, step] * warp.valid * visibility(warp(clips.frames[:, step]), frame)
        now = forward(frame)
        losses.append(masked_l1(now, warp(before), mask))
        before = now.detach()
    return torch.stack(losses).mean()


def recurrent_loss(predictor: Callable[[Tensor, Tensor], Tensor], frames: Tensor) -> Tensor:
    """‖P(x_t, x_{t+1}) − x_{t+2}‖₁: Bansal et al. 2018, recurrent loss L_τ (eq. 4), with L1 as in their own code.

    Args:
        predictor: P of the frames' domain.
        frames: ``(N, T, 3, H, W)``, T ≥ 3: the mean over all triplets.
    """
    triplets = zip(frames.unbind(1), frames[:, 1:].unbind(1), frames[:, 2:].unbind(1), strict=False)
    losses = [(predictor(first, second) - third).abs().mean() for first, second, third in triplets]
    return torch.stack(losses).mean()


def recycle_loss(
    forward: Translate, backward: Translate, predictor: Callable[[Tensor, Tensor], Tensor], frames: Tensor
) -> Tensor:
    """‖G_A(P_B(G_B(x_t), G_B(x_{t+1}))) − x_{t+2}‖₁: Bansal et al. 2018, recycle loss L_r (eq. 5), with L1.

    Args:
        forward: to the other domain (the paper's G_Y).
        backward: back (G_X).
        predictor: P of the other domain (P_Y).
        frames: ``(N, T, 3, H, W)``, T ≥ 3: the mean over all triplets.
    """
    moved = [forward(frame) for frame in frames[:, :-1].unbind(1)]
    pairs = zip(moved, moved[1:], frames[:, 2:].unbind(1), strict=False)
    losses = [(backward(predictor(first, second)) - third).abs().mean() for first, second, third in pairs]
    return torch.stack(losses).mean()
