"""Runs model files with OpenVINO: on CPUs (x86-64 and ARM), and on Intel GPUs when asked.

Static shapes run faster than dynamic ones, so a session compiles the model once for every shape of pictures it is
shown; a film has one, at most two with its last batch. Compiled models are kept in the user's cache folder.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from streamgan import api

_INPUT, _OUTPUT = "frames", "frames_out"
_KEPT_SHAPES = 4
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_MISSING = "the package openvino is missing; install it with: pip install openvino"


class OpenVino(api.Backend):
    """OpenVINO on the CPU."""

    precisions = ("fp32", "bf16")
    device: ClassVar[str] = "CPU"
    """OpenVINO's name of the device."""
    rank: ClassVar[int] = 20
    """Above ONNX Runtime's 10 on the CPU, by measurement: see the README."""

    @classmethod
    def availability(cls) -> api.Availability:
        """Usable wherever the package is installed."""
        if importlib.util.find_spec("openvino") is None:
            return api.Availability(False, _MISSING)
        version = importlib.metadata.version("openvino")
        return api.Availability(True, f"OpenVINO {version} on {cls.device}", cls.rank)

    def load(self, path: Path, *, threads: int, precision: str = "auto") -> api.Session:
        """Loads a model file; ``auto`` is fp32, whose result is that of ONNX Runtime to one level of 255.

        Raises:
            BackendError: if OpenVINO is missing or refuses the model, or the device lacks the precision.
        """
        chosen = self.precisions[0] if precision == "auto" else precision
        if chosen not in self.precisions:
            raise api.BackendError(f"openvino: precision {chosen} is not possible; choose {', '.join(self.precisions)}")
        if not path.is_file():
            raise api.BackendError(f"openvino: {path}: no such model file")
        core = _core()
        if chosen == "bf16" and "BF16" not in core.get_property(self.device, "OPTIMIZATION_CAPABILITIES"):
            raise api.BackendError("openvino: precision bf16 is not possible, this CPU has no bf16; choose fp32")
        try:
            model = core.read_model(str(path))
        except RuntimeError as error:
            raise api.BackendError(f"openvino: cannot load {path} ({_reason(error)})") from None
        return _Session(model, path, self.device, _settings(self.device, threads, chosen), chosen)


class OpenVinoGpu(OpenVino):
    """OpenVINO on an Intel GPU, in fp16. Nobody has measured it yet, so it is used only when asked for."""

    precisions = ("fp16", "fp32")
    device = "GPU"
    rank = 5

    @classmethod
    def availability(cls) -> api.Availability:
        """Usable where OpenVINO finds a GPU."""
        state = super().availability()
        if state.usable and not any(name.startswith("GPU") for name in _core().available_devices):
            return api.Availability(False, "OpenVINO finds no Intel GPU (is its OpenCL driver installed?)")
        return state


class _Session(api.Session):
    """A model, compiled for the shapes it has met."""

    def __init__(self, model: Any, path: Path, device: str, configuration: dict[str, Any], precision: str) -> None:
        self.precision = precision
        self._model, self._path, self._device, self._configuration = model, path, device, configuration
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def run(self, images: api.Images, inputs: Mapping[str, npt.NDArray[Any]] | None = None) -> api.Images:
        """Runs the model; raises BackendError if it is closed or OpenVINO refuses."""
        if self._model is None:
            raise api.BackendError(f"openvino: {self._path} was closed")
        try:
            request = self._request(images.shape)
            given = {_INPUT: np.ascontiguousarray(images)} | dict(inputs or {})
            result = request.infer(given, share_inputs=True)[_OUTPUT]
        except RuntimeError as error:
            raise api.BackendError(f"openvino: {self._path} failed on {images.shape} ({_reason(error)})") from None
        return np.array(result, dtype=np.uint8)  # a copy: the next run writes into the same memory

    def _request(self, shape: tuple[int, ...]) -> Any:
        """What runs pictures of this shape; the one that was not used for longest makes room."""
        if shape not in self._requests:
            while len(self._requests) >= _KEPT_SHAPES:
                self._requests.popitem(last=False)
            self._model.reshape({_INPUT: list(shape)})
            compiled = _core().compile_model(self._model, self._device, self._configuration)
            self._requests[shape] = compiled.create_infer_request()
        self._requests.move_to_end(shape)
        return self._requests[shape]

    def close(self) -> None:
        """Frees the model."""
        self._requests.clear()
        self._model = None


@functools.cache
def _core() -> Any:
    """OpenVINO's entry; one for the process, since each looks for the devices anew."""
    # When it is imported, OpenVINO reports to its makers, from a forked child: nobody's business here. And since a fork
    # of a program with threads may find a lock held for ever, it has hung runs. Without this module it does neither.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise api.BackendError(f"openvino: {_MISSING} ({_reason(error)})") from None
    return openvino.Core()


def _settings(device: str, threads: int, precision: str) -> dict[str, Any]:
    """The configuration of a compiled model."""
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[precision]}
    if device == "CPU":  # not pinned: the decoder and the encoder work on the same cores
        settings |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    folder = _cache_folder()
    return settings | ({"CACHE_DIR": str(folder)} if folder else {})


def _cache_folder() -> Path | None:
    """The folder of compiled models, private to the user; None where it cannot be made."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "streamgan" / "openvino"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _reason(error: Exception) -> str:
    """The last line that says something: OpenVINO puts the place in its own source first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@api.hookimpl
def register_backends(register: Callable[[str, type[api.Backend]], None]) -> None:
    """Brings ``openvino`` and ``openvino-gpu``."""
    register("openvino", OpenVino)
    register("openvino-gpu", OpenVinoGpu)
