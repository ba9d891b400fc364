"""Whether a loaded model computes what it should: the same pictures through it and through ONNX Runtime in fp32.

Compiled engines can be wrong without saying so: an overflow in half precision becomes a black picture, a broken kernel
a wrong one. So each is tried before it is used, and the verdict is kept for the next time.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgan import settings
from streamgan.api import Backend, BackendError, Images, PresetError, Session
from streamgan.model import DOMAIN
from streamgan.models import calibration, memo
from streamgan.models.backends import OnnxRuntime
from streamgan.plugins import blamed

_KIND = "verdicts"
_VERSION = 1
"""Of what is kept; changes with the pictures and with what is measured."""
_EQUAL = 99.0
"""The PSNR of equal pictures, in dB; a finite number, since JSON has no other."""
_FLAT = 4
"""Levels between the darkest and the brightest value of a picture that shows something."""


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a precision must reach."""

    psnr: float
    """The least PSNR of any picture, in dB."""
    max_error: int
    """The largest error of any value, in levels of 255."""


GATES: Mapping[str, Gate] = MappingProxyType(
    {"fp32": Gate(50, 4), "fp16": Gate(40, 32), "bf16": Gate(40, 32), "int8": Gate(30, 128)}
)
"""By precision. fp32 differs by the order of sums, so that rounding flips by a level here and there (measured on the
presets: 97 dB, 1 level). The presets with every value rounded to fp16 give 60 dB and 1 level, to bf16 50 dB and 3
levels; 40 dB is an error of 2.5 levels, hard to see side by side. An int8 file was made, and looked at, by who offers
it: 30 dB only tells a quantised model (measured: 36 dB and 7 levels, the white picture being the worst) from a broken
one. The largest error finds what a mean hides: a few broken pixels in a large picture."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How far a session's pictures are from the reference's."""

    psnr: float
    """PSNR of the worst picture, in dB; 99 if all are equal."""
    max_error: int
    """The largest error of any value, in levels of 255."""
    black: float
    """Share of the pictures that came out as one flat colour and should not have, 0 to 1: what NaN becomes."""
    precision: str
    """What the session's arithmetic ran in; it decides on the gate."""

    @property
    def passed(self) -> bool:
        """Whether the session may be used; a precision that nobody knows is held to the gate of fp32."""
        gate = _gate(self.precision)
        return self.psnr >= gate.psnr and self.max_error <= gate.max_error and self.black == 0

    def __str__(self) -> str:
        """The numbers in one line, with what was wanted where they miss it."""
        gate = _gate(self.precision)
        psnr = f"PSNR {self.psnr:.1f} dB" + ("" if self.psnr >= gate.psnr else f" (at least {gate.psnr:g})")
        error = f"largest error {self.max_error}" + (
            "" if self.max_error <= gate.max_error else f" (at most {gate.max_error})"
        )
        black = f", {self.black:.0%} of the pictures black or flat" if self.black else ""
        return f"{psnr}, {error}{black}"


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is tried."""

    path: Path
    """The model file in fp32, which is the reference."""
    backend: str
    """Name of the backend."""
    says: str
    """Its `Availability.reason`: version and device."""
    size: tuple[int, int]
    """(width, height) of the pictures, in pixels; a multiple of what the model asks for."""
    streams: int = 1
    """How many threads call `Session.run` at once."""
    loaded: Path | None = None
    """The file that was loaded, such as a quantised one; None for `path`."""


def is_reference(backend: type[Backend], session: Session) -> bool:
    """Whether a session is the reference itself, which there is no use in comparing with itself."""
    return issubclass(backend, OnnxRuntime) and session.precision == "fp32" and session.device in ("", "cpu")


def verdict(session: Session, subject: Subject, frames: Images | None = None) -> Verdict:
    """Tries a session, unless the same one was tried before on this machine.

    Args:
        session: as loaded; its `precision`, `domains` and `build` are heeded.
        subject: what it was loaded from, and by whom.
        frames: pictures of the film, ``(N, height, width, 3)`` uint8 RGB of the subject's size, shown as well.

    Raises:
        BackendError: if the session or the reference refuses the pictures; PluginError if the session fails otherwise.
    """
    key = _key(session, subject, frames)
    known = _known(memo.recall(_KIND, key))
    if known is not None:
        return known
    pictures = calibration.pictures(subject.size)
    wanted = expected(subject.path, memo.digest_once(subject.path), subject.size, len(session.domains))
    if frames is not None:
        pictures = np.concatenate([pictures, frames])
        wanted = np.concatenate([wanted, _reference(subject.path, frames, len(session.domains))])
    with blamed(f"backend '{subject.backend}'", f"on {subject.path}"):
        made = _run(session, pictures, subject.streams, len(session.domains))
    found = compare(made, wanted, session.precision, f"backend '{subject.backend}' on {subject.path}")
    memo.remember(_KIND, key, {"verdict": dataclasses.asdict(found)})
    return found


def compare(made: Images, wanted: Images, precision: str, who: str = "session") -> Verdict:
    """The verdict on pictures that should be others.

    Args:
        made: ``(N, H, W, 3)`` uint8 RGB.
        wanted: what they should be, of the same shape.
        precision: what `made` was computed in.
        who: made them, for messages.

    Raises:
        BackendError: if the shapes differ.
    """
    if made.shape != wanted.shape or made.dtype != np.uint8:
        given = f"{made.shape} {made.dtype}"
        raise BackendError(f"{who}: gave pictures of {given}, expected {wanted.shape} uint8 as from ONNX Runtime")
    worst, largest, black = _EQUAL, 0, 0
    for one, other in zip(made, wanted, strict=True):
        error = np.abs(one.astype(np.int16) - other)
        largest = max(largest, int(error.max()))
        mean = float(np.square(error, dtype=np.int32).mean())
        worst = min(worst, 10 * math.log10(255**2 / mean)) if mean else worst
        black += bool(np.ptp(one) == 0 and np.ptp(other) >= _FLAT)
    return Verdict(round(worst, 2), largest, round(black / len(made), 3), precision)


@functools.lru_cache(maxsize=1)
def expected(path: Path, digest: str, size: tuple[int, int], domains: int) -> Images:
    """What the reference makes of the calibration pictures; the last answer is kept, since many ask for the same.

    Args:
        path: the model file in fp32.
        digest: its SHA-256.
        size: (width, height) in pixels.
        domains: how many domains the model has; 0 if it has no such input.

    Raises:
        BackendError: if ONNX Runtime refuses.
    """
    return _reference(path, calibration.pictures(size), domains)


def inputs(number: int, domains: int) -> dict[str, npt.NDArray[np.int64]]:
    """Further inputs for one picture: domains take turns."""
    return {DOMAIN: np.array([number % domains], np.int64)} if domains else {}


def _reference(path: Path, pictures: Images, domains: int) -> Images:
    """What ONNX Runtime makes of pictures, on the CPU, in fp32."""
    session = OnnxRuntime().load(path, threads=1, precision="fp32")
    try:
        return _run(session, pictures, 1, domains)
    finally:
        session.close()


def _run(session: Session, pictures: Images, streams: int, domains: int) -> Images:
    """What a session makes of pictures, one by one, shown by so many threads at once."""

    def one(number: int) -> Images:
        return session.run(pictures[number : number + 1], inputs(number, domains))

    if streams == 1:
        return np.concatenate([one(number) for number in range(len(pictures))])
    with ThreadPoolExecutor(streams) as pool:
        return np.concatenate(list(pool.map(one, range(len(pictures)))))


def _gate(precision: str) -> Gate:
    """The gate of a precision."""
    return GATES.get(precision, GATES["fp32"])


def _key(session: Session, subject: Subject, frames: Images | None) -> dict[str, Any]:
    """What a verdict hangs on."""
    return {
        "version": _VERSION,
        "machine": memo.machine(),
        "model": subject.path.stem,
        "files": [memo.digest_once(path) for path in (subject.path, subject.loaded or subject.path)],
        "backend": subject.backend,
        "says": subject.says,
        "precision": session.precision,
        "build": session.build,
        "streams": subject.streams,
        "size": list(subject.size),
        "frames": "" if frames is None else hashlib.sha256(frames.tobytes()).hexdigest(),
    }


def _known(kept: Mapping[str, Any] | None) -> Verdict | None:
    """The verdict that was kept; None if there is none that makes sense."""
    if kept is None:
        return None
    try:
        return settings.parse(Verdict, kept.get("verdict", {}), _KIND)
    except PresetError:
        return None
