"""Measures of a translation, as pure functions on frames.

Frames are uint8 RGB: one is ``(H, W, 3)``, several are ``(N, H, W, 3)``. What needs torch is in `quality`. Sources:
Lai et al. 2018, "Learning Blind Video Temporal Consistency" (warping error, after the authors' published evaluation);
Chu et al. 2020, "Learning Temporal Coherence via Self-Supervision for GAN-based Video Generation" (TecoGAN: tOF);
Karras et al. 2018, "Progressive Growing of GANs" (sliced Wasserstein distance).
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import numpy.typing as npt

from streamgan.motion.flow import flow_and_mask, positions

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
    followed: float = 1.0
    """The part of the pixels that counted: where the motion could be trusted, in [0, 1]. Falls over a long gap."""

    @property
    def ratio(self) -> float:
        """Output over source: below 1, the output changes less than the source; 1 where neither changes at all."""
        if self.source == 0:
            return 1.0 if self.output == 0 else float("inf")
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
    return np.asarray(cv2.remap(image.astype(np.float32), *positions(flow), cv2.INTER_LINEAR), np.float32)


def flicker(pairs: Iterable[tuple[Image, Image]], gap: int | None = 1) -> Flicker:
    """Warping error of a film and of its translation, along the same motion, which is the source's.

    Args:
        pairs: (source frame, output frame) in order, all of one size.
        gap: how many frames lie between the two that are compared. 1 is Lai et al. 2018, eq. 9; half a second's worth
            shows slow pumping; None compares each frame with the first one, as the long-term term of Lai et al. 2018
            (section 3.2) and the second half of the measure of Lei et al. 2020, "Deep Video Prior", do.

    Returns:
        Means over the compared frames, those with no pixel to follow left out; nan if there is no other.

    Raises:
        ValueError: if the film has fewer than ``gap + 1`` frames, or `gap` is not positive.
    """
    if gap is not None and gap < 1:
        raise ValueError(f"gap {gap}: expected 1 or more frames, or None for the first frame")
    errors, spreads, followed = [], [], []
    kept: deque[tuple[Image, Image]] = deque(maxlen=gap)
    for now in pairs:
        spreads.append((float(now[0].std()), float(now[1].std())))
        if len(spreads) > (gap or 1):
            flow, valid = flow_and_mask(kept[0][0], now[0])
            followed.append(float(valid.mean()))
            if valid.any():
                errors.append([warping_error(kept[0][side], now[side], flow, valid) for side in (0, 1)])
        if gap is not None or not kept:
            kept.append(now)
    if not followed:
        raise ValueError(f"flicker over {gap or 1} frames needs at least {(gap or 1) + 1} frames, got {len(spreads)}")
    source, output = np.mean(errors, axis=0) if errors else (np.nan, np.nan)
    spread_source, spread_output = np.mean(spreads, axis=0)
    return Flicker(float(source), float(output), float(spread_output / spread_source), float(np.mean(followed)))


def motion_difference(pairs: Iterable[tuple[Image, Image]], skip: int = 2) -> float:
    """tOF: how far the output's motion is from the source's, in pixels a frame: Chu et al. 2020, section 5.

    The mean over pixels and frames of ‖OF(x_{t-1}, x_t) − OF(y_{t-1}, y_t)‖₂, where OF is Farnebäck's optical flow with
    the parameters of the paper's evaluation, on luma, of the middle part whose sides are multiples of 32. The paper
    compares with the true high-resolution film x; where translations are unpaired, as here, x is the source.

    Args:
        pairs: (source frame, output frame) in order, all of one size.
        skip: frames left out at the start and at the end; 2 in the paper's evaluation.

    Raises:
        ValueError: if fewer than two frames are left.
    """
    differences = []
    before: list[Image] | None = None
    for pair in inner(pairs, skip):
        now = [_grey(_middle_of_32(frame)) for frame in pair]
        if before is not None:
            x, y = (_farneback(a, b) for a, b in zip(before, now, strict=True))
            differences.append(float(np.linalg.norm(x - y, axis=-1).mean()))
        before = now
    if not differences:
        raise ValueError(f"tOF needs at least {2 * skip + 2} frames, of which {skip} at each end are left out")
    return float(np.mean(differences))


def inner(pairs: Iterable[tuple[Image, Image]], skip: int) -> Iterator[tuple[Image, Image]]:
    """A film without its first and last `skip` frames."""
    waiting: deque[tuple[Image, Image]] = deque()
    for index, pair in enumerate(pairs):
        if index >= skip:
            waiting.append(pair)
        if len(waiting) > skip:
            yield waiting.popleft()


def _grey(image: Image) -> Image:
    """Luma: ``(H, W)`` uint8."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _farneback(previous: Image, current: Image) -> Float:
    """Farnebäck's optical flow of two ``(H, W)`` pictures: ``(H, W, 2)``, in pixels."""
    blank = np.zeros((*previous.shape, 2), np.float32)
    return np.asarray(cv2.calcOpticalFlowFarneback(previous, current, blank, 0.5, 3, 15, 3, 5, 1.2, 0), np.float32)


def _middle_of_32(image: Image) -> Image:
    """The middle part whose sides are multiples of 32; a side below 32 stays as it is."""
    height, width = (side // 32 * 32 or side for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


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
