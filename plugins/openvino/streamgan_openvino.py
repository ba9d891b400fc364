"""Runs model files with OpenVINO: on CPUs (x86-64 and ARM), and on Intel GPUs and NPUs when asked.

Static shapes run faster than dynamic ones, so a session compiles the model once for every shape of pictures it is
shown; a film has one, at most two with its last batch. Compiled models are kept in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import queue
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from streamgan import api

_INPUT, _OUTPUT = "frames", "frames_out"
_KEPT_SHAPES = 4
_KEPT_FILES = 32
_DIGEST = hashlib.sha256().digest_size
_IDENTITY = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
"""OpenVINO's properties of a device that a compiled model depends on."""
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
"""OpenVINO's names of precisions."""
_MISSING = "the package openvino is missing; install it with: pip install openvino"


class OpenVino(api.Backend):
    """OpenVINO on the CPU."""

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "bf16", "int8")
    max_streams = 16
    device: ClassVar[str] = "CPU"
    """OpenVINO's name of the device."""
    rank: ClassVar[int] = 20
    """Above ONNX Runtime's 10 on the CPU, by measurement: see the README."""

    @classmethod
    def availability(cls) -> api.Availability:
        """Usable wherever the package is installed."""
        if importlib.util.find_spec("openvino") is None:
            return api.Availability(False, _MISSING)
        return api.Availability(True, f"OpenVINO {_version()} on {cls.device}", cls.rank)

    def load(self, path: Path, *, threads: int, precision: str = "auto", streams: int = 1) -> api.Session:
        """Loads a model file; ``auto`` is the first of `precisions`, on the CPU fp32.

        With one stream a picture is computed by all threads together, with more each stream has its share of them.

        Raises:
            BackendError: if OpenVINO is missing or refuses the model, or the device lacks the precision.
        """
        chosen = self.precisions[0] if precision == "auto" else precision
        if chosen not in self.precisions:
            raise api.BackendError(f"openvino: precision {chosen} is not possible; choose {', '.join(self.precisions)}")
        if not path.is_file():
            raise api.BackendError(f"openvino: {path}: no such model file")
        if chosen == "bf16" and "BF16" not in _core().get_property(self.device, "OPTIMIZATION_CAPABILITIES"):
            raise api.BackendError("openvino: precision bf16 is not possible, this CPU has no bf16; choose fp32")
        settings = _settings(self.device, threads, chosen, streams)
        return _Session(_Compiler(path, self.device, settings), chosen, streams)


class OpenVinoGpu(OpenVino):
    """OpenVINO on an Intel GPU, in fp16. Nobody has measured it yet, so it is used only when asked for."""

    precisions: ClassVar[tuple[str, ...]] = ("fp16", "fp32", "int8")
    max_streams = 4
    device = "GPU"
    rank = 5
    missing: ClassVar[str] = "OpenVINO finds no Intel GPU (is its OpenCL driver installed?)"
    """What `availability` says where the device is not found."""

    @classmethod
    def availability(cls) -> api.Availability:
        """Usable where OpenVINO finds the device."""
        state = super().availability()
        if state.usable and not any(name.startswith(cls.device) for name in _core().available_devices):
            return api.Availability(False, cls.missing)
        return state


class OpenVinoNpu(OpenVinoGpu):
    """OpenVINO on an Intel NPU, in fp16. Nobody has measured it yet, so it is used only when asked for."""

    precisions = ("fp16", "int8")
    device = "NPU"
    rank = 4
    missing = "OpenVINO finds no Intel NPU (is its driver installed?)"


class _Session(api.Session):
    """A model, compiled for the shapes it has met."""

    def __init__(self, compiler: _Compiler, precision: str, streams: int) -> None:
        self.precision = precision
        self._compiler: _Compiler | None = compiler
        self._path, self._streams = compiler.path, streams
        self._ready: OrderedDict[tuple[int, ...], _Ready] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, images: api.Images, inputs: Mapping[str, npt.NDArray[Any]] | None = None) -> api.Images:
        """Runs the model; raises BackendError if it is closed or OpenVINO refuses."""
        given = {_INPUT: np.ascontiguousarray(images)} | dict(inputs or {})
        try:
            requests = self._for_shape(images.shape).requests
            request = requests.get()
            try:  # no `share_outputs`: the result is a copy that the next run leaves alone
                return np.asarray(request.infer(given, share_inputs=True)[_OUTPUT], dtype=np.uint8)
            finally:
                requests.put(request)
        except api.BackendError:
            raise
        except RuntimeError as error:
            raise api.BackendError(f"openvino: {self._path} failed on {images.shape} ({_reason(error)})") from None

    def _for_shape(self, shape: tuple[int, ...]) -> _Ready:
        """What runs pictures of this shape; the one that was not used for longest makes room."""
        with self._lock:
            if self._compiler is None:
                raise api.BackendError(f"openvino: {self._path} was closed")
            if shape not in self._ready:
                while len(self._ready) >= _KEPT_SHAPES:
                    self._ready.popitem(last=False)
                self._ready[shape] = _Ready.make(self._compiler.compile(shape), self._streams)
            self._ready.move_to_end(shape)
            return self._ready[shape]

    def close(self) -> None:
        """Frees the model."""
        with self._lock:
            self._ready.clear()
            self._compiler = None


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """A model compiled for one shape."""

    model: Any
    """OpenVINO's compiled model."""
    memory: npt.NDArray[np.uint8] | None = None
    """The bytes that it was made from and may still refer to."""


@dataclasses.dataclass(frozen=True)
class _Ready:
    """What runs pictures of one shape: a request for each thread that may call at once."""

    compiled: _Compiled
    requests: queue.SimpleQueue[Any]

    @classmethod
    def make(cls, compiled: _Compiled, streams: int) -> _Ready:
        """So many requests, all idle."""
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            requests.put(compiled.model.create_infer_request())
        return cls(compiled, requests)


class _Compiler:
    """Compiles one model file for the shapes asked for, or takes what an earlier run compiled."""

    def __init__(self, path: Path, device: str, settings: dict[str, Any]) -> None:
        """Reads the model, unless an earlier run compiled it and so has shown that it can be read.

        Raises:
            BackendError: if OpenVINO is missing or refuses the model.
        """
        self.path, self._device, self._settings = path, device, settings
        self._core = _core()
        with path.open("rb") as file:
            self._digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._folder = api.cache_folder("openvino") if device == "CPU" else None
        self._model: Any = None
        if self._folder is None or not any(self._folder.glob(f"{self._digest}-*.blob")):
            self._read()

    def _read(self) -> Any:
        """The model as OpenVINO holds it before it is compiled."""
        if self._model is None:
            try:
                self._model = self._core.read_model(str(self.path))
            except RuntimeError as error:
                raise api.BackendError(f"openvino: cannot load {self.path} ({_reason(error)})") from None
        return self._model

    def compile(self, shape: tuple[int, ...]) -> _Compiled:
        """The model for pictures of this shape; raises RuntimeError if OpenVINO refuses."""
        file = self._file(shape)
        kept = None if file is None else self._restore(file)
        if kept is not None:
            return kept
        model = self._read()
        model.reshape({_INPUT: list(shape)})
        compiled = self._core.compile_model(model, self._device, self._settings)
        if file is not None:
            _keep(file, compiled)
        return _Compiled(compiled)

    def _file(self, shape: tuple[int, ...]) -> Path | None:
        """Where the model compiled for this shape is kept: its name tells all that it depends on."""
        if self._folder is None:
            return None
        device = [self._core.get_property(self._device, name) for name in _IDENTITY]
        content = [_version(), *device, self._settings, shape]
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{self._digest}-{key[:32]}.blob"

    def _restore(self, file: Path) -> _Compiled | None:
        """What `_keep` wrote; None, and the file is gone, if it is damaged or OpenVINO does not take it."""
        import openvino

        try:
            content = np.fromfile(file, np.uint8)
        except OSError:
            return None
        blob = content[:-_DIGEST]
        with contextlib.suppress(OSError, RuntimeError):
            if hashlib.sha256(blob.data).digest() == content[-_DIGEST:].tobytes():
                tensor = openvino.Tensor(blob, shared_memory=True)
                model = self._core.import_model(tensor, self._device, self._settings)
                os.utime(file)
                return _Compiled(model, content)
        with contextlib.suppress(OSError):
            file.unlink()
        return None


def _keep(file: Path, compiled: Any) -> None:
    """Writes a compiled model with its SHA-256 behind it; the files that were not used for longest make room."""
    partial = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")
    with contextlib.suppress(OSError, RuntimeError):  # a full disk, a device that cannot export: next time again
        blob = compiled.export_model()
        content = blob if isinstance(blob, bytes) else blob.getvalue()
        partial.write_bytes(content + hashlib.sha256(content).digest())
        partial.replace(file)
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)
        oldest_first = sorted(file.parent.glob("*.blob"), key=lambda each: each.stat().st_mtime)
        for old in oldest_first[:-_KEPT_FILES]:
            old.unlink(missing_ok=True)


@functools.cache
def _version() -> str:
    """Of the package, without importing it; asked again and again, and each time all that is installed is looked at."""
    return importlib.metadata.version("openvino")


@functools.cache
def _core() -> Any:
    """OpenVINO's entry; one for the process, since each looks for the devices anew."""
    # When it is imported, OpenVINO reports to its makers, from a forked child: nobody's business here. And since a fork
    # of a program with threads may find a lock held for ever, it has hung runs. Without this module it does neither.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    # Its converter of other formats is not needed to run a model, and takes longer to import than all the rest.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise api.BackendError(f"openvino: {_MISSING} ({_reason(error)})") from None
    return openvino.Core()


def _settings(device: str, threads: int, precision: str, streams: int) -> dict[str, Any]:
    """The configuration of a compiled model."""
    hint = "LATENCY" if streams == 1 else "THROUGHPUT"
    unquantised = "f32" if device == "CPU" else "f16"  # with int8 the file says what is quantised; this is the rest
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": hint,
        "INFERENCE_PRECISION_HINT": _HINTS.get(precision, unquantised),
    }
    if device == "CPU":  # not pinned: the decoder and the encoder work on the same cores
        return settings | {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    if device == "GPU":
        settings["NUM_STREAMS"] = streams
    else:
        settings["PERFORMANCE_HINT_NUM_REQUESTS"] = streams
    folder = api.cache_folder(f"openvino-{device.lower()}")  # OpenVINO knows best when drivers make it stale
    return settings | ({"CACHE_DIR": str(folder)} if folder else {})


def _reason(error: Exception) -> str:
    """The last line that says something: OpenVINO puts the place in its own source first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@api.hookimpl
def register_backends(register: Callable[[str, type[api.Backend]], None]) -> None:
    """Brings ``openvino``, ``openvino-gpu`` and ``openvino-npu``."""
    register("openvino", OpenVino)
    register("openvino-gpu", OpenVinoGpu)
    register("openvino-npu", OpenVinoNpu)
