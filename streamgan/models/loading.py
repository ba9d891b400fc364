"""Models loaded, and tried before they are used: one that computes something else makes way for the next best."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from streamgan import plugins
from streamgan.api import Backend, BackendError, ModelError, PluginError, Session
from streamgan.model import DOMAIN, ModelCard, int8_path, read_card
from streamgan.models import memo, verify
from streamgan.models.verify import Subject, Verdict
from streamgan.plugins import blamed

Backends: TypeAlias = Mapping[str, type[Backend]]
"""All that are registered, by name."""
CHECKPOINT = ".safetensors"
"""The ending of what is no model file and has no card: weights of a training, which some backend may know to run."""
PRECISIONS = ("int8", "fp16", "bf16", "fp32")
"""From the one that is most likely to go wrong to the one that is the reference."""
_CARDS = "cards"
_VERSION = 1
"""Of the cards that are kept; changes with what `streamgan.model.read_card` checks."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """One way to run a model."""

    backend: str
    """Name of the backend."""
    precision: str = "auto"
    """What the arithmetic runs in; ``auto`` for the backend's own choice."""
    streams: int = 1
    """How many threads call `Session.run` at once."""
    threads: int = 1
    """How many CPU threads the session may use, all streams together."""

    def __str__(self) -> str:
        """For people, such as ``openvino fp32, 2 streams``."""
        precision = "" if self.precision == "auto" else f" {self.precision}"
        return f"{self.backend}{precision}" + (f", {self.streams} streams" if self.streams > 1 else "")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model that is ready to run."""

    session: Session
    """With all that the runtime fills in."""
    setup: Setup
    """How it runs; not as was wanted, if there are notes."""
    verdict: Verdict | None = None
    """How near it is to the reference; None for the reference itself and for what was not tried."""
    notes: tuple[str, ...] = ()
    """What could not be used and why, one line each."""


def ladder(first: Setup, backends: Backends, backend: str | None = None, precision: str = "auto") -> Iterator[Setup]:
    """The ways to run a model, the one that is wanted first, then what may stand in for it, ever safer.

    That is the same backend in safer precisions, then the others, the one of the largest rank first. What the user
    asked for has no stand-in.

    Args:
        first: what is wanted.
        backends: all that are registered, by name.
        backend: the backend that the user asks for; None or ``auto`` for none.
        precision: the precision that the user asks for, or ``auto``.
    """
    yield first
    if precision == "auto":
        for safer in _safer(first.precision, backends[first.backend]):
            yield dataclasses.replace(first, precision=safer)
    if backend not in (None, "auto"):
        return
    states = {name: plugins.availability(name, cls) for name, cls in backends.items() if name != first.backend}
    for name in sorted(states, key=lambda name: -states[name].rank):
        other, kind = backends[name], "fp32" if precision == "auto" else precision
        if states[name].usable and kind in other.precisions:
            yield Setup(name, kind, min(first.streams, other.max_streams), first.threads)


def load(path: Path, steps: Iterable[Setup], backends: Backends, size: tuple[int, int] | None = None) -> Loaded:
    """Loads a model the first way that works and passes its check.

    Args:
        path: the model file, in fp32.
        steps: ways to run it, from `ladder`; of a single one, the error is its own.
        backends: all that are registered, by name.
        size: (width, height) of the pictures that the model will see, in pixels; None if it shall not be tried.

    Raises:
        ModelError: if the file is none.
        BackendError: if no way is left, in one line with what went wrong.
    """
    failed: list[tuple[Setup, BackendError | PluginError]] = []
    for setup in steps:
        try:
            loaded = _load(path, setup, backends, size)
        except (BackendError, PluginError) as error:
            failed.append((setup, error))
            continue
        notes = tuple(f"{each} is not used but {loaded.setup}: {error}" for each, error in failed)
        return dataclasses.replace(loaded, notes=notes)
    if len(failed) == 1:
        raise failed[0][1]
    reasons = "; ".join(f"{each}: {error}" for each, error in failed)
    raise BackendError(f"{path}: nothing here can run it as it should be ({reasons})")


def open_session(path: Path, setup: Setup, backends: Backends) -> Session:
    """Loads a model file one way, without a check of its pictures.

    Raises:
        ModelError: if the file is none.
        BackendError: if the backend refuses, there is no quantised file, or it runs on another device than promised;
            PluginError: if the backend fails otherwise.
    """
    backend, file = backends[setup.backend], file_of(path, setup.precision)
    card = None if path.suffix == CHECKPOINT else card_of(path)
    streams = {"streams": setup.streams} if setup.streams > 1 else {}
    with blamed(f"backend '{setup.backend}'", f"while it loaded {file}"):
        session = backend().load(file, threads=setup.threads, precision=setup.precision, **streams)
    session.path = path
    if card is not None:
        session.multiple_of, session.domains = card.size.multiple_of, card.domains
    if setup.precision not in ("auto", session.precision):
        session.close()
        raise BackendError(f"backend {setup.backend}: asked for {setup.precision}, computes in {session.precision}")
    promised, found = backend.device.lower(), session.device.lower().partition(":")[0]
    if promised and found and promised != found:
        session.close()
        raise BackendError(
            f"backend {setup.backend}: promises {promised}, but the model was loaded on {found}; "
            "streamgan doctor says what is missing, --backend chooses another"
        )
    return session


def check(session: Session, path: Path, setup: Setup, backends: Backends, size: tuple[int, int]) -> Verdict | None:
    """The verdict on a session from `open_session`, taken now or kept from before.

    Returns:
        None for the reference itself, and for a model with inputs of its own, which nobody else can give.

    Raises:
        BackendError: or PluginError, if it cannot be run.
    """
    backend = backends[setup.backend]
    if verify.is_reference(backend, session) or set(card_of(path).inputs) - {DOMAIN}:
        return None
    says = plugins.availability(setup.backend, backend).reason
    subject = Subject(path, setup.backend, says, size, setup.streams, file_of(path, setup.precision))
    return verify.verdict(session, subject)


def file_of(path: Path, precision: str) -> Path:
    """The file that is loaded for a precision: the model file, or its quantised sibling.

    Raises:
        BackendError: if there is no such sibling, or it was made of another file.
        ModelError: if it is no model file.
    """
    if precision != "int8":
        return path
    file = int8_path(path)
    how = "streamgan quantise makes one, or choose another precision"
    if not file.is_file():
        raise BackendError(f"{path}: precision int8 needs the quantised file {file.name} beside it; {how}")
    if card_of(file).quantised_from != memo.digest_once(path):
        raise BackendError(f"{file}: was not made of {path.name} as it is now; {how}")
    return file


def card_of(path: Path) -> ModelCard:
    """The card of a model file, read again only if the file has changed; raises as `streamgan.model.read_card`."""
    try:
        state = path.stat()
    except OSError:
        return read_card(path)  # which says what is wrong
    return _card(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _card(path: Path, size: int, changed: int) -> ModelCard:
    """As `card_of`, kept as long as size and time of the last change are the same.

    It is also remembered by the bytes of the file: to look into one, ONNX Runtime sets up the whole graph.
    """
    try:
        key = {"version": _VERSION, "model": memo.digest_once(path)}
    except OSError:
        return read_card(path)
    with contextlib.suppress(ModelError):
        if (kept := memo.recall(_CARDS, key)) is not None:
            return ModelCard.from_json(str(kept.get("card")), where=str(path))
    card = read_card(path)
    memo.remember(_CARDS, key, {"card": card.to_json()})
    return card


def _load(path: Path, setup: Setup, backends: Backends, size: tuple[int, int] | None) -> Loaded:
    """Loads a model one way and tries it; raises as `open_session`, and BackendError if it fails the check."""
    session = open_session(path, setup, backends)
    runs = dataclasses.replace(setup, precision=session.precision)
    try:
        verdict = None if size is None else check(session, path, setup, backends, size)
    except (BackendError, PluginError):
        session.close()
        raise
    if verdict is not None and not verdict.passed:
        session.close()
        raise BackendError(
            f"{runs} does not compute what {path.name} should: {verdict}; "
            "leave --backend and --precision out, or name others"
        )
    return Loaded(session, runs, verdict)


def _safer(precision: str, backend: type[Backend]) -> list[str]:
    """The precisions of a backend that are safer than this one; int8 is never a stand-in."""
    start = 1 if precision not in PRECISIONS else PRECISIONS.index(precision) + 1
    return [each for each in PRECISIONS[start:] if each in backend.precisions]
