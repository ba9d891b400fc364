"""Optical flow of two frames of a film, and where it can be trusted.

A flow leads from a pixel of one frame to where it is in another: ``(H, W, 2)`` float32 in pixels, x then y. It is DIS
(Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search", in OpenCV); whether to trust it is decided as in
the published evaluation of Lai et al. 2018, "Learning Blind Video Temporal Consistency".
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

SMALLEST = 16
"""The least that a side of a picture must have for DIS, in pixels."""

Image = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def dis_flow(first: Image, second: Image) -> Float:
    """Flow by DIS, preset medium: where each pixel of `first` is in `second`.

    Args:
        first: ``(H, W, 3)`` uint8 RGB, both sides at least `SMALLEST`.
        second: the same shape.

    Returns:
        ``(H, W, 2)`` float32 in pixels, x then y.
    """
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    blank = np.zeros((*grey[0].shape, 2), np.float32)
    return np.asarray(engine.calc(grey[0], grey[1], blank), np.float32)


def flow_and_mask(
    previous: Image, current: Image, estimate: Callable[[Image, Image], Float] = dis_flow
) -> tuple[Float, Mask]:
    """Flow from `current` to `previous`, and where it can be trusted: see `trusted`.

    Args:
        previous: ``(H, W, 3)`` uint8 RGB.
        current: the same shape.
        estimate: gives the flow from its first argument to its second.

    Returns:
        ``(H, W, 2)`` float32 in pixels, x then y, and ``(H, W)`` bool.
    """
    backward = estimate(current, previous)
    return backward, trusted(backward, estimate(previous, current))


def trusted(backward: Float, forward: Float) -> Mask:
    """Where a flow can be trusted, after the published evaluation of Lai et al. 2018.

    Forward and backward flow must agree, ‖f + b‖² ≤ 0.01 (‖f‖² + ‖b‖²) + 0.5, no motion boundary may be there,
    ‖∇b‖² ≤ 0.01 ‖b‖² + 0.002, and the pixel must come from inside the frame.

    Args:
        backward: b, ``(H, W, 2)``, from a frame to the one before.
        forward: f, the same shape, the other way; it is read where b points to.

    Returns:
        ``(H, W)``, False where the motion is hidden, ends, or leads out of the frame.
    """
    x, y = positions(backward)
    returned = cv2.remap(forward, x, y, cv2.INTER_LINEAR)
    squares = np.square(backward).sum(-1)
    agrees = np.square(backward + returned).sum(-1) <= 0.01 * (squares + np.square(returned).sum(-1)) + 0.5
    rows, columns = np.gradient(backward, axis=(0, 1))
    smooth = np.square(rows).sum(-1) + np.square(columns).sum(-1) <= 0.01 * squares + 0.002
    height, width = squares.shape
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return np.asarray(agrees & smooth & inside, np.bool_)


def positions(flow: Float) -> tuple[Float, Float]:
    """Absolute positions that a flow ``(H, W, 2)`` points to: x and y, each ``(H, W)``, in pixels."""
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return columns + flow[..., 0], rows + flow[..., 1]
