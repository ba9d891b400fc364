"""A model, run for a moment in each way that is possible here: how fast, and how near to the reference."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from streamgan import plugins
from streamgan.api import BackendError, Images, PluginError, Session
from streamgan.model import int8_path
from streamgan.models import calibration, loading, verify
from streamgan.models.loading import Backends, Setup

_SECONDS, _LEAST_SECONDS, _ROUND_SECONDS = 2.0, 0.15, 0.04
_MOST_ROUNDS, _MOST_CALLS = 12, 64
_NEAR = 0.7
"""Share of the best speed from which on a way runs once more."""
_ASKED_FOR = 1
"""The rank of what is only used where it is asked for, and so only tried there: torch on a CPU, for example."""
_SLOW = 15.0
"""Seconds of loading after which a backend that works is not loaded in further precisions: it compiles for minutes."""
_STREAMS = (1, 2, 4)
MOST_STREAMS = _STREAMS[-1]
"""How many threads are tried at once, at most."""
_TRIED = ("fp16", "bf16", "int8", "fp32")
"""The order in which the precisions of a backend are tried."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a model is to be run for."""

    path: Path
    """The model file."""
    size: tuple[int, int]
    """(width, height) of the pictures that it will see, in pixels: see `model_size`."""
    threads: int
    """How many CPU threads it may use."""
    streams: int = MOST_STREAMS
    """How many threads can call it at once, at most: 1 for live video and where a frame needs the one before."""
    backend: str | None = None
    """The backend that the user asks for; None or ``auto`` for none."""
    precision: str = "auto"
    """The precision that the user asks for, or ``auto``."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What came of one way to run a model."""

    setup: Setup
    fps: float = 0.0
    """Pictures per second; 0 if it was not timed."""
    psnr: float | None = None
    """PSNR of the worst picture against the reference, in dB; None if it was not compared, as the reference itself."""
    max_error: int | None = None
    """The largest error, in levels of 255."""
    passed: bool = False
    """Whether it may be used."""
    note: str = ""
    """Why not, in one line."""


def ways(backends: Backends, wanted: Wanted) -> list[Setup]:
    """The ways to run a model that are possible here and worth a trial, the backend of the largest rank first."""
    asked = wanted.backend not in (None, "auto")
    names = [str(wanted.backend)] if asked else list(backends)
    states = {name: plugins.availability(name, backends[name]) for name in names}
    usable = [name for name, state in states.items() if state.usable and (asked or state.rank > _ASKED_FOR)]
    found = []
    for name in sorted(usable, key=lambda name: -states[name].rank):
        backend = backends[name]
        for precision in _TRIED:
            missing = precision == "int8" and not int8_path(wanted.path).is_file()
            if precision not in backend.precisions or wanted.precision not in ("auto", precision) or missing:
                continue
            most = min(backend.max_streams, wanted.threads)
            found += [Setup(name, precision, streams, wanted.threads) for streams in _STREAMS if streams <= most]
    return found


def measure(
    backends: Backends, wanted: Wanted, setups: Sequence[Setup], announce: Callable[[str], None] | None = None
) -> list[Trial]:
    """Tries ways to run a model, for about two seconds in all beside the loading and the checks.

    First each backend and precision with one picture at a time. Those that come near the best then run once more, in
    reverse order, and with several pictures at a time. The better of both times counts: other programs only ever make a
    way slower, and seldom the same one twice.

    Args:
        backends: all that are registered, by name.
        wanted: the model, and the size of its pictures.
        setups: from `ways`.
        announce: called with one line after each.

    Returns:
        A trial for each way that was tried, in order.
    """
    seconds, slow, made = max(_LEAST_SECONDS, _SECONDS / max(1, len(setups))), dict[str, str](), dict[Setup, Trial]()

    def attempt(setup: Setup) -> None:
        trial = _try(backends, wanted, setup, seconds)
        made[setup] = max(trial, made.get(setup, trial), key=lambda each: each.fps)
        if announce is not None:
            announce(f"{setup}: {trial.note or f'{trial.fps:.1f} frames/s'}")

    for setup in setups:
        passed, began = slow.get(setup.backend), time.perf_counter()
        if setup.streams == 1 and passed is not None:
            made[setup] = Trial(setup, note=f"not tried: loading takes long, and {passed} works")
        elif setup.streams == 1:
            attempt(setup)
            if made[setup].passed and time.perf_counter() - began > _SLOW:
                slow[setup.backend] = setup.precision
    enough = _NEAR * max((trial.fps for trial in made.values()), default=0.0)
    near = {(each.backend, each.precision) for each, trial in made.items() if trial.passed and trial.fps >= enough}
    finalists = [setup for setup in reversed(setups) if (setup.backend, setup.precision) in near]
    for setup in finalists if len(finalists) > 1 else []:
        attempt(setup)
    return [made[setup] for setup in setups if setup in made]


def frames_per_second(session: Session, image: Images, streams: int, seconds: float) -> float:
    """How fast a session runs, in its best moment.

    Args:
        session: warmed up.
        image: one picture, ``(1, H, W, 3)`` uint8 RGB.
        streams: how many threads call it at once.
        seconds: how long to measure, about.

    Raises:
        BackendError: if it refuses.
    """
    given = verify.inputs(0, len(session.domains))

    def one(_: int) -> None:
        session.run(image, given)

    began, best = time.perf_counter(), math.inf
    one(0)
    calls = min(_MOST_CALLS, max(2 * streams, round(_ROUND_SECONDS / max(1e-6, time.perf_counter() - began))))
    with ThreadPoolExecutor(streams) as pool:
        spread = map if streams == 1 else pool.map
        for number in range(_MOST_ROUNDS):
            if number > 0 and time.perf_counter() - began > seconds:
                break
            start = time.perf_counter()
            list(spread(one, range(calls)))
            best = min(best, time.perf_counter() - start)
    return calls / best


def _try(backends: Backends, wanted: Wanted, setup: Setup, seconds: float) -> Trial:
    """Loads a model one way, checks it and times it."""
    session = None
    try:
        session = loading.open_session(wanted.path, setup, backends)
        verdict = loading.check(session, wanted.path, setup, backends, wanted.size)
        psnr, error = (None, None) if verdict is None else (verdict.psnr, verdict.max_error)
        if verdict is not None and not verdict.passed:
            return Trial(setup, 0.0, psnr, error, False, f"does not compute what it should: {verdict}")
        image = calibration.pictures(wanted.size)[:1]
        with plugins.blamed(f"backend '{setup.backend}'", f"on {wanted.path}"):
            fps = frames_per_second(session, image, setup.streams, seconds)
        return Trial(setup, round(fps, 2), psnr, error, True)
    except (BackendError, PluginError) as failure:
        return Trial(setup, note=" ".join(str(failure).split()))
    finally:
        if session is not None:
            session.close()
