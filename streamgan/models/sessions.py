"""ONNX Runtime's sessions. Imported when the first is opened: the runtime alone takes longer than many a plan."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from streamgan.api import BackendError, Images, Session
from streamgan.model import INPUT, OUTPUT, onnxruntime_failures

if TYPE_CHECKING:
    from streamgan.models.providers import OnnxRuntimeOnDevice

FAILURES = onnxruntime_failures()
"""What ONNX Runtime raises."""
_DEVICE_FAILURES: tuple[type[Exception], ...] = (*FAILURES, RuntimeError)
"""What it raises besides from sessions whose memory is bound."""
_KEPT_SHAPES = 4


class CpuSession(Session):
    """A model on the CPU. ONNX Runtime lets several threads run it at once."""

    def __init__(self, path: Path, threads: int, precision: str) -> None:
        """Loads a model file; raises BackendError if ONNX Runtime refuses it."""
        self._path, self.precision = path, precision
        options = _session_options(threads)
        if precision == "int8":  # without it, sums of 16 bits overflow on processors without VNNI
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except FAILURES as error:
            raise BackendError(f"onnxruntime: cannot load {path} ({_reason(error)})") from None
        self._session: ort.InferenceSession | None = session

    def run(self, images: Images, inputs: Mapping[str, npt.NDArray[Any]] | None = None) -> Images:
        """Runs the model; raises BackendError if it is closed or ONNX Runtime refuses."""
        session = self._session
        if session is None:
            raise BackendError(f"onnxruntime: {self._path} was closed")
        try:
            (result,) = session.run([OUTPUT], {INPUT: images} | dict(inputs or {}))
        except FAILURES as error:
            raise BackendError(f"onnxruntime: {self._path} failed on {images.shape} ({_reason(error)})") from None
        return np.asarray(result, dtype=np.uint8)

    def close(self) -> None:
        """Frees the model."""
        self._session = None


class Sessions:
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
        options.enable_mem_pattern = backend.provider != "DmlExecutionProvider"  # which demands it
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


class DeviceSession(Session):
    """A model on a device: one picture, or one batch, at a time."""

    def __init__(self, sessions: Sessions, precision: str) -> None:
        self._sessions: Sessions | None = sessions
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

    def _for_shape(self, sessions: Sessions, shape: tuple[int, ...]) -> _Bound:
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
