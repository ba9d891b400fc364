"""The built-ins pass the suites that plugins pass; and the suites find what is wrong."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamgan import api, testing
from streamgan.models.backends import OnnxRuntime
from streamgan.models.translate import ModelTranslator
from streamgan.testing import BackendTests, FilterTests, TranslatorTests


class TestModelTranslator(TranslatorTests):
    """The translator ``model``, with the tiny model in ONNX Runtime, shown at half the size."""

    @pytest.fixture(autouse=True)
    def tiny(self, tmp_path: Path) -> None:
        """The model file."""
        self.path = testing.make_model(tmp_path / "tiny.onnx")

    @pytest.fixture
    def translator_class(self) -> type[ModelTranslator]:
        """What to test."""
        return ModelTranslator

    def options(self) -> Mapping[str, Any]:
        """The model, and a smaller size than that of the pictures."""
        return {"model": str(self.path), "size": 24}

    def load_model(self, location: str) -> api.Session:
        """As the runtime loads it."""
        return OnnxRuntime().load(Path(location), threads=1)


class TestOnnxRuntime(BackendTests):
    """The backend ``onnxruntime``."""

    @pytest.fixture
    def backend_class(self) -> type[OnnxRuntime]:
        """What to test."""
        return OnnxRuntime


class Good(api.Translator):
    """What the faulty translators below are made of."""

    @dataclasses.dataclass(frozen=True)
    class Options:
        """One live option."""

        amount: int = api.option(1, minimum=0, maximum=2, live=True, help="how much")

    def translate(self, images: api.Images) -> api.Images:
        """A copy."""
        return images.copy()


def faulty(**members: Any) -> type[api.Translator]:
    """`Good` with other members."""
    return type("Faulty", (Good,), members)


@dataclasses.dataclass
class Thawed:
    """Options that are not frozen."""


@dataclasses.dataclass(frozen=True)
class Mistyped:
    """Options with a default of another type than declared."""

    amount: int = "much"  # type: ignore[assignment]


def overwrite(images: api.Images) -> api.Images:
    """Writes to what it was given."""
    images.setflags(write=True)
    images[:] = 0
    return images.copy()


def counting() -> Callable[[Any, api.Images], api.Images]:
    """A translate whose result depends on how often it was called, whatever `reset` says."""
    calls = [0]

    def translate(_: Any, images: api.Images) -> api.Images:
        calls[0] += 1
        return np.full_like(images, calls[0])

    return translate


def reusing() -> Callable[[Any, api.Images], api.Images]:
    """A translate that always writes into the same memory."""
    kept: dict[tuple[int, ...], api.Images] = {}

    def translate(_: Any, images: api.Images) -> api.Images:
        result = kept.setdefault(images.shape, np.empty_like(images))
        result[:] = images
        return result

    return translate


@pytest.mark.parametrize(
    ("test", "members", "message"),
    [
        ("keeps_number_and_type", {"translate": lambda _, images: images / 255}, "uint8 must be returned, got float64"),
        ("keeps_number_and_type", {"translate": lambda _, images: images[:1]}, r"for 2 pictures \(2, H, W, 3\)"),
        ("keeps_number_and_type", {"translate": lambda _, images: None}, "a numpy array must be returned"),
        (
            "size_stays_the_same",
            {"translate": lambda _, images: images[:, : 48 - len(images)]},
            "must not change within",
        ),
        ("leaves_its_input_alone", {"translate": lambda _, images: overwrite(images)}, "translate changed its input"),
        ("leaves_its_output_alone", {"translate": reusing()}, "overwrote the first result"),
        ("reset_forgets", {"translate": counting()}, "another result after reset"),
        ("options_are_typed_and_frozen", {"Options": Thawed}, "Options must be frozen"),
        ("options_are_typed_and_frozen", {"Options": Mistyped}, "'much' .* given, expected a whole number"),
        (
            "live_options_may_change",
            {"translate": lambda self, images: images[:, self.options.amount :].copy()},
            "with amount=0 the output is",
        ),
    ],
)
def test_the_suite_says_what_is_wrong(test: str, members: dict[str, Any], message: str) -> None:
    suite = TranslatorTests()
    getattr(suite, f"test_{test}")(Good)
    with pytest.raises((AssertionError, api.StreamganError), match=message):
        getattr(suite, f"test_{test}")(faulty(**members))


class GoodFilter(api.Filter):
    """What the faulty filters below are made of: an average with the result before."""

    past: Any = None

    def apply(self, images: api.Images, made: api.Images) -> api.Images:
        """One after the other."""
        results = []
        for image in made:
            self.past = image if self.past is None else self.past // 2 + image // 2
            results.append(self.past)
        return np.stack(results)

    def reset(self) -> None:
        """Begins anew."""
        self.past = None


class TestGoodFilter(FilterTests):
    """The suite passes what keeps to the contract."""

    @pytest.fixture
    def filter_class(self) -> type[GoodFilter]:
        """What to test."""
        return GoodFilter


def reusing_filter() -> Callable[[Any, api.Images, api.Images], api.Images]:
    """An apply that always writes into the same memory."""
    translate = reusing()
    return lambda self, images, made: translate(self, made)


def counting_pictures() -> Callable[[Any, api.Images, api.Images], api.Images]:
    """An apply whose result depends on how many pictures come at once."""
    return lambda _, images, made: np.full_like(made, len(made))


@pytest.mark.parametrize(
    ("test", "members", "message"),
    [
        ("keeps_number_size_and_type", {"apply": lambda _, images, made: made / 255}, "uint8 must be returned"),
        ("keeps_number_size_and_type", {"apply": lambda _, images, made: made[:1]}, r"for 2 pictures \(2, H, W, 3\)"),
        ("keeps_number_size_and_type", {"apply": lambda _, images, made: images}, r"\(1, 96, 128, 3\) must be"),
        ("leaves_its_input_alone", {"apply": lambda _, images, made: overwrite(images)}, "apply changed the source"),
        ("leaves_its_input_alone", {"apply": lambda _, images, made: overwrite(made)}, "apply changed the translation"),
        ("leaves_its_output_alone", {"apply": reusing_filter()}, "overwrote an earlier"),
        ("the_number_of_pictures_at_once_does_not_matter", {"apply": counting_pictures()}, "how many pictures come"),
        ("reset_forgets", {"reset": lambda _: None}, "another result after reset"),
        ("options_are_typed_and_frozen", {"Options": Thawed}, "Options must be frozen"),
    ],
)
def test_the_suite_of_filters_says_what_is_wrong(test: str, members: dict[str, Any], message: str) -> None:
    with pytest.raises((AssertionError, api.StreamganError), match=message):
        getattr(FilterTests(), f"test_{test}")(type("Faulty", (GoodFilter,), members))


@pytest.mark.parametrize(("size", "name"), [((64, 48), "a.mp4"), ((53, 37), "b.mkv")])
def test_clips(tmp_path: Path, size: tuple[int, int], name: str) -> None:
    times = testing.make_clip(tmp_path / name, size=size, frames=7, variable_rate=True, audio=True)
    with av.open(str(tmp_path / name)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == size
        assert len(container.streams.audio) == 1
        read = [frame.time for frame in container.decode(stream)]
    assert read == pytest.approx([float(time) for time in times], abs=1e-3)
    assert len({later - earlier for earlier, later in itertools.pairwise(times)}) > 1
