"""The choice of a backend: measured once, remembered, and never a wrong one."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import engines
import numpy as np
import pytest
from clips import write_model

from streamgan import api
from streamgan.models import choice, loading, trials
from streamgan.models.backends import OnnxRuntime
from streamgan.models.choice import Wanted, choose
from streamgan.models.loading import Setup
from streamgan.models.translate import ModelTranslator

SIZE = (48, 32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the folder of choices in it."""
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "choices"


@pytest.fixture(autouse=True)
def speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions are as fast as they say; ONNX Runtime, which does not, makes 50 frames per second."""
    monkeypatch.setattr(trials, "frames_per_second", lambda session, *_: getattr(session, "speed", 50.0))


@pytest.fixture
def wanted(negative_model: Path) -> Wanted:
    """The model that inverts, for a film, with two threads."""
    return Wanted(negative_model, SIZE, 2)


def only_fp32() -> type[api.Backend]:
    """ONNX Runtime with one way to run a model."""
    return type("Single", (OnnxRuntime,), {"max_streams": 1, "precisions": ("fp32",)})


def test_the_fastest_is_taken_and_remembered(wanted: Wanted) -> None:
    backends = {"fast": engines.make(5, speeds=200.0), "slow": engines.make(90, speeds=20.0), "ort": only_fp32()}
    said: list[str] = []
    first = choose(backends, wanted, said.append)
    assert first.setup == Setup("fast", "fp32", 1, 2) and first.fresh and first.measured
    assert first.reason == "the fastest of 3 tried: 200.0 frames/s; ort fp32 50.0"
    assert said[0] == "measuring what runs negative.onnx fastest here, once ..." and "slow fp32: 20.0 frames/s" in said
    loads = len(backends["fast"].told.loads)  # type: ignore[attr-defined]
    second = choose(backends, wanted, said.append)
    assert second == dataclasses.replace(first, fresh=False)
    assert len(backends["fast"].told.loads) == loads, "nothing is loaded for a choice that is remembered"  # type: ignore[attr-defined]
    assert choose(backends, wanted, again=True).fresh


def test_fp32_wins_unless_another_is_faster_by_more_than_noise(wanted: Wanted) -> None:
    for speed, precision in ((104.0, "fp32"), (120.0, "bf16")):
        speeds = {("bf16", 1): speed, ("fp32", 1): 100.0}
        backends = {"cpu": engines.make(precisions=("fp32", "bf16"), speeds=speeds, says=f"{speed}")}
        chosen = choose(backends, wanted)
        assert chosen.setup.precision == precision
    assert "fastest" in chosen.reason


def test_a_wrong_one_is_out_however_fast(wanted: Wanted) -> None:
    speeds = {("fp16", 1): 900.0, ("fp32", 1): 60.0}
    gpu = engines.make(50, precisions=("fp16", "fp32"), speeds=speeds, faults={"fp16": engines.black})
    chosen = choose(
        {"gpu": gpu, "broken": engines.make(60, faults={"fp32": engines.broken}), "ort": only_fp32()}, wanted
    )
    assert chosen.setup == Setup("gpu", "fp32", 1, 2) and chosen.reason.endswith("wrong pictures: gpu fp16")
    notes = {str(trial.setup): trial.note for trial in chosen.trials}
    assert "black or flat" in notes["gpu fp16"] and "driver lost" in notes["broken fp32"] and not notes["ort fp32"]


def test_nothing_but_wrong_ones_leaves_it_to_the_ranks_and_loading_to_refuse(wanted: Wanted) -> None:
    backends = {"gpu": engines.make(precisions=("fp16", "fp32"), refuses=("fp16", "fp32"))}
    chosen = choose(backends, wanted)
    assert chosen.setup.backend == "gpu" and not chosen.measured


def test_int8_is_tried_where_there_is_a_quantised_file(tmp_path: Path, wanted: Wanted) -> None:
    speeds = {("int8", 1): 300.0, ("fp32", 1): 100.0}
    backends = {"cpu": engines.make(precisions=("fp32", "int8"), speeds=speeds), "ort": only_fp32()}
    assert choose(backends, wanted).setup.precision == "fp32"
    write_model(tmp_path / "negative.int8.onnx", -1.0, 255.0, of=wanted.path)
    assert choose(backends, wanted).setup.precision == "int8"


def test_streams(wanted: Wanted) -> None:
    speeds = {("fp32", 1): 100.0, ("fp32", 2): 130.0, ("fp32", 4): 160.0}
    cpu = engines.make(streams=4, speeds=speeds)
    backends = {"cpu": cpu, "slow": engines.make(90, speeds=20.0)}
    assert choose(backends, wanted).setup == Setup("cpu", "fp32", 2, 2), "never more streams than threads"
    loads = len(cpu.told.loads)
    live = choose(backends, dataclasses.replace(wanted, streams=1))
    assert live.setup == Setup("cpu", "fp32", 1, 2) and live.measured, "one picture at a time, as live video wants it"
    assert len(cpu.told.loads) == loads, "the same trials answer both"
    assert choose({"cpu": cpu}, dataclasses.replace(wanted, threads=8)).setup.streams == 4
    even = engines.make(streams=2, speeds={("fp32", 1): 100.0, ("fp32", 2): 97.0}, says="2.0")
    assert choose({"cpu": even}, wanted).setup.streams == 2, "as fast, and it waits less"


def test_streams_are_tried_only_of_what_comes_near_the_best(wanted: Wanted) -> None:
    fast = engines.make(streams=2, speeds={("fp32", 1): 100.0, ("fp32", 2): 130.0})
    slow = engines.make(streams=2, speeds={("fp32", 1): 50.0, ("fp32", 2): 60.0})
    chosen = choose({"fast": fast, "slow": slow}, wanted)
    assert [str(trial.setup) for trial in chosen.trials] == ["fast fp32", "fast fp32, 2 streams", "slow fp32"]


def test_a_backend_that_compiles_for_minutes_is_loaded_once(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_SLOW", 0.0)
    gpu = engines.make(precisions=("fp32", "bf16", "fp16"), refuses=("fp16",))
    chosen = choose({"gpu": gpu}, wanted)
    assert chosen.setup.precision == "bf16"
    assert [trial.note for trial in chosen.trials] == [
        "fake: no fp16 on this machine",
        "",
        "not tried: loading takes long, and bf16 works",
    ]


def test_what_is_asked_for_limits_the_trial(wanted: Wanted) -> None:
    speeds = {("fp32", 1): 10.0, ("bf16", 1): 20.0}
    backends = {
        "cpu": engines.make(precisions=("fp32", "bf16"), speeds=speeds),
        "gpu": engines.make(50, precisions=("fp16", "fp32"), speeds=900.0),
        "last": engines.make(1, speeds=999.0),
        "gone": engines.make(60, usable=False, says="needs a thing"),
    }
    ask = lambda **asked: choose(backends, dataclasses.replace(wanted, **asked))  # noqa: E731
    assert ask().setup.backend == "gpu", "what is only for who asks for it is not tried"
    assert ask(backend="cpu").setup == Setup("cpu", "bf16", 1, 2)
    assert ask(precision="bf16").setup == Setup("cpu", "bf16", 1, 2)
    assert ask(backend="cpu", precision="fp32").setup == Setup("cpu", "fp32", 1, 2)
    assert ask(backend="last").setup == Setup("last", "auto", 1, 2)
    with pytest.raises(api.BackendError, match=r"precision fp16: backend cpu has fp32, bf16; .* have it here: gpu"):
        ask(backend="cpu", precision="fp16")
    with pytest.raises(api.BackendError, match=r"precision int8 needs the quantised file negative\.int8\.onnx"):
        ask(precision="int8")
    write_model(wanted.path.with_name("negative.int8.onnx"), -1.0, 255.0, of=wanted.path)
    with pytest.raises(api.BackendError, match=r"precision int8: .* have it here: none"):
        ask(precision="int8")
    with pytest.raises(api.BackendError, match="backend gone: cannot be used, needs a thing"):
        ask(backend="gone")


def test_what_changed_is_measured_again(wanted: Wanted) -> None:
    backends: dict[str, Any] = {"a": engines.make(says="a 1.0"), "b": engines.make()}
    assert choose(backends, wanted).fresh
    assert not choose(backends, dataclasses.replace(wanted, size=(46, 32))).fresh, "about the same size"
    assert choose(backends, dataclasses.replace(wanted, size=(96, 64))).fresh
    assert choose(backends, dataclasses.replace(wanted, threads=1)).fresh
    assert choose({**backends, "a": engines.make(says="a 1.1")}, wanted).fresh
    assert choose({"b": backends["b"], "c": engines.make()}, wanted).fresh
    write_model(wanted.path, -1.0, 254.0)
    changed = choose(backends, wanted)
    assert not changed.measured, "both compute what the old file did: wrong now, and only a new trial can tell"


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"trials": 3}', '{"trials": [{"setup": 1}]}'])
def test_a_corrupt_cache_is_measured_again(wanted: Wanted, cache: Path, content: str) -> None:
    backends = {"a": engines.make(), "b": engines.make(speeds=150.0)}
    choose(backends, wanted)
    (file,) = cache.glob("*.json")
    file.write_text(content)
    assert not choice.kept()
    assert choose(backends, wanted).fresh and len(choice.kept()) == 1


def test_by_rank_where_it_cannot_be_measured(wanted: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backends = {"a": engines.make(50), "b": engines.make(speeds=999.0)}
    card = dataclasses.replace(loading.card_of(wanted.path), inputs=("statistics",))
    with monkeypatch.context() as patch:
        patch.setattr(loading, "card_of", lambda path: card)
        assert choose(backends, wanted) == choice.by_rank(backends, wanted)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "file"))
    chosen = choose(backends, wanted)
    assert chosen.setup == Setup("a", "auto", 1, 2) and "expected to be the fastest" in chosen.reason
    assert choose(backends, wanted, again=True).setup.backend == "b", "streamgan tune measures all the same"


def test_one_way_needs_no_trial(wanted: Wanted) -> None:
    single = engines.make()
    chosen = choose({"single": single}, wanted)
    assert chosen.setup == Setup("single", "auto", 1, 2) and not chosen.measured and not single.told.loads


def test_what_is_remembered_can_be_listed(wanted: Wanted) -> None:
    backends = {"a": engines.make(), "b": engines.make(precisions=("fp32", "bf16"), speeds=20.0)}
    choose(backends, wanted)
    choose(backends, dataclasses.replace(wanted, backend="b"))
    by_asked = {each.asked: each for each in choice.kept()}
    assert by_asked[""].choice.setup.backend == "a" and by_asked["b"].choice.setup.backend == "b"
    assert by_asked[""].model == "negative" and by_asked[""].size == SIZE and by_asked[""].choice.measured


def test_what_another_process_measured_meanwhile_is_taken(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    backends = {"a": engines.make(), "b": engines.make(speeds=20.0)}

    @contextlib.contextmanager
    def held(kind: str) -> Iterator[None]:
        monkeypatch.undo()
        monkeypatch.setenv("STREAMGAN_CACHE", str(wanted.path.parent / "cache"))
        assert choose(backends, wanted).fresh
        yield

    monkeypatch.setattr(choice.memo, "held", held)
    assert not choose(backends, wanted).fresh


def test_the_best_of_two_heats_counts(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    heats = iter([90.0, 100.0, 95.0, 130.0])  # a, b, then in reverse order b, a
    monkeypatch.setattr(trials, "frames_per_second", lambda *_: next(heats))
    chosen = choose({"a": engines.make(20), "b": engines.make(10)}, wanted)
    assert chosen.setup.backend == "a"
    assert [trial.fps for trial in chosen.trials] == [130.0, 100.0]


class Together(engines.Session):
    """Goes on only when so many threads are inside at once."""

    def __init__(self, streams: int) -> None:
        super().__init__(engines.Told(), "fp32", 0.0, None)
        self.barrier, self.warm = threading.Barrier(streams), False

    def run(self, images: api.Images, inputs: Any = None) -> api.Images:
        if self.warm:
            self.barrier.wait(timeout=20)
        self.warm = True
        return images


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_streams_are_measured_with_as_many_threads(streams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(trials, "_MOST_CALLS", 8)  # a multiple of the streams: the barrier opens for all
    image = np.zeros((1, 4, 4, 3), np.uint8)
    assert trials.frames_per_second(Together(streams), image, streams, 0.01) > 0


def test_the_size_that_a_model_sees(tmp_path: Path) -> None:
    path, options = write_model(tmp_path / "m.onnx", 1.0, 0.0, multiple_of=16), ModelTranslator.Options
    assert choice.model_size(path, (1280, 720), options(size=224)) == (400, 224)
    assert choice.model_size(path, (1280, 720), options(tile=512)) == (512, 512)
    assert choice.model_size(path, (320, 180), None) == (320, 192)


def test_the_model_that_options_name(tmp_path: Path) -> None:
    options = ModelTranslator.Options
    assert choice.model_of(tmp_path, options(model="m.onnx")) == tmp_path / "m.onnx"
    assert choice.model_of(tmp_path, options()) is None and choice.model_of(tmp_path, None) is None


def test_live_video_has_one_stream() -> None:
    concurrent = type("Concurrent", (ModelTranslator,), {"concurrent": True})
    single = type("Single", (ModelTranslator,), {"concurrent": False})
    assert choice.most_streams(concurrent, live=False) > 1
    assert choice.most_streams(concurrent, live=True) == choice.most_streams(single, live=False) == 1


def test_an_empty_name_of_a_cache_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMGAN_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert api.cache_folder("choices") == tmp_path / "xdg/streamgan/choices"


def test_a_remembered_choice_imports_no_runtime(
    make_clip: Callable[..., Path], make_preset: Callable[..., str]
) -> None:
    code = (
        "import sys; from streamgan import plan, plugins; from streamgan.request import Request\n"
        "plan.build(Request(*sys.argv[1:], backend='onnxruntime'), plugins.load())\n"
        "print(*{'onnxruntime', 'pydantic', 'torch'} & set(sys.modules))"
    )
    clip, preset = make_clip(), make_preset("model", model="negative.onnx")
    write_model(Path(preset).with_name("negative.onnx"), -1.0, 255.0)
    for imported in ("onnxruntime", ""):
        done = subprocess.run([sys.executable, "-c", code, clip, preset], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == imported
