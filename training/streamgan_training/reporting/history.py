"""What a run has written about itself, read back: ``stats.jsonl``, ``evaluations.jsonl``, ``metrics.json``.

A run may still be writing, may have been killed in the middle of a line, or may be older than a file's format: what can
be read is read, and the rest is named in `History.notes`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
PARTS = ("losses", "observed", "learning_rate")
"""The parts of a record that hold numbers by name."""
SINGLE = ("seconds", "memory_bytes")
"""The parts of a record that are one number."""


@dataclasses.dataclass(frozen=True)
class Series:
    """One quantity over the training."""

    steps: Floats
    """``(N,)``, growing."""
    values: Floats
    """``(N,)``, all finite."""
    left_out: int = 0
    """How many values were not finite."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The measures of one step."""

    step: int
    metrics: dict[str, float]
    best: bool = False
    """Whether it was the best one when it was made."""


@dataclasses.dataclass(frozen=True)
class History:
    """Everything that a run has recorded."""

    losses: dict[str, Series] = dataclasses.field(default_factory=dict)
    observed: dict[str, Series] = dataclasses.field(default_factory=dict)
    learning_rate: dict[str, Series] = dataclasses.field(default_factory=dict)
    seconds: Series | None = None
    """Time of training since the start of the run, over all its sessions."""
    memory: Series | None = None
    """Peak memory, in bytes."""
    evaluations: tuple[Evaluation, ...] = ()
    final: dict[str, float] = dataclasses.field(default_factory=dict)
    """The measures of ``metrics.json``, as ``streamgan evaluate`` wrote them."""
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How `final` was measured, and what could not be."""
    notes: tuple[str, ...] = ()
    """What could not be read."""

    @property
    def last_step(self) -> int:
        """The newest step with a record, 0 if there is none."""
        series = [*self.losses.values(), *([self.seconds] if self.seconds else [])]
        recorded = [int(one.steps[-1]) for one in series if len(one.steps)]
        return max([*recorded, *(one.step for one in self.evaluations), int(self.final.get("step", 0))], default=0)


def read(run: Path) -> History:
    """Reads the records of a run folder; a file that is missing is an empty part of the history."""
    notes: list[str] = []
    records = _by_step(read_lines(run / "stats.jsonl", notes))
    if not records:
        old = _by_step(read_lines(run / "losses.jsonl", notes))
        records = [{"step": one["step"], "losses": one} for one in old]
    evaluations = tuple(
        Evaluation(int(one["step"]), numbers(one.get("metrics")), one.get("best") is True)
        for one in _by_step(read_lines(run / "evaluations.jsonl", notes))
    )
    measured = _read_object(run / "metrics.json", notes)
    single = [collect((one["step"], numbers({key: one.get(key)})) for one in records).get(key) for key in SINGLE]
    named = [collect((one["step"], numbers(one.get(part))) for one in records) for part in PARTS]
    return History(
        losses=named[0],
        observed=named[1],
        learning_rate=named[2],
        seconds=single[0],
        memory=single[1],
        evaluations=evaluations,
        final=numbers(measured),
        protocol={key: value for key, value in measured.items() if isinstance(value, dict) and value},
        notes=tuple(notes),
    )


def read_lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; adds to `notes` which lines do not read."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            why = "was not finished" if number == len(lines) else "is not JSON"
            notes.append(f"{path.name}: line {number} {why} and is left out")
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def numbers(values: object) -> dict[str, float]:
    """The numbers among the values of a JSON object; none if it is no object."""
    if not isinstance(values, dict):
        return {}
    kept = {name: value for name, value in values.items() if isinstance(value, (int, float))}
    return {str(name): float(value) for name, value in kept.items() if not isinstance(value, bool)}


def collect(records: Iterable[tuple[int, dict[str, float]]]) -> dict[str, Series]:
    """Values by step, turned into one series for each name; a step that lacks a name is a step without it."""
    columns: dict[str, list[tuple[int, float]]] = {}
    for step, values in records:
        for name, value in values.items():
            if name != "step":
                columns.setdefault(name, []).append((step, value))
    series = {}
    for name, column in columns.items():
        table = np.array(column, np.float64)
        finite = np.isfinite(table[:, 1])
        series[name] = Series(table[finite, 0], table[finite, 1], int((~finite).sum()))
    return series


def _by_step(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records in order of their steps; of two for one step, as after a resume, the later one."""
    kept = {int(step): one for one in records if isinstance(step := one.get("step"), (int, float))}
    return [one | {"step": step} for step, one in sorted(kept.items())]


def _read_object(path: Path, notes: list[str]) -> dict[str, Any]:
    """The JSON object of a file, empty if there is none or it does not read."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError:
        notes.append(f"{path.name}: is not JSON and is left out")
        return {}
    return value if isinstance(value, dict) else {}
