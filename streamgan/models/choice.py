"""Which backend runs a model, in which precision and in how many streams: measured once a machine, then remembered.

A short trial tells more than any table: each way that is possible here runs the model for a moment, on pictures of the
size that it will see. What does not compute what ONNX Runtime does is out; of the rest the fastest is taken.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from streamgan import plugins, settings
from streamgan.api import BackendError, PresetError, Translator, cache_folder
from streamgan.model import DOMAIN, int8_path
from streamgan.models import backends as ranks
from streamgan.models import loading, memo
from streamgan.models.loading import Backends, Setup
from streamgan.models.scaling import fit
from streamgan.models.trials import MOST_STREAMS, Trial, measure, ways
from streamgan.models.trials import Wanted as Wanted

KIND = "choices"
"""The folder of the cache."""
_VERSION = 1
"""Of what is kept; changes with what is measured."""
_NEAR = 0.95
"""Share of the best speed from which on another way is as fast."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a model is run, and why."""

    setup: Setup
    reason: str
    """For people, in one line."""
    trials: tuple[Trial, ...] = ()
    """All that were made; empty if the choice is by rank, or there was only one way."""
    measured: str = ""
    """When, ISO 8601; empty if it was not measured."""
    fresh: bool = False
    """Whether it was measured just now, rather than remembered."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """A choice that is remembered."""

    model: str
    """Name of the model file, without its ending."""
    size: tuple[int, int]
    """(width, height) of the pictures that it was measured with, in pixels."""
    asked: str
    """What the user had asked for: a backend, a precision or both; empty if nothing."""
    choice: Choice


def choose(
    backends: Backends, wanted: Wanted, announce: Callable[[str], None] | None = None, again: bool = False
) -> Choice:
    """Chooses how to run a model: by a trial of a few seconds, or by what an earlier one found.

    By the ranks of the backends instead, if there is only one way, nothing can be remembered, or the model has inputs
    that only its translator can give.

    Args:
        backends: all that are registered, by name.
        wanted: the model, and what is asked for.
        announce: called with one line before something is measured, and after each trial.
        again: whether to measure even if it was before.

    Raises:
        BackendError: if what is asked for cannot be used here; ModelError if the model file is none.
    """
    loading.file_of(wanted.path, wanted.precision)
    ranked = by_rank(backends, wanted)
    card = loading.card_of(wanted.path)
    setups = ways(backends, wanted)
    several = sum(setup.streams <= wanted.streams for setup in setups) > 1
    possible = bool(setups) and not set(card.inputs) - {DOMAIN}
    if not possible or not (again or (several and cache_folder(KIND))):
        return ranked
    found = None if again else _remembered(backends, wanted)
    if found is not None:
        return pick(wanted, *found) or ranked
    with memo.held(KIND):
        found = None if again else _remembered(backends, wanted)  # by another process, meanwhile
        trials, measured = found or _measure(backends, wanted, setups, announce)
    chosen = pick(wanted, trials, measured)
    return ranked if chosen is None else dataclasses.replace(chosen, fresh=found is None)


def by_rank(backends: Backends, wanted: Wanted) -> Choice:
    """The choice without measuring: the usable backend of the largest rank, among those that have the precision.

    Raises:
        BackendError: if what is asked for cannot be used here.
    """
    name, backend, why = ranks.choose(backends, wanted.backend)
    precision = wanted.precision
    if precision != "auto" and precision not in backend.precisions:
        able = {name: cls for name, cls in backends.items() if precision in cls.precisions}
        usable = [name for name, cls in able.items() if plugins.availability(name, cls).usable]
        if wanted.backend not in (None, "auto") or not usable:
            raise BackendError(
                f"precision {precision}: backend {name} has {', '.join(backend.precisions)}; "
                f"backends that have it here: {', '.join(usable) or 'none'}"
            )
        name, backend, why = ranks.choose(able)
    return Choice(Setup(name, precision, 1, wanted.threads), why)


def pick(wanted: Wanted, trials: tuple[Trial, ...], measured: str) -> Choice | None:
    """The best of the trials that fit what is wanted: the fastest, but fp32 and more streams if they are as fast.

    Several pictures at a time, each by fewer threads, wait less for one another: on two cores for 7 % less CPU time.

    Returns:
        None if none fits.
    """
    fitting = [trial for trial in trials if _fits(trial.setup, wanted)]
    good = [trial for trial in fitting if trial.passed and trial.fps > 0]
    if not good:
        return None
    fastest = max(good, key=lambda trial: trial.fps)
    near = [trial for trial in good if trial.fps >= _NEAR * fastest.fps]
    best = max(near, key=lambda trial: (trial.setup.precision == "fp32", trial.setup.streams, trial.fps))
    return Choice(best.setup, _reason(best, fastest, fitting), trials, measured)


def kept() -> list[Kept]:
    """The choices that are remembered, the newest of each question, as it is answered for films."""
    found: dict[tuple[str, int, int, str], Kept] = {}
    for each in memo.everything(KIND):
        trials, size = _parsed(each), each.get("size")
        if not trials or not isinstance(size, list) or len(size) != 2:
            continue
        chosen = pick(Wanted(Path(), (size[0], size[1]), 1), trials, str(each.get("measured", "")))
        if chosen is not None:
            model, asked = str(each.get("model", "")), str(each.get("asked", ""))
            found.setdefault((model, size[0], size[1], asked), Kept(model, (size[0], size[1]), asked, chosen))
    return list(found.values())


def model_of(folder: Path, options: Any) -> Path | None:
    """The model file that a translator's options name first, None if they name none.

    Args:
        folder: of the preset, which a relative path starts from.
        options: a dataclass, or None.
    """
    values = [] if options is None else [getattr(options, field.name) for field in dataclasses.fields(options)]
    names = [value for value in values if isinstance(value, str) and value.endswith(".onnx")]
    return folder / Path(names[0]).expanduser() if names else None


def model_size(path: Path, frame: tuple[int, int], options: Any) -> tuple[int, int]:
    """The (width, height) of the pictures that a model sees.

    Args:
        path: the model file, whose card says what the sides must be multiples of.
        frame: (width, height) of the film, in pixels.
        options: of the translator; ``size`` and ``tile`` are heeded, if it has them.

    Raises:
        ModelError: if the model file is none.
    """
    step = loading.card_of(path).size.multiple_of
    size, tile = fit(frame, int(getattr(options, "size", 0))), int(getattr(options, "tile", 0))
    if 0 < tile < max(size):
        size = (tile, tile)
    return size[0] + -size[0] % step, size[1] + -size[1] % step


def most_streams(translator: type[Translator], live: bool) -> int:
    """How many threads can call a translator's model at once; one where a picture shall be ready soon, as in live."""
    return MOST_STREAMS if translator.concurrent and not live else 1


def _measure(
    backends: Backends, wanted: Wanted, setups: Sequence[Setup], announce: Callable[[str], None] | None
) -> tuple[tuple[Trial, ...], str]:
    """Tries all ways, and remembers what came of it: the trials, and when."""
    if announce is not None:
        announce(f"measuring what runs {wanted.path.name} fastest here, once ...")
    trials = measure(backends, wanted, setups, announce)
    asked = [each for each in (wanted.backend, wanted.precision) if each not in (None, "auto")]
    content = {
        "model": wanted.path.stem,
        "size": list(wanted.size),
        "asked": " ".join(map(str, asked)),
        "trials": [dataclasses.asdict(trial) for trial in trials],
    }
    return tuple(trials), memo.remember(KIND, _key(backends, wanted), content)


def _fits(setup: Setup, wanted: Wanted) -> bool:
    """Whether a way to run a model is one of those that are wanted."""
    backend, precision = wanted.backend in (None, "auto", setup.backend), wanted.precision in ("auto", setup.precision)
    return backend and precision and setup.streams <= wanted.streams


def _reason(best: Trial, fastest: Trial, fitting: list[Trial]) -> str:
    """Why a trial was chosen, in one line."""
    timed = [trial for trial in fitting if trial.fps]
    words = f"the fastest of {len(timed)} tried" if best is fastest else f"as fast as {fastest.setup}, within 5 %"
    words = f"{words}: {best.fps:.1f} frames/s"
    others = [trial for trial in timed if trial.setup.backend != best.setup.backend]
    if others:
        next_best = max(others, key=lambda trial: trial.fps)
        words += f"; {next_best.setup} {next_best.fps:.1f}"
    wrong = dict.fromkeys(str(trial.setup) for trial in fitting if not trial.passed and trial.psnr is not None)
    return words + (f"; wrong pictures: {', '.join(wrong)}" if wrong else "")


def _remembered(backends: Backends, wanted: Wanted) -> tuple[tuple[Trial, ...], str] | None:
    """The trials of an earlier time that answer this, and when they were made."""
    content = memo.recall(KIND, _key(backends, wanted))
    trials = () if content is None else _parsed(content)
    return (trials, str((content or {}).get("measured", ""))) if trials else None


def _parsed(content: Mapping[str, Any]) -> tuple[Trial, ...]:
    """The trials in what was kept; none if they make no sense."""
    found = content.get("trials")
    try:
        return tuple(settings.parse(Trial, each, KIND) for each in found) if isinstance(found, list) else ()
    except PresetError:
        return ()


def _key(backends: Backends, wanted: Wanted) -> dict[str, Any]:
    """What trials hang on: the machine, the model, its size to half a power of 2, the backends and their versions."""
    quantised = int8_path(wanted.path)
    names = sorted(backends) if wanted.backend in (None, "auto") else [str(wanted.backend)]
    states = {name: plugins.availability(name, backends[name]) for name in names}
    return {
        "version": _VERSION,
        "machine": memo.machine(),
        "model": memo.digest_once(wanted.path),
        "int8": memo.digest_once(quantised) if quantised.is_file() else "",
        "pixels": round(2 * math.log2(wanted.size[0] * wanted.size[1])),
        "threads": wanted.threads,
        "precision": wanted.precision,
        "backends": {
            name: [state.reason, *backends[name].precisions, backends[name].max_streams]
            for name, state in states.items()
            if state.usable
        },
    }
