"""The plugin keeps the contract of backends, in all precisions, and what it keeps in the cache may break."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import streamgan_openvino
from streamgan import api, testing
from streamgan.testing import BackendTests
from streamgan_openvino import OpenVino, OpenVinoGpu, OpenVinoNpu


class TestOpenVino(BackendTests):
    """All of the contract; that of other devices only where they are."""

    @pytest.fixture(params=[OpenVino, OpenVinoGpu, OpenVinoNpu])
    def backend_class(self, request: pytest.FixtureRequest) -> type[OpenVino]:
        """What to test."""
        found: type[OpenVino] = request.param
        return found


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled models of tests go, instead of the user's cache."""
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that OpenVINO was asked to compile for, as against those taken from the cache."""
    shapes: list[tuple[int, ...]] = []

    class Counting:
        def __init__(self, core: Any) -> None:
            self._core = core

        def compile_model(self, model: Any, device: str, settings: dict[str, Any]) -> Any:
            shapes.append(tuple(model.input(0).shape))
            return self._core.compile_model(model, device, settings)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._core, name)

    core = Counting(streamgan_openvino._core())
    monkeypatch.setattr(streamgan_openvino, "_core", lambda: core)
    return shapes


def check(path: Path, **load: Any) -> None:
    """The tiny model is computed right."""
    session = OpenVino().load(path, **{"threads": 1} | load)
    for images in (testing.make_images(2), testing.make_images(2, seed=5)):
        difference = session.run(images).astype(int) - testing.reference(images)
        assert np.abs(difference).max() <= 1
    session.close()


def test_bf16_is_offered_only_where_the_cpu_has_it(tmp_path: Path) -> None:
    path = testing.make_model(tmp_path / "tiny.onnx")
    capable = "BF16" in streamgan_openvino._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if capable:
        assert OpenVino().load(path, threads=1, precision="bf16").precision == "bf16"
    else:
        with pytest.raises(api.BackendError, match="this CPU has no bf16"):
            OpenVino().load(path, threads=1, precision="bf16")


def test_nothing_is_reported_to_the_makers() -> None:
    code = (
        "import sys, streamgan_openvino; streamgan_openvino._core(); "
        "print('openvino' in sys.modules, [name for name in sys.modules if name.startswith('openvino_telemetry.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"


def test_a_compiled_model_is_taken_up_again(tmp_path: Path, cache: Path, compiled: list[tuple[int, ...]]) -> None:
    path = testing.make_model(tmp_path / "tiny.onnx")
    check(path)
    (entry,) = cache.iterdir()
    first = entry.read_bytes()
    check(path)
    assert compiled == [(2, 48, 64, 3)]
    assert [each.read_bytes() for each in cache.iterdir()] == [first]


def flip(content: bytes) -> bytes:
    """One bit of the weights is another."""
    middle = content.index(np.linspace(-0.25, 0.4, 81, dtype=np.float32)[40:42].tobytes())
    return content[: middle + 3] + bytes([content[middle + 3] ^ 0x40]) + content[middle + 4 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:7],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: bytes(len(content)),
        flip,
    ],
    ids=["empty", "start", "half", "last byte", "one more", "zeros", "flipped bit"],
)
def test_a_damaged_entry_is_made_anew_once(
    damage: Callable[[bytes], bytes], tmp_path: Path, cache: Path, compiled: list[tuple[int, ...]]
) -> None:
    path = testing.make_model(tmp_path / "tiny.onnx")
    check(path)
    (entry,) = cache.iterdir()
    good = entry.read_bytes()
    damaged = damage(good)
    assert damaged != good
    entry.write_bytes(damaged)
    check(path)
    assert len(compiled) == 2
    check(path)
    assert len(compiled) == 2, "the entry was not mended"
    assert [each.name for each in cache.iterdir()] == [entry.name]


def test_what_openvino_does_not_take_is_made_anew(tmp_path: Path, cache: Path, compiled: list[tuple[int, ...]]) -> None:
    """As of a version that says it is the same and is not: whole, but no compiled model."""
    path = testing.make_model(tmp_path / "tiny.onnx")
    check(path)
    (entry,) = cache.iterdir()
    junk = b"no compiled model " * 100
    entry.write_bytes(junk + streamgan_openvino.hashlib.sha256(junk).digest())
    check(path)
    assert len(compiled) == 2


def test_what_differs_is_kept_apart(tmp_path: Path, cache: Path) -> None:
    """Models of one graph with other weights above all: whoever goes by the graph gives one the other's result."""
    path = testing.make_model(tmp_path / "tiny.onnx")
    check(path)
    check(path, threads=2)
    check(path, threads=2, streams=2)
    assert len(list(cache.iterdir())) == 3
    proto = onnx.load(str(path))
    for stored in proto.graph.initializer:
        if stored.name == "weights":
            stored.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(stored), "weights"))
    onnx.save(proto, str(tmp_path / "other.onnx"))
    images = testing.make_images(2)
    other = OpenVino().load(tmp_path / "other.onnx", threads=1).run(images)
    assert np.abs(other.astype(int) - testing.reference(images)).max() > 50
    assert len(list(cache.iterdir())) == 4


def test_old_entries_make_room(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamgan_openvino, "_KEPT_FILES", 2)
    path = testing.make_model(tmp_path / "tiny.onnx")
    session = OpenVino().load(path, threads=1)
    for width in (8, 9, 10, 11):
        session.run(testing.make_images(1, 8, width))
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("broken", ["no folder", "full disk"])
def test_without_a_cache_it_runs_all_the_same(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if broken == "no folder":
        (tmp_path / "file").touch()
        monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "file"))
    else:

        def full(self: Path, content: bytes) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
    path = testing.make_model(tmp_path / "tiny.onnx")
    for _ in range(2):
        check(path)
    assert not list((tmp_path / "cache").rglob("*.*"))


def test_many_may_fill_the_cache_at_once(tmp_path: Path, cache: Path) -> None:
    path = testing.make_model(tmp_path / "tiny.onnx")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: check(path), range(8)))
    assert [each.suffix for each in cache.iterdir()] == [".blob"]


def test_a_film_waits_for_no_picture_and_live_video_for_each(cache: Path) -> None:
    live = streamgan_openvino._settings("CPU", 2, "fp32", 1)
    film = streamgan_openvino._settings("CPU", 4, "int8", 2)
    assert live["PERFORMANCE_HINT"] == "LATENCY" and film["PERFORMANCE_HINT"] == "THROUGHPUT"
    assert (live["NUM_STREAMS"], live["INFERENCE_NUM_THREADS"]) == (1, 2)
    assert (film["NUM_STREAMS"], film["INFERENCE_NUM_THREADS"]) == (2, 4)
    assert live["INFERENCE_PRECISION_HINT"] == film["INFERENCE_PRECISION_HINT"] == "f32"


@pytest.mark.parametrize(
    ("device", "precision", "hint"), [("GPU", "fp32", "f32"), ("GPU", "int8", "f16"), ("NPU", "fp16", "f16")]
)
def test_devices_leave_their_cache_to_openvino(device: str, precision: str, hint: str, cache: Path) -> None:
    settings = streamgan_openvino._settings(device, 2, precision, 2)
    assert settings["CACHE_DIR"] == str(cache.with_name(f"openvino-{device.lower()}"))
    assert settings["INFERENCE_PRECISION_HINT"] == hint and "INFERENCE_NUM_THREADS" not in settings


@pytest.mark.parametrize(("backend", "device"), [(OpenVinoGpu, "GPU"), (OpenVinoNpu, "NPU")])
def test_a_device_is_usable_only_where_openvino_finds_it(
    backend: type[OpenVino], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclasses.dataclass(frozen=True)
    class Core:
        available_devices: tuple[str, ...]

    monkeypatch.setattr(streamgan_openvino, "_core", lambda: Core(("CPU", f"{device}.0")))
    assert backend.availability().usable and backend.availability().rank < 10
    monkeypatch.setattr(streamgan_openvino, "_core", lambda: Core(("CPU",)))
    assert f"no Intel {device}" in backend.availability().reason
