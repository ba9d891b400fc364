"""What runs on a worker: films and parts of films, with models that stay loaded."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from streamgan import batch, fingerprint, parallel, pipeline, plugins
from streamgan.api import Backend, PluginError, Session, StreamganError
from streamgan.batch import Outcome
from streamgan.jobs import Job
from streamgan.pipeline import Part, Plan, Progress

Done = TypeVar("Done")
_IDLE = 4
"""How many models that nobody uses stay loaded: those of the last film, in tiles or not, and some of others."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """A film that was cut."""

    parts: tuple[Part, ...]
    """Two or more, in order."""
    fingerprint: str
    """Of all that shapes the bits of the film, where it was cut."""
    frames: int | None
    """How many the film has, an estimate; None if unknown."""


class Worker:
    """An actor: takes one step at a time, and answers meanwhile how far it is.

    Every step may be taken again, here or elsewhere, however the last attempt ended: what is complete is left as it
    is, and what was made of a film is gone on with. What goes wrong is an `Outcome`, never an exception.
    """

    def __init__(self, loose_files: Sequence[str], fields: Mapping[str, Any]) -> None:
        """Loads the plugins.

        Args:
            loose_files: files of ``--plugin``.
            fields: of `streamgan.pipeline.Request`, the same for all films, beside input and output.
        """
        self._registry, self._fields = plugins.load([Path(path) for path in loose_files]), fields
        self._models = Models()
        for name, provided in self._registry.backends.items():
            warm = kept_warm(provided.value, self._models)
            self._registry.backends[name] = dataclasses.replace(provided, value=warm)
        self._made: tuple[int, int | None] = 0, None
        self._stopping = False

    def ready(self) -> None:
        """Does nothing: once it has, the worker is there."""

    def progress(self) -> tuple[int, int | None]:
        """Frames that the step has made so far, and frames of its whole film, an estimate; None if unknown."""
        return self._made

    def stop(self) -> None:
        """Ends the step soon and cleanly: nothing half-written stays, and what is whole is kept."""
        self._stopping = True

    def film(self, job: Job) -> Outcome:
        """Translates a film whole."""
        self._made = 0, None
        outcome = batch.run_job(job, self._fields, self._registry, self._note, skip_existing=True)
        if outcome.state == "failed":
            self._models.clear()
        return outcome

    def cut(self, job: Job, workers: int) -> Outcome | Cut:
        """Cuts a film into parts for so many workers; one that cannot be cut is translated whole, at once."""
        found = self._attempt(job, lambda plan: _cut(plan, workers))
        return found if isinstance(found, Outcome) or len(found.parts) > 1 else self.film(job)

    def part(self, job: Job, part: Part, known: str) -> Outcome | int:
        """Makes a part of a film.

        Args:
            job: the film.
            part: which part.
            known: the fingerprint of the film's plan where it was cut.

        Returns:
            How many frames it has; or what became of the film, if that is known.
        """

        def make(plan: Plan) -> int:
            if fingerprint.of(plan, exact=True) != known:
                raise PluginError(
                    f"{os.uname().nodename} would make other bits of it than the machine that cut it: other versions, "
                    "files or backend; install the same on all, or name --backend and --precision"
                )
            return parallel.make(plan, part, self._note)

        return self._attempt(job, make)

    def join(self, job: Job, parts: Sequence[Part]) -> Outcome:
        """Joins the parts of a film, and completes it."""

        def join(plan: Plan) -> Outcome:
            return batch.finish(job, plan, lambda: parallel.join(plan, parts, self._note))

        return self._attempt(job, join)

    def _attempt(self, job: Job, work: Callable[[Plan], Done]) -> Done | Outcome:
        """Works on the plan of a film, unless the film is complete already."""
        self._made = 0, None
        try:
            with plugins.blamed(job.input), batch.folder_for(job):
                prepared = batch.prepare(job, self._fields, self._registry, skip_existing=True)
                return Outcome(job, "skipped", prepared.plan.output) if prepared.finished else work(prepared.plan)
        except StreamganError as error:
            self._models.clear()
            return Outcome(job, "failed", error=" ".join(str(error).split()))

    def _note(self, progress: Progress) -> None:
        """Remembers how far it is; ends the run if that is wanted, and it is not complete."""
        self._made = progress.frames - progress.resumed, progress.total
        if self._stopping and progress.frames != progress.total:
            raise KeyboardInterrupt


@dataclasses.dataclass
class _Kept:
    """A loaded model."""

    path: Path
    session: Session
    free: Callable[[], None]
    users: int = 0
    """How many have it and have not closed it."""


class Models:
    """Loaded models, each kept until its file is gone, or `clear`; of those that nobody uses, the last few.

    So what was loaded only to be measured does not stay.
    """

    def __init__(self) -> None:
        self._sessions: dict[tuple[Any, ...], _Kept] = {}

    def get(self, path: Path, key: tuple[Any, ...], load: Callable[[], Session]) -> Session:
        """The model of a file; it is loaded if no other was loaded with the same key while the file was the same."""
        for old, kept in list(self._sessions.items()):
            if not kept.path.is_file():  # as one that was made for a single film
                self._sessions.pop(old).free()
        state = path.stat() if path.is_file() else None
        key = (str(path), state and (state.st_size, state.st_mtime_ns), *key)
        if key not in self._sessions:
            session = load()
            self._sessions[key] = _Kept(path, session, session.close)
            session.close = functools.partial(self._leave, key)  # type: ignore[method-assign]
        self._sessions[key].users += 1
        return self._sessions[key].session

    def _leave(self, key: tuple[Any, ...]) -> None:
        """Closes a model, as far as its user is concerned."""
        kept = self._sessions.pop(key, None)
        if kept is not None:
            kept.users -= 1
            self._sessions[key] = kept  # behind all that were closed before
        idle = [each for each, kept in self._sessions.items() if kept.users <= 0]
        for each in idle[:-_IDLE]:
            self._sessions.pop(each).free()

    def clear(self) -> None:
        """Forgets all: after a failure none is trusted."""
        sessions, self._sessions = self._sessions, {}
        for kept in sessions.values():
            kept.free()


def kept_warm(backend: type[Backend], models: Models) -> type[Backend]:
    """The same backend, but that what it loads stays loaded."""

    class Warm(backend):  # type: ignore[misc, valid-type]
        """Keeps what it has loaded."""

        def load(self, path: Path, *, threads: int, precision: str = "auto", streams: int = 1) -> Session:
            """Gives the session that is there, or loads it."""
            load, more = super().load, {"streams": streams} if streams > 1 else {}
            key = (backend, threads, precision, streams)
            return models.get(path, key, lambda: load(path, threads=threads, precision=precision, **more))

    return Warm


def _cut(plan: Plan, workers: int) -> Cut:
    """The parts of a film, fewer than two if there is nothing to cut."""
    parts = parallel.split(plan, workers) if pipeline.leaves_segments(plan) else []
    frames = None if plan.info is None else plan.info.frame_count
    return Cut(tuple(parts), fingerprint.of(plan, exact=True), frames)
