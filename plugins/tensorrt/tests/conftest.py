"""A GPU that is none: it keeps CUDA's and TensorRT's rules, and computes with ONNX Runtime.

Work that is put into a stream is done when somebody waits for the stream, not before, as on a real one; copies need
memory that was allocated, pinned and large enough; and what a recording forbids is an error.
"""

from __future__ import annotations

import collections
import ctypes
import enum
import json
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from streamgan import api
from streamgan_tensorrt import cuda, engines, runtime
from streamgan_tensorrt.build import Plan
from streamgan_tensorrt.cuda import Device
from streamgan_tensorrt.profiles import Profile

TYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


class Status(enum.IntEnum):
    """Results of CUDA's calls."""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureUnsupported = 900


class FakeCuda:
    """Stands for ``cuda.bindings.runtime``."""

    cudaError_t = Status
    cudaMemcpyKind = enum.Enum("cudaMemcpyKind", ["cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"])
    cudaStreamCaptureMode = enum.Enum("cudaStreamCaptureMode", ["cudaStreamCaptureModeThreadLocal"])
    cudaStreamNonBlocking, cudaHostAllocDefault = 1, 0

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing: dict[str, int] = {}
        """Calls that shall fail, and how many succeed before."""
        self.memory: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.pending: dict[int, list[Callable[[], None]]] = {}
        self.recording: dict[int, list[Callable[[], None]]] = {}
        self.recorded: dict[int, list[Callable[[], None]]] = {}
        self.recorders: set[int] = set()
        """Threads that record, for which most calls are forbidden meanwhile; not for others."""
        self._handles = iter(range(1, 10_000))
        self._lock = threading.Lock()

    def _call(self, name: str, allowed_in_recording: bool = False) -> bool:
        """Notes a call; returns whether it succeeds."""
        allowed = allowed_in_recording or threading.get_ident() not in self.recorders
        assert allowed, f"{name} is forbidden while a stream records"
        with self._lock:
            self.calls.append(name)
            if name in self.failing:
                self.failing[name] -= 1
                if self.failing[name] < 0:
                    del self.failing[name]
                    return False
        return True

    def cudaGetErrorString(self, status: Status) -> tuple[Status, bytes]:
        return Status.cudaSuccess, {2: b"out of memory", 900: b"capture is unsupported"}[status]

    def cudaGetLastError(self) -> tuple[Status]:
        self._call("last error")
        return (Status.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Status, int]:
        assert flags == self.cudaStreamNonBlocking
        self._call("make stream")
        stream = next(self._handles)
        self.pending[stream] = []
        return Status.cudaSuccess, stream

    def cudaStreamDestroy(self, stream: int) -> tuple[Status]:
        self._call("destroy stream")
        assert not self.pending.pop(stream)
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:
        if not self._call("wait"):
            return (Status.cudaErrorMemoryAllocation,)
        work, self.pending[stream] = self.pending[stream], []
        for each in work:
            each()
        return (Status.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Status, int | None]:
        if not self._call(f"allocate {size}"):
            return Status.cudaErrorMemoryAllocation, None
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        return Status.cudaSuccess, ctypes.addressof(block)

    def cudaFree(self, address: int) -> tuple[Status]:
        self._call("free")
        del self.memory[address]
        return (Status.cudaSuccess,)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Status, int | None]:
        if not self._call(f"pin {size}"):
            return Status.cudaErrorMemoryAllocation, None
        block = ctypes.create_string_buffer(size)
        self.pinned[ctypes.addressof(block)] = block
        return Status.cudaSuccess, ctypes.addressof(block)

    def cudaFreeHost(self, address: int) -> tuple[Status]:
        self._call("unpin")
        del self.pinned[address]
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: enum.Enum, stream: int) -> tuple[Status]:
        inwards = kind is self.cudaMemcpyKind["cudaMemcpyHostToDevice"]
        self._call("copy in" if inwards else "copy out", allowed_in_recording=True)
        device, host = (to, source) if inwards else (source, to)
        assert ctypes.sizeof(self.pinned[host]) >= size and ctypes.sizeof(self.memory[device]) >= size
        self.put(stream, lambda: ctypes.memmove(to, source, size))
        return (Status.cudaSuccess,)

    def put(self, stream: int, work: Callable[[], Any]) -> None:
        """Puts work into a stream, or into what it records."""
        (self.recording if stream in self.recording else self.pending)[stream].append(work)

    def cudaStreamBeginCapture(self, stream: int, mode: enum.Enum) -> tuple[Status]:
        assert mode is self.cudaStreamCaptureMode["cudaStreamCaptureModeThreadLocal"]
        assert not self.pending[stream]
        if not self._call("begin recording"):
            return (Status.cudaErrorStreamCaptureUnsupported,)
        self.recorders.add(threading.get_ident())
        self.recording[stream] = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Status, int | None]:
        fine = self._call("end recording", allowed_in_recording=True)
        self.recorders.remove(threading.get_ident())
        graph, work = next(self._handles), self.recording.pop(stream)
        if not fine:
            return Status.cudaErrorStreamCaptureUnsupported, None
        self.recorded[graph] = work
        return Status.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Status, int | None]:
        if not self._call("instantiate"):
            return Status.cudaErrorMemoryAllocation, None
        made = next(self._handles)
        self.recorded[made] = list(self.recorded[graph])
        return Status.cudaSuccess, made

    def cudaGraphDestroy(self, graph: int) -> tuple[Status]:
        self._call("destroy graph")
        del self.recorded[graph]
        return (Status.cudaSuccess,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, made: int, stream: int) -> tuple[Status]:
        if not self._call("launch"):
            return (Status.cudaErrorMemoryAllocation,)
        self.pending[stream].extend(self.recorded[made])
        return (Status.cudaSuccess,)

    @property
    def clean(self) -> bool:
        """Whether nothing is left of what was taken."""
        return not (self.memory or self.pinned or self.pending or self.recorded or self.recording)


def without_bf16(graph: bytes) -> bytes:
    """The same graph with fp32 in place of bf16, for ONNX Runtime has no convolution in it; weights stay rounded."""
    proto = onnx.load_from_string(graph)
    for value in proto.graph.initializer:
        if value.data_type == onnx.TensorProto.BFLOAT16:
            rounded = onnx.numpy_helper.to_array(value).astype(np.float32)
            value.CopyFrom(onnx.numpy_helper.from_array(rounded, value.name))
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == onnx.TensorProto.BFLOAT16:
                attribute.i = onnx.TensorProto.FLOAT
    serialised: bytes = proto.SerializeToString()
    return serialised


class FakeEngine:
    """An engine: profiles, and a graph that ONNX Runtime computes."""

    def __init__(self, gpu: FakeGpu, serialised: bytes) -> None:
        (length,) = struct.unpack_from("<I", serialised, 4)
        self.gpu = gpu
        self.profiles = [Profile.from_json(each) for each in json.loads(serialised[8 : 8 + length])]
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        self.session = onnxruntime.InferenceSession(without_bf16(serialised[8 + length :]), options)
        self.ends = {end.name: end for end in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.num_optimization_profiles = len(self.profiles)

    def get_tensor_dtype(self, name: str) -> Any:
        return TYPES[self.ends[name].type]

    def get_tensor_profile_shape(self, name: str, number: int) -> list[tuple[int, ...]]:
        return [(*each, 3) for each in map(tuple, self.profiles[number].to_json())]

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(create_runtime_cache=lambda: FakeKernels(self.gpu), set_runtime_cache=lambda made: True)

    def create_execution_context(self, configuration: Any = None) -> Any:
        return FakeContext(self) if self.gpu.room else None


class FakeKernels:
    """What TensorRT-RTX compiled."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu

    def deserialize(self, content: bytes) -> bool:
        self.gpu.kernels.append(bytes(content))
        return True

    def serialize(self) -> bytes:
        return b"compiled"


class FakeContext:
    """An execution context; it must have run a shape once before that is recorded."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.gpu = engine, engine.gpu
        self.active_optimization_profile = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.settled = False
        self.gpu.contexts.append(self)

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        self.active_optimization_profile = number
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.settled = False
        inputs = {each.name for each in self.engine.session.get_inputs()}
        profile = self.engine.profiles[self.active_optimization_profile]
        if name not in inputs or (name == "frames" and not profile.covers(shape[:3])):  # type: ignore[arg-type]
            return False
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [each.name for each in self.engine.session.get_inputs() if each.name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["frames" if name == "frames_out" else name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self.gpu.recordable

    def execute_async_v3(self, stream: int) -> bool:
        assert self.settled or stream not in self.gpu.cuda.recording, "a shape must run once before it is recorded"
        self.settled = True
        self.gpu.cuda.calls.append("network")
        if self.gpu.refuses_to_run or (self.gpu.refuses_to_be_recorded and stream in self.gpu.cuda.recording):
            return False
        addresses, shapes = dict(self.addresses), dict(self.shapes)
        self.gpu.cuda.put(stream, lambda: self._compute(addresses, shapes))
        return True

    def _compute(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        """Reads the inputs from the GPU's memory and writes the result there."""
        self.gpu.during(self)
        given = {
            name: np.frombuffer(self.gpu.cuda.memory[addresses[name]], self.engine.get_tensor_dtype(name)).reshape(
                shape
            )
            for name, shape in shapes.items()
        }
        (made,) = self.engine.session.run(["frames_out"], given)
        ctypes.memmove(addresses["frames_out"], made.tobytes(), made.nbytes)


class FakeGpu:
    """The machine: CUDA, TensorRT, and switches for what may go wrong."""

    def __init__(self, portable: bool = True) -> None:
        self.cuda = FakeCuda()
        self.contexts: list[FakeContext] = []
        self.kernels: list[bytes] = []
        self.built: list[tuple[Profile, ...]] = []
        self.room, self.recordable, self.refuses_to_run, self.refused = True, True, False, 0
        self.refuses_to_be_recorded = False
        self.during: Callable[[FakeContext], None] = lambda context: None
        strategies = SimpleNamespace(EAGER="eager")
        module = SimpleNamespace(
            nptype=lambda dtype: dtype,
            Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=self.deserialize),
            DynamicShapesKernelSpecializationStrategy=strategies,
        )
        self.runtime = runtime.Runtime(module, "TensorRT-Fake 1", portable, None, collections.deque())

    def build(self, source: Any, graph: bytes, profiles: Any, on_progress: Any, **options: Any) -> Plan:
        """Stands for `build.build`."""
        self.built.append(tuple(profiles))
        header = json.dumps([profile.to_json() for profile in profiles]).encode()
        return Plan(b"FAKE" + struct.pack("<I", len(header)) + header + graph, {}, b"times")

    def deserialize(self, engine: bytes) -> FakeEngine | None:
        """Stands for ``Runtime.deserialize_cuda_engine``."""
        if self.refused or not engine.startswith(b"FAKE"):
            self.refused = max(0, self.refused - 1)
            self.runtime.complaints.append("made by another version")
            return None
        return FakeEngine(self, engine)


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines of tests do not go to the user's cache."""
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A machine with a GPU, as far as the plugin can tell."""
    made = FakeGpu()
    monkeypatch.setattr(cuda, "find_device", lambda: Device("Fake GPU", "8.9", "CUDA 13.0"))
    monkeypatch.setattr(cuda, "runtime", lambda: made.cuda)
    monkeypatch.setattr(cuda, "installed", lambda: True)
    monkeypatch.setattr(runtime, "load", lambda: made.runtime)
    monkeypatch.setattr(runtime, "installed", lambda: "tensorrt_rtx")
    monkeypatch.setattr(engines, "build", made.build)
    return made


@pytest.fixture(scope="session")
def trt() -> runtime.Runtime:
    """TensorRT; skips the test where none is installed that can build here."""
    if runtime.installed() is None:
        pytest.skip("needs TensorRT-RTX: pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings")
    loaded = runtime.load()
    if not loaded.portable:
        try:
            cuda.find_device()
        except api.BackendError:
            pytest.skip(f"{loaded.name} builds only where there is a GPU; TensorRT-RTX builds anywhere")
    return loaded
