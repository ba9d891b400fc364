"""The backend ``tensorrt``."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt

from streamgan import api
from streamgan_tensorrt import cache, cuda, engines, runtime
from streamgan_tensorrt.cuda import Device
from streamgan_tensorrt.engines import Source
from streamgan_tensorrt.execution import Executor
from streamgan_tensorrt.profiles import Shape

_KEPT_ENGINES = 4
_log = logging.getLogger("streamgan.tensorrt")


class TensorRt(api.Backend):
    """TensorRT 10 and 11, or TensorRT-RTX, on the first NVIDIA GPU that CUDA shows.

    An engine is built for each shape of pictures that a session meets, which takes from seconds (TensorRT-RTX) to
    minutes; it is kept, so that the next run begins at once.
    """

    precisions = ("fp32", "fp16", "bf16", "int8")
    max_streams = 4
    rank = 5
    """Below ONNX Runtime's 10: nobody has measured it with streamgan, so it is used only when asked for or tried."""

    @classmethod
    def availability(cls) -> api.Availability:
        """Usable where TensorRT, the CUDA bindings, and a GPU with its driver are."""
        module = runtime.installed()
        if module is None:
            return api.Availability(False, runtime.MISSING)
        if not cuda.installed():
            return api.Availability(False, cuda.MISSING)
        try:
            device = cuda.find_device()
        except api.BackendError as error:
            return api.Availability(False, str(error).removeprefix("tensorrt: "))
        kind = "TensorRT" if module == "tensorrt" else "TensorRT-RTX"
        return api.Availability(True, f"{kind} on {device}", cls.rank)

    def load(self, path: Path, *, threads: int, precision: str = "auto", streams: int = 1) -> api.Session:
        """Loads a model file; ``auto`` is fp16.

        Args:
            path: the ``.onnx`` file; for ``int8`` a quantised one.
            threads: not used; the GPU does the work.
            precision: one of `precisions`, or ``auto``.
            streams: how many threads will call `run` at once; each gets an execution context and buffers of its own.

        Raises:
            BackendError: if there is no GPU, TensorRT is missing, or the file cannot be read. An engine is only built
                when the first pictures come, so what TensorRT refuses is said by `run`.
        """
        chosen = "fp16" if precision == "auto" else precision
        if chosen not in self.precisions:
            raise api.BackendError(f"tensorrt: precision {chosen} is not possible; choose {', '.join(self.precisions)}")
        device = cuda.find_device()
        loaded = runtime.load()
        return TensorRtSession(Source.open(loaded, path, chosen, device), device, max(1, streams))


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """An engine that is ready to run."""

    entry: cache.Entry
    executor: Executor
    kernels: Any
    """What TensorRT-RTX has compiled for it; None with TensorRT, which compiles when it builds."""


class TensorRtSession(api.Session):
    """A model, with an engine for each shape that it has met."""

    def __init__(self, source: Source, device: Device, streams: int) -> None:
        self.precision = source.precision
        self.device = f"{source.runtime.name} on {device}"
        """What it runs on, for people."""
        self._source: Source | None = source
        self._file = source.path
        self._device, self._streams = device, streams
        self._deserialiser: Any = source.runtime.module.Runtime(source.runtime.logger)
        self._loaded: list[_Loaded] = []
        self._choosing = threading.Lock()

    def run(self, images: api.Images, inputs: Mapping[str, npt.NDArray[Any]] | None = None) -> api.Images:
        """Runs the model; the first pictures of a shape wait for an engine to be found or built.

        Raises:
            BackendError: if it is closed, or TensorRT or CUDA refuses.
        """
        if images.ndim != 4 or images.shape[3] != 3 or not images.size:
            raise api.BackendError(f"tensorrt: {self._file} takes (N, H, W, 3) uint8 RGB, {images.shape} given")
        with self._choosing:  # others may run meanwhile, but not build, nor be closed
            source = self._source
            if source is None:
                raise api.BackendError(f"tensorrt: {self._file} was closed")
            loaded, fresh = self._engine(source, cast(Shape, images.shape[:3]))
            lane = loaded.executor.take()
        try:
            result = lane.run(images, inputs or {})
        finally:
            loaded.executor.give_back(lane)
        if fresh and loaded.kernels is not None:
            self._keep_kernels(source, loaded.kernels)
        return result

    def close(self) -> None:
        """Frees the model and the GPU's memory."""
        with self._choosing:
            while self._loaded:
                self._loaded.pop().executor.close()
            self._source = self._deserialiser = None

    def _engine(self, source: Source, shape: Shape) -> tuple[_Loaded, bool]:
        """An engine for pictures of this shape, and whether it is a new one; the one unused for longest makes room."""
        for place, loaded in enumerate(self._loaded):
            if any(profile.covers(shape) for profile in loaded.entry.profiles):
                self._loaded.append(self._loaded.pop(place))
                return loaded, False
        while len(self._loaded) >= _KEPT_ENGINES:
            self._loaded.pop(0).executor.close()
        self._loaded.append(self._load(source, shape))
        return self._loaded[-1], True

    def _load(self, source: Source, shape: Shape) -> _Loaded:
        """Finds or builds an engine; one that is kept and refused, as by a newer driver, is built again, once."""
        for _ in range(2):
            entry = engines.obtain(source, shape)
            source.runtime.complaints.clear()
            engine = self._deserialiser.deserialize_cuda_engine(entry.engine)
            if engine is not None:
                return self._ready(source, dataclasses.replace(entry, engine=b""), engine)
            reason = source.runtime.complaint()
            _log.warning("tensorrt: an engine of %s is refused and built anew (%s)", source.path.name, reason)
            cache.drop(entry)
        raise api.BackendError(f"tensorrt: {source.path}: TensorRT refuses the engine that it has built ({reason})")

    def _ready(self, source: Source, entry: cache.Entry, engine: Any) -> _Loaded:
        """The engine with execution contexts for all streams."""
        kernels, configuration = None, None
        if source.runtime.portable:
            configuration = engine.create_runtime_config()
            kernels = configuration.create_runtime_cache()
            file = engines.kernels_file(source, self._device)
            known = file and cache.read(file)
            if known:
                kernels.deserialize(known)
            configuration.set_runtime_cache(kernels)
            strategies = source.runtime.module.DynamicShapesKernelSpecializationStrategy
            configuration.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER

        def make_context() -> Any:
            context = engine.create_execution_context(*([configuration] if configuration else []))
            if context is None:
                raise api.BackendError(
                    f"tensorrt: {source.path}: no room on the GPU ({source.runtime.complaint()}); "
                    "close other programs, or use a smaller --size"
                )
            return context

        executor = Executor(source.runtime.module, cuda.runtime(), engine, make_context, self._streams)
        return _Loaded(entry, executor, kernels)

    def _keep_kernels(self, source: Source, kernels: Any) -> None:
        """Keeps what TensorRT-RTX compiled, so that the next run begins at once."""
        file = engines.kernels_file(source, self._device)
        if file is not None:
            cache.keep(file, bytes(kernels.serialize()))
