"""ONNX Runtime: on the CPU, and through its execution providers on GPUs and neural engines."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import sys
from pathlib import Path
from typing import ClassVar

from streamgan.api import Availability, Backend, BackendError, Session, cache_folder
from streamgan.model import digest
from streamgan.models import memo

_KIND = "onnxruntime"
"""The folder of the cache."""


class OnnxRuntime(Backend):
    """ONNX Runtime on the CPU."""

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")
    max_streams = 16

    @classmethod
    def availability(cls) -> Availability:
        """Usable wherever the package is; it is one of streamgan's own requirements."""
        return Availability(True, f"ONNX Runtime {_build()[0]} on CPU", 10)

    def load(self, path: Path, *, threads: int, precision: str = "auto", streams: int = 1) -> Session:
        """Loads a model file; ``auto`` is fp32. With several streams each has its share of the threads.

        Raises:
            BackendError: if ONNX Runtime refuses it, or the precision is not possible.
        """
        chosen = _chosen("onnxruntime", self.precisions, precision)
        from streamgan.models import sessions

        # A session runs on the caller's thread and on `intra_op_num_threads - 1` of its own, so streams need no pool.
        return sessions.CpuSession(path, threads // streams or 1, chosen)


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
        version, providers = _build()
        if cls.provider not in providers:
            return Availability(False, f"ONNX Runtime {version} is installed without it; {cls.install}")
        missing = cls.lacks()
        if missing:
            return Availability(False, missing)
        return Availability(True, f"ONNX Runtime {version} on {cls.provider}", cls.rank)

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
        from streamgan.models import sessions

        return sessions.DeviceSession(sessions.Sessions(self, path, threads, precision), chosen)


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


def _chosen(name: str, precisions: tuple[str, ...], precision: str) -> str:
    """The precision to compute in; raises BackendError if it is none of those that are possible."""
    if precision not in ("auto", *precisions):
        raise BackendError(
            f"{name}: precision {precision} is not possible; choose auto, {', '.join(precisions[:-1])}"
            f"{' or ' if precisions[:-1] else ''}{precisions[-1]}"
        )
    return precisions[0] if precision == "auto" else precision


def _build() -> tuple[str, list[str]]:
    """Version and execution providers of ONNX Runtime: asked where it is loaded, else as remembered of this build."""
    return _asked() if "onnxruntime" in sys.modules else _remembered()


def _asked() -> tuple[str, list[str]]:
    """As `_build`, as it says itself."""
    import onnxruntime as ort  # takes longer than all else that a choice needs

    return ort.__version__, ort.get_available_providers()


@functools.cache
def _remembered() -> tuple[str, list[str]]:
    """As `_build`; one build is told from another by its library."""
    spec = importlib.util.find_spec("onnxruntime")
    folders = [Path(each) / "capi" for each in (spec and spec.submodule_search_locations) or ()]
    states = [(str(path), path.stat()) for folder in folders for path in folder.glob("onnxruntime_pybind11_state.*")]
    key = {"library": [(name, state.st_size, state.st_mtime_ns) for name, state in states]}
    kept = memo.recall(_KIND, key) or {}
    match kept.get("version"), kept.get("providers"):
        case str(version), list(providers) if states:
            return version, providers
    version, providers = _asked()
    memo.remember(_KIND, key, {"version": version, "providers": providers})
    return version, providers
