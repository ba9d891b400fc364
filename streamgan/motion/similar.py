"""Whether two frames show the same: what was made of one may then stand for the other."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

BLOCK = 16
"""Side of the blocks that are looked at one by one, in pixels."""
MARGIN = 6.0
"""How much worse than the picture its worst block may be, in dB: coding noise is never spread evenly."""
_STEP = 4


def is_similar(image: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], threshold: float) -> bool:
    """Whether two pictures differ by so little that nothing can have moved.

    Their PSNR is at least `threshold`, and that of each block of 16x16 pixels at most 6 dB less, so that a small thing
    that moves in a still picture is not lost. Every fourth row is looked at.

    Args:
        image: ``(H, W, 3)`` uint8.
        other: another one; of another size, it is not similar.
        threshold: in dB, such as 45; the higher the more alike must they be.
    """
    if image.shape != other.shape:
        return False
    one, two = image[::_STEP], other[::_STEP]
    limit = 255**2 / 10 ** (threshold / 10)
    error = cv2.norm(one, two, cv2.NORM_L2SQR)
    if error > limit * one.size:
        return False
    limit *= 10 ** (MARGIN / 10)
    return error == 0 or _worst_block(one, two) <= limit


def _worst_block(one: npt.NDArray[np.uint8], two: npt.NDArray[np.uint8]) -> float:
    """The largest mean squared difference of a block, of pictures with every `_STEP`-th row; edges are repeated."""
    difference = cv2.absdiff(one, two)
    below, right = -len(one) % (BLOCK // _STEP), -one.shape[1] % BLOCK
    if below or right:
        difference = cv2.copyMakeBorder(difference, 0, below, 0, right, cv2.BORDER_REPLICATE)
    height, width = difference.shape[:2]
    squares = difference.astype(np.float32)
    squares *= squares
    of_rows = np.einsum("ij->i", squares.reshape(-1, 3 * BLOCK))  # half of the time that `sum` takes
    sums = of_rows.reshape(height * _STEP // BLOCK, BLOCK // _STEP, width // BLOCK).sum(axis=1)
    return float(sums.max()) / (3 * BLOCK * BLOCK // _STEP)
