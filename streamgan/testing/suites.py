"""Conformance suites: a test for every line of the contracts in `streamgan.api`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np

from streamgan import api, settings
from streamgan.testing.synthetic import make_images

LAYOUTS = ((1, 48, 64), (2, 48, 64), (3, 48, 64), (1, 37, 53), (2, 1, 1), (1, 53, 37))
"""(N, H, W) of the pictures that each must take."""


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
        _check_options(translator_class)

    def test_keeps_number_and_type(self, translator_class: type[api.Translator]) -> None:
        """One picture and several, odd sizes and single pixels."""
        for count, height, width in LAYOUTS:
            translator = self.make(translator_class, height, width)
            check_images(translator.translate(make_images(count, height, width)), count, f"{width}x{height}")
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

    def test_may_be_called_by_several_threads(self, translator_class: type[api.Translator]) -> None:
        """If it says that it is `concurrent`, what threads make at once is what one makes alone."""
        if not translator_class.concurrent:
            return
        assert not translator_class.memory, "what has a memory cannot be concurrent: its frames must come in order"
        translator, pictures = self.make(translator_class), [make_images(1, seed=seed) for seed in range(8)]
        alone = [translator.translate(each).copy() for each in pictures]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(translator.translate, pictures * 4))
        translator.close()
        same = all(np.array_equal(each, alone[place % len(alone)]) for place, each in enumerate(together))
        assert same, "several threads at once got other results than one: share nothing that is written to"

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
            check_images(result, 2, f"{name}={value!r}")
            assert result.shape == shape, f"with {name}={value!r} the output is {result.shape}, before it was {shape}"
        translator.close()


class FilterTests:
    """The contract of `api.Filter`. A subclass gives the fixture ``filter_class``.

    A filter that cannot work with its defaults gets values from `options`, and one that loads a model gets it from
    `load_model`: override them.
    """

    def options(self) -> Mapping[str, Any]:
        """Values of options to test with, by name; those not given have their defaults."""
        return {}

    def load_model(self, location: str) -> api.Session:
        """Stands for `Context.load_model`."""
        raise NotImplementedError(f"the filter loads the model {location!r}: override load_model in the test class")

    def make(self, cls: type[api.Filter], height: int = 48, width: int = 64) -> api.Filter:
        """An opened filter, reset."""
        made = cls(settings.parse(cls.Options, self.options(), "FilterTests.options"))
        info = api.VideoInfo(width, height, time_base=Fraction(1, 30), frame_rate=Fraction(30))
        made.open(api.Context(info, self.load_model, threads=1))
        made.reset()
        return made

    def test_is_a_finished_filter(self, filter_class: type[api.Filter]) -> None:
        """It derives from `api.Filter` and implements `apply`."""
        assert issubclass(filter_class, api.Filter), f"{filter_class} must derive from api.Filter"
        missing = getattr(filter_class, "__abstractmethods__", None)
        assert not missing, f"{filter_class.__name__} does not implement {', '.join(missing or ())}"

    def test_options_are_typed_and_frozen(self, filter_class: type[api.Filter]) -> None:
        """`Options` is a frozen dataclass, whose defaults are valid values of the declared types."""
        _check_options(filter_class)

    def test_keeps_number_size_and_type(self, filter_class: type[api.Filter]) -> None:
        """One picture and several, odd sizes and single pixels; also where the translation is larger."""
        for (count, height, width), factor in itertools.product(LAYOUTS, (1, 2)):
            tested, case = self.make(filter_class, height, width), f"{width}x{height} to {factor} times the size"
            for seed in range(3):
                made = make_images(count, height * factor, width * factor, seed + 10)
                result = tested.apply(make_images(count, height, width, seed), made)
                check_images(result, count, case)
                assert result.shape == made.shape, f"{case}: {made.shape} must be returned, got {result.shape}"
            tested.close()

    def test_leaves_its_input_alone(self, filter_class: type[api.Filter]) -> None:
        """Source and translation are read-only; writing to them, or making them writable, is an error."""
        tested, given = self.make(filter_class), (make_images(seed=1), make_images(seed=2))
        before = [each.copy() for each in given]
        for _ in range(2):
            tested.apply(*given)
        tested.close()
        for name, each, kept in zip(("source", "translation"), given, before, strict=True):
            assert np.array_equal(each, kept), f"apply changed the {name}: work on a copy"
            assert not each.flags.writeable, f"apply made the {name} writable: work on a copy"

    def test_leaves_its_output_alone(self, filter_class: type[api.Filter]) -> None:
        """What was returned is still being encoded during the next call, so it may not be overwritten."""
        tested = self.make(filter_class)
        results = [tested.apply(make_images(seed=seed), make_images(seed=seed + 10)) for seed in (1, 2)]
        before = [result.copy() for result in results]
        tested.apply(make_images(seed=3), make_images(seed=13))
        tested.close()
        same = all(np.array_equal(result, kept) for result, kept in zip(results, before, strict=True))
        assert same, "a later call overwrote an earlier result: return a new array each time"

    def test_the_number_of_pictures_at_once_does_not_matter(self, filter_class: type[api.Filter]) -> None:
        """A film comes out the same however it is cut into calls: an interrupted run may be cut elsewhere."""
        images, made = make_images(6, seed=1), make_images(6, seed=2)
        films = []
        for step in (1, 2, 6):
            tested = self.make(filter_class)
            parts = [slice(start, start + step) for start in range(0, 6, step)]
            films.append(np.concatenate([tested.apply(images[part], made[part]) for part in parts]))
            tested.close()
        same = all(np.array_equal(films[0], film) for film in films)
        assert same, "the result depends on how many pictures come at once: use earlier pictures only, one by one"

    def test_reset_forgets(self, filter_class: type[api.Filter]) -> None:
        """After `reset` the same pictures give the same result."""
        tested = self.make(filter_class)
        results = []
        for _ in range(2):
            tested.reset()
            results.append([tested.apply(make_images(1, seed=n), make_images(1, seed=n + 10)).copy() for n in range(3)])
        tested.close()
        same = all(np.array_equal(first, second) for first, second in zip(*results, strict=True))
        assert same, "the same pictures gave another result after reset: forget all there, and seed what is random"

    def test_closes_at_any_time(self, filter_class: type[api.Filter]) -> None:
        """`close` works without `open`, and twice."""
        filter_class(settings.parse(filter_class.Options, self.options(), "FilterTests.options")).close()
        tested = self.make(filter_class)
        tested.close()
        tested.close()


def _check_options(cls: type[api.Translator] | type[api.Filter]) -> None:
    """Whether `Options` is a frozen dataclass, whose defaults are valid values of the declared types."""
    options = cls.Options
    parameters = getattr(options, "__dataclass_params__", None)
    assert parameters is not None, "Options must be a dataclass"
    assert parameters.frozen, "Options must be frozen: @dataclasses.dataclass(frozen=True)"
    defaults = options()  # raises TypeError if an option has no default
    parsed = settings.parse(options, dataclasses.asdict(defaults), f"defaults of {cls.__name__}.Options")
    assert parsed == defaults, "the defaults of Options change when they are read as settings: check their types"


def check_images(result: object, count: int, case: str) -> None:
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
