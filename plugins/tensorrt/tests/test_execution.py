"""What is asked of CUDA and TensorRT, in which order, and what is left behind. No GPU has run this: see conftest.py."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamgan import api, testing
from streamgan.testing import BackendTests
from streamgan_tensorrt import TensorRt, engines, runtime
from streamgan_tensorrt.profiles import Profile

BYTES = 48 * 64 * 3
ALLOCATED = [f"allocate {BYTES}", f"pin {BYTES}"]
CALLS = ["copy in", "network", "copy out"]
RECORDED = ["begin recording", *CALLS, "end recording", "instantiate", "destroy graph"]


class TestContract(BackendTests):
    """All of the contract of backends, on a GPU that is none."""

    @pytest.fixture
    def backend_class(self, gpu: Any) -> Iterator[type[TensorRt]]:
        """What to test; afterwards nothing may be left on the GPU."""
        yield TensorRt
        assert gpu.cuda.clean


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model file."""
    return testing.make_model(tmp_path / "tiny.onnx")


@pytest.fixture
def session(gpu: Any, model: Path) -> Iterator[api.Session]:
    """It, in fp32."""
    loaded = TensorRt().load(model, threads=1, precision="fp32")
    yield loaded
    loaded.close()
    assert gpu.cuda.clean


def check(session: api.Session, count: int = 1, height: int = 48, width: int = 64, seed: int = 0) -> None:
    """The session must compute what the model does."""
    images = testing.make_images(count, height, width, seed)
    difference = session.run(images).astype(int) - testing.reference(images)
    assert np.abs(difference).max() <= 1


def since(gpu: Any, number: int) -> list[str]:
    """The calls since so many were made."""
    calls: list[str] = gpu.cuda.calls[number:]
    return calls


def test_the_first_pictures_run_call_by_call_and_then_they_are_recorded(gpu: Any, session: api.Session) -> None:
    check(session)
    assert gpu.cuda.calls == ["make stream", "wait", *ALLOCATED, *ALLOCATED, *CALLS, "wait", *RECORDED]


def test_later_pictures_are_one_launch(gpu: Any, session: api.Session) -> None:
    check(session)
    made = len(gpu.cuda.calls)
    check(session, seed=1)
    check(session, seed=2)
    assert since(gpu, made) == ["launch", "wait"] * 2


def test_another_shape_is_prepared_and_recorded_anew(gpu: Any, model: Path) -> None:
    source = engines.Source.open(gpu.runtime, model, "fp32", None)
    engines.make(source, [Profile.spanning([(1, 48, 64), (1, 8, 8), (2, 96, 96)])], lambda done, phase: None)
    session = TensorRt().load(model, threads=1, precision="fp32")
    check(session)
    made = len(gpu.cuda.calls)
    check(session, height=24)
    room = [f"allocate {BYTES // 2}", f"pin {BYTES // 2}"]
    freed = ["wait", "destroy graph", "unpin", "free", "unpin", "free"]
    assert since(gpu, made) == [*freed, *room, *room, *CALLS, "wait", *RECORDED]
    check(session, height=24, seed=4)
    assert gpu.cuda.calls[-2:] == ["launch", "wait"]
    assert len(gpu.built) == len(gpu.contexts) == 1, "one engine covers both shapes"
    session.close()
    assert gpu.cuda.clean


def test_the_profile_that_covers_the_shape_is_taken(gpu: Any, model: Path) -> None:
    source = engines.Source.open(gpu.runtime, model, "fp32", None)
    profiles = [Profile.static((1, 8, 8)), Profile.static((1, 48, 64)), Profile.static((2, 48, 64))]
    engines.make(source, profiles, lambda done, phase: None)
    session = TensorRt().load(model, threads=1, precision="fp32")
    for count, profile in ((1, 1), (2, 2), (1, 1)):
        check(session, count)
        assert gpu.contexts[0].active_optimization_profile == profile
    session.close()


@pytest.mark.parametrize("failing", ["begin recording", "network", "end recording", "instantiate"])
def test_what_cannot_be_recorded_runs_call_by_call(failing: str, gpu: Any, session: api.Session) -> None:
    gpu.refuses_to_be_recorded = failing == "network"
    gpu.cuda.failing[failing] = 0
    check(session)
    made = len(gpu.cuda.calls)
    check(session, seed=1)
    assert since(gpu, made) == [*CALLS, "wait"]


def test_an_engine_that_says_it_cannot_be_recorded_is_not(gpu: Any, session: api.Session) -> None:
    gpu.recordable = False
    check(session)
    check(session, seed=1)
    assert "begin recording" not in gpu.cuda.calls


@pytest.mark.parametrize(
    "failing, words",
    [
        (f"allocate {BYTES}", "making room for 0 MB of 'frames' (out of memory)"),
        (f"pin {BYTES}", "pinning 'frames' (out of memory)"),
        ("wait", "running the network (out of memory)"),
    ],
)
def test_a_failure_is_said_in_one_line_and_the_next_run_begins_afresh(
    failing: str, words: str, gpu: Any, session: api.Session
) -> None:
    gpu.cuda.failing[failing] = 1 if failing == "wait" else 0  # the first is that of an empty stream
    with pytest.raises(api.BackendError) as caught:
        session.run(testing.make_images(1))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    check(session)
    check(session, seed=1)
    assert gpu.cuda.calls[-2:] == ["launch", "wait"]


def test_a_launch_that_fails_is_said(gpu: Any, session: api.Session) -> None:
    check(session)
    gpu.cuda.failing["launch"] = 0
    with pytest.raises(api.BackendError, match=r"starting the network \(out of memory\)"):
        session.run(testing.make_images(1))
    check(session)


def test_a_network_that_cannot_be_started_is_said(gpu: Any, session: api.Session) -> None:
    gpu.refuses_to_run = True
    with pytest.raises(api.BackendError, match="could not be started"):
        session.run(testing.make_images(1))
    gpu.refuses_to_run = False
    check(session)


def test_a_gpu_without_room_for_a_context_is_said(gpu: Any, session: api.Session) -> None:
    gpu.room = False
    with pytest.raises(api.BackendError, match=r"tiny.onnx: no room on the GPU"):
        session.run(testing.make_images(1))
    gpu.room = True
    check(session)


def test_an_input_that_is_missing_or_unknown_is_said(gpu: Any, session: api.Session, tmp_path: Path) -> None:
    with pytest.raises(api.BackendError, match="'domain'"):
        session.run(testing.make_images(1), {"domain": np.array([1])})
    several = testing.make_model(tmp_path / "domains.onnx", ("a", "b"))
    loaded = TensorRt().load(several, threads=1, precision="fp32")
    with pytest.raises(api.BackendError, match="needs the input domain"):
        loaded.run(testing.make_images(1))
    loaded.close()


def test_two_threads_run_at_once_each_in_a_stream_of_its_own(gpu: Any, model: Path) -> None:
    session = TensorRt().load(model, threads=2, precision="fp32", streams=2)
    meeting, seen = threading.Barrier(2), set()

    def during(context: Any) -> None:
        seen.add(id(context))
        meeting.wait(timeout=20)  # breaks unless both are at work at once

    gpu.during = during

    def work(seed: int) -> None:
        for number in range(3):
            check(session, seed=10 * seed + number)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, range(2)))
    assert len(seen) == 2
    assert gpu.cuda.calls.count("make stream") == 2
    session.close()
    assert gpu.cuda.clean


def test_only_a_few_engines_stay_on_the_gpu(gpu: Any, session: api.Session) -> None:
    for height in (8, 16, 24, 32, 40):
        check(session, height=height)
    assert gpu.cuda.calls.count("destroy stream") == 1
    check(session, height=8)
    assert len(gpu.built) == 5, "what made room is loaded again, not built"


def test_a_closed_session_says_so(gpu: Any, session: api.Session) -> None:
    check(session)
    session.close()
    with pytest.raises(api.BackendError, match="closed"):
        session.run(testing.make_images(1))


def test_an_engine_that_is_refused_is_built_again_once(gpu: Any, session: api.Session, model: Path) -> None:
    check(session)
    gpu.refused = 1
    again = TensorRt().load(model, threads=1, precision="fp32")
    check(again)
    again.close()
    assert len(gpu.built) == 2
    gpu.refused = 2
    last = TensorRt().load(model, threads=1, precision="fp32")
    with pytest.raises(api.BackendError, match=r"refuses the engine that it has built \(made by another version\)"):
        last.run(testing.make_images(1))
    last.close()


def test_compiled_kernels_are_kept_and_damaged_ones_are_not_handed_in(
    gpu: Any, session: api.Session, model: Path, private_cache: Path
) -> None:
    check(session)
    (file,) = private_cache.glob("*.kernels")
    for damaged in (False, True):
        if damaged:
            file.write_bytes(file.read_bytes()[:-1] + b"!")
        again = TensorRt().load(model, threads=1, precision="fp32")
        check(again)
        again.close()
    assert gpu.kernels == [b"compiled"]


def test_tensorrt_itself_compiles_nothing_at_run_time(
    gpu: Any, model: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "load", lambda: dataclasses.replace(gpu.runtime, portable=False))
    session = TensorRt().load(model, threads=1, precision="fp32")
    check(session)
    session.close()
    assert not list(private_cache.glob("*.kernels"))


def test_the_real_bindings_take_these_arguments(gpu: Any) -> None:
    """Without a GPU each call fails with a status, but a wrong number or kind of arguments would be a TypeError."""
    real = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings")
    stream, toward = real.cudaStream_t(0), real.cudaMemcpyKind.cudaMemcpyHostToDevice
    arguments: dict[str, tuple[Any, ...]] = {
        "cudaStreamCreateWithFlags": (real.cudaStreamNonBlocking,),
        "cudaStreamSynchronize": (stream,),
        "cudaMalloc": (0,),
        "cudaHostAlloc": (0, real.cudaHostAllocDefault),
        "cudaMemcpyAsync": (0, 0, 0, toward, stream),
        "cudaStreamEndCapture": (stream,),
        "cudaGraphInstantiate": (real.cudaGraph_t(0), 0),
        "cudaGraphLaunch": (real.cudaGraphExec_t(0), stream),
        "cudaGetLastError": (),
    }
    for name, given in arguments.items():
        status, *values = getattr(real, name)(*given)
        assert isinstance(status, real.cudaError_t), name
        assert len(values) == inspect.signature(getattr(gpu.cuda, name)).return_annotation.count(","), name
    assert real.cudaGetErrorString(real.cudaError_t.cudaErrorMemoryAllocation)[1] == b"out of memory"
    used = [name for name in vars(type(gpu.cuda)) if name.startswith("cuda")]
    assert not [name for name in used if not hasattr(real, name)]
    mode = real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    assert mode and real.cudaMemcpyKind.cudaMemcpyDeviceToHost and int(stream) == 0


def test_tensorrt_has_all_that_is_asked_of_it() -> None:
    if runtime.installed() is None:
        pytest.skip("needs TensorRT or TensorRT-RTX")
    trt = runtime.load().module
    engine = "num_optimization_profiles get_tensor_dtype get_tensor_profile_shape create_execution_context"
    context = "active_optimization_profile set_optimization_profile_async set_input_shape infer_shapes get_tensor_shape"
    for kind, names in [
        (trt.ICudaEngine, f"{engine} create_runtime_config" if runtime.load().portable else engine),
        (trt.IExecutionContext, f"{context} set_tensor_address execute_async_v3"),
        (trt.Runtime, "deserialize_cuda_engine"),
    ]:
        assert not [name for name in names.split() if not hasattr(kind, name)]
    if runtime.load().portable:
        configuration = "create_runtime_cache set_runtime_cache dynamic_shapes_kernel_specialization_strategy"
        assert not [name for name in configuration.split() if not hasattr(trt.IRuntimeConfig, name)]
        assert hasattr(trt.IRuntimeCache, "serialize") and hasattr(trt.IRuntimeCache, "deserialize")
    assert trt.nptype(trt.uint8) is np.uint8 and trt.nptype(trt.int64) is np.int64
