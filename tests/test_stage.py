"""The stage in the middle: filters, cuts, and what a frame carries beside its picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamgan import api
from streamgan.models import backends
from streamgan.plan import Budget, Plan
from streamgan.preset import Preset
from streamgan.reading import sources
from streamgan.request import Request
from streamgan.stage import TranslateStage
from streamgan.writing import sinks

SIZE = (48, 64)
"""(height, width) of all pictures."""


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
