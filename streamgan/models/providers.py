"""ONNX Runtime: on the CPU, and through its execution providers on GPUs and neural engines."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import dataclasses
import importlib.util
import io
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from streamgan.api import Availability, Backend, BackendError, Images, Session, cache_folder
from streamgan.model import INPUT, OUTPUT, digest, onnxruntime_failures

_FAILURES = onnxruntime_failures()
_DEVICE_FAILURES: tuple[type[Exception], ...] = (*_FAILURES, RuntimeError)
"""What it raises besides from sessions whose memory is bound."""
_KEPT_SHAPES = 4


class OnnxRuntime(Backend):
    """ONNX Runtime on the CPU."""

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")
    max_streams = 16

    @classmethod
    def availability(cls) -> Availability:
        """Usable wherever the package is; it is one of streamgan's own requirements."""
        return Availability(True, f"ONNX Runtime {ort.__version__} on CPU", 10)

    def load(self, path: Path, *, threads: int, precision: str = "auto", streams: int = 1) -> Session:
        """Loads a model file; ``auto`` is fp32. With several streams each has its share of the threads.

        Raises:
            BackendError: if ONNX Runtime refuses it, or the precision is not possible.
        """
        chosen = _chosen("onnxruntime", self.precisions, precision)
        # A session runs on the caller's thread and on `intra_op_num_threads - 1` of its own, so streams need no pool.
        options = _session_options(threads // streams or 1)
        if chosen == "int8":  # without it, sums of 16 bits overflow on processors without VNNI
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _FAILURES as error:
            raise BackendError(f"onnxruntime: cannot load {path} ({_reason(error)})") from None
        return _CpuSession(session, path, chosen)


class _CpuSession(Session):
    """A model on the CPU. ONNX Runtime lets several threads run it at once."""

    def __init__(self, session: ort.InferenceSession, path: Path, precision: str) -> None:
        self._session: ort.InferenceSession | None = session
        self._path, self.precision = path, precision

    def run(self, images: Images, inputs: Mapping[str, npt.NDArray[Any]] | None = None) -> Images:
        """Runs the model; raises BackendError if it is closed or ONNX Runtime refuses."""
        session = self._session
        if session is None:
            raise BackendError(f"onnxruntime: {self._path} was closed")
        try:
            (result,) = session.run([OUTPUT], {INPUT: images} | dict(inputs or {}))
        except _FAILURES as error:
            raise BackendError(f"onnxruntime: {self._path} failed on {images.shape} ({_reason(error)})") from None
        return np.asarray(result, dtype=np.uint8)

    def close(self) -> None:
        """Frees the model."""
        self._session = None


class OnnxRuntimeOnDevice(Backend):
    """ONNX Runtime through one execution provider. A provider that it does not take up is an error, never the CPU."""

    name: ClassVar[str]
    """As it is registered."""
    provider: ClassVar[str]
    """ONNX Runtime's name of the execution provider."""
    rank: ClassVar[int]
    """What `availability` says where it is usable."""
    install: ClassVar[str]
    """One line for people: how to get it."""
    memory: ClassVar[str] = ""
    """ONNX Runtime's name of the memory where pictures stay from run to run; empty for the main memory."""
    second: ClassVar[str] = ""
    """The execution provider for what the first cannot compute, before the CPU."""
    static: ClassVar[bool] = False
    """Whether the provider wants to know the size of pictures when it compiles: a session is then made for each."""

    @classmethod
    def availability(cls) -> Availability:
        """Usable where this build of ONNX Runtime has the provider, and what it needs is there."""
        if cls.provider not in ort.get_available_providers():
            return Availability(False, f"ONNX Runtime {ort.__version__} is installed without it; {cls.install}")
        missing = cls.lacks()
        if missing:
            return Availability(False, missing)
        return Availability(True, f"ONNX Runtime {ort.__version__} on {cls.provider}", cls.rank)

    @classmethod
    def lacks(cls) -> str:
        """What the provider needs and does not find, in one line; empty if nothing is known to lack."""
        return ""

    def options(self, path: Path, precision: str, shape: tuple[int, ...]) -> dict[str, str]:
        """The options of the provider, by name.

        Args:
            path: the model file.
            precision: one of `precisions`, or ``auto``.
            shape: ``(N, H, W, 3)`` of the pictures; empty if it is not yet known.
        """
        raise NotImplementedError

    def load(self, path: Path, *, threads: int, precision: str = "auto", streams: int = 1) -> Session:
        """Loads a model file; ``auto`` is the first of `precisions`.

        Raises:
            BackendError: if ONNX Runtime refuses it, does not take up the provider, or the precision is not possible.
        """
        chosen = _chosen(self.name, self.precisions, precision)
        state = self.availability()
        if not state.usable:
            raise BackendError(f"{self.name}: cannot be used, {state.reason}")
        if not path.is_file():
            raise BackendError(f"{self.name}: cannot load {path} (there is no such file)")
        return _DeviceSession(_Sessions(self, path, threads, precision), chosen)


class OnnxRuntimeCuda(OnnxRuntimeOnDevice):
    """CUDA, on an NVIDIA GPU. ``auto`` lets it round factors to TF32 (ten bits of mantissa), ``fp32`` does not."""

    name, provider, rank, memory = "onnxruntime-cuda", "CUDAExecutionProvider", 50, "cuda"
    install = "for an NVIDIA GPU: pip uninstall onnxruntime; pip install onnxruntime-gpu[cuda,cudnn]"

    @classmethod
    def lacks(cls) -> str:
        """The driver."""
        library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
        try:
            ctypes.CDLL(library)
        except OSError:
            return f"there is no NVIDIA driver ({library} is not found)"
        return ""

    def options(self, path: Path, precision: str, shape: tuple[int, ...]) -> dict[str, str]:
        """Exact products if fp32 is asked for by name."""
        return {"use_tf32": "0" if precision == "fp32" else "1"}


class OnnxRuntimeTensorRt(OnnxRuntimeCuda):
    """TensorRT inside ONNX Runtime, in fp16. The first picture of a size waits for an engine, which is kept."""

    precisions = ("fp16", "fp32", "int8")
    name, provider, rank = "onnxruntime-tensorrt", "TensorrtExecutionProvider", 45
    second = "CUDAExecutionProvider"

    @classmethod
    def lacks(cls) -> str:
        """The driver, or TensorRT itself."""
        found = importlib.util.find_spec("tensorrt") is not None or ctypes.util.find_library("nvinfer") is not None
        return super().lacks() or ("" if found else "TensorRT is missing; install it with: pip install tensorrt")

    def options(self, path: Path, precision: str, shape: tuple[int, ...]) -> dict[str, str]:
        """Precision and cache. ONNX Runtime names engines by the graph alone, so each model file has its own folder."""
        settings = {
            "trt_fp16_enable": str(precision in ("auto", "fp16")),
            "trt_int8_enable": str(precision == "int8"),
        }
        folder = cache_folder(f"{self.name}/{digest(path)}")
        if folder is None:
            return settings
        return settings | {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(folder),
        }


class OnnxRuntimeDirectMl(OnnxRuntimeOnDevice):
    """DirectML, on any GPU of Windows."""

    name, provider, rank, memory, static = "onnxruntime-directml", "DmlExecutionProvider", 30, "dml", True
    install = "on Windows: pip uninstall onnxruntime; pip install onnxruntime-directml"

    def options(self, path: Path, precision: str, shape: tuple[int, ...]) -> dict[str, str]:
        """The first GPU."""
        return {"device_id": "0"}


class OnnxRuntimeCoreMl(OnnxRuntimeOnDevice):
    """Core ML, on Apple's GPUs and neural engines. The neural engine computes in fp16, so fp32 leaves it out."""

    precisions = ("fp16", "fp32")
    name, provider, rank, static = "onnxruntime-coreml", "CoreMLExecutionProvider", 5, True
    install = "it is part of the package onnxruntime on macOS"

    def options(self, path: Path, precision: str, shape: tuple[int, ...]) -> dict[str, str]:
        """Units and cache. Core ML's cache is named by the path and the graph, so model and size have their own."""
        settings = {
            "ModelFormat": "MLProgram",
            "MLComputeUnits": "CPUAndGPU" if precision == "fp32" else "ALL",
            "RequireStaticInputShapes": "1",
        }
        folder = cache_folder(f"{self.name}/{digest(path)}/{'x'.join(map(str, shape))}")
        return settings | ({"ModelCacheDirectory": str(folder)} if folder else {})


ON_DEVICES: tuple[type[OnnxRuntimeOnDevice], ...] = (
    OnnxRuntimeCuda,
    OnnxRuntimeTensorRt,
    OnnxRuntimeDirectMl,
    OnnxRuntimeCoreMl,
)
"""All that compute elsewhere than on the CPU."""


class _Sessions:
    """Makes ONNX Runtime's sessions of one model file: one for all pictures, or one for each size."""

    def __init__(self, backend: OnnxRuntimeOnDevice, path: Path, threads: int, precision: str) -> None:
        """Loads the model; raises BackendError as `OnnxRuntimeOnDevice.load`."""
        self._backend, self._path, self._threads, self._precision = backend, path, threads, precision
        self.what = f"{backend.name}: {path}"
        """For messages: the backend and the file."""
        try:
            self._axes = _axes(path) if backend.static else []
            self._common = None if backend.static else self._make(())
        except BackendError:
            raise
        except _DEVICE_FAILURES as error:
            raise BackendError(f"{backend.name}: cannot load {path} ({_reason(error)})") from None

    def bind(self, shape: tuple[int, ...]) -> _Bound:
        """What runs pictures of this shape; raises BackendError, or one of ONNX Runtime's errors."""
        return _Bound.make(self._common or self._make(shape), self._backend.memory, shape)

    def _make(self, shape: tuple[int, ...]) -> ort.InferenceSession:
        """A session for pictures of this shape; of every shape if it is empty."""
        backend = self._backend
        options = _session_options(self._threads)
        options.log_severity_level = 4
        options.enable_mem_pattern = backend.provider != OnnxRuntimeDirectMl.provider  # which demands it
        for axis, length in zip(self._axes, shape, strict=False):
            if isinstance(axis, str):
                options.add_free_dimension_override_by_name(axis, length)
        first = (backend.provider, backend.options(self._path, self._precision, shape))
        providers = [first, *filter(None, [backend.second])]
        _preload(backend.memory)
        session = ort.InferenceSession(str(self._path), options, providers=providers, enable_fallback=0)
        if backend.provider not in session.get_providers():
            instead = ", ".join(session.get_providers())
            raise BackendError(
                f"{backend.name}: ONNX Runtime did not take up {backend.provider} for {self._path}, only {instead}; "
                f"are the libraries that it needs installed? {backend.install}"
            )
        return session


@dataclasses.dataclass(frozen=True)
class _Bound:
    """A session with the memory for pictures of one shape."""

    session: ort.InferenceSession
    binding: ort.IOBinding | None = None
    """Says where pictures lie on the device; None if the session takes them from the main memory."""
    frames: ort.OrtValue | None = None
    """The pictures there."""

    @classmethod
    def make(cls, session: ort.InferenceSession, memory: str, shape: tuple[int, ...]) -> _Bound:
        """Takes memory for pictures of this shape, on a device if one is named."""
        if not memory:
            return cls(session)
        binding = session.io_binding()
        frames = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, memory, 0)
        binding.bind_ortvalue_input(INPUT, frames)
        binding.bind_output(OUTPUT, memory)
        return cls(session, binding, frames)

    def run(self, images: Images, inputs: Mapping[str, npt.NDArray[Any]]) -> Images:
        """Copies pictures to the device, runs, and copies the result back into new memory."""
        if self.binding is None or self.frames is None:
            (result,) = self.session.run([OUTPUT], {INPUT: images, **inputs})
            return np.asarray(result, dtype=np.uint8)
        self.frames.update_inplace(np.ascontiguousarray(images))
        for name, value in inputs.items():
            self.binding.bind_cpu_input(name, np.ascontiguousarray(value))
        self.session.run_with_iobinding(self.binding)
        (made,) = self.binding.get_outputs()
        self.binding.bind_ortvalue_output(OUTPUT, made)  # the next result goes to the same place on the device
        return np.asarray(made.numpy(), dtype=np.uint8)


class _DeviceSession(Session):
    """A model on a device: one picture, or one batch, at a time."""

    def __init__(self, sessions: _Sessions, precision: str) -> None:
        self._sessions: _Sessions | None = sessions
        self._what, self.precision = sessions.what, precision
        self._bound: OrderedDict[tuple[int, ...], _Bound] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, images: Images, inputs: Mapping[str, npt.NDArray[Any]] | None = None) -> Images:
        """Runs the model; raises BackendError if it is closed or ONNX Runtime refuses."""
        with self._lock:
            if self._sessions is None:
                raise BackendError(f"{self._what} was closed")
            try:
                return self._for_shape(self._sessions, images.shape).run(images, inputs or {})
            except BackendError:
                raise
            except _DEVICE_FAILURES as error:
                raise BackendError(f"{self._what} failed on {images.shape} ({_reason(error)})") from None

    def _for_shape(self, sessions: _Sessions, shape: tuple[int, ...]) -> _Bound:
        """What runs pictures of this shape; the one that was not used for longest makes room."""
        if shape not in self._bound:
            while len(self._bound) >= _KEPT_SHAPES:
                self._bound.popitem(last=False)
            self._bound[shape] = sessions.bind(shape)
        self._bound.move_to_end(shape)
        return self._bound[shape]

    def close(self) -> None:
        """Frees the model."""
        with self._lock:
            self._bound.clear()
            self._sessions = None


def _chosen(name: str, precisions: tuple[str, ...], precision: str) -> str:
    """The precision to compute in; raises BackendError if it is none of those that are possible."""
    if precision not in ("auto", *precisions):
        raise BackendError(
            f"{name}: precision {precision} is not possible; choose auto, {', '.join(precisions[:-1])}"
            f"{' or ' if precisions[:-1] else ''}{precisions[-1]}"
        )
    return precisions[0] if precision == "auto" else precision


def _session_options(threads: int) -> ort.SessionOptions:
    """Few threads, and none that spins: while they wait, the decoder and the encoder need the cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _axes(path: Path) -> list[str | int]:
    """The lengths of the axes of a model's pictures: numbers, or names of what may vary."""
    options = _session_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return next(list(each.shape) for each in session.get_inputs() if each.name == INPUT)


def _preload(memory: str) -> None:
    """Loads the libraries of NVIDIA that pip installs, where ONNX Runtime would not look for them."""
    if memory != "cuda":
        return
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorrt")


def _reason(error: Exception) -> str:
    """The first line of what ONNX Runtime says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
