"""The stable surface: a change here is a change of `API_VERSION`."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from streamgan import api, hookspecs

SURFACE = {
    "API_VERSION": "str",
    "Availability": "usable reason rank",
    "Backend": "precisions max_streams device availability load",
    "BackendError": "1",
    "Color": "matrix primaries transfer full_range guessed",
    "Context": "info load_model threads",
    "Encoding": "codec encoder lossless alpha crf preset threads overwrite copy_from selection audio",
    "Filter": "Options open apply reset close",
    "Frame": "image pts time_base duration captured_at alpha fine cut time size",
    "Images": "GenericAlias",
    "ModelError": "1",
    "PluginError": "1",
    "PresetError": "2",
    "Selection": "start end frames every stream on_error",
    "Session": "precision device build multiple_of domains path run close",
    "Sink": "accepts open write abort close notes stopped",
    "SinkError": "1",
    "Source": "live accepts info frames close abort notes lost repeated",
    "SourceError": "1",
    "StreamganError": "1",
    "Translator": "Options batch memory concurrent open translate reset close",
    "UsageError": "2",
    "VideoInfo": "width height time_base frame_rate frame_count sample_aspect_ratio color bits alpha description",
    "cache_folder": "(name: 'str') -> 'Path | None'",
    "hookimpl": "HookimplMarker",
    "option": "(default: 'Any', *, minimum: 'float | None' = None, maximum: 'float | None' = None, "
    "choices: 'Sequence[str] | None' = None, live: 'bool' = False, help: 'str' = '') -> 'Any'",
}
"""Each public name with its members, exit code, signature or type."""
HOOKS = {"backends", "commands", "filters", "methods", "presets", "sinks", "sources", "translators"}


def public() -> set[str]:
    """Names that `streamgan.api` defines itself."""
    borrowed = {"annotations", "Callable", "Iterator", "Mapping", "Sequence", "Fraction", "Path", "TracebackType"}
    borrowed |= {"Any", "ClassVar", "Literal", "Self", "TypeAlias"}
    return {
        name
        for name, value in vars(api).items()
        if name[0] != "_" and not inspect.ismodule(value) and name not in borrowed
    }


def members(value: object) -> str:
    """What `SURFACE` holds of a name."""
    if isinstance(value, type) and issubclass(value, api.StreamganError):
        return str(value.exit_code)
    if isinstance(value, type):
        names = {name for cls in value.__mro__ for name in vars(cls) if name[0] != "_"}
        return " ".join(sorted(names | {field.name for field in _fields(value)}))
    return str(inspect.signature(value)) if inspect.isfunction(value) else type(value).__name__


def _fields(value: type) -> tuple[dataclasses.Field[object], ...]:
    return dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()


def test_names() -> None:
    assert public() == set(SURFACE)


@pytest.mark.parametrize("name", SURFACE)
def test_members(name: str) -> None:
    value, expected = getattr(api, name), SURFACE[name]
    found = members(value)
    ordered = " ".join(sorted(expected.split())) if isinstance(value, type) else expected
    assert found == ordered, f"api.{name} changed: adapt SURFACE, and raise API_VERSION"


def test_hooks() -> None:
    assert {name.removeprefix("register_") for name in vars(hookspecs) if name.startswith("register_")} == HOOKS


def test_errors_are_the_built_in_ones_that_fit() -> None:
    for error in (api.UsageError, api.ModelError):
        assert issubclass(error, ValueError)
    for error in (api.SourceError, api.SinkError):
        assert issubclass(error, OSError)
    for error in (api.BackendError, api.PluginError):
        assert issubclass(error, RuntimeError)
    assert issubclass(api.PresetError, api.UsageError)


def test_values_are_frozen() -> None:
    for name in SURFACE:
        value = getattr(api, name)
        if isinstance(value, type) and dataclasses.is_dataclass(value):
            assert value.__dataclass_params__.frozen, name  # type: ignore[attr-defined]
