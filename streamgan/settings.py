"""Typed settings from untyped mappings: presets, recipes and options become frozen dataclasses, or one clear error.

Structure (dataclasses inside dataclasses, lists, tuples and dicts of them) is walked here; single values are converted
by pydantic, so that the text ``"1e-4"`` is a float where a float is wanted.
"""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml

from streamgan.api import PresetError

T = TypeVar("T")
NOT_A_KEY: Mapping[str, Any] = types.MappingProxyType({"key": False})
"""Metadata of a dataclass field that is filled in by the program and may not be given by a user."""
_MORE = object()
"""Stands for a value that takes more than a look at its type."""


def nearest(name: str, names: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the name most like `name`, or an empty text if none is like it."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""


def parse(cls: type[T], mapping: Mapping[str, Any], where: str) -> T:
    """Builds a dataclass from a mapping.

    Args:
        cls: a dataclass; its fields may be dataclasses, and lists, tuples or dicts of them.
        mapping: what the user gave, by key.
        where: what the errors begin with, such as ``recipe.yaml: train``.

    Returns:
        An instance of `cls`; keys that are not given have their defaults.

    Raises:
        PresetError: for an unknown key, a missing one, a value of the wrong type or beyond what `api.option` allows.
    """
    return _build(cls, mapping, _Place(where))


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a value stands, for messages."""

    where: str
    path: str = ""

    def inside(self, key: object) -> _Place:
        """The place of the value under `key`."""
        return _Place(self.where, f"{self.path}.{key}" if self.path else str(key))

    def error(self, message: str) -> PresetError:
        """An error that begins with this place."""
        return PresetError(f"{self.where}: {self.path}: {message}" if self.path else f"{self.where}: {message}")


def _build(cls: type[T], mapping: object, place: _Place) -> T:
    """An instance of the dataclass `cls`, of checked values."""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init and _is_key(field)}  # type: ignore[arg-type]
    if not isinstance(mapping, Mapping):
        raise place.error(f"{_shown(mapping)} given, expected keys ({', '.join(fields) or 'none are known'})")
    for key in mapping:
        if key not in fields:
            allowed = ", ".join(fields) or "none"
            raise place.error(f"unknown key '{key}'{nearest(str(key), fields)} (allowed: {allowed})")
    missing = [name for name, field in fields.items() if name not in mapping and not _has_default(field)]
    if missing:
        raise place.error(f"the key '{missing[0]}' is missing")
    kinds = typing.get_type_hints(cls)
    values = {key: _convert(kinds[key], value, place.inside(key)) for key, value in mapping.items()}
    for key, value in values.items():
        _check_limits(fields[key].metadata, value, place.inside(key))
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:  # raised by a __post_init__ that checks several values together
        raise place.error(str(error)) from None


def _is_key(field: dataclasses.Field[Any]) -> bool:
    """Whether the user may give this field."""
    return bool(field.metadata.get("key", True))


def _has_default(field: dataclasses.Field[Any]) -> bool:
    """Whether the field may be left out."""
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _convert(kind: Any, value: Any, place: _Place) -> Any:
    """`value` as the type `kind`; only what holds dataclasses is walked, the rest goes to pydantic."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else _build(kind, value, place)
    if not _holds_dataclass(kind):
        return _convert_plain(kind, value, place)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(inner, value, place)
    if origin is dict or origin is Mapping:
        plain = _convert_plain(dict[inner[0], Any], value, place)  # type: ignore[valid-type]
        return {key: _convert(inner[1], item, place.inside(key)) for key, item in plain.items()}
    items = _convert_plain(list[Any], value, place)
    kinds = [inner[0]] * len(items) if origin is list or inner[1:] == (...,) else list(inner)
    if len(kinds) != len(items):
        raise place.error(f"{len(items)} values given, expected {len(kinds)}")
    pairs = enumerate(zip(kinds, items, strict=True))
    return origin([_convert(kind, item, place.inside(number)) for number, (kind, item) in pairs])


def _convert_union(kinds: tuple[Any, ...], value: Any, place: _Place) -> Any:
    """`value` as one of several types: the dataclass if it is a mapping, else one of the others."""
    walked = [kind for kind in kinds if _holds_dataclass(kind)]
    others = tuple(kind for kind in kinds if not _holds_dataclass(kind))
    if isinstance(value, (Mapping, list, tuple)) or not others:
        return _convert(walked[0], value, place)
    return _convert_plain(Union[others], value, place)  # noqa: UP007 - a tuple of types


def _holds_dataclass(kind: Any) -> bool:
    """Whether a dataclass is `kind`, or stands anywhere inside it."""
    return dataclasses.is_dataclass(kind) or any(_holds_dataclass(inner) for inner in typing.get_args(kind))


def _convert_plain(kind: Any, value: Any, place: _Place) -> Any:
    """`value` as a type without dataclasses."""
    if (made := _as_it_is(kind, value)) is not _MORE:
        return made
    import pydantic  # takes a tenth of a second, more than all else that a preset and a card need

    if kind is not bool and kind in (int, float) and isinstance(value, bool):
        raise place.error(f"{_shown(value)} given, expected {_spelled(kind)}")
    try:
        return pydantic.TypeAdapter(kind).validate_python(value)
    except pydantic.ValidationError as error:
        detail = error.errors(include_url=False)[0]
        inner = ".".join(str(step) for step in detail["loc"] if isinstance(step, int) or not step[:1].isupper())
        nested = bool(inner) and detail["type"] != "missing" and isinstance(value, (Mapping, list, tuple))
        found, given = (place.inside(inner), detail["input"]) if nested else (place, value)
        raise found.error(f"{_shown(given)} given, expected {_spelled(kind)}") from None


def _as_it_is(kind: Any, value: Any) -> Any:
    """`value`, a list in it as the tuple that is wanted; `_MORE` where it is to be converted, or something is wrong."""
    if kind is Any or kind in (str, int, float, bool, type(None)):
        return value if kind is Any or type(value) is kind else _MORE
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return next((made for each in inner if (made := _as_it_is(each, value)) is not _MORE), _MORE)
    if origin is tuple and isinstance(value, (list, tuple)) and inner:
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
        items = [_as_it_is(*pair) for pair in zip(kinds, value, strict=False)]
        return tuple(items) if len(kinds) == len(value) and _MORE not in items else _MORE
    if origin is dict and type(value) is dict:
        made = {_as_it_is(inner[0], key): _as_it_is(inner[1], item) for key, item in value.items()}
        return made if _MORE not in made and _MORE not in made.values() else _MORE
    return _MORE


def _check_limits(declared: Mapping[str, Any], value: Any, place: _Place) -> None:
    """Holds a value against what `api.option` declares."""
    minimum, maximum, choices = (declared.get(name) for name in ("minimum", "maximum", "choices"))
    if choices is not None and value not in choices:
        raise place.error(f"{_shown(value)} given, expected one of {', '.join(choices)}{nearest(str(value), choices)}")
    if isinstance(value, (int, float)) and not _within(value, minimum, maximum):
        raise place.error(f"{value} given, expected {_span(minimum, maximum)}")


def _within(value: float, minimum: float | None, maximum: float | None) -> bool:
    """Whether the value lies between the limits; a value that is not a number does not."""
    return value == value and (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def _span(minimum: float | None, maximum: float | None) -> str:
    """The limits in words."""
    if minimum is not None and maximum is not None:
        return f"{minimum} to {maximum}"
    if minimum is not None:
        return f"{minimum} or more"
    return f"{maximum} or less" if maximum is not None else "a number"


def _shown(value: object) -> str:
    """A value for a message, cut when it is long, with its type."""
    text = _SHORT.repr(value)  # not repr: of lists of lists by the same few names, that is without end
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 200, 200, 200
_WORDS: Mapping[Any, str] = {
    **{int: "a whole number", float: "a number", str: "text", bool: "true or false"},
    **{Path: "a path", type(None): "nothing"},
}


def _spelled(kind: Any) -> str:
    """A type in words for people."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_spelled(one) for one in inner)
    if origin is list or (origin is tuple and inner[1:] == (...,)):
        return f"a list, each {_spelled(inner[0])}"
    if kind is dict or origin in (dict, Mapping):
        return "'key: value' lines"
    if origin is tuple:
        return f"[{', '.join(_spelled(one) for one in inner)}]"
    return _WORDS.get(kind) or str(kind.__name__ if isinstance(kind, type) and not inner else kind)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file whose top is a mapping; the same key twice is an error.

    Raises:
        PresetError: if it cannot be read, with path and line.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except FileNotFoundError:
        raise PresetError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PresetError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise PresetError(f"{path}{line}: broken YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # the others of values such as 2026-99-99
        raise PresetError(f"{path}: broken YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise PresetError(f"{path}: {_shown(content)} found, expected 'key: value' lines")
    return content


class _Loader(yaml.SafeLoader):
    """A safe loader to which a key that stands twice is an error, not a silent replacement."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node, as the base class makes it."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = f"a key must be a word, not a {key.id}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                problem = f"the key '{key.value}' stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
