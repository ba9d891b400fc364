"""The stage in the middle: filters, cuts, and what a frame carries beside its picture."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import clips
import engines
import numpy as np
import pytest

from streamgan import api
from streamgan.models import backends, loading
from streamgan.plan import Budget, Plan
from streamgan.preset import Preset
from streamgan.reading import sources
from streamgan.request import Request
from streamgan.stage import TranslateStage
from streamgan.writing import sinks

SIZE = (48, 64)
"""(height, width) of all pictures."""
FILM = api.VideoInfo(SIZE[1], SIZE[0], Fraction(1, 25))


@dataclasses.dataclass
class Told:
    """What plugins were called with, in order."""

    calls: list[str] = dataclasses.field(default_factory=list)


class Translator(api.Translator):
    """Brightens by 10, and tells."""

    told: Told

    def open(self, context: api.Context) -> None:
        self.told.calls.append("open translator")

    def translate(self, images: api.Images) -> api.Images:
        self.told.calls.append(f"translate {len(images)}")
        return images + np.uint8(10)

    def reset(self) -> None:
        self.told.calls.append("reset translator")

    def close(self) -> None:
        self.told.calls.append("close translator")


class Filter(api.Filter):
    """Doubles the difference to the source, and tells."""

    told: Told
    name = "filter"

    def open(self, context: api.Context) -> None:
        self.told.calls.append(f"open {self.name}")

    def apply(self, images: api.Images, made: api.Images) -> api.Images:
        self.told.calls.append(f"apply {len(images)}")
        return made + (made - images)

    def reset(self) -> None:
        self.told.calls.append(f"reset {self.name}")

    def close(self) -> None:
        self.told.calls.append(f"close {self.name}")


@pytest.fixture(autouse=True)
def told() -> Iterator[Told]:
    """The calls of this test."""
    Translator.told = Filter.told = Told()
    yield Translator.told


def make_plan(
    translator: type[api.Translator] = Translator,
    *filters: type[api.Filter],
    strength: float = 1.0,
    compare: bool = False,
) -> Plan:
    """A plan around a translator and filters; nothing of it is opened but these."""
    return Plan(
        request=Request("in.mkv", "trial", compare=compare),
        preset=Preset("Trial", "trial", path=Path("trial.yaml")),
        translator=translator,
        options=None,
        strength=strength,
        source=sources.VideoFile,
        selection=api.Selection(),
        info=None,
        sink=sinks.NullSink,
        output="null:",
        encoding=api.Encoding(),
        backend_name="onnxruntime",
        backend=backends.OnnxRuntime,
        backend_reason="",
        budget=Budget(1, 1, 1),
        filters=tuple((f"f{number}", cls, None) for number, cls in enumerate(filters)),
    )


def make_frames(*scenes: int, length: int = 4, **fields: Any) -> list[api.Frame]:
    """Frames of scenes that have nothing in common, `length` each; a little noise from frame to frame."""
    frames = []
    for scene in scenes:
        picture = np.random.default_rng(scene).integers(0, 100, (6, 8, 3)).repeat(8, 0).repeat(8, 1)
        for number in range(length):
            noise = np.random.default_rng((scene, number)).integers(0, 3, (*SIZE, 3))
            image = (picture + noise).astype(np.uint8)
            frames.append(api.Frame(image, len(frames), Fraction(1, 25), **fields))
    return frames


def apply(plan: Plan, frames: list[api.Frame], batch: int | None = None) -> list[api.Frame]:
    """What a stage makes of frames, shown `batch` at a time."""
    step = batch or len(frames)
    made: list[api.Frame] = []
    with TranslateStage(plan, api.VideoInfo(SIZE[1], SIZE[0], Fraction(1, 25))) as stage:
        for start in range(0, len(frames), step):
            made += stage.apply(frames[start : start + step])
    return made


def test_filters_come_after_the_translation_and_before_the_strength() -> None:
    frames = make_frames(1)
    for strength, gain in ((1.0, 20), (0.5, 10)):
        for frame, result in zip(frames, apply(make_plan(Translator, Filter, strength=strength), frames), strict=True):
            assert np.array_equal(result.image, frame.image + gain)


def test_filters_work_in_the_order_of_the_preset() -> None:
    class Invert(Filter):
        def apply(self, images: api.Images, made: api.Images) -> api.Images:
            return 255 - made

    frame = make_frames(1, length=1)
    (first,) = apply(make_plan(Translator, Filter, Invert), frame)
    (second,) = apply(make_plan(Translator, Invert, Filter), frame)
    source = frame[0].image
    assert np.array_equal(first.image, 255 - (source + 20))
    assert np.array_equal(second.image, 2 * (245 - source) - source)  # modulo 256, as the filter computes


def test_all_are_opened_reset_and_closed_once_in_turn(told: Told) -> None:
    apply(make_plan(Translator, Filter), make_frames(1))
    before, _, after = "|".join(told.calls).partition("|translate 4|apply 4|")
    assert before.split("|") == ["open translator", "reset translator", "open filter", "reset filter"]
    assert after.split("|") == ["close filter", "close translator"]


def test_without_memory_nobody_looks_for_cuts(told: Told) -> None:
    made = apply(make_plan(), make_frames(1, 2, 3))
    assert told.calls.count("reset translator") == 1
    assert told.calls.count("translate 12") == 1
    assert not any(frame.cut for frame in made)


@pytest.mark.parametrize("batch", [1, 3, 12])
def test_a_batch_is_split_at_a_cut_and_memories_are_wiped(told: Told, batch: int) -> None:
    class Remembering(Translator):
        memory = True

    made = apply(make_plan(Remembering, Filter), make_frames(1, 2, 3), batch)
    assert [number for number, frame in enumerate(made) if frame.cut] == [4, 8]
    lengths = [0]
    for call in told.calls[4:]:
        if call == "reset translator":
            lengths.append(0)
        elif call.startswith("translate "):
            lengths[-1] += int(call.split()[1])
    assert lengths == [4, 4, 4]
    assert told.calls.count("reset filter") == 3


def test_a_translator_without_memory_is_not_reset_for_a_filter(told: Told) -> None:
    apply(make_plan(Translator, Filter), make_frames(1, 2))
    assert (told.calls.count("reset translator"), told.calls.count("reset filter")) == (1, 2)


def test_a_run_that_begins_at_a_cut_makes_the_same(told: Told) -> None:
    class Averaging(Filter):
        past: Any = None

        def apply(self, images: api.Images, made: api.Images) -> api.Images:
            results = []
            for image in made:
                self.past = image if self.past is None else (self.past // 2 + image // 2)
                results.append(self.past)
            return np.stack(results)

        def reset(self) -> None:
            self.past = None

    frames = make_frames(1, 2, 3)
    whole = apply(make_plan(Translator, Averaging), frames, 1)
    part = apply(make_plan(Translator, Averaging), frames[4:], 1)
    assert [frame.image.tobytes() for frame in whole[4:]] == [frame.image.tobytes() for frame in part]


def test_what_a_frame_carries_goes_along() -> None:
    alpha, fine = np.arange(48 * 64).reshape(SIZE).astype(np.uint8), np.full((*SIZE, 3), -7, np.int8)
    for frame in apply(make_plan(Translator, Filter), make_frames(1, alpha=alpha, fine=fine)):
        assert frame.alpha is not None and np.array_equal(frame.alpha, alpha)
        assert frame.fine is not None and np.array_equal(frame.fine, fine)


@pytest.mark.parametrize(("factor", "compare"), [(1, True), (2, False), (2, True)])
def test_what_a_frame_carries_has_the_size_of_the_result(factor: int, compare: bool) -> None:
    class Enlarging(Translator):
        def translate(self, images: api.Images) -> api.Images:
            return images.repeat(factor, 1).repeat(factor, 2)

    alpha, fine = np.full(SIZE, 9, np.uint8), np.full((*SIZE, 3), -7, np.int8)
    for frame in apply(make_plan(Enlarging, compare=compare), make_frames(1, alpha=alpha, fine=fine)):
        height, width = SIZE[0] * factor, SIZE[1] * factor * (1 + compare)
        assert frame.image.shape == (height, width, 3)
        assert frame.alpha is not None and frame.alpha.shape == (height, width) and (frame.alpha == 9).all()
        assert frame.fine is not None and frame.fine.shape == (height, width, 3) and frame.fine.dtype == np.int8


FAULTS: dict[str, tuple[Callable[[api.Images], object], str]] = {
    "raises": (lambda made: made[99], r"filter 'f0' failed while it filtered frame 0 \(IndexError: "),
    "size": (lambda made: made[:, :4], r"filter 'f0' at frame 0: returned \(4, 4, 64, 3\) uint8, but \(48, 64\)"),
    "number": (lambda made: made[:1], r"expected \(4, height, width, 3\) uint8"),
    "kind": (lambda made: made / 255, "float64, expected"),
    "nothing": (lambda made: None, "returned NoneType, expected a numpy array"),
    "writes": (lambda made: made.sort(), "read-only"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_filter_is_named(told: Told, fault: str) -> None:
    class Faulty(Filter):
        def apply(self, images: api.Images, made: api.Images) -> api.Images:
            return FAULTS[fault][0](made)  # type: ignore[return-value]

    with pytest.raises(api.PluginError, match=FAULTS[fault][1]):
        apply(make_plan(Translator, Faulty), make_frames(1))
    assert told.calls[-2:] == ["close filter", "close translator"]


def test_what_was_opened_is_closed_if_the_rest_cannot_be(told: Told) -> None:
    class Broken(Filter):
        def open(self, context: api.Context) -> None:
            raise api.BackendError("no such device")

    with pytest.raises(api.BackendError, match="no such device"):
        apply(make_plan(Translator, Broken), make_frames(1))
    assert told.calls[-2:] == ["close filter", "close translator"]


class Slow(api.Translator):
    """Keeps the first pictures of every four for longest, so that threads finish out of order."""

    concurrent = True
    threads: set[str]

    def translate(self, images: api.Images) -> api.Images:
        self.threads.add(threading.current_thread().name)
        time.sleep(0.03 if int(images[0, 0, 0, 0]) % 4 == 0 else 0.001)
        return images + np.uint8(1)


def grays(levels: Iterable[int]) -> list[api.Frame]:
    """Frames of one grey each, in a row."""
    made = (np.full((*SIZE, 3), level, np.uint8) for level in levels)
    return [api.Frame(image, pts, Fraction(1, 25), 1) for pts, image in enumerate(made)]


def streamed(plan: Plan, frames: Sequence[api.Frame]) -> list[api.Frame]:
    """What the stage makes of frames that come one by one."""
    with TranslateStage(plan, api.VideoInfo(SIZE[1], SIZE[0], Fraction(1, 25))) as stage:
        return [frame for made in stage.stream([frame] for frame in frames) for frame in made]


def test_several_threads_translate_and_the_order_stays() -> None:
    threads: set[str] = set()
    plan = dataclasses.replace(make_plan(type("Slow", (Slow,), {"threads": threads})), budget=Budget(1, 4, 1))
    made = streamed(plan, grays(range(0, 200, 2)))
    assert [frame.pts for frame in made] == [*range(100)]
    assert [int(frame.image[0, 0, 0]) for frame in made] == [*range(1, 201, 2)]
    assert len(threads) > 1 and threading.current_thread().name not in threads


def test_one_thread_where_something_has_a_memory() -> None:
    threads: set[str] = set()
    for kind in ({"memory": True}, {"concurrent": False}):
        plan = make_plan(type("Slow", (Slow,), {"threads": threads, **kind}))
        streamed(dataclasses.replace(plan, budget=Budget(1, 4, 1)), grays(range(8)))
    assert threads == {threading.current_thread().name}


def test_an_error_in_a_thread_names_its_frame_and_ends_the_others() -> None:
    def translate(self: Any, images: api.Images) -> api.Images:
        assert images[0, 0, 0, 0] != 7, "seven"
        return images

    before = threading.active_count()
    with pytest.raises(api.PluginError, match=r"while it translated frame 7.*seven"):
        plan = make_plan(type("Seven", (Slow,), {"translate": translate}))
        streamed(dataclasses.replace(plan, budget=Budget(1, 4, 1)), grays(range(50)))
    assert threading.active_count() == before


def test_similar_frames_are_shown_as_the_one_before() -> None:
    plan = make_plan(type("Slow", (Slow,), {"threads": set()}))
    plan = dataclasses.replace(plan, request=dataclasses.replace(plan.request, skip_similar=40.0))
    frames = grays([10, 10, 11, 12, 60, 60, 10])  # 40 dB is 2.5 levels, from the frame that was translated last
    for size in (1, 3, 7):
        with TranslateStage(dataclasses.replace(plan, budget=Budget(1, size, 1)), FILM) as stage:
            batches = [frames[first : first + size] for first in range(0, 7, size)]
            made = [frame for part in stage.stream(batches) for frame in part]
            assert stage.skipped == 4
        assert [int(frame.image[0, 0, 0]) for frame in made] == [11, 11, 11, 11, 61, 61, 11]
        assert [frame.pts for frame in made] == [*range(7)]


def test_a_similar_frame_that_carries_more_is_translated() -> None:
    plan = make_plan(type("Slow", (Slow,), {"threads": set()}))
    plan = dataclasses.replace(plan, request=dataclasses.replace(plan.request, skip_similar=40.0))
    frames = [dataclasses.replace(frame, alpha=np.full(SIZE, 100 + frame.pts, np.uint8)) for frame in grays([10, 10])]
    made = streamed(plan, frames)
    assert [int(frame.alpha[0, 0]) for frame in made if frame.alpha is not None] == [100, 101]


def test_the_first_frame_of_a_segment_is_translated_whatever_it_is_like() -> None:
    plan = make_plan(type("Slow", (Slow,), {"threads": set()}))
    plan = dataclasses.replace(plan, request=dataclasses.replace(plan.request, skip_similar=40.0, segment=4))
    with TranslateStage(plan, api.VideoInfo(SIZE[1], SIZE[0], Fraction(1, 25))) as stage:
        made = [frame for part in stage.stream([frame] for frame in grays([10] * 3 + [11] * 7)) for frame in part]
    assert [int(frame.image[0, 0, 0]) for frame in made] == [11] * 4 + [12] * 6, "else --resume makes another film"


def test_what_failed_no_longer_counts_as_at_work() -> None:
    def translate(self: Any, images: api.Images) -> api.Images:
        raise ValueError("no")

    with TranslateStage(make_plan(type("No", (Slow,), {"translate": translate})), FILM) as stage:
        with pytest.raises(api.PluginError, match="no"):
            stage.apply(grays([1]))
        assert stage.working_since is None, "else a translator that works is taken for one that hangs"


def test_what_stood_in_for_the_model_runs_what_is_derived_from_it(tmp_path: Path) -> None:
    clips.write_model(tmp_path / "whole.onnx", -1.0, 255.0)
    clips.write_model(tmp_path / "part.onnx", -1.0, 255.0)

    class Deriving(Slow):
        def open(self, context: api.Context) -> None:
            for name in ("whole.onnx", "part.onnx"):
                context.load_model(name)

    Deriving.threads = set()
    Deriving.Options = dataclasses.make_dataclass("Options", [("model", str, "whole.onnx")], frozen=True)
    wrong, right = engines.make(50, streams=4, faults={"fp32": engines.black}), engines.make(10, streams=2)
    plan = dataclasses.replace(
        make_plan(Deriving),
        options=Deriving.Options(),
        preset=Preset("Trial", "trial", path=tmp_path / "trial.yaml"),
        setup=loading.Setup("wrong", "fp32", 4, 4),
        backend_name="wrong",
        backend=wrong,
        backends={"wrong": wrong, "right": right},
        budget=Budget(1, 4, 1),
    )
    with TranslateStage(plan, FILM) as stage:
        (note,) = stage.notes
        assert note.startswith("wrong fp32, 4 streams is not used but right fp32, 2 streams")
        assert (stage.plan.backend_name, stage.plan.backend) == ("right", right), "what the record says"
        [*stage.stream([frame] for frame in grays(range(20)))]
    assert right.told.loads == [("whole.onnx", "fp32", 2), ("part.onnx", "fp32", 2)]
    assert len(Deriving.threads) <= 2, "more threads than the sessions were loaded for"
