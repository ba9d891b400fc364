"""Models at work: on the CPU and Apple GPUs as torch runs them, on NVIDIA GPUs as CUDA graphs.

A session has one lane for each thread that may run it at once. A lane prepares the model for every shape it meets, and
keeps the last few.
"""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streamgan import api
from streamgan_torch import checkpoints, graph
from streamgan_torch.devices import CPU, CUDA, Device

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""The inputs of a model by name, in the order that it takes them; ``frames`` is among them."""
Network: TypeAlias = Callable[..., Tensor]
"""A model for one shape: takes the inputs as tensors on the device, gives ``(N, H', W', 3)`` uint8."""

_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_KEPT_SHAPES = 4
_WARM_UPS = 3
_FAILURES = (RuntimeError, ValueError, TypeError, IndexError)
_capturing = threading.Lock()  # a capture watches all that the process does on its GPU


class Model(Protocol):
    """What can be prepared for a shape: a model file, or a checkpoint."""

    inputs: tuple[str, ...]
    """Names of the inputs, in the order that a network takes them."""

    def lay_out(self, inputs: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> Network:
        """The network for inputs of one shape."""


class Prepared(Protocol):
    """A network that is ready for pictures of one shape."""

    def run(self, given: Arrays) -> api.Images:
        """Computes the result, a new array."""


def load(path: Path, device: Device, precision: str, threads: int, lanes: int, compiled: bool) -> api.Session:
    """Opens a model file or a checkpoint.

    Args:
        path: an ``.onnx`` file, or the ``tensors.safetensors`` of a checkpoint.
        device: where it runs.
        precision: of the convolutions, one that the device has.
        threads: of the CPU, all lanes together.
        lanes: how many pictures are worked on at once.
        compiled: whether `torch.compile` works over each network.

    Raises:
        BackendError: if torch cannot use the device, or the file cannot be read.
    """
    place = _find(device)
    loader = checkpoints.Checkpoint if path.suffix == ".safetensors" else _load_file
    model = loader(path, place, _TYPES[precision])
    make = Captured if device is CUDA else Eager
    share = max(1, threads // lanes) if device is CPU else 0
    ready = [_Lane(model, place, make, share, compiled) for _ in range(lanes)]
    return TorchSession(path, model, precision, device.name, ready)


def _load_file(path: Path, place: torch.device, precision: torch.dtype) -> Model:
    """A model file."""
    return graph.Layouts(graph.read(path), place, precision)


def _find(device: Device) -> torch.device:
    """The device as torch names it; an error if torch cannot use what is there."""
    if device is CUDA and not torch.cuda.is_available():
        raise api.BackendError(
            "torch: the NVIDIA GPU that is here cannot be used by this torch (is the driver too old for CUDA "
            f"{torch.version.cuda}?); choose --backend torch-cpu or onnxruntime"
        )
    if device.name == "mps" and not torch.backends.mps.is_available():
        raise api.BackendError("torch: the Apple GPU cannot be used by this torch; choose --backend onnxruntime")
    return torch.device("cuda", torch.cuda.current_device()) if device is CUDA else torch.device(device.name)


class TorchSession(api.Session):
    """A loaded model; as many threads may run it as it has lanes, further ones wait."""

    def __init__(self, path: Path, model: Model, precision: str, device: str, lanes: Sequence[_Lane]) -> None:
        self.precision, self.device = precision, device
        if isinstance(model, checkpoints.Checkpoint):
            self.multiple_of, self.domains = model.multiple_of, model.domains
        self._path, self._inputs, self._closed, self._lanes = path, model.inputs, False, lanes
        self._free = queue.SimpleQueue[_Lane]()
        for lane in lanes:
            self._free.put(lane)

    def run(self, images: api.Images, inputs: Mapping[str, npt.NDArray[Any]] | None = None) -> api.Images:
        """Runs the model; raises BackendError if it is closed or torch refuses."""
        if self._closed:
            raise api.BackendError(f"torch: {self._path} was closed")
        given = {graph.INPUT: images} | dict(inputs or {})
        if given.keys() != set(self._inputs):
            raise api.BackendError(
                f"torch: {self._path}: given the inputs {', '.join(given)}, expected {', '.join(self._inputs)}"
            )
        lane = self._free.get()
        try:
            return lane.run({name: given[name] for name in self._inputs})
        except _FAILURES as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise api.BackendError(f"torch: {self._path} failed on {images.shape} ({reason})") from None
        finally:
            self._free.put(lane)

    def close(self) -> None:
        """Frees the model."""
        self._closed = True
        for lane in self._lanes:
            lane.close()


class _Lane:
    """What works on one picture, or one batch, at a time."""

    def __init__(
        self,
        model: Model,
        device: torch.device,
        make: Callable[[Network, torch.device, Arrays], Prepared],
        threads: int,
        compiled: bool,
    ) -> None:
        self._model, self._device, self._make = model, device, make
        self._threads, self._compiled = threads, compiled
        self._prepared: OrderedDict[tuple[Any, ...], Prepared] = OrderedDict()

    def run(self, given: Arrays) -> api.Images:
        """Prepares the model for the shape, unless that was done, and runs it."""
        if self._threads and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)  # of this thread, and of all that torch meets from now on
        shape = tuple((name, array.shape, array.dtype.str) for name, array in given.items())
        if shape not in self._prepared:
            while len(self._prepared) >= _KEPT_SHAPES:
                self._prepared.popitem(last=False)
            self._prepared[shape] = self._make(self._lay_out(given), self._device, given)
        self._prepared.move_to_end(shape)
        return self._prepared[shape].run(given)

    def _lay_out(self, given: Arrays) -> Network:
        """The network for these shapes."""
        network = self._model.lay_out({name: (array.shape, _like(array).dtype) for name, array in given.items()})
        return torch.compile(network, dynamic=False) if self._compiled else network

    def close(self) -> None:
        """Frees what was prepared."""
        self._prepared.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class Eager:
    """Operation after operation."""

    def __init__(self, network: Network, device: torch.device, given: Arrays) -> None:
        self._network, self._device = network, device

    def run(self, given: Arrays) -> api.Images:
        """Computes the result."""
        with torch.inference_mode():
            tensors = [torch.from_numpy(np.array(array)).to(self._device) for array in given.values()]
            return np.asarray(self._network(*tensors).cpu().numpy(), np.uint8)


class Captured:
    """A CUDA graph over copy, network and copy back, with page-locked memory at both ends and a stream of its own.

    Each run fills the memory at the front, replays the graph, and copies what it finds at the back.
    """

    def __init__(self, network: Network, device: torch.device, given: Arrays) -> None:
        self._stream, self._done = torch.cuda.Stream(device), torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._sent = {name: _page_locked(array.shape, _like(array).dtype) for name, array in given.items()}
        self._fill(given)
        fastest = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
        with _capturing, torch.inference_mode(), fastest, torch.cuda.stream(self._stream):
            self._inputs = [tensor.to(device) for tensor in self._sent.values()]
            for _ in range(_WARM_UPS):
                made = network(*self._inputs)
            self._stream.synchronize()
            self._received = _page_locked(tuple(made.shape), made.dtype)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                for tensor, sent in zip(self._inputs, self._sent.values(), strict=True):
                    tensor.copy_(sent, non_blocking=True)
                self._received.copy_(network(*self._inputs), non_blocking=True)

    def run(self, given: Arrays) -> api.Images:
        """Computes the result; the thread sleeps while the GPU works."""
        self._fill(given)
        with torch.cuda.stream(self._stream):
            self._graph.replay()
            self._done.record(self._stream)
        self._done.synchronize()
        return np.array(self._received.numpy(), np.uint8)

    def _fill(self, given: Arrays) -> None:
        """Puts the inputs where the graph reads them."""
        for name, array in given.items():
            np.copyto(self._sent[name].numpy(), array)


def _page_locked(shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """Memory that a GPU reads and writes by itself."""
    return torch.empty(shape, dtype=kind, pin_memory=True)


def _like(array: npt.NDArray[Any]) -> Tensor:
    """An empty tensor of an array's type."""
    return torch.from_numpy(np.empty(0, array.dtype))
