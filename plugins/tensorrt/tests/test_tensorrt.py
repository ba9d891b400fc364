"""What the plugin says where TensorRT or the GPU is missing, and the contract of backends where neither is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streamgan import api, testing
from streamgan.testing import BackendTests
from streamgan_tensorrt import TensorRt, cuda, runtime


class TestTensorRt(BackendTests):
    """All of the contract, on a real GPU; skipped where there is none."""

    @pytest.fixture
    def backend_class(self) -> type[TensorRt]:
        """What to test."""
        return TensorRt


def test_without_tensorrt_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    state = TensorRt.availability()
    assert not state.usable and "pip install tensorrt" in state.reason
    monkeypatch.setattr(cuda, "find_device", lambda: cuda.Device("GPU", "8.9", "580"))
    runtime.load.cache_clear()
    with pytest.raises(api.BackendError, match="pip install tensorrt"):
        TensorRt().load(testing.make_model(tmp_path / "tiny.onnx"), threads=1)


def test_without_bindings_it_says_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "installed", lambda: "tensorrt")
    monkeypatch.setattr(cuda, "installed", lambda: False)
    assert TensorRt.availability() == api.Availability(False, cuda.MISSING)


class NoGpu:
    """The CUDA runtime of a machine without a driver."""

    cudaError_t = SimpleNamespace(cudaSuccess=0)

    def __init__(self, status: int) -> None:
        self.status = status

    def cudaGetDeviceCount(self) -> tuple[int, int | None]:
        return self.status, None if self.status else 0

    def cudaGetErrorString(self, status: int) -> tuple[int, bytes]:
        return 0, b"CUDA driver version is insufficient for CUDA runtime version"


@pytest.mark.parametrize("status, words", [(35, "driver version is insufficient"), (0, "CUDA_VISIBLE_DEVICES hides")])
def test_without_a_gpu_it_says_so(status: int, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, "installed", lambda: "tensorrt")
    monkeypatch.setattr(cuda, "installed", lambda: True)
    monkeypatch.setattr(cuda, "runtime", lambda: NoGpu(status))
    state = TensorRt.availability()
    assert not state.usable and state.reason.startswith("no CUDA device: ") and words in state.reason
    with pytest.raises(api.BackendError, match="no CUDA device"):
        TensorRt().load(testing.make_model(tmp_path / "tiny.onnx"), threads=1)


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    properties = SimpleNamespace(name=b"NVIDIA H200\0\0", major=9, minor=0)
    bindings = SimpleNamespace(
        cudaError_t=SimpleNamespace(cudaSuccess=0),
        cudaGetDeviceCount=lambda: (0, 1),
        cudaGetDeviceProperties=lambda number: (0, properties),
        cudaDriverGetVersion=lambda: (0, 13020),
    )
    monkeypatch.setattr(cuda, "runtime", lambda: bindings)
    version = tmp_path / "version"
    monkeypatch.setattr(cuda, "_DRIVER", version)
    assert str(cuda.find_device()) == "NVIDIA H200 (compute capability 9.0, driver CUDA 13.2)"
    version.write_text("590.48.01\n")
    assert cuda.find_device().driver == "590.48.01, CUDA 13.2"


def test_the_session_says_what_it_runs_on_and_auto_is_fp16(gpu: Any, tmp_path: Path) -> None:
    session = TensorRt().load(testing.make_model(tmp_path / "tiny.onnx"), threads=1)
    assert session.precision == "fp16"
    assert session.device == "TensorRT-Fake 1 on Fake GPU (compute capability 8.9, driver CUDA 13.0)"  # type: ignore[attr-defined]
    session.close()


def test_a_tensorrt_that_cannot_be_imported_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("libnvinfer.so.10: cannot open\nshared object file")

    monkeypatch.setattr(runtime, "installed", lambda: "tensorrt")
    monkeypatch.setattr(runtime.importlib, "import_module", broken)
    runtime.load.cache_clear()
    with pytest.raises(api.BackendError, match=r"package tensorrt cannot be imported \(libnvinfer.*cannot open shared"):
        runtime.load()


def test_a_tensorrt_that_is_too_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "installed", lambda: "tensorrt")
    monkeypatch.setattr(runtime.importlib, "import_module", lambda name: SimpleNamespace(__version__="8.6.1"))
    runtime.load.cache_clear()
    with pytest.raises(api.BackendError, match=r"TensorRT 8\.6\.1 is installed, 10 or newer is needed"):
        runtime.load()
