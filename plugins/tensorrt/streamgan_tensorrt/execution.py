"""An engine at work: pinned memory, a CUDA stream for each caller, and one CUDA graph over copy, network, copy.

Each lane has an execution context, a stream and buffers of its own, so that several threads translate at once: one
lane's copies then run beside another one's network. The first pictures of a shape run as separate calls, which lets
TensorRT settle; then the calls are recorded, and every later picture is a single launch. The buffers stay where they
are as long as the shape stays, since the recording names them.
"""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import math
import queue
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgan import api
from streamgan_tensorrt.build import FRAMES, MADE
from streamgan_tensorrt.cuda import checked

_log = logging.getLogger("streamgan.tensorrt")


@dataclasses.dataclass(frozen=True)
class Buffer:
    """One tensor, in memory of the machine that is pinned for fast copies, and on the GPU."""

    host: npt.NDArray[Any]
    device: int
    """Address on the GPU."""


class Executor:
    """An engine, run by several threads at once, each in a lane of its own.

    Args:
        trt: TensorRT.
        cuda: the bindings of the CUDA runtime.
        engine: deserialised.
        make_context: makes an execution context of it.
        streams: how many lanes.

    Raises:
        BackendError: if the GPU's memory does not suffice.
    """

    def __init__(self, trt: Any, cuda: Any, engine: Any, make_context: Callable[[], Any], streams: int) -> None:
        self._engine, self._lanes, self._count = engine, queue.Queue[Lane](), 0
        try:
            for _ in range(streams):
                self._lanes.put(Lane(trt, cuda, engine, make_context()))
                self._count += 1
        except api.BackendError:
            self.close()
            raise

    def take(self) -> Lane:
        """A lane, to be given back; waits until one is free."""
        return self._lanes.get()

    def give_back(self, lane: Lane) -> None:
        """Makes a lane free for others."""
        self._lanes.put(lane)

    def close(self) -> None:
        """Frees everything, once the lanes at work have come back. May be called twice."""
        while self._count:
            self._lanes.get().close()
            self._count -= 1
        self._engine = None


class Lane:
    """One execution context with its stream, buffers and recorded calls. For one thread at a time."""

    def __init__(self, trt: Any, cuda: Any, engine: Any, context: Any) -> None:
        self._trt, self._cuda, self._engine, self._context = trt, cuda, engine, context
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._buffers: dict[str, Buffer] = {}
        self._recorded: Any = None
        self._stream: Any = self._do("making a stream", cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))

    def run(self, images: api.Images, inputs: Mapping[str, npt.NDArray[Any]]) -> api.Images:
        """Runs pictures; the result is a copy.

        Args:
            images: ``(N, H, W, 3)`` uint8 RGB.
            inputs: what else the network takes, by name.

        Returns:
            ``(N, H', W', 3)`` uint8 RGB.

        Raises:
            BackendError: if TensorRT or CUDA fails; the next run then begins afresh.
        """
        given: dict[str, npt.NDArray[Any]] = {FRAMES: images, **inputs}
        shapes = {name: array.shape for name, array in given.items()}
        changed = shapes != self._shapes
        if changed:
            self._prepare(shapes)
        for name, array in given.items():
            np.copyto(self._buffers[name].host, array, casting="same_kind")
        try:
            self._launch()
            if changed:
                self._record()
        except api.BackendError:
            self._shapes = {}
            raise
        return self._buffers[MADE].host.copy()

    def close(self) -> None:
        """Frees everything. May be called twice."""
        if self._stream is None:
            return
        self._release()
        self._context = self._engine = None
        self._cuda.cudaStreamDestroy(self._stream)
        self._stream = None

    def _do(self, doing: str, result: Any) -> Any:
        """What a call of CUDA returned, or the error that it is."""
        return checked(self._cuda, doing, result)

    def _prepare(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Makes room for tensors of these shapes, and forgets the recorded calls."""
        self._shapes = {}
        self._release()
        self._choose_profile(shapes[FRAMES])
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise api.BackendError(f"tensorrt: the engine takes no {shape} for the input '{name}'")
        missing = self._context.infer_shapes()
        if missing:
            raise api.BackendError(f"tensorrt: the model needs the input {', '.join(missing)} too")
        for name in (*shapes, MADE):
            self._buffers[name] = self._allocate(name, tuple(self._context.get_tensor_shape(name)))
            self._context.set_tensor_address(name, self._buffers[name].device)
        self._shapes = shapes

    def _choose_profile(self, shape: tuple[int, ...]) -> None:
        """Switches to the first profile of the engine that covers pictures of this shape."""
        for number in range(self._engine.num_optimization_profiles):
            smallest, _, largest = self._engine.get_tensor_profile_shape(FRAMES, number)
            if all(low <= side <= high for low, side, high in zip(smallest, shape, largest, strict=True)):
                if number != self._context.active_optimization_profile:
                    self._context.set_optimization_profile_async(number, int(self._stream))
                return
        raise api.BackendError(f"tensorrt: the engine was not built for pictures of {shape}")

    def _allocate(self, name: str, shape: tuple[int, ...]) -> Buffer:
        """Memory for a tensor."""
        kind = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        size = math.prod(shape) * kind.itemsize
        doing = f"making room for {size >> 20} MB of '{name}'"
        device = self._do(doing, self._cuda.cudaMalloc(size))
        try:
            pinned = self._do(f"pinning '{name}'", self._cuda.cudaHostAlloc(size, self._cuda.cudaHostAllocDefault))
        except api.BackendError:
            self._cuda.cudaFree(device)
            raise
        memory = (ctypes.c_ubyte * size).from_address(int(pinned))
        return Buffer(np.frombuffer(memory, kind).reshape(shape), int(device))

    def _release(self) -> None:
        """Frees the buffers and the recorded calls, once nothing uses them any more."""
        self._cuda.cudaStreamSynchronize(self._stream)
        if self._recorded is not None:
            self._cuda.cudaGraphExecDestroy(self._recorded)
            self._recorded = None
        while self._buffers:
            _, buffer = self._buffers.popitem()
            self._cuda.cudaFreeHost(buffer.host.ctypes.data)
            self._cuda.cudaFree(buffer.device)

    def _enqueue(self) -> None:
        """Puts copy, network, copy into the stream."""
        kinds = self._cuda.cudaMemcpyKind
        for name in self._shapes:
            self._copy(name, kinds.cudaMemcpyHostToDevice)
        if not self._context.execute_async_v3(int(self._stream)):
            raise api.BackendError("tensorrt: the network could not be started")
        self._copy(MADE, kinds.cudaMemcpyDeviceToHost)

    def _copy(self, name: str, kind: Any) -> None:
        """Copies a tensor to the GPU, or from it."""
        buffer = self._buffers[name]
        ends = [buffer.device, buffer.host.ctypes.data]
        if kind == self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost:
            ends.reverse()
        self._do(f"copying '{name}'", self._cuda.cudaMemcpyAsync(*ends, buffer.host.nbytes, kind, self._stream))

    def _launch(self) -> None:
        """Runs what is in the input buffers, and waits for the result."""
        if self._recorded is None:
            self._enqueue()
        else:
            self._do("starting the network", self._cuda.cudaGraphLaunch(self._recorded, self._stream))
        self._do("running the network", self._cuda.cudaStreamSynchronize(self._stream))

    def _record(self) -> None:
        """Records the calls of `_enqueue` for later runs; where CUDA or TensorRT cannot, they are made each time."""
        capturable = getattr(self._context, "is_stream_capturable", lambda stream: True)
        if not capturable(int(self._stream)):
            _log.info("tensorrt: this engine cannot be recorded as a CUDA graph")
            return
        try:
            self._recorded = self._capture()
        except api.BackendError as error:
            self._cuda.cudaGetLastError()  # a failed recording is no failure of what follows
            _log.info("tensorrt: no CUDA graph, calls are made one by one (%s)", error)

    def _capture(self) -> Any:
        """The calls of `_enqueue` as a CUDA graph that can be launched; raises BackendError if there can be none."""
        # Other threads may allocate meanwhile: only this thread's calls are bound by what a recording allows.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._do("recording", self._cuda.cudaStreamBeginCapture(self._stream, mode))
        failure = None
        try:
            self._enqueue()
        except api.BackendError as error:
            failure = error
        graph = self._do("recording", self._cuda.cudaStreamEndCapture(self._stream))  # even if it failed
        try:
            if failure is not None:
                raise failure
            return self._do("recording", self._cuda.cudaGraphInstantiate(graph, 0))
        finally:
            self._cuda.cudaGraphDestroy(graph)
