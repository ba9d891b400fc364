"""How fast an NVIDIA GPU translates, against what its matrix units can do.

The network is the ResNet-9 generator of Zhu et al. 2017 with random weights, which take as long as trained ones, or
any model file. It is measured alone, on pictures that lie on the GPU, as torch runs it: operation by operation, as a
CUDA graph, and compiled. Then with the way there and back, as the backends of streamgan run it: torch and, where it is
installed, TensorRT. Utilisation is the network's multiplications in a second over those of a large matrix product, in
the same type of numbers on the same GPU. A transposed convolution counts its inputs, not its four times as many outputs
as some tables do: ResNet-9 then takes 0.70e12 multiplications a picture of 1280x720, not 0.80e12.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --model presets/day2night.onnx --size 400x224 --precision bf16

Needs torch with CUDA and the package streamgan-torch; without --model also streamgan-training, to export the network.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from streamgan import api
from streamgan_torch import backends, graph

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
MATRIX_SIDE = 8192
ROUNDS, ROUND_SECONDS = 7, 0.5
WARM_UP_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Rate:
    """Something done again and again."""

    per_second: float
    """Median of the rounds."""
    low: float
    high: float


def export_network(path: Path) -> Path:
    """Writes the ResNet-9 generator as a model file, as training exports it."""
    from streamgan.model import SizeRule
    from streamgan_training import export, networks, recipe
    from streamgan_training.trained import FrameModel

    torch.manual_seed(0)
    network = networks.make_generator(recipe.Generator(name="resnet9"))
    export.write_graph(FrameModel(network).eval(), path, SizeRule(4, (256, 256)))
    return path


def count_multiplications(path: Path, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of the convolutions of a model file, for pictures ``(N, H, W, 3)``; nothing is computed."""
    network = graph.Layouts(graph.read(path), torch.device("meta"), torch.float32).lay_out(
        {"frames": (shape, torch.uint8)}
    )
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(shape, dtype=torch.uint8, device="meta"))
    return int(counter.get_total_flops()) // 2


def measure(work: Callable[[], object], wait: Callable[[], object]) -> Rate:
    """How often `work` is done in a second; `wait` returns when all of it is."""

    def run(seconds: float) -> float:
        wait()
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            for _ in range(10):
                work()
            wait()
            count += 10
        return count / (time.perf_counter() - begin)

    run(WARM_UP_SECONDS)
    rates = sorted(run(ROUND_SECONDS) for _ in range(ROUNDS))
    return Rate(statistics.median(rates), rates[0], rates[-1])


def measure_matrix_product(precision: torch.dtype) -> Rate:
    """Multiply-accumulates per second of a large matrix product."""
    left, right = (torch.randn(MATRIX_SIDE, MATRIX_SIDE, device="cuda").to(precision) for _ in range(2))
    made = torch.empty_like(left)
    rate = measure(lambda: torch.mm(left, right, out=made), torch.cuda.synchronize)
    return Rate(*(value * MATRIX_SIDE**3 for value in dataclasses.astuple(rate)))


def capture(network: Callable[..., torch.Tensor], frames: torch.Tensor) -> torch.cuda.CUDAGraph:
    """The network as a CUDA graph, without any copies."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(frames)
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured, stream=stream):
        network(frames)
    return captured


def measure_alone(path: Path, shape: tuple[int, ...], precision: str, compiled: bool) -> dict[str, Any]:
    """The network on pictures that lie on the GPU, in each way that torch has."""
    device = torch.device("cuda")
    layouts = graph.Layouts(graph.read(path), device, TYPES[precision])
    network = layouts.lay_out({"frames": (shape, torch.uint8)})
    frames, wait = torch.randint(0, 256, shape, dtype=torch.uint8, device=device), torch.cuda.synchronize
    found: dict[str, Any] = {
        "torch eager, channels last": measure(lambda: network(frames), wait),
        "torch CUDA graph": measure(capture(network, frames).replay, wait),
    }
    if compiled:
        begin = time.perf_counter()
        try:
            fast = torch.compile(network, dynamic=False)
            fast(frames)
            seconds = time.perf_counter() - begin
            found[f"torch compiled ({seconds:.0f} s), CUDA graph"] = measure(capture(fast, frames).replay, wait)
        except RuntimeError as error:  # no compiler on this machine
            found["torch compiled"] = str(error).splitlines()[0]
    return found


def measure_backend(backend: type[api.Backend], path: Path, shape: tuple[int, ...], precision: str) -> dict[str, Any]:
    """A backend from array to array, with one stream and with two."""
    state, found = backend.availability(), dict[str, Any]()
    if not state.usable:
        return {backend.__name__: state.reason}
    for streams in range(1, min(2, backend.max_streams) + 1):
        several = {"streams": streams} if streams > 1 else {}
        name = f"{backend.__name__}, {streams} stream{'s' if several else ''}"
        try:
            session = backend().load(path, threads=2, precision=precision, **several)
            found[name] = measure_session(session, shape, streams)
            session.close()
        except api.BackendError as error:
            found[name] = str(error)
    return found


def measure_session(session: api.Session, shape: tuple[int, ...], streams: int) -> Rate:
    """A loaded model, run by so many threads at once."""
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with ThreadPoolExecutor(streams) as pool:
        rate = measure(lambda: list(pool.map(session.run, [images] * streams)), lambda: None)
    return Rate(*(value * streams for value in dataclasses.astuple(rate)))


def backends_here() -> list[type[api.Backend]]:
    """Torch on CUDA, and TensorRT if its package is installed."""
    try:
        from streamgan_tensorrt.backend import TensorRt
    except ImportError:
        return [backends.TorchCuda]
    return [backends.TorchCuda, TensorRt]


def report(path: Path, size: tuple[int, int], precision: str, compiled: bool) -> dict[str, Any]:
    """All figures, as plain values; size is (width, height)."""
    shape = (1, size[1], size[0], 3)
    multiplications = count_multiplications(path, shape)
    matrix = measure_matrix_product(TYPES[precision])
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        alone = measure_alone(path, shape, precision, compiled)
    whole: dict[str, Any] = {}
    for backend in backends_here():
        whole |= measure_backend(backend, path, shape, precision)

    def plain(value: Rate | str) -> dict[str, float] | str:
        if isinstance(value, str):
            return value
        share = value.per_second * multiplications / matrix.per_second
        return {"fps": value.per_second, "low": value.low, "high": value.high, "utilisation": share}

    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "model": path.name,
        "size": list(size),
        "precision": precision,
        "multiplications": multiplications,
        "matrix_product_teraflops": 2 * matrix.per_second / 1e12,
        "network_alone": {name: plain(value) for name, value in alone.items()},
        "array_to_array": {name: plain(value) for name, value in whole.items()},
    }


@click.command()
@click.option("--model", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A model file instead.")
@click.option("--size", default="1280x720", show_default=True, help="Width and height of the pictures.")
@click.option("--precision", type=click.Choice(list(TYPES)), default="fp16", show_default=True)
@click.option("--compile/--no-compile", "compiled", default=True, help="Whether to try torch.compile: minutes.")
@click.option("--json", "target", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here too.")
def main(model: Path | None, size: str, precision: str, compiled: bool, target: Path | None) -> None:
    """Prints the figures as JSON."""
    if not torch.cuda.is_available():
        raise click.ClickException("torch finds no CUDA GPU here; nothing was measured")
    width, height = (int(side) for side in size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        path = model if model is not None else export_network(Path(folder) / "resnet9.onnx")
        figures = json.dumps(report(path, (width, height), precision, compiled), indent=2)
    click.echo(figures)
    if target is not None:
        target.write_text(figures + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
