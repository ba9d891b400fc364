"""Backends: running a model, refusing what is none, and the choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import write_model

from streamgan import api
from streamgan.models.backends import OnnxRuntime, choose


def fake(rank: int, usable: bool = True) -> type[api.Backend]:
    """A backend that only says how good it is."""

    class Fake(api.Backend):
        @classmethod
        def availability(cls) -> api.Availability:
            return api.Availability(usable, "is there" if usable else "needs a thing", rank)

        def load(self, path: Path, *, threads: int, precision: str = "auto") -> api.Session:
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
    with pytest.raises(api.BackendError, match="choose auto or fp32"):
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
