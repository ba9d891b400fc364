"""Backends: running a model, refusing what is none, and the choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from clips import write_model
from onnx import TensorProto, helper, numpy_helper

from streamgan import api
from streamgan.models.backends import OnnxRuntime, choose
from streamgan.testing import BackendTests


def fake(rank: int, usable: bool = True) -> type[api.Backend]:
    """A backend that only says how good it is."""

    class Fake(api.Backend):
        @classmethod
        def availability(cls) -> api.Availability:
            return api.Availability(usable, "is there" if usable else "needs a thing", rank)

        def load(self, path: Path, *, threads: int, precision: str = "auto", streams: int = 1) -> api.Session:
            raise NotImplementedError

    return Fake


def test_runs_a_model(tmp_path: Path) -> None:
    session = OnnxRuntime().load(write_model(tmp_path / "m.onnx", -1.0, 255.0), threads=2)
    images = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)
    assert np.array_equal(session.run(images), 255 - images)
    assert session.precision == "fp32"
    session.close()
    session.close()
    with pytest.raises(api.BackendError, match="was closed"):
        session.run(images)


def test_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for name in ("broken.onnx", "absent.onnx"):
        with pytest.raises(api.BackendError, match="cannot load") as error:
            OnnxRuntime().load(tmp_path / name, threads=1)
        assert "\n" not in str(error.value)
    path = write_model(tmp_path / "m.onnx", 1.0, 0.0)
    with pytest.raises(api.BackendError, match="choose auto, fp32 or int8"):
        OnnxRuntime().load(path, threads=1, precision="fp16")
    session = OnnxRuntime().load(path, threads=1)
    with pytest.raises(api.BackendError, match="failed on"):
        session.run(np.zeros((2, 2), np.uint8))


def test_the_largest_usable_rank_wins() -> None:
    name, _, reason = choose({"slow": fake(1), "fast": fake(9), "absent": fake(99, usable=False)})
    assert name == "fast" and "expected to be the fastest of slow, fast" in reason
    assert choose({"slow": fake(1), "fast": fake(9)}, "slow")[0] == "slow"
    assert "only usable" in choose({"slow": fake(1)}, "auto")[2]


def test_what_cannot_be_used_is_said() -> None:
    backends = {"slow": fake(1), "absent": fake(99, usable=False)}
    with pytest.raises(api.BackendError, match="backend fast: not installed; usable here: slow"):
        choose(backends, "fast")
    with pytest.raises(api.BackendError, match="backend absent: cannot be used, needs a thing"):
        choose(backends, "absent")
    with pytest.raises(api.BackendError, match="no backend can be used"):
        choose({})


def test_onnx_runtime_is_usable_here() -> None:
    state = OnnxRuntime.availability()
    assert state.usable and state.rank >= 10 and "ONNX Runtime" in state.reason


def test_only_the_backend_that_was_asked_for_is_looked_at() -> None:
    """Others may import a large library to answer."""

    class Slow(fake(5)):  # type: ignore[misc]
        @classmethod
        def availability(cls) -> api.Availability:
            raise AssertionError("nobody asked")

    assert choose({"slow": Slow, "fast": fake(1)}, "fast")[2] == "asked for; is there"


def test_int8_is_computed_without_overflow(tmp_path: Path) -> None:
    """On processors without VNNI, ONNX Runtime adds products of u8 and s8 in 16 bits unless it is told not to."""
    session = OnnxRuntime().load(averaging_model(tmp_path / "m.onnx"), threads=1, precision="int8")
    assert session.precision == "int8"
    images = np.full((1, 8, 8, 3), 255, np.uint8)
    assert np.array_equal(session.run(images), images)


def averaging_model(path: Path) -> Path:
    """A model whose int8 convolution takes the mean of the three channels; two of its products exceed 16 bits."""
    node = helper.make_node
    constants: dict[str, npt.ArrayLike] = {
        "step": np.float32(1),
        "zero": np.uint8(0),
        "weight_step": np.float32(1 / (3 * 127)),
        "weight_zero": np.int8(0),
        "weights": np.full((3, 3, 1, 1), 127, np.int8),
    }
    nodes = [
        node("Transpose", ["frames"], ["planes"], perm=[0, 3, 1, 2]),
        node("DequantizeLinear", ["planes", "step", "zero"], ["values"]),
        node("DequantizeLinear", ["weights", "weight_step", "weight_zero"], ["factors"]),
        node("Conv", ["values", "factors"], ["means"]),
        node("QuantizeLinear", ["means", "step", "zero"], ["levels"]),
        node("Transpose", ["levels"], ["frames_out"], perm=[0, 2, 3, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "averaging",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("frames_out", TensorProto.UINT8, ["N", "H", "W", 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_a_backend_that_mixes_threads_up_is_found(tmp_path: Path) -> None:
    """The suite itself: sessions that share memory between threads, or lose a thread's picture, do not pass."""

    class Shared(api.Session):
        def __init__(self, path: Path) -> None:
            self._real = OnnxRuntime().load(path, threads=1)
            self._memory: dict[tuple[int, ...], api.Images] = {}

        def run(self, images: api.Images, inputs: object = None) -> api.Images:
            result = self._memory.setdefault(images.shape, np.empty_like(images))
            result[:] = self._real.run(images)
            return result

    class Mixing(OnnxRuntime):
        def load(self, path: Path, *, threads: int, precision: str = "auto", streams: int = 1) -> api.Session:
            return Shared(path)

    suite = BackendTests()
    suite.test_runs_in_several_threads_at_once(OnnxRuntime, tmp_path)
    with pytest.raises(AssertionError, match=r"in several threads|overwrote"):
        suite.test_runs_in_several_threads_at_once(Mixing, tmp_path)


@pytest.mark.parametrize(
    ("streams", "threads", "pool"), [(1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 4, 2), (3, 4, 1), (4, 2, 1)]
)
def test_streams_share_the_threads(
    streams: int, threads: int, pool: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    real = ort.InferenceSession

    def make(path: str, options: ort.SessionOptions, providers: list[str]) -> ort.InferenceSession:
        told.append(options.intra_op_num_threads)
        assert providers == ["CPUExecutionProvider"]
        return real(path, options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", make)
    OnnxRuntime().load(write_model(tmp_path / "m.onnx", 1.0, 0.0), threads=threads, streams=streams)
    assert told == [pool]
