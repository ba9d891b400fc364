"""Live: the newest frame wins, so that delay never builds up; what is too late is dropped and counted."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction

import cv2
import numpy as np

from streamgan.api import Frame, Source, VideoInfo
from streamgan.plan import Plan, open_sink, open_source, settle
from streamgan.stage import TranslateStage
from streamgan.writing.window import Preview

_TICK, _MEMORY = 0.1, 600
_MICROSECOND = Fraction(1, 1_000_000)


@dataclasses.dataclass(frozen=True)
class LiveStatus:
    """How a live run is doing, or how it was."""

    frames: int
    """Frames shown or written."""
    dropped: int
    """Frames that a newer one overtook."""
    seconds: float
    """Since the first frame."""
    latency_p50: float
    """Median of the seconds from capture to sink, over the last frames."""
    latency_p95: float
    """What 95 of 100 of the last frames stayed below, in seconds."""
    notes: tuple[str, ...] = ()
    """What the user should know at the end."""

    @property
    def fps(self) -> float:
        """Frames per second on the average."""
        return self.frames / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        latency = f"{self.latency_p50 * 1e3:.0f}/{self.latency_p95 * 1e3:.0f} ms"
        return f"{self.fps:.1f} fps  dropped {self.dropped}  latency p50/p95 {latency}"


def run_live(
    plan: Plan,
    on_status: Callable[[LiveStatus], None] | None = None,
    frames: int | None = None,
    announce: Callable[[str], None] | None = None,
) -> LiveStatus:
    """Translates what comes, as it comes, until the source ends, the window is closed, or Ctrl-C.

    A file is played at its own speed. Translating and showing stay in the calling thread, since windows want that.

    Args:
        plan: from `pipeline.build`.
        on_status: called after every frame.
        frames: how many frames to make at most; None for no limit.
        announce: as for `pipeline.build`, which does not know the size of a camera's pictures.

    Returns:
        The status at the end. Ctrl-C ends a live run well: the output is completed.

    Raises:
        StreamganError: if source, translator or sink fail.
    """
    cv2.setNumThreads(plan.budget.translate)
    # The pool is left first, and waits for the reader: a source must not be closed while it is read.
    with open_source(plan) as source, ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
        newest, info = Newest(), source.info  # before the reader: a source serves one thread at a time
        plan = dataclasses.replace(plan, setup=None)  # also that of a file: one frame is wanted soon, not many early
        plan = settle(plan, info, announce, live=True)
        reading = pool.submit(_read, source, newest)
        try:
            return _show(plan, info, newest, reading, on_status, frames)
        finally:
            newest.close()


class Newest:
    """A place for one frame: putting replaces what nobody has taken."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._frame: Frame | None = None
        self.closed = False
        """True once no more frames are wanted or will come."""
        self.dropped = 0
        """How many frames were replaced untaken."""

    def put(self, frame: Frame) -> None:
        """Leaves a frame for `take`."""
        with self._condition:
            self.dropped += self._frame is not None
            self._frame = frame
            self._condition.notify()

    def take(self) -> Frame | None:
        """The newest frame, waited for; None once it is closed and empty."""
        with self._condition:
            while self._frame is None and not self.closed:
                self._condition.wait(_TICK)
            frame, self._frame = self._frame, None
            return frame

    def close(self) -> None:
        """Ends both sides."""
        with self._condition:
            self.closed = True
            self._condition.notify()


def _read(source: Source, newest: Newest) -> None:
    """The reader thread: frames of a camera as they come, of a file when they are due."""
    began = first = None
    try:
        for frame in source.frames():
            if frame.captured_at is None:
                now = time.monotonic()
                began, first = (now, frame.time) if began is None or first is None else (began, first)
                due = began + float(frame.time - first)
                while due > now and not newest.closed:
                    time.sleep(min(due - now, _TICK))
                    now = time.monotonic()
                frame = dataclasses.replace(frame, captured_at=max(due, began))
            if newest.closed:
                return
            newest.put(frame)
    finally:
        newest.close()


def _show(
    plan: Plan,
    info: VideoInfo,
    newest: Newest,
    reading: Future[None],
    on_status: Callable[[LiveStatus], None] | None,
    limit: int | None,
) -> LiveStatus:
    """The loop of the calling thread: take the newest, translate it, hand it on."""
    meter = _Meter(newest)
    with TranslateStage(plan, info) as stage, open_sink(plan) as sink, contextlib.suppress(KeyboardInterrupt):
        while not sink.stopped and (limit is None or meter.frames < limit):
            frame = newest.take()
            if frame is None:
                reading.result()  # the source's error, if that is why it ended
                break
            (made,) = stage.apply([frame])
            if not meter.frames:
                sink.open(_live_info(info, *made.size))
            if isinstance(sink, Preview):
                sink.caption = str(meter.status())
            sink.write(meter.retime(made))
            meter.count(made)
            if on_status is not None:
                on_status(meter.status())
    return dataclasses.replace(meter.status(), notes=(*stage.notes, *sink.notes))


def _live_info(info: VideoInfo, width: int, height: int) -> VideoInfo:
    """What a sink is told: the clock is that of the capture, in microseconds."""
    return dataclasses.replace(info, width=width, height=height, time_base=_MICROSECOND, frame_count=None)


class _Meter:
    """Counts frames and their latency, and gives them the times of their capture."""

    def __init__(self, newest: Newest) -> None:
        self._newest = newest
        self._latencies: collections.deque[float] = collections.deque(maxlen=_MEMORY)
        self._began: float | None = None
        self._last = -1
        self.frames = 0

    def retime(self, frame: Frame) -> Frame:
        """The frame with its capture as its time, from 0, always later than the one before."""
        captured = time.monotonic() if frame.captured_at is None else frame.captured_at
        self._began = captured if self._began is None else self._began
        self._last = max(self._last + 1, round((captured - self._began) * 1e6))
        return dataclasses.replace(frame, pts=self._last, time_base=_MICROSECOND, duration=0)

    def count(self, frame: Frame) -> None:
        """Takes note of a frame that has just reached the sink."""
        if frame.captured_at is not None:
            self._latencies.append(time.monotonic() - frame.captured_at)
        self.frames += 1

    def status(self) -> LiveStatus:
        """How it is going."""
        seconds = 0.0 if self._began is None else time.monotonic() - self._began
        p50, p95 = np.percentile(self._latencies, (50, 95)) if self._latencies else (0.0, 0.0)
        return LiveStatus(self.frames, self._newest.dropped, seconds, float(p50), float(p95))
