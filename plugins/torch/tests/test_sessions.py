"""Lanes: one for each thread, each with the shapes it has met; and what a CUDA graph is made of, on a pretended GPU."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from streamgan import api, testing
from streamgan_torch import backends, devices, graph, sessions


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """The number of threads is the process's: other tests need theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_those_asked_for_also_in_other_threads(tmp_path: Path) -> None:
    path = testing.make_model(tmp_path / "tiny.onnx")

    def count_after(session: api.Session) -> int:
        session.run(testing.make_images(1))
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        for threads, streams, each in ((3, 1, 3), (4, 2, 2), (1, 4, 1)):
            session = backends.TorchCpu().load(path, threads=threads, streams=streams)
            assert count_after(session) == each
            assert pool.submit(count_after, session).result() == each
            session.close()


def test_each_thread_gets_a_lane_and_its_own_result(tmp_path: Path) -> None:
    path = testing.make_model(tmp_path / "tiny.onnx")
    session = backends.TorchCpu().load(path, threads=3, streams=3)
    images = [testing.make_images(1, 16 + number % 3, 24, seed=number) for number in range(12)]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(session.run, images))
    for given, made in zip(images, results, strict=True):
        assert np.abs(made.astype(int) - testing.reference(given)).max() <= 1
    session.close()


def test_as_many_run_at_once_as_there_are_lanes(tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=30)

    class Waiting:
        def __init__(self, network: sessions.Network, device: torch.device, given: sessions.Arrays) -> None:
            pass

        def run(self, given: sessions.Arrays) -> api.Images:
            together.wait()  # a broken barrier if the second one has to wait for the first
            return np.zeros((1, 1, 1, 3), np.uint8)

    session = make_session(testing.make_model(tmp_path / "tiny.onnx"), Waiting, lanes=2)
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(session.run, [testing.make_images(1)] * 4))) == 4
    session.close()


def test_a_lane_keeps_the_last_shapes(tmp_path: Path) -> None:
    made = []

    class Noted(sessions.Eager):
        def __init__(self, network: sessions.Network, device: torch.device, given: sessions.Arrays) -> None:
            super().__init__(network, device, given)
            made.append(given["frames"].shape[2])

    session = make_session(testing.make_model(tmp_path / "tiny.onnx"), Noted)
    for width in (8, 9, 10, 11, 8, 12, 8, 9):  # 12 makes room by 9, which was not used for longest
        session.run(testing.make_images(1, 8, width))
    assert made == [8, 9, 10, 11, 12, 9]
    session.close()


def test_what_torch_refuses_is_an_error_of_one_line_and_frees_the_lane(tmp_path: Path) -> None:
    class Full(sessions.Eager):
        def run(self, given: sessions.Arrays) -> api.Images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nSee the documentation")

    session = make_session(testing.make_model(tmp_path / "tiny.onnx"), Full)
    for _ in range(2):
        with pytest.raises(
            api.BackendError, match=r"tiny\.onnx failed on \(1, 48, 64, 3\) \(CUDA out of memory"
        ) as caught:
            session.run(testing.make_images(1))
        assert "\n" not in str(caught.value)
    session.close()


def test_a_captured_network_works_on_fresh_pictures_each_time(tmp_path: Path, gpu: list[str]) -> None:
    session = make_session(testing.make_model(tmp_path / "tiny.onnx"), sessions.Captured)
    images = [testing.make_images(2, seed=seed) for seed in range(3)]
    results = [session.run(each) for each in images]
    for given, made in zip(images, results, strict=True):
        assert np.abs(made.astype(int) - testing.reference(given)).max() <= 1
    assert gpu == ["captured", "replayed", "slept", "replayed", "slept", "replayed", "slept"]
    session.close()


def test_a_captured_network_takes_fresh_domains_too(tmp_path: Path, gpu: list[str]) -> None:
    path = testing.make_model(tmp_path / "domains.onnx", ("plain", "bright", "brighter"))
    session, images = make_session(path, sessions.Captured), testing.make_images(2)
    for domain in (np.array([0, 2]), np.array([1, 0])):
        made = session.run(images, {"domain": domain})
        assert np.abs(made.astype(int) - testing.reference(images, domain)).max() <= 1
    assert gpu.count("captured") == 1
    session.close()


def test_all_that_is_captured_lies_between_copies(tmp_path: Path, gpu: list[str]) -> None:
    network = graph.Layouts(graph.read(testing.make_model(tmp_path / "tiny.onnx")), torch.device("cpu"), torch.float32)
    images = testing.make_images(1)
    captured: Any = sessions.Captured(
        network.lay_out({"frames": (images.shape, torch.uint8)}), torch.device("cpu"), {"frames": images}
    )
    names = [function.__name__ for function, *_ in captured._graph.steps]
    assert names[0] == names[-1] == "copy_.default" and "conv2d.default" in names


class RecordedGraph:
    """Stands for a CUDA graph: runs again what was recorded, on the same memory."""

    def __init__(self, log: list[str]) -> None:
        self.steps: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self._log = log

    def replay(self) -> None:
        self._log.append("replayed")
        with torch.inference_mode():
            for function, args, kwargs, result in self.steps:
                again = function(*args, **kwargs)
                pairs = zip(result, again, strict=True) if isinstance(result, tuple) else [(result, again)]
                for old, new in pairs:
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class Recorder(TorchDispatchMode):
    """Notes every operation of a graph."""

    def __init__(self, recorded: RecordedGraph) -> None:
        super().__init__()
        self._recorded = recorded

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._recorded.steps.append((func, args, kwargs or {}, result))
        return result


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pretends that CUDA's streams, events and graphs are there; what was done with them."""
    log: list[str] = []

    class Stream:
        def __init__(self, device: torch.device) -> None:
            pass

        def synchronize(self) -> None:
            pass

    class Event:
        def __init__(self, blocking: bool) -> None:
            assert blocking

        def record(self, stream: Stream) -> None:
            assert log[-1] == "replayed"

        def synchronize(self) -> None:
            log.append("slept")

    @contextlib.contextmanager
    def capture(recorded: RecordedGraph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        log.append("captured")
        with Recorder(recorded):
            yield

    def page_locked(shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=kind)

    stands_in: dict[str, Callable[..., Any]] = {
        "Stream": Stream, "Event": Event, "graph": capture, "CUDAGraph": lambda: RecordedGraph(log),
        "stream": lambda stream: contextlib.nullcontext(),
    }  # fmt: skip
    for name, value in stands_in.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(sessions, "_page_locked", page_locked)
    return log


def make_session(path: Path, make: Any, lanes: int = 1) -> api.Session:
    """A session on the CPU whose lanes prepare networks in this way."""
    session = sessions.load(path, devices.CPU, "fp32", 1, lanes, False)
    for lane in session._lanes:  # type: ignore[attr-defined]
        lane._make = make
    return session
