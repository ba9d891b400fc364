"""Joins the stages: decode, translate and encode, each in its own thread, with short queues between them.

FFmpeg, OpenCV and the backends let go of Python's lock while they work, so threads overlap fully. A stage that fails
stops the others; the first error wins; the output is completed only if all went well. A film that goes into a file is
kept in closed segments as it is made, so that whatever ends a run, another one can go on: `streamgan.writing.segments`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

import cv2

from streamgan import fingerprint, plan
from streamgan.api import SinkError, StreamganError
from streamgan.film import STAGES, Film, Interrupted
from streamgan.plan import Budget, Plan
from streamgan.plugins import Registry
from streamgan.record import Report
from streamgan.request import Request
from streamgan.writing import segments
from streamgan.writing.segments import Part, Parts
from streamgan.writing.sinks import VideoFileSink

__all__ = ["STAGES", "Budget", "Interrupted", "Part", "Plan", "Progress", "Report", "Request", "build", "run"]

_TICK = 0.1
_PATIENCE = 10.0
"""Seconds for the stages to end once they are told to."""
THREADS = "streamgan"
"""What the names of the threads begin with."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    frames: int
    """Frames encoded so far."""
    total: int | None
    """Frames expected, an estimate; None if unknown."""
    seconds: float
    """Since the start."""
    resumed: int = 0
    """How many of the frames an earlier run had made."""

    @property
    def fps(self) -> float:
        """Frames per second of this run so far."""
        return (self.frames - self.resumed) / self.seconds if self.seconds else 0.0


def build(request: Request, registry: Registry, announce: Callable[[str], None] | None = None) -> Plan:
    """Resolves a request and checks all that can be checked without decoding the film.

    Args:
        request: what the user asks for.
        registry: what there is.
        announce: called with one line before it is measured, once a machine and model, what runs the model fastest.

    Raises:
        StreamganError: of the fitting kind, if it cannot be done; among them UsageError, if an interrupted run has left
            a part of the output and the request says neither to go on nor to begin anew.
    """
    built = plan.build(request, registry, announce)
    if leaves_segments(built):
        known = fingerprint.of(built, exact=True)
        segments.refuse_leftover(Path(built.output), known, request.resume, request.overwrite)
    return built


def run(work: Plan, on_progress: Callable[[Progress], None] | None = None, part: Part | None = None) -> Report:
    """Does what a plan says.

    Args:
        work: from `build`.
        on_progress: called about ten times a second in the calling thread.
        part: if given, only the segments of this part are made and kept, and no output.

    Raises:
        StreamganError: the first error of any stage; nothing is left behind then.
        Interrupted: on Ctrl-C, with how far it came.
        SinkError: also if the record that the request asks for cannot be written; the output is complete then.
    """
    streams = 1 if work.setup is None else work.setup.streams
    cv2.setNumThreads(max(1, work.budget.translate // streams))
    with _kept_parts(work, part) as parts:
        film = Film(work, parts, part)
        report = _run(film, on_progress)
    film.record(report)
    return report


def _run(film: Film, on_progress: Callable[[Progress], None] | None) -> Report:
    """As `run`."""
    began = time.perf_counter()
    pool = ThreadPoolExecutor(len(STAGES), thread_name_prefix=THREADS)
    futures = [pool.submit(stage) for stage in (film.decode, film.translate, film.encode)]
    for future in futures:
        future.add_done_callback(film.note_end)
    try:
        while wait(futures, timeout=_TICK, return_when=FIRST_EXCEPTION).not_done and not film.stop.is_set():
            film.watch()
            if on_progress is not None:
                on_progress(Progress(film.frames, film.total, time.perf_counter() - began, film.resumed))
    except KeyboardInterrupt:
        film.interrupted = True
    finally:
        film.end_early()
        pool.shutdown(wait=_settle(futures))
    film.raise_first_error()
    seconds = time.perf_counter() - began
    if on_progress is not None:
        on_progress(Progress(film.frames, film.frames, seconds, film.resumed))
    return film.report(seconds)


def leaves_segments(work: Plan) -> bool:
    """Whether the output is made in segments that outlast an interrupted run: from file to file, both known by name."""
    alpha = work.info is None or (work.info.alpha and work.encoding.codec == "vp9")  # it lies beside the packets
    return work.sink is VideoFileSink and "://" not in work.output and not work.source.live and not alpha


def open_parts(work: Plan, part: Part | None = None, resume: bool = False) -> Parts:
    """The segments of a film's output, or of a part of it: those that an earlier run left, if this one goes on.

    Args:
        work: from `build`.
        part: of which part; None for the whole film.
        resume: whether to go on even if the request does not say so.

    Raises:
        StreamganError: if another run holds them, or they cannot be kept there.
    """
    known = fingerprint.of(work, exact=True)
    go_on = resume or work.request.resume or part is not None
    output = Path(work.output) if part is None else part.output(work.output)
    parts = Parts(output, f"{known} {part or ''}".rstrip(), go_on, work.segment, at_cuts=work.has_memory)
    if part is not None and not parts.manifest.segments:
        parts.begin(0, 0, part.origin)
    return parts


@contextlib.contextmanager
def _kept_parts(work: Plan, part: Part | None) -> Iterator[Parts | None]:
    """The segments of a film's output, or of a part of it, held while the run goes on; None for all other outputs."""
    if not leaves_segments(work):
        yield None
        return
    done, parts = False, open_parts(work, part)
    try:
        yield parts
        done = part is None
    except StreamganError as error:
        done = isinstance(error, SinkError) and error.errno == errno.EINVAL  # no other run would come further
        if parts.manifest.segments and not done:
            error.add_note(
                f"{parts.manifest.frames} frames are kept; the same command with --resume goes on from there"
            )
        raise
    finally:
        parts.release(done)


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
