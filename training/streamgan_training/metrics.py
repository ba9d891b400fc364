"""Measures of a translation, as pure functions on frames.

Frames are uint8 RGB: one is ``(H, W, 3)``, several are ``(N, H, W, 3)``. Sources: Lai et al. 2018, "Learning Blind
Video Temporal Consistency" (warping error, after the authors' published evaluation); Karras et al. 2018, "Progressive
Growing of GANs" (sliced Wasserstein distance).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Flicker:
    """How much a film changes between frames beyond what motion explains, beside its source."""

    source: float
    """Warping error of the source: the floor, since flow and noise are never perfect."""
    output: float
    """Warping error of the output, along the source's motion."""
    contrast_ratio: float
    """Spread of the output's values over that of the source's."""

    @property
    def ratio(self) -> float:
        """Output over source: below 1, the output changes less than the source."""
        return self.output / self.source

    @property
    def fair_ratio(self) -> float:
        """`ratio` over the squared contrast ratio: a darker or flatter film flickers less for free."""
        return self.ratio / self.contrast_ratio**2


def warping_error(previous: Image, current: Image, flow: Float, valid: npt.NDArray[np.bool_]) -> float:
    """Mean squared difference of a frame to its predecessor moved along `flow`: Lai et al. 2018, eq. 9.

    Args:
        previous: ``(H, W, 3)``.
        current: ``(H, W, 3)``.
        flow: ``(H, W, 2)``, from a pixel of `current` to where it was in `previous`, in pixels, x then y.
        valid: ``(H, W)``, False where the motion is hidden or ends; those pixels do not count.

    Returns:
        The mean over valid pixels and channels, of values in [0, 1].
    """
    difference = (current.astype(np.float32) - warp(previous, flow)) / 255
    return float(np.square(difference)[valid].mean()) if valid.any() else 0.0


def warp(image: Image, flow: Float) -> Float:
    """`image` sampled where `flow` points to, bilinear: ``(H, W, 3)`` float32 in [0, 255]."""
    return np.asarray(cv2.remap(image.astype(np.float32), *_positions(flow), cv2.INTER_LINEAR), np.float32)


def flow_and_mask(previous: Image, current: Image) -> tuple[Float, npt.NDArray[np.bool_]]:
    """Optical flow (DIS) from `current` to `previous`, and where it can be trusted.

    The mask follows Lai et al. 2018: forward and backward flow must agree, ‖f + b‖² ≤ 0.01 (‖f‖² + ‖b‖²) + 0.5, no
    motion boundary, ‖∇b‖² ≤ 0.01 ‖b‖² + 0.002, and the pixel must come from inside the frame.
    """
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (previous, current)]
    blank = np.zeros((*grey[0].shape, 2), np.float32)
    backward = np.asarray(engine.calc(grey[1], grey[0], blank.copy()), np.float32)
    forward = np.asarray(engine.calc(grey[0], grey[1], blank.copy()), np.float32)
    returned = cv2.remap(forward, *_positions(backward), cv2.INTER_LINEAR)
    squares = np.square(backward).sum(-1)
    agrees = np.square(backward + returned).sum(-1) <= 0.01 * (squares + np.square(returned).sum(-1)) + 0.5
    rows, columns = np.gradient(backward, axis=(0, 1))
    gradient = np.square(rows).sum(-1) + np.square(columns).sum(-1)
    smooth = gradient <= 0.01 * squares + 0.002
    x, y = _positions(backward)
    height, width = grey[0].shape
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return backward, np.asarray(agrees & smooth & inside, np.bool_)


def _positions(flow: Float) -> tuple[Float, Float]:
    """Absolute positions that a flow points to: x and y, each ``(H, W)``."""
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return columns + flow[..., 0], rows + flow[..., 1]


def flicker(pairs: Iterable[tuple[Image, Image]]) -> Flicker:
    """Warping error of a film and of its translation, along the same motion.

    Args:
        pairs: (source frame, output frame) in order, all of one size; at least two.

    Raises:
        ValueError: if there are fewer than two.
    """
    source, output, spread_source, spread_output = [], [], [], []
    before: tuple[Image, Image] | None = None
    for now in pairs:
        spread_source.append(float(now[0].std()))
        spread_output.append(float(now[1].std()))
        if before is not None:
            flow, valid = flow_and_mask(before[0], now[0])
            source.append(warping_error(before[0], now[0], flow, valid))
            output.append(warping_error(before[1], now[1], flow, valid))
        before = now
    if not source:
        raise ValueError("a film of fewer than two frames has no flicker")
    contrast = float(np.mean(spread_output) / np.mean(spread_source))
    return Flicker(float(np.mean(source)), float(np.mean(output)), contrast)


def edge_correlation(source: Image, output: Image) -> float:
    """Pearson correlation of the edge strength (Sobel, of luma) of two pictures: 1 if the drawing is the same."""
    strength = []
    for image in (source, output):
        luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        strength.append(np.hypot(cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)).ravel())
    return float(np.corrcoef(strength[0], strength[1])[0, 1])


def sliced_wasserstein(
    first: Image, second: Image, levels: int = 3, patch: int = 7, patches: int = 64, projections: int = 256
) -> float:
    """Sliced Wasserstein distance of local patches over a Laplacian pyramid: Karras et al. 2018, section 5.

    Unlike there, patches keep their mean colour and contrast (values in [0, 1], not normalised): to tell day from
    night is the point. The mean over levels, times 1000.

    Args:
        first: ``(N, H, W, 3)`` uint8 RGB.
        second: the same shape.
        levels: pyramid levels, the last one being the low-pass rest.
        patch: side of a patch, in pixels.
        patches: patches drawn from each picture and level.
        projections: random directions.
    """
    count = min(len(first), len(second))
    random = np.random.default_rng(0)
    distances = []
    for bands in zip(*(_laplacian(images[:count], levels) for images in (first, second)), strict=True):
        sets = [_patches(band, patch, patches, np.random.default_rng(1)) for band in bands]
        directions = random.standard_normal((sets[0].shape[1], projections)).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=0)
        ordered = [np.sort(descriptors @ directions, axis=0) for descriptors in sets]
        distances.append(float(np.abs(ordered[0] - ordered[1]).mean()))
    return 1000 * float(np.mean(distances))


def _laplacian(images: Image, levels: int) -> list[Float]:
    """Laplacian pyramid: `levels` arrays ``(N, h, w, 3)``, fine to coarse, the last being the rest."""
    current = [image.astype(np.float32) / 255 for image in images]
    bands = []
    for _ in range(levels - 1):
        smaller = [cv2.pyrDown(image) for image in current]
        larger = [cv2.pyrUp(s, dstsize=image.shape[1::-1]) for s, image in zip(smaller, current, strict=True)]
        bands.append(np.stack([image - up for image, up in zip(current, larger, strict=True)]))
        current = smaller
    return [*bands, np.stack(current)]


def _patches(images: Float, side: int, count: int, random: np.random.Generator) -> Float:
    """`count` patches of each picture, flattened: ``(N * count, side * side * 3)``."""
    _, height, width, _ = images.shape
    rows = random.integers(0, height - side + 1, (len(images), count))
    columns = random.integers(0, width - side + 1, (len(images), count))
    cut = [
        image[row : row + side, column : column + side].ravel()
        for image, places in zip(images, zip(rows, columns, strict=True), strict=True)
        for row, column in zip(*places, strict=True)
    ]
    return np.stack(cut)
