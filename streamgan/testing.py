"""For the tests of plugins: conformance suites, a tiny model file and synthetic clips.

A plugin subclasses a suite and gives one fixture; it inherits a test for every line of the contract in
`streamgan.api`::

    class TestNegative(TranslatorTests):
        @pytest.fixture
        def translator_class(self):
            return Negative

Needs pytest; `make_model` needs the ``onnx`` package. The runtime imports nothing from here.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from streamgan import api, model, settings

_LAYOUTS = ((1, 48, 64), (2, 48, 64), (3, 48, 64), (1, 37, 53), (2, 1, 1), (1, 53, 37))
"""(N, H, W) that a translator and a backend must take."""
_WEIGHTS = np.linspace(-0.25, 0.4, 81, dtype=np.float32).reshape(3, 3, 3, 3)  # (out, in, row, column)
_DOMAIN_STEP = 0.25


def make_images(count: int = 2, height: int = 48, width: int = 64, seed: int = 0) -> api.Images:
    """Noise over a gradient: ``(count, height, width, 3)`` uint8 RGB, read-only, as the runtime passes pictures."""
    random = np.random.default_rng(seed)
    gradient = np.linspace(0, 200, width)[None, None, :, None]  # (1, 1, W, 1)
    images: api.Images = (gradient + random.integers(0, 56, (count, height, width, 3))).astype(np.uint8)
    images.setflags(write=False)
    return images


def make_model(path: Path, domains: Sequence[str] = ()) -> Path:
    """Writes a tiny model file with a card: one convolution of 3x3. `reference` says what it computes.

    Args:
        path: the ``.onnx`` file.
        domains: names; with them the model has the further input ``domain``, ``(N,)`` int64.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    shape: list[str | int | None] = ["N", "H", "W", 3]
    constants: dict[str, Any] = {"half": np.float32(127.5), "one": np.float32(1), "minus_one": np.float32(-1)}
    nodes = [
        node("Cast", [model.INPUT], ["float"], to=TensorProto.FLOAT),
        node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        node("Div", ["planes", "half"], ["scaled"]),
        node("Sub", ["scaled", "one"], ["centred"]),
        node("Conv", ["centred", "weights"], ["made"], pads=[1, 1, 1, 1]),
        *_domain_nodes(bool(domains)),
        node("Clip", ["moved", "minus_one", "one"], ["clipped"]),
        node("Add", ["clipped", "one"], ["shifted"]),
        node("Mul", ["shifted", "half"], ["levels"]),
        node("Round", ["levels"], ["rounded"]),
        node("Transpose", ["rounded"], ["pictures"], perm=[0, 2, 3, 1]),
        node("Cast", ["pictures"], [model.OUTPUT], to=TensorProto.UINT8),
    ]
    constants["weights"] = _WEIGHTS
    inputs = [helper.make_tensor_value_info(model.INPUT, TensorProto.UINT8, shape)]
    if domains:
        inputs.append(helper.make_tensor_value_info("domain", TensorProto.INT64, ["N"]))
        constants |= {"quarter": np.float32(_DOMAIN_STEP), "as_planes": np.array([-1, 1, 1, 1])}
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        [helper.make_tensor_value_info(model.OUTPUT, TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, str(path))
    card = model.ModelCard("tiny", "none", "any to any", "CC0-1.0", "streamgan.testing", model.SizeRule(1, (64, 48), 3))
    card = dataclasses.replace(card, domains=tuple(domains), inputs=("domain",) if domains else ())
    model.write_card(path, card)
    return path


def _domain_nodes(wanted: bool) -> list[Any]:
    """The nodes that brighten each picture by its domain's number; one that does nothing if there are no domains."""
    from onnx import TensorProto, helper

    if not wanted:
        return [helper.make_node("Identity", ["made"], ["moved"])]
    cast = helper.make_node("Cast", ["domain"], ["numbers"], to=TensorProto.FLOAT)
    shape = helper.make_node("Reshape", ["numbers", "as_planes"], ["planes_of_numbers"])
    scale = helper.make_node("Mul", ["planes_of_numbers", "quarter"], ["steps"])
    return [cast, shape, scale, helper.make_node("Add", ["made", "steps"], ["moved"])]


def reference(images: api.Images, domain: npt.NDArray[np.int64] | None = None) -> api.Images:
    """What the model of `make_model` must return, computed in float64 with numpy alone.

    Args:
        images: ``(N, H, W, 3)`` uint8 RGB.
        domain: ``(N,)``, for a model with domains.
    """
    centred = np.pad(images.astype(np.float64) / 127.5 - 1, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    made = np.zeros(images.shape, dtype=np.float64)
    for row, column in itertools.product(range(3), range(3)):
        made += centred[:, row : row + height, column : column + width] @ _WEIGHTS[:, :, row, column].T
    if domain is not None:
        made += _DOMAIN_STEP * domain[:, None, None, None]
    return np.rint((np.clip(made, -1, 1) + 1) * 127.5).astype(np.uint8)


def make_clip(
    path: Path,
    *,
    size: tuple[int, int] = (64, 48),
    frames: int = 12,
    fps: int = 30,
    variable_rate: bool = False,
    audio: bool = False,
    codec: str = "libx264",
) -> list[Fraction]:
    """Writes a clip of a bright square that moves over a gradient.

    Args:
        path: the file; its ending decides the container.
        size: (width, height) in pixels; odd sizes are written as 4:4:4.
        frames: how many.
        fps: frames per second.
        variable_rate: whether some frames last two and three times as long.
        audio: whether a tone of the same length goes with it.
        codec: FFmpeg's name of the encoder.

    Returns:
        The time of each frame in seconds.
    """
    import av

    ticks = list(itertools.accumulate(itertools.islice(itertools.cycle((1, 2, 3) if variable_rate else (1,)), frames)))
    times = [Fraction(tick - 1, fps) for tick in ticks]
    with av.open(str(path), "w") as container:
        video = cast(av.VideoStream, container.add_stream(codec, rate=fps))
        video.width, video.height = size
        video.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
        video.codec_context.time_base = video.time_base = Fraction(1, fps * 100)
        sound = container.add_stream("aac", rate=48_000, layout="mono") if audio else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(_scene(size, number), format="rgb24")
            frame.pts, frame.time_base = int(time * fps * 100), Fraction(1, fps * 100)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            for part in _tone(float(times[-1]) + 1 / fps):
                container.mux(sound.encode(part))
            container.mux(sound.encode(None))
    return times


def _scene(size: tuple[int, int], number: int) -> npt.NDArray[np.uint8]:
    """Picture `number` of a synthetic clip: ``(H, W, 3)`` uint8 RGB."""
    width, height = size
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[..., 0] = np.linspace(30, 200, width)
    image[..., 1] = np.linspace(30, 200, height)[:, None]
    image[..., 2] = 100
    side = max(1, min(size) // 4)
    left = (number * 2) % max(1, width - side)
    image[height // 3 : height // 3 + side, left : left + side] = 240
    return image


def _tone(seconds: float) -> Iterator[Any]:
    """Frames of a 440 Hz tone, 48,000 samples a second, mono."""
    import av

    for start in range(0, int(seconds * 48_000), 1024):
        samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(start, start + 1024) / 48_000)
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
        yield frame


class TranslatorTests:
    """The contract of `api.Translator`. A subclass gives the fixture ``translator_class``.

    A translator that cannot work with its defaults gets values from `options`, and one that loads a model gets it from
    `load_model`: override them.
    """

    def options(self) -> Mapping[str, Any]:
        """Values of options to test with, by name; those not given have their defaults."""
        return {}

    def load_model(self, location: str) -> api.Session:
        """Stands for `Context.load_model`."""
        raise NotImplementedError(f"the translator loads the model {location!r}: override load_model in the test class")

    def make(self, cls: type[api.Translator], height: int = 48, width: int = 64) -> api.Translator:
        """An opened translator."""
        translator = cls(settings.parse(cls.Options, self.options(), "TranslatorTests.options"))
        info = api.VideoInfo(width, height, time_base=Fraction(1, 30), frame_rate=Fraction(30))
        translator.open(api.Context(info, self.load_model, threads=1))
        return translator

    def test_is_a_finished_translator(self, translator_class: type[api.Translator]) -> None:
        """It derives from `api.Translator` and implements `translate`."""
        assert issubclass(translator_class, api.Translator), f"{translator_class} must derive from api.Translator"
        missing = getattr(translator_class, "__abstractmethods__", None)
        assert not missing, f"{translator_class.__name__} does not implement {', '.join(missing or ())}"

    def test_options_are_typed_and_frozen(self, translator_class: type[api.Translator]) -> None:
        """`Options` is a frozen dataclass, whose defaults are valid values of the declared types."""
        options = translator_class.Options
        assert dataclasses.is_dataclass(options), "Options must be a dataclass"
        frozen = options.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert frozen, "Options must be frozen: @dataclasses.dataclass(frozen=True)"
        defaults = options()  # raises TypeError if an option has no default
        where = f"defaults of {translator_class.__name__}.Options"
        parsed = settings.parse(options, dataclasses.asdict(defaults), where)
        assert parsed == defaults, "the defaults of Options change when they are read as settings: check their types"

    def test_keeps_number_and_type(self, translator_class: type[api.Translator]) -> None:
        """One picture and several, odd sizes and single pixels."""
        for count, height, width in _LAYOUTS:
            translator = self.make(translator_class, height, width)
            _check_images(translator.translate(make_images(count, height, width)), count, f"{width}x{height}")
            translator.close()

    def test_size_stays_the_same(self, translator_class: type[api.Translator]) -> None:
        """The size of the output does not depend on the number of pictures, nor on what was before."""
        translator = self.make(translator_class)
        shapes = {translator.translate(make_images(count, seed=count)).shape[1:] for count in (1, 3, 2, 1)}
        translator.close()
        assert len(shapes) == 1, f"the size of the output must not change within a film, got {sorted(shapes)}"

    def test_leaves_its_input_alone(self, translator_class: type[api.Translator]) -> None:
        """The input is read-only; writing to it, or making it writable, is an error."""
        translator, images = self.make(translator_class), make_images()
        before = images.copy()
        translator.translate(images)
        translator.close()
        assert np.array_equal(images, before), "translate changed its input: work on a copy"
        assert not images.flags.writeable, "translate made its input writable: work on a copy"

    def test_leaves_its_output_alone(self, translator_class: type[api.Translator]) -> None:
        """What was returned is still being encoded during the next call, so it may not be overwritten."""
        translator = self.make(translator_class)
        first = translator.translate(make_images(seed=1))
        before = first.copy()
        translator.translate(make_images(seed=2))
        translator.close()
        assert np.array_equal(first, before), "the second call overwrote the first result: return a new array each time"

    def test_reset_forgets(self, translator_class: type[api.Translator]) -> None:
        """After `reset` the same pictures give the same result."""
        translator = self.make(translator_class)
        results = []
        for _ in range(2):
            translator.reset()
            results.append([translator.translate(make_images(1, seed=seed)).copy() for seed in range(3)])
        translator.close()
        same = all(np.array_equal(first, second) for first, second in zip(*results, strict=True))
        assert same, "the same pictures gave another result after reset: forget all there, and seed what is random"

    def test_closes_at_any_time(self, translator_class: type[api.Translator]) -> None:
        """`close` works without `open`, and twice."""
        translator_class(settings.parse(translator_class.Options, self.options(), "TranslatorTests.options")).close()
        translator = self.make(translator_class)
        translator.close()
        translator.close()

    def test_live_options_may_change(self, translator_class: type[api.Translator]) -> None:
        """Each live option takes its limits and choices between two calls, and the size stays the same."""
        translator = self.make(translator_class)
        shape = translator.translate(make_images()).shape
        for name, value in _live_values(translator_class.Options):
            translator.options = dataclasses.replace(translator.options, **{name: value})
            result = translator.translate(make_images())
            _check_images(result, 2, f"{name}={value!r}")
            assert result.shape == shape, f"with {name}={value!r} the output is {result.shape}, before it was {shape}"
        translator.close()


class BackendTests:
    """The contract of `api.Backend`. A subclass gives the fixture ``backend_class``; skipped where it is not usable."""

    def load(self, cls: type[api.Backend], path: Path) -> api.Session:
        """The tiny model in a session with one thread; skips the test where the backend cannot be used."""
        import pytest

        available = cls.availability()
        if not available.usable:
            pytest.skip(f"{cls.__name__} cannot be used here: {available.reason}")
        return cls().load(make_model(path / "tiny.onnx"), threads=1, precision="fp32")

    def test_is_a_finished_backend(self, backend_class: type[api.Backend]) -> None:
        """It derives from `api.Backend` and implements everything; `fp32` is among its precisions."""
        assert issubclass(backend_class, api.Backend), f"{backend_class} must derive from api.Backend"
        missing = getattr(backend_class, "__abstractmethods__", None)
        assert not missing, f"{backend_class.__name__} does not implement {', '.join(missing or ())}"
        assert "fp32" in backend_class.precisions, "every backend must offer fp32"

    def test_availability(self, backend_class: type[api.Backend]) -> None:
        """It says in one line what it found, and the same when asked again."""
        first, second = backend_class.availability(), backend_class.availability()
        assert isinstance(first, api.Availability), "availability must return an api.Availability"
        assert first == second, "availability must say the same when asked again"
        assert first.reason.strip() and "\n" not in first.reason, "the reason must be one line for people"

    def test_computes_the_model(self, backend_class: type[api.Backend], tmp_path: Path) -> None:
        """The result is that of plain arithmetic to one level, for several sizes and numbers in one session."""
        session = self.load(backend_class, tmp_path)
        for count, height, width in _LAYOUTS:
            images = make_images(count, height, width)
            result = session.run(images)
            _check_images(result, count, f"{width}x{height}")
            expected = reference(images)
            assert result.shape == expected.shape, f"{images.shape} became {result.shape}"
            worst = int(np.abs(result.astype(int) - expected).max())
            assert worst <= 1, f"{width}x{height}: off by up to {worst} levels of 255; compute in fp32 and round"
        session.close()

    def test_takes_a_domain_for_each_picture(self, backend_class: type[api.Backend], tmp_path: Path) -> None:
        """Further inputs reach the model: pictures of one call may have different domains."""
        self.load(backend_class, tmp_path).close()
        path = make_model(tmp_path / "domains.onnx", ("plain", "bright", "brighter"))
        session = backend_class().load(path, threads=1, precision="fp32")
        for domain in (np.array([2, 0]), np.array([1]), np.array([0, 1, 2])):
            images = make_images(len(domain))
            result = session.run(images, {"domain": domain.astype(np.int64)})
            worst = int(np.abs(result.astype(int) - reference(images, domain)).max())
            assert worst <= 1, f"domains {domain}: off by up to {worst} levels of 255; pass `inputs` to the model"
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

    def test_closes_twice(self, backend_class: type[api.Backend], tmp_path: Path) -> None:
        """`Session.close` may be called twice, and before the first run."""
        session = self.load(backend_class, tmp_path)
        session.close()
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


def _check_images(result: object, count: int, case: str) -> None:
    """Whether a result is what the runtime can encode."""
    assert isinstance(result, np.ndarray), f"{case}: a numpy array must be returned, got {type(result).__name__}"
    assert result.dtype == np.uint8, f"{case}: uint8 must be returned, got {result.dtype}; round and convert"
    right = result.ndim == 4 and result.shape[0] == count and result.shape[3] == 3 and min(result.shape) > 0
    assert right, f"{case}: for {count} pictures ({count}, H, W, 3) must be returned, got {result.shape}"


def _live_values(options: type[Any]) -> Iterator[tuple[str, Any]]:
    """Each live option with the values at the ends of what it allows."""
    for field in dataclasses.fields(options):
        if field.metadata.get("live"):
            limits: Sequence[Any] = [field.metadata.get("minimum"), field.metadata.get("maximum")]
            for value in [*(field.metadata.get("choices") or ()), *limits, field.default]:
                if value is not None:
                    kind: Any = type(field.default)
                    yield field.name, kind(value)


def _refusal(load: Callable[[], object]) -> str:
    """The message with which a backend refuses."""
    try:
        load()
    except (api.BackendError, api.ModelError) as error:
        return str(error)
    raise AssertionError("load must raise BackendError or ModelError, but returned")
