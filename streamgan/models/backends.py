"""What runs model files: ONNX Runtime, and the choice among all that is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from streamgan import plugins
from streamgan.api import Availability, Backend, BackendError, Images, Session, hookimpl
from streamgan.model import INPUT, OUTPUT, onnxruntime_failures

_FAILURES = onnxruntime_failures()
_GPU_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider")
_CPU_RANK, _GPU_RANK = 10, 50


class OnnxRuntime(Backend):
    """ONNX Runtime, on an NVIDIA GPU if its GPU build is installed, else on the CPU; always in fp32."""

    @classmethod
    def availability(cls) -> Availability:
        """Usable wherever the package is; it is one of streamgan's own requirements."""
        providers = _providers()
        on = ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
        rank = _CPU_RANK if len(providers) == 1 else _GPU_RANK
        return Availability(True, f"ONNX Runtime {ort.__version__} on {on}", rank)

    def load(self, path: Path, *, threads: int, precision: str = "auto") -> Session:
        """Loads a model file.

        Raises:
            BackendError: if ONNX Runtime refuses it, or the precision is not fp32.
        """
        if precision not in ("auto", *self.precisions):
            raise BackendError(f"onnxruntime: precision {precision} is not possible; choose auto or fp32")
        try:
            session = ort.InferenceSession(str(path), _session_options(threads), providers=_providers())
        except _FAILURES as error:
            raise BackendError(f"onnxruntime: cannot load {path} ({_reason(error)})") from None
        return _OnnxRuntimeSession(session, path)


class _OnnxRuntimeSession(Session):
    """A model loaded into ONNX Runtime."""

    def __init__(self, session: ort.InferenceSession, path: Path) -> None:
        self._session: ort.InferenceSession | None = session
        self._path = path

    def run(self, images: Images, inputs: Mapping[str, npt.NDArray[Any]] | None = None) -> Images:
        """Runs the model; raises BackendError if it is closed or ONNX Runtime refuses."""
        if self._session is None:
            raise BackendError(f"onnxruntime: {self._path} was closed")
        try:
            (result,) = self._session.run([OUTPUT], {INPUT: images} | dict(inputs or {}))
        except _FAILURES as error:
            raise BackendError(f"onnxruntime: {self._path} failed on {images.shape} ({_reason(error)})") from None
        return np.asarray(result, dtype=np.uint8)

    def close(self) -> None:
        """Frees the model."""
        self._session = None


def choose(backends: Mapping[str, type[Backend]], name: str | None = None) -> tuple[str, type[Backend], str]:
    """Picks a backend: the one named, else the usable one of the largest rank.

    Args:
        backends: all that are registered, by name.
        name: what the user asks for; None or ``auto`` leaves the choice to the ranks.

    Returns:
        Its name, its class, and the reason in one line.

    Raises:
        BackendError: if there is none of that name, or it cannot be used here.
    """
    states = {key: plugins.availability(key, backend) for key, backend in backends.items()}
    usable = [key for key, state in states.items() if state.usable]
    offer = f"usable here: {', '.join(usable) or 'none'}"
    if name is not None and name != "auto":
        if name not in states:
            raise BackendError(f"backend {name}: not installed; {offer}")
        if name not in usable:
            raise BackendError(f"backend {name}: cannot be used, {states[name].reason}; {offer}")
        return name, backends[name], f"asked for; {states[name].reason}"
    if not usable:
        reasons = "; ".join(f"{key}: {state.reason}" for key, state in states.items())
        raise BackendError(f"no backend can be used here ({reasons or 'none is registered'})")
    best = max(usable, key=lambda key: states[key].rank)
    why = "the only usable one" if len(usable) == 1 else f"expected to be the fastest of {', '.join(usable)}"
    return best, backends[best], f"{why}; {states[best].reason}"


def _providers() -> list[str]:
    """Execution providers to use, the fastest first."""
    present = ort.get_available_providers()
    return [name for name in _GPU_PROVIDERS if name in present] + ["CPUExecutionProvider"]


def _session_options(threads: int) -> ort.SessionOptions:
    """Few threads, and none that spins: while they wait, the decoder and the encoder need the cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _reason(error: Exception) -> str:
    """The first line of what ONNX Runtime says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@hookimpl
def register_backends(register: Callable[[str, type[Backend]], None]) -> None:
    """Brings ONNX Runtime."""
    register("onnxruntime", OnnxRuntime)
