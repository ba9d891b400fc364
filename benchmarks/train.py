"""How fast our CycleGAN step is, and how much memory it takes, against the published loop on the same machine.

Both loops (training_loops.py) train the same networks on the same pictures. Every row runs in a process of its own, in
turns (A B A B …), so that a machine that gets slower is slower for all.

    python benchmarks/train.py --rows published,ours,ours+malloc,ours+compile --loader --json train.json

A row is `published` or `ours`, with means joined by `+`: `contiguous` (ours without channels-last), `fp32`, `bf16`
(instead of --precision), `compile`, `foreach`, `fused` (kinds of Adam), `malloc` (freed memory is kept, not given back
to the kernel), `hugepages`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from training_loops import Ours, Published, Setting, make_batches, make_recipe, plain_pictures

from streamgan_training import loop
from streamgan_training import recipe as recipes

BAR = 1.8
"""How many times as fast as the published loop ours must be on a CPU that computes in bf16."""
BF16_FLAGS = ("avx512_bf16", "amx_bf16")
FLAGS = ("avx2", "avx512f", *BF16_FLAGS)
"""What is said of a CPU, as /proc/cpuinfo names it."""
ENVIRONMENT = {
    "malloc": {
        "MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592", "MALLOC_TOP_PAD_": "268435456",
    },
    "hugepages": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "THP_MEM_ALLOC_ENABLE": "1"},
}  # fmt: skip
"""Means that are variables of the environment."""
OUR_MEANS = ("contiguous", "fp32", "bf16", "compile", "foreach", "fused")
LOADER = "loader"
LOADER_PICTURES = 96


@dataclasses.dataclass(frozen=True)
class Run:
    """What one process measured."""

    seconds: Sequence[float] = ()
    """Of each step, from asking for its pictures to its end."""
    reading: Sequence[float] = ()
    """The part of each step until its pictures were there."""
    first_seconds: float = 0.0
    """Of the very first step, where compiling happens."""
    peak_bytes: int = 0
    """Most memory held at once: on CUDA that of tensors, else that of the process."""
    start_bytes: int = 0
    """The part of it that was held before the networks were made."""
    precision: str = "32-true"
    utilisation: float | None = None
    """Of a GPU, in percent."""
    loader: dict[str, float] = dataclasses.field(default_factory=dict)
    """Pictures per second, by kind of loader."""

    @property
    def rate(self) -> float:
        """Steps per second: by the median step."""
        return float(1 / np.median(self.seconds))

    @property
    def pure_rate(self) -> float:
        """Steps per second if pictures cost nothing."""
        return float(1 / np.median(np.subtract(self.seconds, self.reading)))


def parse_row(name: str) -> tuple[str, frozenset[str]]:
    """The loop and the means of a row.

    Raises:
        click.BadParameter: naming what is unknown.
    """
    kind, *means = name.split("+")
    known = [*ENVIRONMENT, *(OUR_MEANS if kind == "ours" else ())]
    wrong = [mean for mean in means if mean not in known]
    if kind not in ("ours", "published") or wrong:
        raise click.BadParameter(f"row '{name}': expected published or ours, and of means {', '.join(known)}")
    return kind, frozenset(means)


# Measuring, in a process of its own.


def measure(name: str, setting: Setting) -> Run:
    """One row, once, in this process."""
    torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    random.seed(0)
    if name == LOADER:
        return Run(loader=measure_loader(setting))
    kind, means = parse_row(name)
    recipe, start = make_recipe(setting), peak_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "published":
        torch.backends.cudnn.benchmark = True  # as the published code does
        published = Published(recipe, device)
        plain = plain_pictures(setting)
        run = time_steps(lambda pair: published.step(pair[0].to(device), pair[1].to(device)), plain, setting, device)
        return dataclasses.replace(run, start_bytes=start)
    given = "32-true" if "fp32" in means else "bf16-mixed" if "bf16" in means else setting.precision
    precision = loop.choose_precision(given)
    ours = Ours(recipe, means, loop.make_fabric(precision))
    run = time_steps(ours.step, make_batches(recipe, 2 * (device.type != "cpu")), setting, device)
    return dataclasses.replace(run, start_bytes=start, precision=precision)


def time_steps(
    step: Callable[[Any], dict[str, Tensor]], pictures: Iterator[Any], setting: Setting, device: torch.device
) -> Run:
    """Plays and times all steps of one process."""
    seconds, reading = [], []
    loads: list[float] = []
    with contextlib.ExitStack() as stack:
        for number in range(setting.warm_up + setting.steps):
            if number == setting.warm_up and device.type == "cuda":
                loads = stack.enter_context(watch_gpu())
            start = time.perf_counter()
            batch = next(pictures)
            reading.append(time.perf_counter() - start)
            step(batch)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    measured = slice(setting.warm_up, None)
    utilisation = float(np.mean(loads)) if loads else None
    peak = peak_memory()
    return Run(tuple(seconds[measured]), tuple(reading[measured]), seconds[0], peak, utilisation=utilisation)


@contextlib.contextmanager
def watch_gpu() -> Iterator[list[float]]:
    """Fills a list with the GPU's utilisation in percent, five times a second, when the block ends."""
    found: list[float] = []
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200", "--id=0"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as watcher:
        yield found
        watcher.terminate()
        lines = watcher.communicate()[0].split("\n")
    found += [float(line) for line in lines if line.strip().isdigit()]


def peak_memory() -> int:
    """Most bytes held so far: tensors on CUDA, else this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would count the parent's memory too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_loader(setting: Setting, workers: Sequence[int] = (0, 1, 2)) -> dict[str, float]:
    """Pictures per second that our loader makes while nobody trains, decoded before and decoded each time."""
    found = {}
    for name, cache in (("cached", 4.0), ("decoded each time", 0.0)):
        recipe = make_recipe(setting, cache)
        for count in workers:
            made = make_batches(recipe, count)
            next(made)
            start = time.perf_counter()
            steps = max(1, LOADER_PICTURES // (2 * setting.batch))
            for _ in range(steps):
                next(made)
            found[f"{count}, {name}"] = 2 * setting.batch * steps / (time.perf_counter() - start)
    return found


# The table.


def call(name: str, setting: Setting) -> Run:
    """One row, once, in a fresh process.

    Raises:
        click.ClickException: if it fails, with what it said.
    """
    threads = {"OMP_NUM_THREADS": str(setting.threads), "MKL_NUM_THREADS": str(setting.threads)}
    environment = os.environ | threads
    for mean in name.split("+")[1:]:
        environment |= ENVIRONMENT.get(mean, {})
    order = json.dumps({"name": name, "setting": dataclasses.asdict(setting)})
    command = [sys.executable, __file__, "--child", order]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"row {name} failed:\n{done.stderr[-2000:]}")
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Run(**values)


def quartiles(values: Sequence[float]) -> str:
    """The median, and the interquartile range beside it."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.3g} ({low:.3g}–{high:.3g})"


def describe_machine(threads: int) -> dict[str, Any]:
    """What the figures depend on."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = found.get("flags", "").split()
    return {
        "cpu": found.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "threads": threads,
        "flags": [flag for flag in FLAGS if flag in flags],
        "bf16": any(flag in flags for flag in BF16_FLAGS),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
    }


def row(name: str, runs: Sequence[Run], base: Sequence[Run]) -> str:
    """One line of the table; ratios are taken round by round."""
    rates = [1 / second for run in runs for second in run.seconds]
    ratios = [run.rate / other.rate for run, other in zip(runs, base, strict=True)]
    pure = float(np.median([run.pure_rate / other.pure_rate for run, other in zip(runs, base, strict=True)]))
    waits = float(np.median([sum(run.reading) / sum(run.seconds) for run in runs]))
    peak, start = (max(getattr(run, key) for run in runs) / 2**20 for key in ("peak_bytes", "start_bytes"))
    cells = [name, runs[0].precision, quartiles(rates), quartiles(ratios), f"{pure:.2f}", f"{100 * waits:.1f}%"]
    loads = [run.utilisation for run in runs if run.utilisation is not None]
    cells += [f"{peak:.0f} ({start:.0f})", f"{np.mean(loads):.0f}%" if loads else "–"]
    return f"| {' | '.join(cells)} |"


def verdict(machine: dict[str, Any], found: dict[str, list[Run]]) -> str:
    """Whether the bar is met, or why it says nothing here."""
    if machine["gpu"] is None and not machine["bf16"]:
        return (
            f"The bar of {BAR}× is for CPUs with bf16. This one has neither of {', '.join(BF16_FLAGS)}: "
            "bf16 would be emulated, so `auto` computes in fp32, and the bar cannot be judged here."
        )
    ratios = {
        name: float(np.median([run.rate / other.rate for run, other in zip(runs, found["published"], strict=True)]))
        for name, runs in found.items()
        if name.startswith("ours")
    }
    met = [f"{name} {ratio:.2f}×" for name, ratio in ratios.items() if ratio >= BAR]
    where = "" if machine["gpu"] is None else " (set for CPUs; this is a GPU)"
    return f"The bar of {BAR}×{where} is " + (f"met by {', '.join(met)}." if met else "not met.")


def report(machine: dict[str, Any], setting: Setting, found: dict[str, list[Run]], loader: list[Run]) -> str:
    """All of it in Markdown."""
    flags = ", ".join(flag if flag in machine["flags"] else f"no {flag}" for flag in FLAGS)
    load = f"load average {machine['load_before']:.1f} before, {machine['load_after']:.1f} after"
    lines = [
        f"{machine['gpu'] or machine['cpu']}; {machine['cores']} cores, {machine['threads']} threads; {flags}; "
        f"torch {machine['torch']}; {load}",
        f"{setting.generator} of width {setting.width}, {setting.size}², batch {setting.batch}; "
        f"{len(found['published'])} rounds of {setting.steps} steps; median (quartiles)", "",
        "| row | precision | steps/s | times published | without reading | reading | peak MiB (at start) | GPU |",
        "|---|---|---|---|---|---|---|---|",
        *(row(name, runs, found["published"]) for name, runs in found.items()), "",
        verdict(machine, found),
    ]  # fmt: skip
    ours = next((name for name in found if name.startswith("ours")), None)
    if loader and ours is not None:
        needed = 2 * setting.batch * float(np.median([run.pure_rate for run in found[ours]]))
        lines += ["", f"`{ours}` takes at most {needed:.3g} pictures a second; the loader alone makes:", ""]
        lines += ["| workers | pictures/s | times what is taken |", "|---|---|---|"]
        for key in loader[0].loader:
            made = [run.loader[key] for run in loader]
            lines.append(f"| {key} | {quartiles(made)} | {np.median(made) / needed:.1f} |")
    return "\n".join(lines)


def write_pictures(folder: Path, count: int = 24) -> tuple[str, str]:
    """Two folders of JPEG pictures of 480 × 360, one bright, one dark: what is on them does not change the speed."""
    generator = np.random.default_rng(0)
    for name, low, high in (("a", 90, 255), ("b", 0, 120)):
        (folder / name).mkdir()
        for index in range(count):
            coarse = generator.integers(low, high, (18, 24, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((480, 360), Image.Resampling.BICUBIC)
            picture.save(folder / name / f"{index:03d}.jpg", quality=90)
    return str(folder / "a"), str(folder / "b")


@click.command()
@click.option("--child", hidden=True, help="One row for the process that measures it.")
@click.option("--rows", default="published,ours,ours+malloc", show_default=True, help="Must have `published`.")
@click.option("--rounds", default=5, show_default=True, help="Processes per row, in turns.")
@click.option("--steps", default=10, show_default=True, help="Measured steps of each process.")
@click.option("--warm-up", default=3, show_default=True, help="Steps before those.")
@click.option("--size", default=256, show_default=True, help="Side of the crops, in pixels.")
@click.option("--batch", default=1, show_default=True)
@click.option("--generator", type=click.Choice(get_args(recipes.GeneratorName)), default="resnet9", show_default=True)
@click.option("--width", default=64, show_default=True, help="Channels of the generators' first level.")
@click.option("--norm", type=click.Choice(get_args(recipes.NormName)), default="instance", show_default=True)
@click.option("--discriminator-width", default=64, show_default=True)
@click.option("--precision", default="auto", show_default=True, help="Of ours: bf16 where the device has it.")
@click.option("--compile", "compiled", is_flag=True, help="Adds a compiled row for each of ours.")
@click.option("--threads", default=len(os.sched_getaffinity(0)), show_default=True)
@click.option("--a", default="", help="Folder of images; without it and --b, pictures are made.")
@click.option("--b", default="")
@click.option("--loader", is_flag=True, help="Also measures the loader alone.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Writes every single figure.")
def main(
    child: str | None, rows: str, rounds: int, compiled: bool, loader: bool, json_file: Path | None, **common: Any
) -> None:
    """Prints the table in Markdown."""
    if child is not None:
        order = json.loads(child)
        click.echo(json.dumps(dataclasses.asdict(measure(order["name"], Setting(**order["setting"])))))
        return
    names = rows.split(",")
    if compiled:
        names += [f"{name}+compile" for name in names if name.startswith("ours") and "compile" not in name]
    if "published" not in names:
        raise click.BadParameter(f"rows: {rows} given, expected 'published' among them: the others are divided by it")
    for name in names:
        parse_row(name)
    found: dict[str, list[Run]] = {name: [] for name in [*names, *[LOADER] * loader]}
    machine = describe_machine(common["threads"])
    with tempfile.TemporaryDirectory(prefix="streamgan-bench-") as folder:
        if not (common["a"] and common["b"]):
            common["a"], common["b"] = write_pictures(Path(folder))
        setting = Setting(**common)
        for number in range(rounds):
            for name in found:
                click.echo(f"round {number + 1} of {rounds}: {name}", err=True)
                found[name].append(call(name, setting))
    machine["load_after"] = os.getloadavg()[0]
    loads = found.pop(LOADER, [])
    click.echo(report(machine, setting, found, loads))
    if json_file is not None:
        runs = {name: [dataclasses.asdict(run) for run in done] for name, done in (found | {LOADER: loads}).items()}
        values = {"machine": machine, "setting": dataclasses.asdict(setting), "runs": runs}
        json_file.write_text(json.dumps(values, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
