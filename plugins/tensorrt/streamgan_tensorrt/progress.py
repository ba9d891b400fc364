"""How far a build is: TensorRT takes minutes on a large network, and nobody shall think that it hangs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

OnProgress: TypeAlias = Callable[[float, str], None]
"""Called with the part that is done, from 0 to 1, and what is being done; from TensorRT's threads."""
_PATIENCE = 10.0
"""Seconds without a word."""
_log = logging.getLogger("streamgan.tensorrt")


class Phases:
    """Nested phases of a build, as one number."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._parents: dict[str, str | None] = {}
        self._furthest = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps begins, inside a step of its parent."""
        self._steps[phase], self._done[phase], self._parents[phase] = max(1, steps), 0, parent

    def step(self, phase: str, number: int) -> None:
        """A step, counted from 0, is complete."""
        self._done[phase] = number + 1

    def finish(self, phase: str) -> None:
        """The phase is complete; with the outermost one, all is, though TensorRT may not have counted every step."""
        if self._parents.get(phase) not in self._steps:
            self._furthest = 1.0
        for each in (self._steps, self._done, self._parents):
            each.pop(phase, None)

    @property
    def done(self) -> float:
        """The part that is done, from 0 to 1; it never falls."""
        outermost = sum(self._part(phase) for phase, parent in self._parents.items() if parent not in self._steps)
        self._furthest = max(self._furthest, min(1.0, outermost))
        return self._furthest

    def _part(self, phase: str) -> float:
        """What is done of a phase, with what is done of those inside it."""
        inside = sum(self._part(name) for name, parent in self._parents.items() if parent == phase)
        return min(1.0, (self._done[phase] + min(1.0, inside)) / self._steps[phase])


def make_monitor(module: Any, on_progress: OnProgress, stop: threading.Event) -> Any:
    """What TensorRT tells of its phases.

    Args:
        module: TensorRT.
        on_progress: told after every step.
        stop: once set, the build ends at its next step.
    """
    phases = Phases()

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        """Called by TensorRT, from several threads."""

        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase begins."""
            with self._lock:
                phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step is complete; returns whether to go on."""
            with self._lock:
                phases.step(phase_name, step)
                on_progress(phases.done, phase_name)
            return not stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends."""
            with self._lock:
                phases.finish(phase_name)
                if not stop.is_set():
                    on_progress(phases.done, phase_name)

    return Monitor()


def announce(title: str, clock: Callable[[], float] = time.monotonic) -> OnProgress:
    """Logs a line every ten seconds; a build that is over sooner stays silent.

    A warning, since those reach the terminal where nobody has set up logging, above a bar of rich if there is one.

    Args:
        title: what is built.
        clock: seconds, for tests.
    """
    last = clock()

    def on_progress(done: float, phase: str) -> None:
        nonlocal last
        if clock() - last >= _PATIENCE:
            last = clock()
            _log.warning("tensorrt: %s: %d%% built (%s)", title, round(100 * done), phase)

    return on_progress
