"""The conformance suite of backends: a test for every line of the contract of `api.Backend` and `api.Session`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from streamgan import api
from streamgan.testing.suites import LAYOUTS, check_images
from streamgan.testing.synthetic import make_images, make_model, reference

TOLERANCE: Mapping[str, int] = MappingProxyType({"fp32": 1, "fp16": 2, "bf16": 6, "int8": 16})
"""How far a result may be from exact arithmetic, in levels of 255. bf16 has eight bits of mantissa. int8 rounds each of
the 27 values that a value of the tiny model is the sum of, and their weights."""


class BackendTests:
    """The contract of `api.Backend`. A subclass gives the fixture ``backend_class``; skipped where it is not usable."""

    def load(self, cls: type[api.Backend], path: Path) -> api.Session:
        """The tiny model in a session with one thread; skips the test where the backend cannot be used."""
        self._skip_unless_usable(cls)
        return cls().load(make_model(path / "tiny.onnx"), threads=1, precision=self._exact(cls))

    def test_is_a_finished_backend(self, backend_class: type[api.Backend]) -> None:
        """It derives from `api.Backend`, implements everything, and says what it can do."""
        assert issubclass(backend_class, api.Backend), f"{backend_class} must derive from api.Backend"
        missing = getattr(backend_class, "__abstractmethods__", None)
        assert not missing, f"{backend_class.__name__} does not implement {', '.join(missing or ())}"
        precisions = backend_class.precisions
        assert {"fp32", "fp16"} & set(precisions), (
            "every backend must offer fp32, or fp16 where the device has no other"
        )
        assert set(precisions) <= set(TOLERANCE), f"precisions must be of {', '.join(TOLERANCE)}; got {precisions}"
        assert backend_class.max_streams >= 1, "max_streams must be 1 or more"

    def test_availability(self, backend_class: type[api.Backend]) -> None:
        """It says in one line what it found, and the same when asked again."""
        first, second = backend_class.availability(), backend_class.availability()
        assert isinstance(first, api.Availability), "availability must return an api.Availability"
        assert first == second, "availability must say the same when asked again"
        assert first.reason.strip() and "\n" not in first.reason, "the reason must be one line for people"

    def test_computes_the_model(self, backend_class: type[api.Backend], tmp_path: Path) -> None:
        """The result is that of plain arithmetic to one level, for several sizes and numbers in one session."""
        session = self.load(backend_class, tmp_path)
        for count, height, width in LAYOUTS:
            images = make_images(count, height, width)
            self._check(session.run(images), images, self._exact(backend_class))
        session.close()

    def test_computes_in_each_precision(self, backend_class: type[api.Backend], tmp_path: Path) -> None:
        """`load` computes in the precision asked for and says so, or refuses and names it; ``auto`` always works."""
        self.load(backend_class, tmp_path).close()
        for precision in ("auto", *backend_class.precisions):
            path = tmp_path / "tiny.onnx"
            if precision == "int8":
                path = _quantised(path, tmp_path / "tiny.int8.onnx")
            try:
                session = backend_class().load(path, threads=1, precision=precision)
            except api.BackendError as error:
                assert precision != "auto", f"auto must choose what works here, but it was refused: {error}"
                assert precision in str(error), f"a refusal must name the precision {precision}: {str(error)!r}"
                continue
            right = session.precision in backend_class.precisions and precision in ("auto", session.precision)
            assert right, f"loaded with precision={precision}, session.precision is {session.precision!r}"
            images = make_images(2)
            self._check(session.run(images), images, session.precision)
            session.close()

    def test_takes_a_domain_for_each_picture(self, backend_class: type[api.Backend], tmp_path: Path) -> None:
        """Further inputs reach the model: pictures of one call may have different domains."""
        self._skip_unless_usable(backend_class)
        path, precision = (
            make_model(tmp_path / "domains.onnx", ("plain", "bright", "brighter")),
            self._exact(backend_class),
        )
        session = backend_class().load(path, threads=1, precision=precision)
        for domain in (np.array([2, 0]), np.array([1]), np.array([0, 1, 2])):
            images = make_images(len(domain))
            result = session.run(images, {"domain": domain.astype(np.int64)})
            worst = int(np.abs(result.astype(int) - reference(images, domain)).max())
            limit = TOLERANCE[precision]
            assert worst <= limit, f"domains {domain}: off by up to {worst} levels of 255; pass `inputs` to the model"
        session.close()

    def test_leaves_arrays_alone(self, backend_class: type[api.Backend], tmp_path: Path) -> None:
        """Neither the input nor an earlier result changes."""
        session, images = self.load(backend_class, tmp_path), make_images()
        before = images.copy()
        result = session.run(images)
        kept = result.copy()
        session.run(make_images(seed=3))
        session.close()
        assert np.array_equal(images, before), "run changed its input"
        assert np.array_equal(result, kept), "the second run overwrote the first result: return a copy"

    def test_runs_in_several_threads_at_once(self, backend_class: type[api.Backend], tmp_path: Path) -> None:
        """With ``streams`` several threads get what one gets, of several sizes, and none overwrites another's."""
        import pytest

        streams = min(backend_class.max_streams, 4)
        if streams == 1:
            pytest.skip(f"{backend_class.__name__} runs one picture at a time")
        self.load(backend_class, tmp_path).close()
        precision = self._exact(backend_class)
        session = backend_class().load(tmp_path / "tiny.onnx", threads=2, precision=precision, streams=streams)
        pictures = [make_images(1, *size, seed) for size in ((48, 64), (37, 53)) for seed in range(8)]
        alone = [session.run(images).copy() for images in pictures]
        for images, result in zip(pictures, alone, strict=True):
            self._check(result, images, precision)
        start = threading.Barrier(streams)

        def work(first: int) -> list[tuple[int, api.Images, api.Images]]:
            order = [(first + step) % len(pictures) for step in range(3 * len(pictures))]
            start.wait(timeout=60)
            return [(number, result := session.run(pictures[number]), result.copy()) for number in order]

        with ThreadPoolExecutor(streams) as pool:
            done = [each for results in pool.map(work, range(streams)) for each in results]
        session.close()
        for number, result, copy in done:
            assert np.array_equal(copy, result), "a run in another thread overwrote a result: give each its own memory"
            assert np.array_equal(result, alone[number]), "in several threads a picture came out otherwise than alone"

    def test_closes_twice(self, backend_class: type[api.Backend], tmp_path: Path) -> None:
        """`Session.close` may be called twice, and before the first run; a closed session says so."""
        session = self.load(backend_class, tmp_path)
        session.close()
        session.close()
        message = _refusal(lambda: session.run(make_images()))
        assert message.count("tiny.onnx") == 1, f"running a closed session must name the file, once: {message!r}"

    def test_refuses_what_is_no_picture(self, backend_class: type[api.Backend], tmp_path: Path) -> None:
        """Arrays of another shape are an error of streamgan that names the file; the session goes on."""
        session = self.load(backend_class, tmp_path)
        message = _refusal(lambda: session.run(np.zeros((2, 2), np.uint8)))
        assert "tiny.onnx" in message and "\n" not in message, f"the error must name the file in one line: {message!r}"
        images = make_images()
        self._check(session.run(images), images, self._exact(backend_class))
        session.close()

    def test_refuses_what_is_no_model(self, backend_class: type[api.Backend], tmp_path: Path) -> None:
        """A file of another kind and one that is missing are errors of streamgan that name the file."""
        self.load(backend_class, tmp_path).close()
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(b"this is no model")
        for path in (broken, tmp_path / "missing.onnx"):
            message = _refusal(lambda path=path: backend_class().load(path, threads=1))  # type: ignore[misc]
            assert path.name in message, f"the error must name the file {path.name}: {message!r}"

    def test_refuses_an_unknown_precision(self, backend_class: type[api.Backend], tmp_path: Path) -> None:
        """`load` does not silently compute in another precision than the one asked for."""
        self.load(backend_class, tmp_path).close()
        _refusal(lambda: backend_class().load(tmp_path / "tiny.onnx", threads=1, precision="fp1"))

    def _skip_unless_usable(self, cls: type[api.Backend]) -> None:
        """Skips the test where the backend cannot be used."""
        import pytest

        available = cls.availability()
        if not available.usable:
            pytest.skip(f"{cls.__name__} cannot be used here: {available.reason}")

    def _exact(self, cls: type[api.Backend]) -> str:
        """The most exact precision that a backend offers."""
        return min(cls.precisions, key=lambda precision: TOLERANCE.get(precision, 256))

    def _check(self, result: object, images: api.Images, precision: str) -> None:
        """Whether a result of the tiny model is right, as far as the precision goes."""
        count, height, width = images.shape[:3]
        check_images(result, count, f"{width}x{height}")
        made, expected = np.asarray(result), reference(images)
        assert made.shape == expected.shape, f"{images.shape} became {made.shape}"
        worst, limit = int(np.abs(made.astype(int) - expected).max()), TOLERANCE[precision]
        assert worst <= limit, (
            f"{width}x{height}: off by up to {worst} levels of 255, at most {limit} are allowed; "
            f"compute in {precision} and round"
        )


def _quantised(path: Path, to: Path) -> Path:
    """Writes the tiny model with its convolution in int8: what it multiplies is rounded, as in files of `streamgan`."""
    import onnx
    from onnx import helper, numpy_helper

    proto = onnx.load(str(path))
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    place = list(proto.graph.node).index(conv)
    stored: list[tuple[str, Any]] = [
        ("step", np.float32(2 / 255)),
        ("zero", np.uint8(128)),
        ("weight_step", np.float32(0.4 / 63)),  # seven bits: with eight, sums overflow on processors without VNNI
        ("weight_zero", np.int8(0)),
    ]
    weights = next(each for each in proto.graph.initializer if each.name == conv.input[1])
    levels = np.rint(numpy_helper.to_array(weights) / (0.4 / 63)).astype(np.int8)
    proto.graph.initializer.remove(weights)
    stored.append(("weight_levels", levels))
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in stored)
    nodes = [
        helper.make_node("QuantizeLinear", [conv.input[0], "step", "zero"], ["levels_in"]),
        helper.make_node("DequantizeLinear", ["levels_in", "step", "zero"], ["values_in"]),
        helper.make_node("DequantizeLinear", ["weight_levels", "weight_step", "weight_zero"], ["weight_values"]),
    ]
    for offset, node in enumerate(nodes):
        proto.graph.node.insert(place + offset, node)
    conv.input[:] = ["values_in", "weight_values"]
    onnx.save(proto, str(to))
    return to


def _refusal(attempt: Callable[[], object]) -> str:
    """The message with which a backend refuses."""
    try:
        attempt()
    except (api.BackendError, api.ModelError) as error:
        return str(error)
    raise AssertionError("BackendError or ModelError must be raised, but there was a result")
