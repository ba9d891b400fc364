"""What is here is found out without torch."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from streamgan_torch import devices


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What was found on this machine, and what is made up."""
    devices.find.cache_clear()
    yield
    devices.find.cache_clear()


class Driver:
    """A CUDA driver with some GPUs."""

    def __init__(self, count: int, status: int = 0) -> None:
        self.count, self.status = count, status

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGetCount(self, count: object) -> int:
        ctypes.cast(count, ctypes.POINTER(ctypes.c_int))[0] = self.count
        return 0

    def cuDeviceGetName(self, name: ctypes.Array[ctypes.c_char], size: int, device: int) -> int:
        name.value = b"NVIDIA H200"
        return 0


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, cuda: str | None, driver: Driver | None) -> None:
    """A torch 2.9 built with or without CUDA, and a driver or none."""
    (folder / "version.py").write_text(f"__version__ = '2.9.0'\ncuda = {cuda!r}\n")
    spec = ModuleSpec("torch", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "torch" else find_spec(name))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.9.0+cu130")

    def load(name: str) -> Driver:
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)


def test_a_gpu_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, tmp_path, "13.0", Driver(1))
    assert devices.find(devices.CUDA) == devices.Found(True, "torch 2.9.0+cu130 on NVIDIA H200")


@pytest.mark.parametrize("driver", [None, Driver(0), Driver(1, status=100)])
def test_without_a_driver_or_a_gpu_there_is_none(
    driver: Driver | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, tmp_path, "13.0", driver)
    assert devices.find(devices.CUDA) == devices.Found(False, "no NVIDIA GPU with a driver was found")


def test_a_torch_without_cuda_finds_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, tmp_path, None, Driver(1))
    found = devices.find(devices.CUDA)
    assert not found.usable and "built without CUDA" in found.reason
    assert devices.find(devices.CPU).usable


def test_an_apple_gpu_needs_an_apple_computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, tmp_path, None, None)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert devices.find(devices.MPS).usable
    devices.find.cache_clear()
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert not devices.find(devices.MPS).usable


@pytest.mark.parametrize(("version", "words"), [("2.5.1", "2.5.1 is too old"), (None, "torch is missing")])
def test_an_old_torch_and_none_are_named(version: str | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", answer)
    for device in (devices.CPU, devices.MPS, devices.CUDA):
        found = devices.find(device)
        assert not found.usable and words in found.reason and "pip install" in found.reason
