"""Spreads films, and parts of films, over the workers of a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

# Ray reports to its makers unless told not to, shows GPUs to workers that asked for none, and prints a paragraph for
# each that died. It reads the last of these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")

import ray
from ray.exceptions import RayActorError, RayError

from streamgan import jobs
from streamgan.api import PluginError, UsageError
from streamgan.batch import Outcome
from streamgan.jobs import Job
from streamgan.pipeline import Part, Progress
from streamgan_ray.worker import Cut, Worker

OnProgress: TypeAlias = Callable[[Progress], None]
_TICK = 0.5
"""Seconds between two looks at how far the workers are."""
_REACH, _END = 10.0, 10.0
"""Seconds for a cluster to answer, and for the workers to end what they do."""
_STORE = 80 << 20
"""Bytes of shared memory of a cluster of our own, nearly the least that Ray takes: frames never go through it."""


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a batch may use."""

    address: str | None = None
    """Of a cluster that runs already, or ``auto``; None for one on this machine, for as long as the batch lasts."""
    workers: int | None = None
    """Translators at work at once; None for all that fit."""
    cpus: float = 1.0
    """Cores that a worker takes."""
    gpus: float | None = None
    """GPUs that a worker takes, also a fraction of one; None for one if the cluster has any."""
    retries: int = 3
    """How often a step is taken again after its worker died."""


@contextlib.contextmanager
def connected(wanted: Resources) -> Iterator[Resources]:
    """Joins the cluster, or starts one here, and leaves or ends it afterwards.

    Yields:
        The same, with the numbers of workers and GPUs known.

    Raises:
        PluginError: if the cluster cannot be reached.
        UsageError: if not a single worker fits in it.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        _init(wanted)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own leaves no time to clean up
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        yield _fitted(wanted, [node["Resources"] for node in nodes if node["Alive"]])
    finally:
        ray.shutdown()


def _init(wanted: Resources) -> None:
    """Joins or starts the cluster; raises PluginError."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if wanted.address is None:
            cores = max(len(os.sched_getaffinity(0)), math.ceil((wanted.workers or 1) * wanted.cpus))
            ray.init("local", num_cpus=cores, object_store_memory=_STORE, include_dashboard=False, **quiet)
        else:
            _knock(wanted.address)
            ray.init(wanted.address, **quiet)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        what = f"the cluster at {wanted.address} cannot be reached" if wanted.address else "no cluster can be started"
        raise PluginError(f"Ray: {what} ({_last_line(error)})") from None


def _knock(address: str) -> None:
    """Raises OSError if nobody is there: Ray itself would take a minute to say so, and end the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        if address not in ("auto", "local"):
            raise ValueError("expected HOST:PORT, ray://HOST:PORT or auto")
        return
    socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH).close()


def _fitted(wanted: Resources, nodes: Sequence[Mapping[str, float]]) -> Resources:
    """What is wanted, with the numbers that these machines allow.

    Raises:
        UsageError: if not a single worker fits on any.
    """
    any_gpu = any(node.get("GPU", 0) for node in nodes)
    gpus = wanted.gpus if wanted.gpus is not None else float(any_gpu)
    room = 0
    for node in nodes:
        fits = node.get("CPU", 0) / wanted.cpus
        room += int(min(fits, node.get("GPU", 0) / gpus) if gpus else fits)
    if not room:
        have = ", ".join(f"{node.get('CPU', 0):g} cores and {node.get('GPU', 0):g} GPUs" for node in nodes) or "nothing"
        needs = f"{wanted.cpus:g} cores and {gpus:g} GPUs"
        raise UsageError(f"batch: no worker fits: each takes {needs}, the machines have {have}; lower --cpus or --gpus")
    return dataclasses.replace(wanted, workers=wanted.workers or room, gpus=gpus)


@dataclasses.dataclass(frozen=True)
class _Task:
    """What one worker does at one time."""

    job: Job
    step: Literal["film", "cut", "part", "join"]
    """The method of `Worker`."""
    part: Part | None = None
    deaths: int = 0
    """How many workers have died of it."""


class Workforce:
    """The workers of one batch, and what is left for them to do.

    Ray itself would begin a task again where its worker died. Here any worker that is free takes it, so that a machine
    that does not come back holds nothing up, and the deaths are known.
    """

    def __init__(self, resources: Resources, loose_files: Sequence[str], fields: Mapping[str, Any]) -> None:
        """Hires nobody yet; arguments as for `connected`, which gives the resources, and for `Worker`."""
        self.deaths = 0
        """How many workers died, and were replaced."""
        self._resources, self._count = resources, resources.workers or 1
        self._loose_files, self._fields = tuple(loose_files), dict(fields)
        self._kind = ray.remote(Worker).options(
            num_cpus=resources.cpus, num_gpus=resources.gpus or 0, max_concurrency=2
        )
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, _Task | None]] = {}
        self._waiting: deque[_Task] = deque()
        self._stillborn = 0
        self._cuts: dict[Job, Cut] = {}
        self._began: dict[Job, float] = {}
        self._left: Counter[Job] = Counter()
        self._settled: set[Job] = set()
        self._frames: dict[tuple[Job, Part | None], int] = {}
        self._totals: dict[Job, int | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets the workers end what they do, and dismisses them."""
        busy = [reference for reference, (_, task) in self._running.items() if task is not None]
        for reference in busy:
            self._running[reference][0].stop.remote()
        if busy:
            ray.wait(busy, num_returns=len(busy), timeout=_END)
        for actor in [*self._idle, *(actor for actor, _ in self._running.values())]:
            ray.kill(actor)

    def work(self, films: Sequence[Job], split: bool | None, on_progress: OnProgress | None) -> Iterator[Outcome]:
        """Translates films, the largest first.

        Args:
            films: what is to be done.
            split: whether to cut each film into parts; None to do so if there are fewer films than workers.
            on_progress: called about twice a second, with the frames of all films together.

        Yields:
            What became of each, as soon as it is known.

        Raises:
            PluginError: if workers cannot even start.
        """
        cut = self._count > 1 and (len(films) < self._count if split is None else split)
        self._waiting.extend(_Task(job, "cut" if cut else "film") for job in jobs.shard(films, 1, 1))
        for _ in range(self._count if cut else min(self._count, len(films))):
            self._hire()
        began = time.monotonic()
        while len(self._settled) < len(films):
            while self._waiting and self._idle:
                self._begin(self._idle.pop(), self._waiting.popleft())
            done, _ = ray.wait(list(self._running), timeout=_TICK)
            for reference in done:
                yield from self._end(*self._running.pop(reference), reference)
            if on_progress is not None:
                self._look()
                known = len(self._totals) == len(films) and None not in self._totals.values()
                total = sum(filter(None, self._totals.values())) if known else None
                on_progress(Progress(sum(self._frames.values()), total, time.monotonic() - began))

    def _hire(self) -> None:
        """Asks for a worker: a process of its own, somewhere in the cluster, when there is room for it."""
        actor: Any = self._kind.remote(self._loose_files, self._fields)
        self._running[actor.ready.remote()] = actor, None

    def _begin(self, actor: Any, task: _Task) -> None:
        """Hands a task to a worker."""
        job, cut = task.job, self._cuts.get(task.job)
        arguments: tuple[Any, ...] = ()
        if task.step == "cut":
            arguments = (self._count,)
        elif cut is not None:
            arguments = (task.part, cut.fingerprint) if task.step == "part" else (cut.parts,)
        self._began.setdefault(job, time.monotonic())
        self._running[getattr(actor, task.step).remote(job, *arguments)] = actor, task

    def _end(self, actor: Any, task: _Task | None, reference: Any) -> Iterator[Outcome]:
        """Takes what a worker has done; yields what became of a film, if that is known now."""
        try:
            result = ray.get(reference)
        except RayActorError as error:
            self._hire()
            result = self._dead(task, error)
        except RayError as error:  # it lives, but could not even say what went wrong
            self._idle.append(actor)
            result = None if task is None else Outcome(task.job, "failed", error=_last_line(error))
        else:
            self._idle.append(actor)
        if task is not None and result is not None and task.job not in self._settled:
            yield from self._take(task, result)

    def _dead(self, task: _Task | None, error: RayActorError) -> Outcome | None:
        """Lets another worker begin the task again; gives the film up if that was done too often."""
        if task is None:
            self._stillborn += 1
            if self._stillborn > self._resources.retries:
                raise PluginError(f"Ray: workers cannot start ({_last_line(error)})")
            return None
        self.deaths += 1
        if task.deaths < self._resources.retries:
            self._waiting.appendleft(dataclasses.replace(task, deaths=task.deaths + 1))
            return None
        times = f"{task.deaths + 1} workers died of it, one after the other"
        return Outcome(task.job, "failed", error=f"{times}; --retries {self._resources.retries} allows no more")

    def _take(self, task: _Task, result: Outcome | Cut | int) -> Iterator[Outcome]:
        """Notes a result, and what is to be done next."""
        job = task.job
        if isinstance(result, Cut):
            self._cuts[job], self._left[job], self._totals[job] = result, len(result.parts), result.frames
            self._waiting.extendleft(_Task(job, "part", part) for part in reversed(result.parts))
        elif isinstance(result, int):
            self._frames[job, task.part] = result
            self._left[job] -= 1
            if not self._left[job]:
                self._waiting.appendleft(_Task(job, "join"))
        else:
            self._settled.add(job)
            self._waiting = deque(each for each in self._waiting if each.job != job)  # parts that are not needed now
            yield self._counted(result)

    def _counted(self, outcome: Outcome) -> Outcome:
        """What became of a film, with the frames and the time of all its parts; also for the progress."""
        job, report = outcome.job, outcome.report
        if report is not None and job in self._cuts:  # it is that of `Worker.join`
            made, seconds = self._made(job), time.monotonic() - self._began[job]
            report = dataclasses.replace(report, resumed=max(0, report.frames - made), seconds=seconds)
        elif report is not None:
            self._frames[job, None] = report.frames - report.resumed
        self._totals[job] = self._made(job)
        return dataclasses.replace(outcome, report=report)

    def _made(self, job: Job) -> int:
        """Frames of a film that were made so far."""
        return sum(frames for (each, _), frames in self._frames.items() if each == job)

    def _look(self) -> None:
        """Asks the workers how far they are; those that do not answer at once are asked later."""
        busy = [(actor, task) for actor, task in self._running.values() if task and task.job not in self._settled]
        asked = {actor.progress.remote(): task for actor, task in busy}
        done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_TICK) if asked else ([], [])
        for reference in done:
            task = asked[reference]
            with contextlib.suppress(RayError):  # it has died, as will be seen
                frames, total = ray.get(reference)
                if task.step != "join":  # whose frames the parts have made
                    self._frames[task.job, task.part] = frames
                if task.step in ("film", "cut"):
                    self._totals[task.job] = total


def _last_line(error: Exception) -> str:
    """What an error of Ray comes down to: most are tracebacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
