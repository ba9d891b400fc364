"""How fast each stage is alone, how fast all are together, and how near that is to what these cores allow."""

from __future__ import annotations

import dataclasses
import itertools
import os
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
from streamgan.plan import Plan, build, open_sink, open_source
from streamgan.plugins import Registry
from streamgan.request import Request
from streamgan.stage import TranslateStage
from streamgan.writing.sinks import VideoFileSink

_MEMORY = 160_000_000


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

    @property
    def bound(self) -> float:
        """The most frames per second that the stages allow: the slowest alone, or all their work over all cores."""
        slowest = min(cost.fps for cost in self.costs.values())
        work = sum(cost.cpu for cost in self.costs.values())
        return min(slowest, self.cores / work) if work else slowest

    @property
    def efficiency(self) -> float:
        """End to end over the bound, about 0 to 1."""
        return self.end_to_end / self.bound


def measure(request: Request, registry: Registry, frames: int = 100) -> Measurement:
    """Measures a preset on a clip: each stage alone in memory, then the whole from file to file.

    Args:
        request: what to run; its output is ignored.
        registry: what is installed.
        frames: how many frames to measure at most.

    Raises:
        StreamganError: if the run cannot be built or fails.
    """
    with tempfile.TemporaryDirectory(prefix="streamgan-bench-") as folder:
        request = dataclasses.replace(request, output=str(Path(folder) / "bench.mp4"), overwrite=True)
        plan = build(_shortened(request, registry, frames), registry)
        cv2.setNumThreads(plan.budget.translate)
        costs: dict[str, Cost] = {}
        source_frames, info = _decode(plan, costs)
        made = _translate(plan, info, source_frames, costs)
        _encode(plan, info, made, costs)
        report = pipeline.run(plan)
    size = (info.width, info.height)
    cores = request.threads or len(os.sched_getaffinity(0))
    return Measurement(Path(request.input).name, size, report.frames, costs, report.fps, cores)


def synthetic_clip(path: Path, size: tuple[int, int] = (1280, 720), frames: int = 60) -> Path:
    """Writes a clip that is neither trivial nor noise: moving shapes over a drifting texture.

    Raises:
        StreamganError: if it cannot be written.
    """
    width, height = size
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (height // 8, width // 8 + 64, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (width + 512, height), interpolation=cv2.INTER_CUBIC)
    with VideoFileSink(str(path), Encoding(crf=20, overwrite=True, threads=len(os.sched_getaffinity(0)))) as sink:
        sink.open(VideoInfo(width, height, Fraction(1, 30), Fraction(30)))
        for index in range(frames):
            image = np.asarray(wide[:, index * 4 % 512 :][:, :width], dtype=np.uint8).copy()
            center = (index * 13 % width, round(height * (0.5 + 0.3 * np.sin(index / 9))))
            cv2.circle(image, center, height // 6, (250, 220, 140), -1)
            sink.write(Frame(image, index, Fraction(1, 30), 1))
    return path


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
    """Measures translating, after one batch to warm up; opening the model is not counted."""
    made: list[Frame] = []
    with TranslateStage(plan, info) as stage:
        batches = [frames[index : index + stage.batch] for index in range(0, len(frames), stage.batch)]
        stage.apply(batches[0])
        _timed(costs, STAGES[1], len(frames), lambda: made.extend(itertools.chain(*map(stage.apply, batches))))
    return made


def _encode(plan: Plan, info: VideoInfo, frames: Sequence[Frame], costs: dict[str, Cost]) -> None:
    """Measures encoding, the encoder's delayed last frames included."""
    encoding = dataclasses.replace(plan.encoding, copy_from=None, selection=Selection())
    alone = dataclasses.replace(plan, encoding=encoding)
    height, width = frames[0].image.shape[:2]

    def work() -> None:
        with open_sink(alone) as sink:
            sink.open(dataclasses.replace(info, width=width, height=height))
            for frame in frames:
                sink.write(frame)

    _timed(costs, STAGES[2], len(frames), work)
