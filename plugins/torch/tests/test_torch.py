"""The plugin keeps the contract of backends, and computes every shipped model as ONNX Runtime does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from streamgan import api, testing
from streamgan.testing import BackendTests
from streamgan_torch import backends, devices, graph, operations

PRESETS = [path for path in sorted((Path(__file__).parents[3] / "presets").glob("*.onnx")) if ".int8." not in path.name]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """The number of threads is the process's: other tests need theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class TestTorch(BackendTests):
    """All of the contract, on the best device here."""

    @pytest.fixture
    def backend_class(self) -> type[api.Backend]:
        """What to test."""
        return backends.Torch


class TestTorchCpu(BackendTests):
    """All of the contract, on the CPU."""

    @pytest.fixture
    def backend_class(self) -> type[api.Backend]:
        """What to test."""
        return backends.TorchCpu


class TestTorchCuda(BackendTests):
    """All of the contract, where there is an NVIDIA GPU."""

    @pytest.fixture
    def backend_class(self) -> type[api.Backend]:
        """What to test."""
        return backends.TorchCuda


class TestTorchMps(BackendTests):
    """All of the contract, where there is an Apple GPU."""

    @pytest.fixture
    def backend_class(self) -> type[api.Backend]:
        """What to test."""
        return backends.TorchMps


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_shipped_model_gives_what_onnx_runtime_gives(path: Path) -> None:
    session = backends.TorchCpu().load(path, threads=1)
    for shape in ((1, 64, 96), (2, 32, 48)):
        images = testing.make_images(*shape)
        worst = np.abs(session.run(images).astype(int) - with_onnx_runtime(path, images)).max()
        assert worst <= 1, shape
    session.close()


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_a_shipped_model_hardly_differs_in_half(precision: torch.dtype) -> None:
    images = testing.make_images(1, 64, 96)
    layouts = graph.Layouts(graph.read(PRESETS[0]), torch.device("cpu"), precision)
    with torch.inference_mode():
        made = layouts.lay_out({"frames": (images.shape, torch.uint8)})(torch.from_numpy(images.copy())).numpy()
    difference = np.abs(made.astype(int) - with_onnx_runtime(PRESETS[0], images))
    assert 0 < difference.mean() < 0.2 and difference.max() <= 3


def test_weights_are_shared_by_shapes_and_only_convolutions_are_in_half() -> None:
    layouts = graph.Layouts(graph.read(PRESETS[0]), torch.device("cpu"), torch.bfloat16)
    shapes = [{"frames": ((1, side, side, 3), torch.uint8)} for side in (32, 64)]
    first, second = ({each.data_ptr(): each for each in layouts.lay_out(shape).buffers()} for shape in shapes)
    weights = [each for each in first.values() if each.ndim == 4]
    assert len(weights) > 20 and all(each.dtype is torch.bfloat16 for each in weights)
    assert {each.data_ptr() for each in weights} <= second.keys()
    assert {each.dtype for each in first.values() if each.ndim == 0} <= {torch.float32}


def test_shapes_are_worked_out_beforehand() -> None:
    layouts = graph.Layouts(graph.read(PRESETS[0]), torch.device("cpu"), torch.float32)
    laid_out = layouts.lay_out({"frames": ((1, 64, 96, 3), torch.uint8)})
    joined = [node for node in laid_out.graph.nodes if node.target is operations.concatenate]
    assert len(joined) == 1  # the picture beside its features; in the file are five, four of them of sizes
    assert sum(node.kind == "Concat" for node in graph.read(PRESETS[0]).nodes) == 5


def test_an_unknown_operation_is_named(tmp_path: Path) -> None:
    path = testing.make_model(tmp_path / "odd.onnx")
    proto = onnx.load(str(path))
    proto.graph.node[4].op_type = "Gelu"
    onnx.save(proto, str(path))
    with pytest.raises(api.BackendError, match=r"odd\.onnx: operation Gelu \(node 'made'\) is unknown") as caught:
        backends.TorchCpu().load(path, threads=1)
    assert "\n" not in str(caught.value)


def test_a_graph_of_another_form_is_refused(tmp_path: Path) -> None:
    path = testing.make_model(tmp_path / "old.onnx")
    proto = onnx.load(str(path))
    proto.opset_import[0].version = 11
    onnx.save(proto, str(path))
    with pytest.raises(api.BackendError, match=r"opset 13 or newer .* found opset 11"):
        backends.TorchCpu().load(path, threads=1)


def test_inputs_are_those_of_the_model(tmp_path: Path) -> None:
    session = backends.TorchCpu().load(testing.make_model(tmp_path / "d.onnx", ("plain", "bright")), threads=1)
    with pytest.raises(api.BackendError, match="given the inputs frames, expected frames, domain"):
        session.run(testing.make_images(1))
    session.close()
    with pytest.raises(api.BackendError, match="was closed"):
        session.run(testing.make_images(1), {"domain": np.zeros(1, np.int64)})


def test_the_cpu_has_no_half_and_a_missing_gpu_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = testing.make_model(tmp_path / "tiny.onnx")
    monkeypatch.setattr(devices, "find", lambda device: devices.Found(device is devices.CPU, f"no {device.name} here"))
    with pytest.raises(api.BackendError, match="precision fp16 is not possible on cpu; choose fp32"):
        backends.Torch().load(path, threads=1, precision="fp16")
    with pytest.raises(api.BackendError, match="no cuda here"):
        backends.TorchCuda().load(path, threads=1)
    assert not backends.TorchCuda.availability().usable
    assert backends.Torch.availability() == api.Availability(True, "no cpu here", devices.CPU.rank)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a torch that cannot use a GPU")
def test_a_gpu_that_torch_cannot_use_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = testing.make_model(tmp_path / "tiny.onnx")
    monkeypatch.setattr(devices, "find", lambda device: devices.Found(True, "here"))
    for backend in (backends.Torch, backends.TorchCuda):
        with pytest.raises(api.BackendError, match="NVIDIA GPU that is here cannot be used"):
            backend().load(path, threads=1)


def test_nothing_of_torch_is_imported_before_a_model_is_loaded() -> None:
    code = "import sys, streamgan_torch as t; print(t.Torch.availability().usable, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


@pytest.mark.parametrize(("policy", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_do_not_spin_unless_the_user_says_so(policy: str | None, expected: str, tmp_path: Path) -> None:
    path = testing.make_model(tmp_path / "tiny.onnx")
    code = (
        "import os, sys, pathlib, streamgan_torch as t; "
        "print(t.TorchCpu().load(pathlib.Path(sys.argv[1]), threads=1).device, os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if policy is None else {"OMP_WAIT_POLICY": policy}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == f"cpu {expected}\n"


def with_onnx_runtime(path: Path, images: api.Images) -> np.ndarray:
    """The reference, in fp32."""
    (made,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"frames": images})
    return made
