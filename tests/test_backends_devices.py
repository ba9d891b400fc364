"""ONNX Runtime's execution providers, without their devices: what each is told, what is refused, and the bound memory.

CUDA, TensorRT, DirectML and Core ML themselves have never been run by these tests. A backend whose "device" is the
main memory runs all of the contract through the same code.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort
import pytest

from streamgan import api, model
from streamgan.models import providers, sessions
from streamgan.models.providers import OnnxRuntimeCoreMl, OnnxRuntimeCuda, OnnxRuntimeDirectMl, OnnxRuntimeTensorRt
from streamgan.testing import BackendTests, make_images, make_model, reference

REAL = ort.InferenceSession
ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "DmlExecutionProvider", "CoreMLExecutionProvider"]


class Bound(providers.OnnxRuntimeOnDevice):
    """A device whose memory is the main memory: one session, bound to memory for each size."""

    name, provider, rank, memory = "bound", "CPUExecutionProvider", 1, "cpu"
    install = "it is always there"

    def options(self, path: Path, precision: str, shape: tuple[int, ...]) -> dict[str, str]:
        """None."""
        return {}


class Static(Bound):
    """As `Bound`, with a session for each size and pictures taken from the main memory, as Core ML has it."""

    name, memory, static = "static", "", True


class BothWays(Bound):
    """A session for each size, each bound, as DirectML has it."""

    name, static = "both", True


@pytest.fixture
def copying(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes from a device is a copy; from the main memory ONNX Runtime gives the memory itself."""
    numpy = ort.OrtValue.numpy
    monkeypatch.setattr(ort.OrtValue, "numpy", lambda self: numpy(self).copy())


@pytest.mark.usefixtures("copying")
class TestBound(BackendTests):
    """All of the contract."""

    @pytest.fixture(params=[Bound, Static, BothWays])
    def backend_class(self, request: pytest.FixtureRequest) -> type[Bound]:
        """What to test."""
        found: type[Bound] = request.param
        return found


class Recorded:
    """In place of ONNX Runtime's session: takes note of what it is told, and runs on the CPU."""

    told: ClassVar[list[tuple[Any, list[Any], dict[str, Any]]]] = []
    takes_up: ClassVar[list[str]] = []
    """The providers that it will say it uses."""

    def __init__(self, path: str, options: Any, providers: list[Any], **more: Any) -> None:
        self.real = REAL(path, options, providers=["CPUExecutionProvider"])
        if providers != ["CPUExecutionProvider"]:
            self.told.append((options, providers, more))

    def get_providers(self) -> list[str]:
        """As told."""
        return [*self.takes_up, "CPUExecutionProvider"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Recorded]:
    """A machine that has everything: drivers, providers, and devices whose memory is the main memory."""
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ort, "InferenceSession", Recorded)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [*ALL, "CPUExecutionProvider"])
    monkeypatch.setattr(providers.ctypes, "CDLL", lambda name: object())
    monkeypatch.setattr(providers.ctypes.util, "find_library", lambda name: "libnvinfer.so.10")
    for backend in (OnnxRuntimeCuda, OnnxRuntimeTensorRt, OnnxRuntimeDirectMl):
        monkeypatch.setattr(backend, "memory", "cpu")
    monkeypatch.setattr(Recorded, "told", [])
    monkeypatch.setattr(Recorded, "takes_up", ALL)
    return Recorded


def load(backend: type[api.Backend], folder: Path, precision: str = "auto") -> api.Session:
    """The tiny model."""
    return backend().load(make_model(folder / "tiny.onnx"), threads=3, precision=precision)


def test_each_is_registered_under_its_own_name() -> None:
    found: dict[str, type[api.Backend]] = {}
    from streamgan.models.backends import register_backends

    register_backends(found.__setitem__)
    assert list(found) == [
        "onnxruntime",
        *(f"onnxruntime-{name}" for name in ("cuda", "tensorrt", "directml", "coreml")),
    ]


@pytest.mark.parametrize("backend", providers.ON_DEVICES)
def test_what_is_not_there_is_said_with_what_to_install(
    backend: type[providers.OnnxRuntimeOnDevice], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    state = backend.availability()
    assert not state.usable and backend.install in state.reason
    with pytest.raises(api.BackendError, match=f"^{backend.name}: cannot be used, .*without it"):
        load(backend, tmp_path)


def test_a_gpu_without_driver_or_tensorrt_is_not_offered(
    recorded: type[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert OnnxRuntimeCuda.availability().usable and OnnxRuntimeTensorRt.availability().usable
    monkeypatch.setattr(providers.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(providers.ctypes.util, "find_library", lambda name: None)
    assert "TensorRT is missing" in OnnxRuntimeTensorRt.availability().reason
    assert OnnxRuntimeCuda.availability().usable

    def absent(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr(providers.ctypes, "CDLL", absent)
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    assert library in OnnxRuntimeCuda.availability().reason and library in OnnxRuntimeTensorRt.availability().reason


@pytest.mark.parametrize("backend", providers.ON_DEVICES)
def test_a_provider_that_is_not_taken_up_is_an_error(
    backend: type[providers.OnnxRuntimeOnDevice],
    recorded: type[Recorded],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ONNX Runtime goes on without a provider whose libraries it does not find; streamgan does not."""
    monkeypatch.setattr(recorded, "takes_up", [])
    with pytest.raises(api.BackendError, match=f"{backend.name}: .*did not take up {backend.provider}") as caught:
        load(backend, tmp_path).run(make_images(1))
    assert "\n" not in str(caught.value) and "tiny.onnx" in str(caught.value)
    assert recorded.told and all(more == {"enable_fallback": 0} for _, _, more in recorded.told)


@pytest.mark.usefixtures("copying")
@pytest.mark.parametrize("backend", providers.ON_DEVICES)
def test_runs_in_each_precision_that_it_says(
    backend: type[providers.OnnxRuntimeOnDevice], recorded: type[Recorded], tmp_path: Path
) -> None:
    for precision in ("auto", *backend.precisions):
        session = load(backend, tmp_path, precision)
        assert session.precision == (backend.precisions[0] if precision == "auto" else precision)
        for images in (make_images(2, 20, 30), make_images(1, 9, 11)):
            assert np.array_equal(session.run(images), reference(images))
        session.close()
    with pytest.raises(api.BackendError, match=f"{backend.name}: precision fp1 is not possible; choose auto, "):
        load(backend, tmp_path, "fp1")


@pytest.mark.parametrize("backend", providers.ON_DEVICES)
def test_refuses_what_is_no_model(
    backend: type[providers.OnnxRuntimeOnDevice], recorded: type[Recorded], tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for name in ("broken.onnx", "absent.onnx"):
        with pytest.raises(api.BackendError, match=f"^{backend.name}: cannot load .*{name} ") as caught:
            backend().load(tmp_path / name, threads=1)
        assert "\n" not in str(caught.value)


def test_cuda_is_exact_only_if_fp32_is_asked_for(recorded: type[Recorded], tmp_path: Path) -> None:
    for precision, tf32 in (("auto", "1"), ("fp32", "0")):
        load(OnnxRuntimeCuda, tmp_path, precision)
        options, given, _ = recorded.told[-1]
        assert given == [("CUDAExecutionProvider", {"use_tf32": tf32})]
        assert options.intra_op_num_threads == 3
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_engines_of_tensorrt_are_kept_apart_by_weights(recorded: type[Recorded], tmp_path: Path) -> None:
    """Its cache goes by the graph, so two models of one architecture would get each other's engine."""
    load(OnnxRuntimeTensorRt, tmp_path, "fp16")
    _, ((provider, settings), second), _ = recorded.told[-1]
    assert (provider, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    folder = tmp_path / "cache" / "onnxruntime-tensorrt" / model.digest(tmp_path / "tiny.onnx")
    assert folder.is_dir()
    expected = {"engine_cache_enable": "True", "engine_cache_path": str(folder)}
    expected |= {"timing_cache_enable": "True", "timing_cache_path": str(folder)}
    expected |= {"fp16_enable": "True", "int8_enable": "False"}
    assert settings == {f"trt_{name}": value for name, value in expected.items()}
    other = make_model(tmp_path / "other.onnx", ("a", "b"))
    OnnxRuntimeTensorRt().load(other, threads=1)
    assert recorded.told[-1][1][0][1]["trt_engine_cache_path"] == str(folder.with_name(model.digest(other)))
    for precision, (half, bytes_) in {"fp32": ("False", "False"), "int8": ("False", "True")}.items():
        load(OnnxRuntimeTensorRt, tmp_path, precision)
        settings = recorded.told[-1][1][0][1]
        assert (settings["trt_fp16_enable"], settings["trt_int8_enable"]) == (half, bytes_)


@pytest.mark.parametrize("backend", [OnnxRuntimeTensorRt, OnnxRuntimeCoreMl])
def test_without_a_cache_folder_nothing_is_kept(
    backend: type[providers.OnnxRuntimeOnDevice],
    recorded: type[Recorded],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("STREAMGAN_CACHE", str(blocked))
    settings = backend().options(make_model(tmp_path / "tiny.onnx"), "auto", ())
    assert settings and not any("ache" in name for name in settings)


def test_directml_has_no_memory_pattern_and_a_session_for_each_size(recorded: type[Recorded], tmp_path: Path) -> None:
    session = load(OnnxRuntimeDirectMl, tmp_path)
    assert not recorded.told, "the sizes are not known yet"
    for images in (make_images(1, 20, 30), make_images(1, 9, 11), make_images(1, 20, 30)):
        session.run(images)
    assert [given for _, given, _ in recorded.told] == [[("DmlExecutionProvider", {"device_id": "0"})]] * 2
    assert not any(options.enable_mem_pattern for options, _, _ in recorded.told)


def test_core_ml_keeps_sizes_apart(recorded: type[Recorded], tmp_path: Path) -> None:
    for precision, units in (("auto", "ALL"), ("fp16", "ALL"), ("fp32", "CPUAndGPU")):
        session = load(OnnxRuntimeCoreMl, tmp_path, precision)
        session.run(make_images(1, 20, 30))
        ((name, settings),) = recorded.told[-1][1]
        assert name == "CoreMLExecutionProvider" and settings["MLComputeUnits"] == units
    session.run(make_images(1, 9, 11))
    folders = [Path(given[0][1]["ModelCacheDirectory"]) for _, given, _ in recorded.told[-2:]]
    assert [folder.name for folder in folders] == ["1x20x30x3", "1x9x11x3"]
    assert {folder.parent.name for folder in folders} == {model.digest(tmp_path / "tiny.onnx")}


def test_sizes_are_fixed_where_the_provider_wants_it(tmp_path: Path) -> None:
    """A session made for one size takes no other: ONNX Runtime was told the lengths of all axes."""
    made = sessions.Sessions(Static(), make_model(tmp_path / "tiny.onnx"), 1, "auto")
    bound = made.bind((1, 20, 30, 3))
    assert list(bound.session.get_inputs()[0].shape) == [1, 20, 30, 3]
    with pytest.raises(sessions.FAILURES, match="Got invalid dimensions"):
        bound.run(make_images(1, 9, 11), {})


def test_few_sizes_are_kept(tmp_path: Path) -> None:
    session = load(Static, tmp_path)
    for width in range(3, 12):
        session.run(make_images(1, 5, width))
    assert isinstance(session, sessions.DeviceSession)
    assert [shape[2] for shape in session._bound] == [8, 9, 10, 11]
