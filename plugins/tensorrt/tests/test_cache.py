"""What is kept is found again, damaged or foreign things are not, and two programs build once."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from streamgan import testing
from streamgan_tensorrt import cache, engines
from streamgan_tensorrt.cuda import Device
from streamgan_tensorrt.profiles import Profile

SHAPE = (1, 48, 64)
TWO_PROGRAMS = """
import sys, time
from pathlib import Path
from streamgan_tensorrt import build, engines, runtime

def slowly(source, graph, profiles, on_progress, **options):
    with open(sys.argv[2], "a") as file:
        file.write("built ")
    time.sleep(1)
    return build.Plan(b"an engine", {})

engines.build = slowly
trt = runtime.Runtime(None, "TensorRT-Fake 1", True, None, None)
source = engines.Source.open(trt, Path(sys.argv[1]), "fp16", None)
print("ready", flush=True)
sys.stdin.readline()
print(engines.obtain(source, (1, 48, 64)).engine.decode())
"""


@pytest.fixture
def source(gpu: Any, tmp_path: Path) -> engines.Source:
    """A tiny model in fp32."""
    path = testing.make_model(tmp_path / "tiny.onnx")
    return engines.Source.open(gpu.runtime, path, "fp32", None)


def test_a_seal_shows_every_flipped_bit() -> None:
    sealed = cache.seal(b"times of tactics")
    assert cache.unseal(sealed) == b"times of tactics"
    for place in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[place] ^= 1
        assert cache.unseal(bytes(flipped)) is None
    for length in range(len(sealed)):
        assert cache.unseal(sealed[:length]) is None
    assert cache.unseal(sealed + b"x") is None


def test_an_engine_is_built_once(gpu: Any, source: engines.Source) -> None:
    first, second = engines.obtain(source, SHAPE), engines.obtain(source, SHAPE)
    assert first == second and gpu.built == [(Profile.static(SHAPE),)]
    engines.obtain(source, (2, 48, 64))
    assert len(gpu.built) == 2


def test_the_file_beside_it_says_what_it_is(source: engines.Source, private_cache: Path) -> None:
    entry = engines.obtain(source, SHAPE)
    assert entry.path is not None and entry.path.parent == private_cache
    facts = json.loads(entry.path.with_suffix(".json").read_text())
    assert facts["file"] == "tiny.onnx" and facts["precision"] == "fp32" and facts["runtime"] == "TensorRT-Fake 1"
    assert facts["profiles"] == [[[1, 48, 64]] * 3] and facts["gpu"] == "any from Ampere on"
    assert not [path for path in private_cache.iterdir() if path.name.startswith(".")], "nothing half-written is left"


def test_the_folder_is_private(source: engines.Source, private_cache: Path) -> None:
    private_cache.mkdir(parents=True)
    private_cache.chmod(0o777)
    engines.obtain(source, SHAPE)
    assert private_cache.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_another_user_is_not_used(
    source: engines.Source, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert engines.obtain(source, SHAPE).path is None
    assert not list(private_cache.iterdir())


@pytest.mark.parametrize("what", ["weights", "precision", "runtime", "gpu", "capability"])
def test_another_engine_is_needed_for_other(what: str, gpu: Any, source: engines.Source, tmp_path: Path) -> None:
    engines.obtain(source, SHAPE)
    path, precision, trt, device, capability = source.path, "fp32", gpu.runtime, None, ""
    if what == "weights":
        path = testing.make_model(tmp_path / "other.onnx", ("a", "b"))
    if what == "precision":
        precision = "fp16"
    if what == "runtime":
        trt = dataclasses.replace(trt, name="TensorRT-Fake 2")
    if what == "gpu":
        trt = dataclasses.replace(trt, portable=False)
        device = Device("One GPU", "8.9", "580.1")
    if what == "capability":
        capability = "8.9"
    engines.obtain(engines.Source.open(trt, path, precision, device, capability), SHAPE)
    assert len(gpu.built) == 2
    if what == "gpu":
        for other in (Device("Other GPU", "8.9", "580.1"), Device("One GPU", "8.9", "590.2")):
            engines.obtain(engines.Source.open(trt, path, precision, other), SHAPE)
        assert len(gpu.built) == 4
        engines.obtain(engines.Source.open(trt, path, precision, Device("One GPU", "8.9", "580.1")), SHAPE)
        assert len(gpu.built) == 4


def test_what_is_built_ahead_is_found_on_its_gpu(gpu: Any, source: engines.Source) -> None:
    ampere, turing = Device("One GPU", "8.6", "580.1"), Device("Old GPU", "7.5", "580.1")
    default = engines.make(source, [Profile.static(SHAPE)], lambda done, phase: None)
    assert engines.obtain(engines.Source.open(gpu.runtime, source.path, "fp32", ampere), SHAPE) == default
    ahead = engines.Source.open(gpu.runtime, source.path, "fp32", None, "8.6")
    narrow = engines.make(ahead, [Profile.static(SHAPE)], lambda done, phase: None)
    assert engines.obtain(engines.Source.open(gpu.runtime, source.path, "fp32", ampere), SHAPE) == narrow
    assert len(gpu.built) == 2
    old = engines.Source.open(gpu.runtime, source.path, "fp32", turing)
    assert old.capability == "7.5" and engines.obtain(old, SHAPE).facts["gpu"] == "any of compute capability 7.5"
    assert len(gpu.built) == 3, "an engine for Ampere does not run on Turing"


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "facts", "no facts", "no engine"])
def test_what_is_damaged_is_built_again_once(damage: str, gpu: Any, source: engines.Source) -> None:
    entry = engines.obtain(source, SHAPE)
    assert entry.path is not None
    content, sidecar = bytearray(entry.path.read_bytes()), entry.path.with_suffix(".json")
    content[len(content) // 2] ^= 4
    if damage in ("cut", "emptied", "flipped"):
        entry.path.write_bytes({"cut": content[:100], "emptied": b"", "flipped": bytes(content)}[damage])
    elif damage == "no facts":
        sidecar.unlink()
    elif damage == "no engine":
        entry.path.unlink()
    else:
        sidecar.write_text('{"profiles": [[1, 2], "x"]}')
    assert engines.obtain(source, SHAPE).engine == entry.engine
    assert len(gpu.built) == 2
    engines.obtain(source, SHAPE)
    assert len(gpu.built) == 2


def test_an_engine_for_a_range_serves_its_sizes_and_one_for_just_the_shape_comes_first(
    gpu: Any, source: engines.Source
) -> None:
    span = Profile.spanning([(1, 48, 64), (2, 96, 128)])
    engines.make(source, [span], lambda done, phase: None)
    assert engines.obtain(source, (2, 50, 70)).profiles == (span,)
    assert engines.obtain(source, SHAPE).profiles == (span,)
    assert len(gpu.built) == 1
    engines.make(source, [Profile.static(SHAPE)], lambda done, phase: None)
    assert engines.obtain(source, SHAPE).profiles == (Profile.static(SHAPE),)
    assert engines.obtain(source, (1, 47, 64)).profiles == (Profile.static((1, 47, 64)),)


def test_a_full_disk_is_no_failure(
    gpu: Any, source: engines.Source, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert engines.obtain(source, SHAPE).path is None
    assert [path.name for path in private_cache.iterdir()] == ["build.lock"], "nothing half-written is left"


def test_measured_times_are_handed_on_and_damaged_ones_are_not(
    gpu: Any, source: engines.Source, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[bytes] = []

    def build(*arguments: Any, timing: bytes, **options: Any) -> Any:
        handed.append(timing)
        return gpu.build(*arguments)

    monkeypatch.setattr(engines, "build", build)
    trt = dataclasses.replace(gpu.runtime, portable=False)
    measured = engines.Source.open(trt, source.path, "fp32", Device("One GPU", "8.9", "580.1"))
    engines.obtain(measured, (1, 8, 8))
    engines.obtain(measured, (1, 16, 16))
    (file,) = private_cache.glob("*.timing")
    file.write_bytes(file.read_bytes().replace(b"times", b"timez"))
    engines.obtain(measured, (1, 24, 24))
    engines.obtain(measured, (1, 32, 32))
    assert handed == [b"", b"times", b"", b"times"]


def test_threads_build_one_after_the_other_even_where_nothing_is_kept(
    gpu: Any, source: engines.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    building, most = [], []

    def build(*arguments: Any, **options: Any) -> Any:
        building.append(1)
        most.append(len(building))
        time.sleep(0.05)
        building.pop()
        return gpu.build(*arguments)

    monkeypatch.setattr(engines, "build", build)
    monkeypatch.setattr(cache, "open_folder", lambda: None)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda side: engines.obtain(source, (1, side, side)), (8, 16, 24)))
    assert most == [1, 1, 1]


def test_two_programs_at_once_build_once(tmp_path: Path) -> None:
    model = testing.make_model(tmp_path / "tiny.onnx")
    line = [sys.executable, "-c", TWO_PROGRAMS, str(model), str(tmp_path / "log")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    programs = [subprocess.Popen(line, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    for program in programs:
        assert program.stdout.readline() == "ready\n", program.stderr.read()
    for program in programs:
        program.stdin.write("\n")
        program.stdin.flush()
    said = [program.communicate(timeout=60) for program in programs]
    waiting = "tensorrt: waiting for another program that builds an engine\n"
    assert sorted(said) == [("an engine\n", ""), ("an engine\n", waiting)]
    assert (tmp_path / "log").read_text() == "built "
