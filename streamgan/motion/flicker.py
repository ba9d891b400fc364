"""How much a film flickers: the warping error of input and output, on a sample of frames spread over both files.

Lai et al. 2018, "Learning Blind Video Temporal Consistency", eq. 9, after the authors' published evaluation: each frame
is compared with the one before, moved along the optical flow of the input, where that flow can be trusted. Both films
are read from their files, so that the measure holds for what was written, compression included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import TypeAlias

import cv2
import numpy as np

from streamgan.api import Frame, Selection, StreamganError
from streamgan.motion.flow import SMALLEST, Float, Image, Mask, flow_and_mask, positions
from streamgan.motion.shots import LEAST_CHANGE, TIMES_NEAR, difference, thumb
from streamgan.reading.sources import VideoFile

PLACES, PAIRS = 10, 2
"""How many places of a film are looked at, and how many neighbouring pairs of frames at each."""
SHORT_SIDE = 256
"""Frames are measured at this short side at most, in pixels."""

Pair: TypeAlias = tuple[Image, Image]
"""A frame of the input and the same one of the output, both ``(H, W, 3)`` uint8 RGB of one size."""


@dataclasses.dataclass(frozen=True)
class Flicker:
    """How much a film changes between frames beyond what motion explains, beside its source."""

    input: float
    """Warping error of the input, of values in [0, 1]: the floor, since flow and noise are never perfect."""
    output: float
    """Warping error of the output, along the input's motion."""
    contrast_ratio: float | None
    """Standard deviation of the output's values over that of the input's; None if the input has none."""
    pairs: int
    """Pairs of frames that were compared."""
    followed: float
    """The part of their pixels that counted, where the motion could be trusted, in [0, 1]."""

    @property
    def fair_ratio(self) -> float | None:
        """Output over input, over the squared contrast ratio: a darker or flatter film flickers less for free.

        1 if the output is as steady as the input. None if the input does not change at all, or a film has no contrast.
        """
        if not self.input or not self.contrast_ratio:
            return None
        return self.output / self.input / self.contrast_ratio**2


def measure(source: str, output: str, frames: int, part: Selection, threads: int = 0) -> Flicker | None:
    """Measures a translated film at places spread over it.

    It decodes both files, from the key frame before each place to a few frames after it.

    Args:
        source: file that was translated.
        output: file that came of it, with one frame for each of `part`.
        frames: how many frames the output has.
        part: the part of the source that was translated.
        threads: how many threads decode; 0 for one per core.

    Returns:
        None if there is nothing to compare: fewer than two frames, pictures too small for optical flow, files that
        cannot be read at those places, or whose times do not match.
    """
    try:
        films = _Film.at(source, part, threads), _Film.at(output, Selection(), threads)
    except StreamganError:
        return None
    return flicker(_pieces(*films, frames))


def flicker(pieces: Iterable[Sequence[Pair]]) -> Flicker | None:
    """The measure, of pieces of a film.

    Args:
        pieces: consecutive frames each; all neighbours within a piece are compared, but those with a cut between.

    Returns:
        Means over the compared pairs; None if none has pixels to follow.
    """
    errors, spreads, followed = [], [], []
    for piece in pieces:
        for (before, now), cut in zip(itertools.pairwise(piece), _cuts(piece), strict=True):
            if cut or min(now[0].shape[:2]) < SMALLEST:
                continue
            flow, valid = flow_and_mask(before[0], now[0])
            followed.append(float(valid.mean()))
            spreads += [[float(picture.std()) for picture in pair] for pair in (before, now)]
            if valid.any():
                errors.append([warping_error(before[side], now[side], flow, valid) for side in (0, 1)])
    if not errors:
        return None
    (of_input, of_output), (spread, spread_output) = np.mean(errors, axis=0), np.mean(spreads, axis=0)
    ratio = float(spread_output / spread) if spread else None
    return Flicker(float(of_input), float(of_output), ratio, len(errors), float(np.mean(followed)))


def warping_error(previous: Image, current: Image, flow: Float, valid: Mask) -> float:
    """Mean squared difference of a frame to its predecessor moved along `flow`: Lai et al. 2018, eq. 9.

    Args:
        previous: ``(H, W, 3)`` uint8.
        current: the same shape.
        flow: ``(H, W, 2)`` float32, from a pixel of `current` to where it was in `previous`, in pixels, x then y.
        valid: ``(H, W)``, True somewhere; the other pixels do not count.

    Returns:
        The mean over valid pixels and channels, of values in [0, 1].
    """
    moved = cv2.remap(previous.astype(np.float32), *positions(flow), cv2.INTER_LINEAR)
    return float(np.square((current - moved) / 255)[valid].mean())


def _cuts(piece: Sequence[Pair]) -> list[bool]:
    """Whether there is a cut before each frame but the first: a change far above the others of the piece."""
    thumbs = [thumb(source) for source, _ in piece]
    changes = [difference(now, before) for before, now in itertools.pairwise(thumbs)]
    if len(changes) < 2:
        return [False] * len(changes)
    others = [max(changes[:index] + changes[index + 1 :]) for index in range(len(changes))]
    return [now >= max(LEAST_CHANGE, TIMES_NEAR * rest) for now, rest in zip(changes, others, strict=True)]


@dataclasses.dataclass(frozen=True)
class _Film:
    """A part of a file, to be read from any of its frames on."""

    location: str
    part: Selection
    threads: int
    zero: Fraction
    """When the file's first frame is shown, in seconds of its own clock."""
    first: Fraction
    """When the first frame of the part is shown."""
    tick: Fraction
    """Seconds that its clock can tell apart."""
    rate: Fraction | None
    """Frames of the part in a second; None if unknown."""

    @classmethod
    def at(cls, location: str, part: Selection, threads: int) -> _Film:
        """Looks at the beginning of a film.

        Raises:
            SourceError: if it cannot be read.
        """
        every = Selection(every=part.every, stream=part.stream, on_error=part.on_error)
        with _opened(location, every, threads) as file:
            info, zero = file.info, next(file.frames()).time
        first = zero
        if part.start:
            with _opened(location, dataclasses.replace(every, start=part.start), threads) as file:
                first = next(file.frames()).time
        return cls(location, every, threads, zero, first, info.time_base, info.frame_rate)

    def since(self, seconds: Fraction) -> list[Frame]:
        """Some consecutive frames, of which the first is shown so long after the first of the part, or later.

        Raises:
            SourceError: if there are none.
        """
        earliest = self.first + seconds
        part = dataclasses.replace(self.part, start=max(earliest - self.zero, Fraction(0)) or None)
        with _opened(self.location, part, self.threads) as file:
            return list(itertools.islice((frame for frame in file.frames() if frame.time >= earliest), PAIRS + 1))


def _opened(location: str, part: Selection, threads: int) -> VideoFile:
    """A file to read frames from."""
    file = VideoFile(location, part)
    file.threads = threads
    return file


def _pieces(source: _Film, output: _Film, frames: int) -> Iterator[list[Pair]]:
    """Consecutive frames of both films from each place on, if they are shown at the same times."""
    rate, places = output.rate or source.rate, min(PLACES, max(1, frames // (PAIRS + 1)))
    if rate is None:
        return
    spare = max(0, frames // places - PAIRS - 1) // 2
    tolerance = min(output.tick, Fraction(1, 3) / rate)  # the output's clock may be coarser than the source's
    for place in range(places):
        index = place * frames // places + spare
        with contextlib.suppress(StreamganError):
            made = output.since(max(Fraction(0), (index - Fraction(1, 2)) / rate))
            given = source.since(made[0].time - output.first - tolerance) if made else []
            pairs = list(zip(given, made, strict=False))
            apart = [(one.time - source.first) - (other.time - output.first) for one, other in pairs]
            if all(abs(each) <= tolerance for each in apart):
                yield [_reduced(*pair) for pair in pairs]


def _reduced(given: Frame, made: Frame) -> Pair:
    """A frame of both films, brought to the size in which they are measured."""
    height, width = given.image.shape[:2]
    scale = min(1.0, SHORT_SIDE / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pair = [cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA) for frame in (given, made)]
    return np.asarray(pair[0], np.uint8), np.asarray(pair[1], np.uint8)
