"""Flicker reduction for models that translate frame by frame: the filter ``smooth``.

What is smoothed in time is not the picture but how it was made from its source. Around every pixel a translation is
close to a linear function of the source, ``made = gain · luma(source) + offset``, with a gain and an offset for each
colour: the coefficients of the guided filter (He et al. 2013, "Guided Image Filtering", eq. 5, 6 and 8). Flicker is a
change of these coefficients that the source does not explain. They are carried from the frame before along the motion
of the source (DIS optical flow, Kroeger et al. 2016) and mixed with those of now; the difference, applied to the full
picture of now, is all that is added. So details are always those of now, and nothing is blurred, however often it is
carried on.

The past counts only where it can be trusted: where the flow there and back agree (Lai et al. 2018, "Learning Blind
Video Temporal Consistency"), where it comes from inside the frame, and where the source, carried along the same way,
looks as it does now. And it may not go beyond what the neighbourhood shows now by more than some levels: the guard
against ghosts of temporal anti-aliasing (Karis 2014, "High Quality Temporal Supersampling"; Salvi 2016, "An Excursion
in Temporal Supersampling": the neighbourhood's mean and spread).
"""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from streamgan import api

Float: TypeAlias = npt.NDArray[np.float32]
Image: TypeAlias = npt.NDArray[np.uint8]

_MOST = 0.9
"""Weight of the past at strength 1: it halves every 6.6 frames."""
_RADIUS, _EPSILON = 4, (0.02 * 255) ** 2
"""Of the guided filter's windows, in pixels of the small picture; and what is no contrast, in squared levels."""
_AROUND = np.ones((3, 3), np.uint8)
"""What is not trusted is not trusted around it either."""
_SURE, _LOST = 8.0, 16.0
"""Levels of 255 that the source may differ by, carried along its motion: up to the first the past counts in full, from
the second not at all."""
_SPREADS, _LEVELS = 1.0, 6.0
"""How far the past may go beyond the mean of the neighbourhood: so many standard deviations and so many levels."""
_SMALLEST = 32
"""Least side of a small picture for motion to be estimated, in pixels. Lower ones, on which OpenCV's DIS would end the
process, are taken to be still."""


@dataclasses.dataclass(frozen=True)
class _Past:
    """What is kept of the frame before, all of the small size ``(h, w)``."""

    source: Image
    """``(h, w, 3)``."""
    grey: Image
    """``(h, w)``."""
    gain: Float
    """``(h, w, 3)``, smoothed."""
    offset: Float
    """``(h, w, 3)`` in levels, smoothed."""


class Smooth(api.Filter):
    """Reduces flicker along the motion of the source, without blur."""

    @dataclasses.dataclass(frozen=True)
    class Options:
        """What a preset may say."""

        strength: float = api.option(0.8, minimum=0, maximum=1, help="0 changes nothing, 1 weights the past with 0.9")
        lines: int = api.option(180, minimum=48, maximum=360, help="short side at which the work is done, in pixels")

    options: Options

    def open(self, context: api.Context) -> None:
        """Prepares the estimator of motion."""
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._past: _Past | None = None

    def apply(self, images: api.Images, made: api.Images) -> api.Images:
        """Smooths translations; the first after `reset` stays as it is."""
        if self.options.strength == 0:
            return made
        return np.stack([self._apply(*pair) for pair in zip(images, made, strict=True)])

    def reset(self) -> None:
        """Forgets the frame before."""
        self._past = None

    def _apply(self, image: Image, made: Image) -> Image:
        """One picture."""
        source = shrink(image, self.options.lines)
        grey = np.asarray(cv2.cvtColor(source, cv2.COLOR_RGB2GRAY), np.uint8)
        seen = np.asarray(cv2.resize(made, source.shape[1::-1], interpolation=cv2.INTER_AREA), np.float32)
        gain, offset = fit(grey, seen)
        past, self._past = self._past, _Past(source, grey, gain, offset)
        if past is None or past.grey.shape != grey.shape:
            return made
        x, y, trust = self._carry(past, source, grey)
        more_gain = cv2.remap(past.gain, x, y, cv2.INTER_LINEAR) - gain
        more_offset = cv2.remap(past.offset, x, y, cv2.INTER_LINEAR) - offset
        change = more_gain * grey[..., None] + more_offset
        weight = (_MOST * self.options.strength * trust * held_back(change, seen))[..., None]
        more_gain, more_offset = _box(more_gain * weight), _box(more_offset * weight)  # no edge comes of the weight's
        self._past = _Past(source, grey, gain + more_gain, offset + more_offset)
        return corrected(image, made, more_gain, more_offset)

    def _carry(self, past: _Past, source: Image, grey: Image) -> tuple[Float, Float, Float]:
        """Where each pixel was before, x and y ``(h, w)``, and how far that can be trusted, ``(h, w)`` in [0, 1]."""
        height, width = grey.shape
        backward, forward = np.zeros((2, height, width, 2), np.float32)
        if min(height, width) >= _SMALLEST:
            backward = np.asarray(self._flow.calc(grey, past.grey, backward), np.float32)
            forward = np.asarray(self._flow.calc(past.grey, grey, forward), np.float32)
        columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        x, y = columns + backward[..., 0], rows + backward[..., 1]
        trust = agreement(backward, np.asarray(cv2.remap(forward, x, y, cv2.INTER_LINEAR), np.float32))
        trust *= (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        carried = cv2.remap(past.source, x, y, cv2.INTER_LINEAR)
        red, green, blue = cv2.split(cv2.absdiff(source, carried))
        error = cv2.blur(cv2.max(cv2.max(red, green), blue).astype(np.float32), (5, 5))
        trust *= np.clip((_LOST - error) / (_LOST - _SURE), 0, 1)
        return x, y, np.asarray(cv2.erode(trust, _AROUND), np.float32)


def shrink(image: Image, lines: int) -> Image:
    """The picture ``(H, W, 3)`` with a short side of `lines` pixels; never enlarged."""
    height, width = image.shape[:2]
    scale = lines / min(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def fit(grey: Image, made: Float) -> tuple[Float, Float]:
    """Gain and offset that make `made` of `grey` around each pixel: He et al. 2013, eq. 5, 6 and 8.

    Args:
        grey: luma of the source, ``(h, w)``, uint8.
        made: the translation, ``(h, w, 3)`` in [0, 255].

    Returns:
        Both ``(h, w, 3)``; the offset in levels.
    """
    guide = grey.astype(np.float32)
    mean, mean_made = _box(guide), _box(made)
    variance = _box(guide * guide) - mean * mean
    covariance = _box(made * guide[..., None]) - mean_made * mean[..., None]
    gain = np.asarray(covariance / (variance + _EPSILON)[..., None], np.float32)
    return _box(gain), _box(mean_made - gain * mean[..., None])


def agreement(backward: Float, returned: Float) -> Float:
    """Whether the way there and back ends where it began: Lai et al. 2018, section 3.3, with a soft edge.

    Args:
        backward: the flow to the frame before, ``(h, w, 2)`` in pixels.
        returned: the flow from there to now, read where `backward` leads.

    Returns:
        ``(h, w)`` in [0, 1].
    """
    there, back, gap = (np.einsum("hwc,hwc->hw", flow, flow) for flow in (backward, returned, backward + returned))
    miss = gap - 0.01 * (there + back)
    return np.asarray(np.clip((0.75 - miss) / 0.5, 0, 1), np.float32)


def held_back(change: Float, seen: Float) -> Float:
    """The part of a change, in [0, 1], that stays within what the neighbourhood shows.

    Args:
        change: what the past would change, ``(h, w, 3)`` in levels.
        seen: the translation of now, ``(h, w, 3)`` in levels.

    Returns:
        ``(h, w)``, one for all colours, so that no tint comes of it.
    """
    mean = _box(seen)
    spread = np.sqrt(np.maximum(_box(seen * seen) - mean * mean, 0))
    allowed = _SPREADS * spread + _LEVELS
    red, green, blue = cv2.split(allowed / np.maximum(np.abs(change), 1e-3))
    return np.asarray(np.minimum(1, cv2.min(cv2.min(red, green), blue)), np.float32)


def corrected(image: Image, made: Image, more_gain: Float, more_offset: Float) -> Image:
    """The translation with a little more gain and offset.

    Args:
        image: the source, ``(H, W, 3)``.
        made: its translation, ``(H', W', 3)``.
        more_gain: ``(h, w, 3)``.
        more_offset: ``(h, w, 3)`` in levels.

    Returns:
        ``(H', W', 3)`` uint8, rounded and held in [0, 255].
    """
    size = made.shape[1::-1]
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if image.shape != made.shape:
        luma = cv2.resize(luma, size, interpolation=cv2.INTER_LINEAR)
    more = cv2.resize(more_gain, size)
    cv2.multiply(more, cv2.cvtColor(luma.astype(np.float32), cv2.COLOR_GRAY2RGB), more)  # of one type: 3 times as fast
    cv2.add(more, cv2.resize(more_offset, size), more)
    return np.asarray(cv2.add(made, more, dtype=cv2.CV_8U), np.uint8)


def _box(values: Float) -> Float:
    """Means over the windows of the guided filter."""
    side = 2 * _RADIUS + 1
    return np.asarray(cv2.blur(values, (side, side)), np.float32)
