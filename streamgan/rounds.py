"""The same measurement in several fresh processes: their median, how far they differ, as JSON, against an earlier one.

``python -m streamgan.rounds JOB RESULT`` is one such process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from streamgan import __version__, bench, errors, plugins
from streamgan.api import PresetError, StreamganError, UsageError
from streamgan.bench import Cost, Measurement
from streamgan.plan import usable_cores
from streamgan.request import Request
from streamgan.settings import parse

FORMAT = 1
"""Of the JSON file."""
FIGURES: Mapping[str, Callable[[Measurement], float]] = {
    "decode": lambda run: run.costs["decode"].fps,
    "translate": lambda run: run.costs["translate"].fps,
    "encode": lambda run: run.costs["encode"].fps,
    "end to end": lambda run: run.end_to_end,
    "possible": lambda run: run.bound,
    "efficiency": lambda run: run.efficiency,
    "first frame": lambda run: run.start,
    "peak memory": lambda run: run.peak,
}
"""What is compared, by name: frames per second, then seconds and bytes."""
LESS_IS_BETTER = frozenset({"first frame", "peak memory"})
"""Those of `FIGURES` that should be small; the others should be large."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What one process measures."""

    request: Request
    """What to run; its output is ignored."""
    frames: int = 100
    """How many frames to measure at most."""
    plugin_files: tuple[Path, ...] = ()
    """Single-file plugins to load."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """One figure of several runs."""

    median: float
    low: float
    """The least of them."""
    high: float
    """The largest of them."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of one value or more."""
        return cls(statistics.median(values), min(values), max(values))

    @property
    def noise(self) -> float:
        """Half of what lies between the least and the largest, over the median: 0.02 stands for ±2%."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


@dataclasses.dataclass(frozen=True)
class Result:
    """One clip, measured in several processes."""

    runs: tuple[Measurement, ...]
    """One or more, of the same clip."""
    cold: float | None = None
    """Seconds to the first frame of a program whose cache is empty; None if that was not measured."""

    @property
    def name(self) -> str:
        """Clip and size, such as ``drive.mp4 1280x720``."""
        first = self.runs[0]
        return f"{first.clip} {first.size[0]}x{first.size[1]}"

    def spread(self, figure: Callable[[Measurement], float]) -> Spread:
        """A figure of all runs, as those in `FIGURES` are."""
        return Spread.of([figure(run) for run in self.runs])


@dataclasses.dataclass(frozen=True)
class Measured:
    """All that was measured at one time."""

    preset: str
    """Name of the preset."""
    results: tuple[Result, ...]
    """One for each clip."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What else was asked for."""
    machine: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Where: processor, cores, versions."""


@dataclasses.dataclass(frozen=True)
class Ratio:
    """One figure of one clip, new over old."""

    clip: str
    """Clip and size."""
    figure: str
    """One of `FIGURES`."""
    value: float
    """Median over median."""
    low: float
    """The least new one over the largest old one."""
    high: float
    """The largest new one over the least old one."""

    @property
    def change(self) -> int:
        """1 if every new run was better than every old one, -1 if every one was worse, else 0: that may be noise."""
        better = 1 if self.low > 1 else -1 if self.high < 1 else 0
        return -better if self.figure in LESS_IS_BETTER else better


def measure(job: Job, repeat: int, on_run: Callable[[str], None] = lambda text: None, cold: bool = True) -> Result:
    """Measures a clip in fresh processes, one after the other.

    Args:
        job: what to measure.
        repeat: how many processes, 1 or more.
        on_run: told what comes next, before it begins.
        cold: whether to measure as well how a program starts that finds its cache empty.

    Raises:
        StreamganError: if it cannot be measured, as the process said it.
    """
    runs, name, cold_start = [], Path(job.request.input).name, None
    if cold:
        on_run(f"{name}: first start")
        with tempfile.TemporaryDirectory(prefix="streamgan-bench-") as empty:
            cold_start = float(_in_fresh_process(job, {"STREAMGAN_CACHE": empty}, start_only=True)["start"])
    for number in range(repeat):
        on_run(f"{name}: run {number + 1} of {repeat}")
        runs.append(_measurement(_in_fresh_process(job)))
    return Result(tuple(runs), cold_start)


def compare(new: Measured, old: Measured) -> list[Ratio]:
    """Every figure of every clip that was measured in both.

    Raises:
        UsageError: if they are of different presets, or have no clip of the same size in common.
    """
    check_preset(new.preset, old)
    before = {result.name: result for result in old.results}
    common = [result for result in new.results if result.name in before]
    if not common:
        given, had = (", ".join(result.name for result in each.results) for each in (new, old))
        raise UsageError(
            f"--compare: measured {given}, but the file has {had}; measure the same clips in the same size"
        )
    return [_ratio(result, before[result.name], figure) for result in common for figure in FIGURES]


def check_preset(preset: str, old: Measured) -> None:
    """Refuses to compare with another preset; raises UsageError."""
    if preset != old.preset:
        raise UsageError(f"--compare: the file is of preset {old.preset}, not of {preset}; give -p {old.preset}")


def differences(new: Measured, old: Measured) -> list[str]:
    """What else is not the same in both, one line each."""
    pairs = [(f"{key}:", new.settings.get(key), old.settings.get(key)) for key in {**old.settings, **new.settings}]
    pairs += [(f"{key}:", new.machine.get(key), old.machine.get(key)) for key in {**old.machine, **new.machine}]
    before = {result.name: result.runs[0] for result in old.results}
    for run in (result.runs[0] for result in new.results if result.name in before):
        was = before[f"{run.clip} {run.size[0]}x{run.size[1]}"]
        pairs += [(f"{run.clip}: backend", run.backend, was.backend), (f"{run.clip}: frames", run.frames, was.frames)]
    return [f"{name} {now}, and {was} then" for name, now, was in pairs if now != was]


def machine() -> dict[str, Any]:
    """What the figures depend on beside the request."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": model or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        "streamgan": __version__,
    }


def settings_of(request: Request, preset: str) -> dict[str, Any]:
    """What a request asks for that is not as usual, but for files and the preset, as JSON holds it."""
    usual = dataclasses.asdict(Request("", preset))
    fields = {key: value for key, value in _plain(request).items() if value != usual[key]}
    return {key: value for key, value in fields.items() if key not in ("input", "output", "preset", "overwrite")}


def to_json(measured: Measured) -> str:
    """Every run of every clip, and where and how it was measured: seconds and bytes."""
    return json.dumps({"format": FORMAT} | dataclasses.asdict(measured), indent=1) + "\n"


def from_json(text: str, where: str) -> Measured:
    """Reads what `to_json` wrote.

    Raises:
        UsageError: if it is something else, or of another version; `where` is for its message.
    """
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise UsageError(f"{where}: format {data['format']}, and this streamgan reads {FORMAT}; measure anew")
        measured = parse(Measured, {key: value for key, value in data.items() if key != "format"}, where)
        for result in measured.results:
            for figure in FIGURES.values():
                result.spread(figure)  # fails where what it needs is missing, or is zero
        if measured.results:
            return measured
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        if isinstance(error, UsageError) and not isinstance(error, PresetError):
            raise
    raise UsageError(f"{where}: is no file that streamgan bench --json wrote")


def _ratio(new: Result, old: Result, figure: str) -> Ratio:
    """One figure of one clip."""
    now, was = new.spread(FIGURES[figure]), old.spread(FIGURES[figure])
    tiny = sys.float_info.min  # what the system does not say is 0
    parts = ((now.median, was.median), (now.low, was.high), (now.high, was.low))
    return Ratio(new.name, figure, *((above or tiny) / (below or tiny) for above, below in parts))


def _measurement(fields: Mapping[str, Any]) -> Measurement:
    """A measurement from JSON."""
    costs = {stage: Cost(**cost) for stage, cost in fields["costs"].items()}
    return Measurement(**{**fields, "costs": costs, "size": tuple(fields["size"])})


def _plain(request: Request) -> dict[str, Any]:
    """The fields of a request, as JSON holds them."""
    fields = dataclasses.asdict(request)
    return {key: str(value) if isinstance(value, Fraction) else value for key, value in fields.items()}


def _in_fresh_process(
    job: Job, environment: Mapping[str, str] | None = None, start_only: bool = False
) -> dict[str, Any]:
    """Has another process do a job; returns what it wrote."""
    with tempfile.TemporaryDirectory(prefix="streamgan-bench-") as name:
        given, made = Path(name) / "job.json", Path(name) / "result.json"
        fields = {
            "request": _plain(job.request),
            "plugin_files": [str(path.absolute()) for path in job.plugin_files],
            "frames": job.frames,
            "start_only": start_only,
            "began": time.time(),
        }
        given.write_text(json.dumps(fields))
        done = subprocess.run(
            [sys.executable, "-m", "streamgan.rounds", str(given), str(made)],
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        result: dict[str, Any] = json.loads(made.read_text()) if made.exists() else {}
    if done.returncode or not result:
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise StreamganError(f"{job.request.input}: the process that measured ended with {done.returncode} ({said[0]})")
    if "error" in result:
        kind = getattr(errors, result["kind"], StreamganError)
        raise kind(result["error"])
    return result


def work(job: Mapping[str, Any]) -> dict[str, Any]:
    """What a fresh process does: the fields of a job in, those of a measurement out, or an error's."""
    try:
        request = Request.of(**job["request"])
        registry = plugins.load(tuple(map(Path, job["plugin_files"])))
        if job["start_only"]:
            return {"start": bench.measure_start(request, registry, job["began"])}
        return dataclasses.asdict(bench.measure(request, registry, job["frames"], job["began"]))
    except StreamganError as error:
        return {"error": str(error), "kind": type(error).__name__}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(work(json.loads(Path(sys.argv[1]).read_text()))))
