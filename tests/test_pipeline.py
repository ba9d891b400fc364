"""The whole line: what a user asks for is what comes out, or one clear error and nothing else."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import picture, read_pts

import streamgan
from streamgan import api, bench, pipeline, plugins
from streamgan.reading.sources import VideoFile
from streamgan.writing.sinks import VideoFileSink

Make = Callable[..., Path]
Preset = Callable[..., str]


class Faulty(api.Translator):
    """Works until frame 7, then does what `fault` says."""

    fault: Callable[[api.Images], object]

    def __init__(self, options: object = None) -> None:
        super().__init__(options)
        self.count = 0

    def translate(self, images: api.Images) -> api.Images:
        self.count += 1
        return images if self.count <= 7 else self.fault(images)  # type: ignore[return-value]


def refuse(images: api.Images) -> object:
    raise KeyError("lost")


def write_into(images: api.Images) -> object:
    images[:] = 0
    return images


FAULTS: dict[str, tuple[Callable[[api.Images], object], str]] = {
    "raises": (refuse, "failed while it translated frame 7 .KeyError: 'lost'"),
    "shape": (lambda images: images[:, :4], r"frame 7: returned \(4, 64\), but \(48, 64\) before"),
    "number": (lambda images: np.concatenate([images, images]), r"expected \(1, height, width, 3\) uint8"),
    "kind": (lambda images: images / 255, "float64, expected"),
    "nothing": (lambda images: None, "returned NoneType, expected a numpy array"),
    "writes": (write_into, "read-only"),
}


def go(registry: plugins.Registry, **fields: object) -> pipeline.Report:
    """Builds and runs."""
    return pipeline.run(pipeline.build(pipeline.Request.of(**fields), registry))


def add(registry: plugins.Registry, name: str, cls: type[api.Translator]) -> None:
    """Makes a translator known."""
    registry.translators[name] = plugins.Provided(name, cls, "tests")


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness of their own")
@pytest.mark.parametrize("concurrent", [False, True])
def test_translating_leaves_the_encoder_the_first_turn(
    make_clip: Make, tmp_path: Path, make_preset: Preset, registry: plugins.Registry, concurrent: bool
) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    seen: dict[str, set[int]] = {"translate": set(), "encode": set()}

    class Noting(api.Translator):
        def translate(self, images: api.Images) -> api.Images:
            seen["translate"].add(niceness())
            return images

    class NotingSink(VideoFileSink):
        def write(self, frame: api.Frame) -> None:
            seen["encode"].add(niceness())
            super().write(frame)

    Noting.concurrent = concurrent
    add(registry, "noting", Noting)
    request = pipeline.Request.of(
        input=str(make_clip()), preset=make_preset("noting"), output=str(tmp_path / "out.mp4"), threads=2
    )
    own, work = niceness(), pipeline.build(request, registry)
    pipeline.run(dataclasses.replace(work, sink=NotingSink))
    assert seen == {"translate": {min(own + 10, 19)}, "encode": {own}} and niceness() == own


def test_a_model_translates_a_film(
    make_clip: Make, negative_model: Path, make_preset: Preset, registry: plugins.Registry
) -> None:
    source = make_clip(audio=True)
    report = go(registry, input=str(source), preset=make_preset("model", model=negative_model.name), crf=1)
    target = source.with_name("clip.trial.mp4")
    assert report.output == str(target) and report.frames == 20 and report.bottleneck in report.busy
    assert read_pts(target) == read_pts(source)
    with VideoFile(str(target)) as frames:
        images = [frame.image for frame in frames.frames()]
    wanted = [255 - picture(index).astype(int) for index in range(20)]
    assert np.abs(np.stack(images).astype(int) - wanted).mean() < 3


def test_strength_and_compare(
    make_clip: Make, negative_model: Path, make_preset: Preset, registry: plugins.Registry
) -> None:
    preset = make_preset("model", model=negative_model.name)
    source, target = make_clip(), make_clip().with_name("out.mp4")
    go(registry, input=str(source), preset=preset, output=str(target), strength=0.5, compare=True, crf=1)
    with VideoFile(str(target)) as frames:
        image = next(frames.frames()).image.astype(int)
    assert image.shape == (48, 128, 3)
    assert np.abs(image[:, :64] - picture(0)).mean() < 4
    assert np.abs(image[:, 66:] - 127.5).mean() < 3


def test_batches_keep_order(make_clip: Make, make_preset: Preset, registry: plugins.Registry) -> None:
    sizes: list[int] = []

    class Batched(api.Translator):
        batch = 8

        def translate(self, images: api.Images) -> api.Images:
            sizes.append(len(images))
            return images

    add(registry, "batched", Batched)
    source = make_clip()
    report = go(registry, input=str(source), preset=make_preset("batched"), output=str(source.with_name("o.mp4")))
    assert sizes == [8, 8, 4] and report.frames == 20
    assert read_pts(source.with_name("o.mp4")) == read_pts(source)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_translator_is_named_with_its_frame(
    fault: str, make_clip: Make, make_preset: Preset, registry: plugins.Registry
) -> None:
    act, message = FAULTS[fault]
    add(registry, "faulty", type("One", (Faulty,), {"fault": staticmethod(act)}))
    source = make_clip()
    with pytest.raises(api.PluginError, match=message) as error:
        go(registry, input=str(source), preset=make_preset("faulty"))
    assert "faulty" in str(error.value)
    assert sorted(os.listdir(source.parent)) == ["clip.mp4", "trial.yaml"]


class FailingSource(VideoFile):
    """Ends with an error after some frames."""

    def frames(self) -> Iterator[api.Frame]:
        for index, frame in enumerate(super().frames()):
            if index == 12:
                raise api.SourceError("the cable was cut")
            yield frame


def test_an_error_of_the_source_ends_all(make_clip: Make, make_preset: Preset, registry: plugins.Registry) -> None:
    registry.sources["file"] = plugins.Provided("file", FailingSource, "tests")
    source = make_clip()
    with pytest.raises(api.SourceError, match="the cable was cut"):
        go(registry, input=str(source), preset=make_preset("identity"))
    assert sorted(os.listdir(source.parent)) == ["clip.mp4", "trial.yaml"]


def test_an_error_of_the_sink_ends_all(make_clip: Make, make_preset: Preset, registry: plugins.Registry) -> None:
    source = make_clip(pts=range(0, 100 * 512, 512), size=(2, 2))
    target = str(source.with_name("o.mp4"))
    with pytest.raises(api.UsageError, match="takes no pictures below 32x32"):
        go(registry, input=str(source), preset=make_preset("identity"), output=target, codec="av1")
    assert sorted(os.listdir(source.parent)) == ["clip.mp4", "trial.yaml"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("streamgan")]


def test_interrupted_says_how_far_it_came(make_clip: Make, make_preset: Preset, registry: plugins.Registry) -> None:
    class Slow(api.Translator):
        def translate(self, images: api.Images) -> api.Images:
            time.sleep(0.05)
            return images

    add(registry, "slow", Slow)
    source = make_clip(pts=range(0, 200 * 512, 512))
    plan = pipeline.build(pipeline.Request.of(input=str(source), preset=make_preset("slow")), registry)

    def interrupt(progress: pipeline.Progress) -> None:
        if progress.frames >= 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(pipeline.Interrupted, match="of 200 frames; nothing was written") as error:
        pipeline.run(plan, interrupt)
    assert 2 <= error.value.frames < 200
    assert sorted(os.listdir(source.parent)) == ["clip.mp4", "trial.yaml"]


def test_the_plan_says_everything(
    make_clip: Make, negative_model: Path, make_preset: Preset, registry: plugins.Registry
) -> None:
    preset = make_preset("model", model=negative_model.name)
    request = pipeline.Request.of(
        input=str(make_clip()), preset=preset, size=32, start=0.2, end=0.6, codec="hevc", crf=30
    )
    text = pipeline.build(request, registry).describe()
    for part in (
        "h264 64x48 25 fps",
        "BT.601, limited range, guessed",
        "from 0.2 s to 0.6 s",
        "size=32",
        "onnxruntime",
        "clip.trial.mp4 (hevc, crf 30)",
        "decode",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"preset": "absent"}, api.UsageError, "absent"),
        ({"input": "absent.mp4"}, api.SourceError, "no such file"),
        ({"strength": 2.0}, api.UsageError, "must be from 0 to 1"),
        ({"start": 3, "end": 2}, api.UsageError, "later than the start"),
        ({"size": 100}, api.UsageError, "has no size"),
        ({"options": {"nonsense": 1}}, api.PresetError, "nonsense"),
        ({"backend": "abacus"}, api.StreamganError, "abacus"),
        ({"start": "noon"}, api.UsageError, "start: 'noon' given, expected a number of seconds"),
        ({"end": float("inf")}, api.UsageError, "end: inf given"),
        ({"audio": "mp3"}, api.UsageError, "audio: 'mp3' given, expected copy, aac, none"),
        ({"sise": 1}, api.UsageError, "no option 'sise'.*size"),
    ],
)
def test_refusals(
    fields: dict[str, object],
    kind: type[Exception],
    message: str,
    make_clip: Make,
    make_preset: Preset,
    registry: plugins.Registry,
) -> None:
    given = {"input": str(make_clip()), "preset": make_preset("identity")} | fields
    with pytest.raises(kind, match=message) as error:
        pipeline.build(pipeline.Request.of(**given), registry)
    assert "\n" not in str(error.value)


def test_from_python(make_clip: Make, negative_model: Path, make_preset: Preset) -> None:
    source = make_clip()
    report = streamgan.run(
        source, preset=make_preset("model", model=negative_model.name), output=source.with_name("n.mp4"), end=0.4
    )
    assert report.frames == 10 and read_pts(source.with_name("n.mp4")) == [Fraction(index, 25) for index in range(10)]


def test_importing_is_light() -> None:
    code = "import sys, streamgan; print([name for name in ('torch', 'av', 'cv2', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_bench_measures_every_stage(
    make_clip: Make, negative_model: Path, make_preset: Preset, registry: plugins.Registry, tmp_path: Path
) -> None:
    clip = bench.synthetic_clip(tmp_path / "synthetic.mp4", (128, 96), 12)
    request = pipeline.Request.of(input=str(clip), preset=make_preset("model", model=negative_model.name))
    measured = bench.measure(request, registry, frames=8)
    assert (measured.size, measured.frames, set(measured.costs)) == ((128, 96), 8, {"decode", "translate", "encode"})
    assert 0 < measured.bound <= min(cost.fps for cost in measured.costs.values()) and measured.efficiency > 0


@pytest.mark.parametrize("given", [0.0, -1.0, float("nan"), float("inf")])
def test_skip_similar_takes_decibels(
    given: float, make_clip: Make, negative_model: Path, make_preset: Preset, registry: plugins.Registry
) -> None:
    preset = make_preset("model", model=negative_model.name)
    with pytest.raises(api.UsageError, match=r"--skip-similar .*: expected dB of PSNR, above 0 and at most 100"):
        go(registry, input=str(make_clip()), preset=preset, skip_similar=given)
