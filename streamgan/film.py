"""One run: what its three threads do, and what they share."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeAlias, TypeVar

from streamgan.api import BackendError, Frame, PluginError, Sink, Source, StreamganError, VideoInfo
from streamgan.plan import Plan, open_sink, open_source
from streamgan.plugins import held
from streamgan.reading.sources import VideoFile
from streamgan.record import Report, write
from streamgan.stage import TranslateStage
from streamgan.writing.coder import SegmentSink
from streamgan.writing.segments import Part, Parts
from streamgan.writing.sinks import VideoFileSink

Item = TypeVar("Item")
Frames: TypeAlias = "queue.Queue[list[Frame] | None]"

_DEPTH = 4
_TICK = 0.1
_NICER = 10
"""By how much the niceness of threads that translate is above that of the others."""
STAGES = ("decode", "translate", "encode")
"""Their names, in the order in which a frame meets them."""


class Interrupted(StreamganError):
    """The user ended the run before it was complete; nothing was written under the output's name."""

    exit_code = 130

    def __init__(self, frames: int, total: int | None) -> None:
        of = f" of {total}" if total else ""
        super().__init__(f"interrupted after {frames}{of} frames; nothing was written")
        self.frames = frames
        """How many frames had been encoded."""


class _Stopped(StreamganError):
    """Ends a stage because another one has ended."""


class Film:
    """One run: what the three threads share."""

    def __init__(self, work: Plan, parts: Parts | None, part: Part | None) -> None:
        self._plan, self._parts, self._part = work, parts, part
        self.stop = threading.Event()
        self.interrupted = self.completed = False
        self.resumed = 0 if parts is None else parts.manifest.frames
        self.frames = self.resumed
        self.decoded = self._skipped = self.resumed + (part.first if part else 0)
        self.total = None if work.info is None else work.info.frame_count
        self._lost = self._repeated = 0
        self._stage: TranslateStage | None = None
        self.busy = dict.fromkeys(STAGES, 0.0)
        self.notes: list[str] = []
        self._errors: list[BaseException] = []
        self._info: queue.Queue[VideoInfo] = queue.Queue()
        self._decoded: Frames = queue.Queue(_DEPTH)
        self._translated: Frames = queue.Queue(_DEPTH)

    def decode(self) -> None:
        """The first thread: source to queue, in batches as the translator likes them."""
        with held(self._plan.source), open_source(self._plan) as source:
            if isinstance(source, VideoFile):
                source.skip = self._skipped
            for _ in (self.translate, self.encode):  # both wait for it
                self._put(self._info, source.info)
            size, batch = self._plan.batch, list[Frame]()
            for frame in self._timed("decode", self._frames_left(source)):
                batch.append(frame)
                self.decoded += 1
                if self.decoded % size == 0:  # also after a resumption a batch has the frames that it would have had
                    self._put(self._decoded, batch)
                    batch = []
            if batch:
                self._put(self._decoded, batch)
            self._put(self._decoded, None)
            self.notes.extend(source.notes)
            self._lost, self._repeated = source.lost, source.repeated

    def translate(self) -> None:
        """The second thread: queue to queue."""
        _stand_back()
        with TranslateStage(self._plan, self._get(self._info)) as self._stage:
            if self.resumed and self._stage.plan.backend_name != self._plan.backend_name:
                raise BackendError(
                    f"{self._plan.output}: was begun with {self._plan.backend_name}, which cannot be used now "
                    f"({'; '.join(self._stage.notes)}); --overwrite begins anew"
                )
            for made in self._stage.stream(self._batches()):
                self.busy["translate"] = self._stage.busy
                self._put(self._translated, made)
        self.notes.extend(self._stage.notes)
        if self._stage.skipped:
            self.notes.append(f"{self._stage.skipped} frames were like one before, and shown as that one")
        self._put(self._translated, None)

    def encode(self) -> None:
        """The third thread: queue to sink. Ends early, and well, if the viewer closes the window."""
        info = self._get(self._info)
        with held(self._plan.sink), self._open_sink() as sink:
            opened = False
            while not sink.stopped and (frames := self._get(self._translated)) is not None:
                began = time.perf_counter()
                if not opened:
                    opened = True
                    width, height = frames[0].size
                    sink.open(dataclasses.replace(info, width=width, height=height))
                for frame in frames:
                    sink.write(frame)
                    self.frames += 1
                self.busy["encode"] += time.perf_counter() - began
            began = time.perf_counter()
            if sink.stopped:
                self.stop.set()
            if not opened and self._parts is not None and self._part is None:  # only the end was missing
                made = self._parts.manifest
                sink.open(dataclasses.replace(info, width=made.width, height=made.height))
        self.completed = True
        self.busy["encode"] += time.perf_counter() - began
        self.notes.extend(sink.notes)

    def _batches(self) -> Iterator[list[Frame]]:
        """What has been decoded."""
        while (frames := self._get(self._decoded)) is not None:
            yield frames

    def _open_sink(self) -> Sink:
        """The sink of the plan, or that of a part, knowing what is kept."""
        if self._parts is None:
            return open_sink(self._plan)
        kind = SegmentSink if self._part is not None else VideoFileSink
        sink = kind(self._plan.output, self._plan.encoding)
        sink.parts = self._parts
        return sink

    def watch(self) -> None:
        """Gives a translator up that does not come back; called from time to time.

        Its thread cannot be ended: it goes with the program.
        """
        since = None if self._stage is None else self._stage.working_since
        patience = self._plan.request.timeout
        if since is not None and time.perf_counter() - since > patience:
            given = f"translator '{self._plan.preset.translator}' did not return for {patience:g} s"
            self._errors.append(PluginError(f"{given}, after frame {self.frames}; --timeout allows it more time"))
            self.stop.set()

    def report(self, seconds: float) -> Report:
        """What was done, after all of it was."""
        return Report(
            self._plan.output,
            self.frames,
            seconds,
            self.busy,
            tuple(self.notes),
            self.decoded,
            resumed=self.resumed,
            lost=self._lost,
            repeated=self._repeated,
        )

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

    def record(self, report: Report) -> None:
        """Writes the record, if the request asks for one."""
        path = self._plan.request.report
        if path is not None and self._part is None:
            write(Path(path), self._plan if self._stage is None else self._stage.plan, report)

    def _frames_left(self, source: Source) -> Iterator[Frame]:
        """The frames of the source that no earlier run has made."""
        frames = source.frames()
        if not isinstance(source, VideoFile):  # which skips itself: what is skipped need not become RGB
            frames = itertools.islice(frames, self._skipped, None)
        if self._part is None or self._part.frames is None:
            return frames
        return itertools.islice(frames, self._part.frames - self.resumed)

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


def _stand_back() -> None:
    """Has this thread, and those that it will start, run where others leave time; only Linux has such threads.

    An encoder's threads wait for one another at every frame, so each time one of them has no core, the others soon
    stand still. Translations do not wait for one another: they fill what the encoder leaves.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # forbidden, as in some sandboxes
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICER)
