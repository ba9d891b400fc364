"""Joins the stages: decode, translate and encode, each in its own thread, with short queues between them.

FFmpeg, OpenCV and the backends let go of Python's lock while they work, so threads overlap fully. A stage that fails
stops the others; the first error wins; the output is completed only if all went well.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeAlias, TypeVar

import cv2

from streamgan.api import Frame, StreamganError, VideoInfo
from streamgan.plan import Budget, Plan, Request, build, open_sink, open_source
from streamgan.plugins import held
from streamgan.record import Report, write
from streamgan.stage import TranslateStage

__all__ = ["Budget", "Interrupted", "Plan", "Progress", "Report", "Request", "build", "run"]

Item = TypeVar("Item")
Frames: TypeAlias = "queue.Queue[list[Frame] | None]"

_DEPTH = 4
_TICK = 0.1
_PATIENCE = 10.0
"""Seconds for the stages to end once they are told to."""
STAGES = ("decode", "translate", "encode")


class Interrupted(StreamganError):
    """The user ended the run before it was complete; nothing was written."""

    exit_code = 130

    def __init__(self, frames: int, total: int | None) -> None:
        of = f" of {total}" if total else ""
        super().__init__(f"interrupted after {frames}{of} frames; nothing was written")
        self.frames = frames
        """How many frames had been encoded."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    frames: int
    """Frames encoded so far."""
    total: int | None
    """Frames expected, an estimate; None if unknown."""
    seconds: float
    """Since the start."""


def run(plan: Plan, on_progress: Callable[[Progress], None] | None = None) -> Report:
    """Does what a plan says.

    Args:
        plan: from `build`.
        on_progress: called about ten times a second in the calling thread.

    Raises:
        StreamganError: the first error of any stage; nothing is left behind then.
        Interrupted: on Ctrl-C, with how far it came.
        SinkError: also if the record that the request asks for cannot be written; the output is complete then.
    """
    cv2.setNumThreads(plan.budget.translate)
    film = _Film(plan)
    began = time.perf_counter()
    pool = ThreadPoolExecutor(len(STAGES), thread_name_prefix="streamgan")
    futures = [pool.submit(stage) for stage in (film.decode, film.translate, film.encode)]
    for future in futures:
        future.add_done_callback(film.note_end)
    try:
        while wait(futures, timeout=_TICK, return_when=FIRST_EXCEPTION).not_done and not film.stop.is_set():
            if on_progress is not None:
                on_progress(Progress(film.frames, film.total, time.perf_counter() - began))
    except KeyboardInterrupt:
        film.interrupted = True
    finally:
        film.end_early()
        pool.shutdown(wait=_settle(futures))
    film.raise_first_error()
    seconds = time.perf_counter() - began
    if on_progress is not None:
        on_progress(Progress(film.frames, film.frames, seconds))
    report = Report(plan.output, film.frames, seconds, film.busy, tuple(film.notes), film.decoded)
    if plan.request.report is not None:
        write(Path(plan.request.report), plan, report)
    return report


def _settle(futures: list[Future[None]]) -> bool:
    """Waits until the stages have cleaned up, however impatient Ctrl-C; a plugin that never returns is given up.

    Returns:
        Whether all stages have ended.
    """
    began, (*_, encode) = time.monotonic(), futures
    while wait(futures, timeout=0).not_done:
        late = time.monotonic() - began > _PATIENCE
        if late and encode.done():
            return False
        try:
            wait(futures, timeout=_TICK)
        except KeyboardInterrupt:
            if late:
                return False
    return True


class _Stopped(StreamganError):
    """Ends a stage because another one has ended."""


class _Film:
    """One run: what the three threads share."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.stop = threading.Event()
        self.interrupted = self.completed = False
        self.frames = self.decoded = 0
        self.total = None if plan.info is None else plan.info.frame_count
        self.busy = dict.fromkeys(STAGES, 0.0)
        self.notes: list[str] = []
        self._errors: list[BaseException] = []
        self._info: queue.Queue[VideoInfo] = queue.Queue()
        self._decoded: Frames = queue.Queue(_DEPTH)
        self._translated: Frames = queue.Queue(_DEPTH)

    def decode(self) -> None:
        """The first thread: source to queue, in batches as the translator likes them."""
        with held(self._plan.source), open_source(self._plan) as source:
            for _ in (self.translate, self.encode):  # both wait for it
                self._put(self._info, source.info)
            size, batch = max(1, self._plan.translator.batch), list[Frame]()
            for frame in self._timed("decode", source.frames()):
                batch.append(frame)
                self.decoded += 1
                if len(batch) == size:
                    self._put(self._decoded, batch)
                    batch = []
            if batch:
                self._put(self._decoded, batch)
            self._put(self._decoded, None)
            self.notes.extend(source.notes)

    def translate(self) -> None:
        """The second thread: queue to queue."""
        with TranslateStage(self._plan, self._get(self._info)) as stage:
            while (frames := self._get(self._decoded)) is not None:
                began = time.perf_counter()
                made = stage.apply(frames)
                self.busy["translate"] += time.perf_counter() - began
                self._put(self._translated, made)
        self._put(self._translated, None)

    def encode(self) -> None:
        """The third thread: queue to sink. Ends early, and well, if the viewer closes the window."""
        info = self._get(self._info)
        with held(self._plan.sink), open_sink(self._plan) as sink:
            while not sink.stopped and (frames := self._get(self._translated)) is not None:
                began = time.perf_counter()
                if not self.frames:
                    height, width = frames[0].image.shape[:2]
                    sink.open(dataclasses.replace(info, width=width, height=height))
                for frame in frames:
                    sink.write(frame)
                    self.frames += 1
                self.busy["encode"] += time.perf_counter() - began
            began = time.perf_counter()
            if sink.stopped:
                self.stop.set()
        self.completed = True
        self.busy["encode"] += time.perf_counter() - began
        self.notes.extend(sink.notes)

    def note_end(self, future: Future[None]) -> None:
        """Keeps a stage's error, in the order in which they come, and stops the others."""
        error = future.exception()
        if error is not None:
            if not isinstance(error, _Stopped):
                self._errors.append(error)
            self.stop.set()

    def end_early(self) -> None:
        """Stops what still runs; nothing, if all stages are through."""
        if self.interrupted or self._errors:
            self.stop.set()

    def raise_first_error(self) -> None:
        """Raises what went wrong first, if anything did."""
        if self._errors:
            raise self._errors[0]
        if self.interrupted and not self.completed:
            raise Interrupted(self.frames, self.total)

    def _timed(self, stage: str, items: Iterator[Item]) -> Iterator[Item]:
        """The same items; the time that they take to come counts as work of a stage."""
        while True:
            began = time.perf_counter()
            item = next(items, None)
            self.busy[stage] += time.perf_counter() - began
            if item is None:
                return
            yield item

    def _put(self, line: queue.Queue[Item], item: Item) -> None:
        """Puts, waiting for room, unless the run has ended."""
        while not self.stop.is_set():
            try:
                return line.put(item, timeout=_TICK)
            except queue.Full:
                continue
        raise _Stopped

    def _get(self, line: queue.Queue[Item]) -> Item:
        """Gets, waiting for something, unless the run has ended."""
        while not self.stop.is_set():
            try:
                return line.get(timeout=_TICK)
            except queue.Empty:
                continue
        raise _Stopped
