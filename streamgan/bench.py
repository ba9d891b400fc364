"""How fast each stage is alone, how fast all are together, and how near that is to what these cores allow."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from streamgan import pipeline
from streamgan.api import Encoding, Frame, Selection, VideoInfo
from streamgan.pipeline import STAGES
from streamgan.plan import Plan, build, open_sink, open_source, usable_cores
from streamgan.plugins import Registry
from streamgan.request import Request
from streamgan.stage import TranslateStage
from streamgan.writing.sinks import VideoFileSink

_MEMORY = 160_000_000
_WARM_UP = 8
"""Frames of the first run, of which only its start is measured."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one stage takes for one frame when it runs alone."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of all cores together."""

    @property
    def fps(self) -> float:
        """Frames per second, alone."""
        return 1 / self.wall


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One clip, measured."""

    clip: str
    """Name of the clip."""
    size: tuple[int, int]
    """Width and height in pixels."""
    frames: int
    """How many frames were measured."""
    costs: dict[str, Cost]
    """By stage: decode, translate, encode."""
    end_to_end: float
    """Frames per second of the whole, opening and closing included."""
    cores: int
    """Cores that were used."""
    cpu: float = 0.0
    """Seconds of all cores together that the whole took for one frame."""
    start: float = 0.0
    """Seconds from when the program was started, as far as that is known, to the first frame at the encoder."""
    peak: int = 0
    """Bytes of memory that the process held at most, until the whole had run; 0 if the system does not say."""
    backend: str = ""
    """What ran the model."""

    @property
    def bound(self) -> float:
        """The most frames per second that the stages allow: the slowest alone, or all their work over all cores."""
        slowest = min(cost.fps for cost in self.costs.values())
        work = sum(cost.cpu for cost in self.costs.values())
        return min(slowest, self.cores / work) if work else slowest

    @property
    def bound_by(self) -> str:
        """What sets the bound: a stage that cannot use more cores than it has, or all cores."""
        slowest = min(self.costs, key=lambda stage: self.costs[stage].fps)
        return slowest if self.bound >= self.costs[slowest].fps else "all cores"

    @property
    def efficiency(self) -> float:
        """End to end over the bound, about 0 to 1."""
        return self.end_to_end / self.bound


def measure(request: Request, registry: Registry, frames: int = 100, began: float | None = None) -> Measurement:
    """Measures a preset on a clip: a short run, thrown away but for its start; from file to file; each stage in memory.

    Args:
        request: what to run; its output is ignored.
        registry: what is installed.
        frames: how many frames to measure at most.
        began: when the program was started, as `time.time` counts; None for now.

    Raises:
        StreamganError: if the run cannot be built or fails.
    """
    began = time.time() if began is None else began
    with tempfile.TemporaryDirectory(prefix="streamgan-bench-") as folder:
        request = dataclasses.replace(request, output=str(Path(folder) / "bench.mp4"), overwrite=True)
        start = _start(request, registry, began)
        plan = build(_shortened(request, registry, frames), registry)
        cpu = time.process_time()
        report = pipeline.run(plan)
        cpu, peak = (time.process_time() - cpu) / report.frames, peak_memory()
        costs: dict[str, Cost] = {}
        source_frames, info = _decode(plan, costs)
        made = _translate(plan, info, source_frames, costs)
        _encode(plan, info, made, costs)
    return Measurement(
        clip=Path(request.input).name,
        size=(info.width, info.height),
        frames=report.frames,
        costs=costs,
        end_to_end=report.fps,
        cores=request.threads or usable_cores(),
        cpu=cpu,
        start=start,
        peak=peak,
        backend=str(plan.setup or plan.backend_name),
    )


def measure_start(request: Request, registry: Registry, began: float) -> float:
    """Seconds from `began`, as `time.time` counts, until the first translated frame was handed to the encoder.

    Raises:
        StreamganError: if the run cannot be built or fails.
    """
    with tempfile.TemporaryDirectory(prefix="streamgan-bench-") as folder:
        output = str(Path(folder) / "bench.mp4")
        return _start(dataclasses.replace(request, output=output, overwrite=True), registry, began)


def peak_memory() -> int:
    """Bytes of memory that this process has held at most, what its parent held not counted; 0 if nobody says."""
    if sys.platform == "linux":  # getrusage counts what the parent held when it started this process
        lines = Path("/proc/self/status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def synthetic_clip(path: Path, size: tuple[int, int] = (1280, 720), frames: int = 60) -> Path:
    """Writes a clip that is neither trivial nor noise: moving shapes over a drifting texture.

    Raises:
        StreamganError: if it cannot be written.
    """
    width, height = size
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (height // 8, width // 8 + 64, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (width + 512, height), interpolation=cv2.INTER_CUBIC)
    with VideoFileSink(str(path), Encoding(crf=20, overwrite=True, threads=usable_cores())) as sink:
        sink.open(VideoInfo(width, height, Fraction(1, 30), Fraction(30)))
        for index in range(frames):
            image = np.asarray(wide[:, index * 4 % 512 :][:, :width], dtype=np.uint8).copy()
            center = (index * 13 % width, round(height * (0.5 + 0.3 * np.sin(index / 9))))
            cv2.circle(image, center, height // 6, (250, 220, 140), -1)
            sink.write(Frame(image, index, Fraction(1, 30), 1))
    return path


def _start(request: Request, registry: Registry, began: float) -> float:
    """Runs a few frames; returns the seconds from `began` until the first of them was at the encoder."""
    noted: list[float] = []

    class Noting(VideoFileSink):
        """Notes when its first frame has been written."""

        __module__ = VideoFileSink.__module__  # its errors are no plugin's

        def write(self, frame: Frame) -> None:
            """As `VideoFileSink.write`."""
            super().write(frame)
            if not noted:
                noted.append(time.time())

    plan = build(dataclasses.replace(request, frames=_WARM_UP), registry)
    pipeline.run(dataclasses.replace(plan, sink=Noting))
    return noted[0] - began


def _shortened(request: Request, registry: Registry, frames: int) -> Request:
    """The request, cut so that about `frames` frames remain."""
    info = build(request, registry).info
    if info is None or info.frame_rate is None or not info.frame_count or info.frame_count <= frames:
        return request
    start = request.start or Fraction(0)
    return dataclasses.replace(request, end=start + Fraction(frames) / info.frame_rate)


def _timed(costs: dict[str, Cost], stage: str, count: int, work: Callable[[], None]) -> None:
    """Runs a stage's work for `count` frames and notes what one took."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    costs[stage] = Cost((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count)


def _decode(plan: Plan, costs: dict[str, Cost]) -> tuple[list[Frame], VideoInfo]:
    """Measures decoding, throwing frames away; then decodes once more a few to keep, for the other stages."""
    count = 0

    def work() -> None:
        nonlocal count
        with open_source(plan) as source:
            count = sum(1 for _ in source.frames())

    _timed(costs, STAGES[0], 1, work)
    whole = costs[STAGES[0]]
    costs[STAGES[0]] = Cost(whole.wall / count, whole.cpu / count)
    with open_source(plan) as source:
        info = source.info
        room = max(16, _MEMORY // (info.width * info.height * 3))
        return list(itertools.islice(source.frames(), min(count, room))), info


def _translate(plan: Plan, info: VideoInfo, frames: Sequence[Frame], costs: dict[str, Cost]) -> list[Frame]:
    """Measures translating as a run does it, after one batch to warm up; opening the model is not counted."""
    made: list[Frame] = []
    with TranslateStage(plan, info) as stage:
        batches = [frames[index : index + stage.batch] for index in range(0, len(frames), stage.batch)]
        stage.apply(batches[0])
        _timed(costs, STAGES[1], len(frames), lambda: made.extend(itertools.chain(*stage.stream(batches))))
    return made


def _encode(plan: Plan, info: VideoInfo, frames: Sequence[Frame], costs: dict[str, Cost]) -> None:
    """Measures encoding, the encoder's delayed last frames included."""
    encoding = dataclasses.replace(plan.encoding, copy_from=None, selection=Selection())
    alone = dataclasses.replace(plan, encoding=encoding)
    width, height = frames[0].size

    def work() -> None:
        with open_sink(alone) as sink:
            sink.open(dataclasses.replace(info, width=width, height=height))
            for frame in frames:
                sink.write(frame)

    _timed(costs, STAGES[2], len(frames), work)
