"""From a typed graph to an engine."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from streamgan import api
from streamgan_tensorrt.profiles import Profile
from streamgan_tensorrt.progress import OnProgress, make_monitor
from streamgan_tensorrt.runtime import Runtime

FRAMES, MADE = "frames", "frames_out"


@dataclasses.dataclass(frozen=True)
class Plan:
    """An engine as TensorRT writes it down."""

    engine: bytes
    """To be deserialised by the same version, on the same kind of GPU."""
    tensors: dict[str, str]
    """Inputs and outputs: type and shape by name, such as ``UINT8 (-1, -1, -1, 3)``."""
    timing: bytes = b""
    """The timing cache after the build, which makes the next one shorter; empty where there is none."""


def build(
    runtime: Runtime,
    graph: bytes,
    profiles: Sequence[Profile],
    on_progress: OnProgress,
    *,
    exact: bool = False,
    capability: str = "",
    timing: bytes = b"",
) -> Plan:
    """Builds an engine, strongly typed. Ctrl-C ends it at its next step.

    Args:
        runtime: TensorRT.
        graph: ONNX in the types to compute in (`graph.typed`).
        profiles: the shapes that it is for.
        on_progress: told how far it is.
        exact: whether fp32 means fp32; else TensorRT may round the factors of its products to TF32, of 11 bits.
        capability: compute capability to build for, such as ``8.9``; TensorRT-RTX only, empty for its default.
        timing: a timing cache of the same runtime and GPU. A damaged one ends the process: hand in none that is not
            verified.

    Raises:
        BackendError: if TensorRT refuses the graph, the profiles or the capability.
    """
    stop = threading.Event()
    monitor = make_monitor(runtime.module, on_progress, stop)
    with ThreadPoolExecutor(1, "tensorrt-build") as threads:  # so that this thread hears of Ctrl-C
        future = threads.submit(_build, runtime, graph, profiles, monitor, exact, capability, timing)
        try:
            return future.result()
        except KeyboardInterrupt:
            stop.set()
            raise


def _build(
    runtime: Runtime,
    graph: bytes,
    profiles: Sequence[Profile],
    monitor: Any,
    exact: bool,
    capability: str,
    timing: bytes,
) -> Plan:
    """As `build`, in one go."""
    runtime.complaints.clear()
    builder = runtime.module.Builder(runtime.logger)
    network, parser = parse(runtime, builder, graph)
    configuration = builder.create_builder_config()
    configuration.progress_monitor = monitor
    for profile in profiles:
        configuration.add_optimization_profile(_profile(builder, network, profile))
    if exact:
        configuration.clear_flag(runtime.module.BuilderFlag.TF32)
    if capability:
        _target(runtime, configuration, capability)
    if not runtime.portable:  # where it is portable nothing is timed before it runs
        cache = configuration.create_timing_cache(timing)
        configuration.set_timing_cache(cache, False)  # False: not from another GPU
    engine = builder.build_serialized_network(network, configuration)
    if engine is None:
        shapes = ", ".join(str(profile) for profile in profiles)
        raise api.BackendError(f"tensorrt: no engine could be built for {shapes} ({runtime.complaint()})")
    learnt = b"" if runtime.portable else bytes(configuration.get_timing_cache().serialize())
    del parser  # it owns the weights that the network refers to
    return Plan(bytes(engine), _tensors(network), learnt)


def parse(runtime: Runtime, builder: Any, graph: bytes) -> tuple[Any, Any]:
    """The network of a graph, and the parser, which must outlive it.

    Raises:
        BackendError: if TensorRT cannot parse it.
    """
    trt = runtime.module
    network = builder.create_network(
        1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    )  # 11: a matter of course
    parser = trt.OnnxParser(network, runtime.logger)
    if not parser.parse(graph):
        reason = parser.get_error(0).desc() if parser.num_errors else runtime.complaint()
        raise api.BackendError(f"tensorrt: the model cannot be parsed ({' '.join(reason.split())})")
    return network, parser


def _tensors(network: Any) -> dict[str, str]:
    """Types and shapes of the inputs and outputs of a network, by name."""
    ends = [network.get_input(number) for number in range(network.num_inputs)]
    ends += [network.get_output(number) for number in range(network.num_outputs)]
    return {end.name: f"{end.dtype.name} {tuple(end.shape)}" for end in ends}


def _profile(builder: Any, network: Any, profile: Profile) -> Any:
    """A profile in TensorRT's own terms: further inputs have as many values as there are pictures."""
    made = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        end = network.get_input(number)
        wanted = []
        for count, height, width in (profile.smallest, profile.usual, profile.largest):
            known = (count, height, width, 3) if end.name == FRAMES else (count, *tuple(end.shape)[1:])
            if -1 in known:
                raise api.BackendError(f"tensorrt: the shape of the input '{end.name}' is unknown: {tuple(end.shape)}")
            wanted.append(known)
        made.set_shape(end.name, *wanted)
    return made


def _target(runtime: Runtime, configuration: Any, capability: str) -> None:
    """Builds for GPUs of this compute capability rather than for the default ones."""
    if not runtime.portable:
        raise api.BackendError(f"tensorrt: {runtime.name} builds for the GPU at hand only; leave the capability out")
    known = {name: value for name, value in runtime.module.ComputeCapability.__members__.items() if name[:2] == "SM"}
    name = f"SM{capability.replace('.', '')}"
    if name not in known:
        possible = ", ".join(f"{each[2:-1]}.{each[-1]}" for each in known)
        raise api.BackendError(f"tensorrt: compute capability {capability} is not possible; choose among {possible}")
    configuration.num_compute_capabilities = 1
    configuration.set_compute_capability(known[name], 0)
