"""The plugin keeps the contract of backends, in both precisions."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamgan import api, testing
from streamgan.testing import BackendTests
from streamgan_openvino import OpenVino


class TestOpenVino(BackendTests):
    """All of the contract."""

    @pytest.fixture
    def backend_class(self) -> type[OpenVino]:
        """What to test."""
        return OpenVino


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled models of tests do not go to the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_bf16_is_offered_only_where_the_cpu_has_it(tmp_path: Path) -> None:
    path = testing.make_model(tmp_path / "tiny.onnx")
    images = testing.make_images(1)
    try:
        session = OpenVino().load(path, threads=1, precision="bf16")
    except api.BackendError as error:
        assert "bf16" in str(error)
        return
    assert session.precision == "bf16"
    difference = session.run(images).astype(int) - testing.reference(images)
    assert np.abs(difference).max() <= 6  # eight bits of mantissa
    session.close()


def test_nothing_is_reported_to_the_makers() -> None:
    code = (
        "import sys, streamgan_openvino; streamgan_openvino._core(); "
        "print('openvino' in sys.modules, [name for name in sys.modules if name.startswith('openvino_telemetry.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"
