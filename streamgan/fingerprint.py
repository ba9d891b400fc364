"""What shapes a result, in one number: equal fingerprints mean the same input, translated the same way."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamgan.api import SourceError
from streamgan.frames import imagenames
from streamgan.model import int8_path
from streamgan.models.memo import digest_once

if TYPE_CHECKING:
    from streamgan.plan import Plan

_ENDS = 1 << 20
"""Bytes hashed at each end of an input."""
_APART = ("input", "output", "preset", "options", "size", "strength", "smooth", "start", "end")
"""Fields of a request that come in by what became of them."""
_IDLE = ("overwrite", "resume", "report", "timeout", "threads", "segment")
"""Fields of a request that leave what one sees as it is."""
_LIBRARIES = ("av", "numpy", "opencv-python", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch")


def of(plan: Plan, exact: bool = False) -> str:
    """The fingerprint of what a plan makes: SHA-256 in hexadecimal.

    It covers the input (`identity`), the settings in force, the bytes of the preset, of the files that its options name
    and of a plugin's module, the kind of output, and the version of streamgan; not the names of input and output.

    Args:
        plan: from `plan.build`.
        exact: whether to cover too what changes only bits: threads, the backend and the encoder that were chosen,
            versions of libraries, the kind of machine.

    Raises:
        SourceError: if a file that takes part can no longer be read.
    """
    content = _settings(plan) | {"version": _versions("streamgan")}
    try:
        if exact:
            content |= {"bits": _bits(plan)}
        content |= {"input": identity(plan.request.input), "files": [digest_once(path) for path in files(plan)]}
    except OSError as error:
        raise SourceError(f"{error.filename}: cannot be read ({error.strerror or error})") from None
    text = json.dumps(content, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def identity(location: str) -> list[tuple[str, int, int, str]]:
    """What tells whether an input is still the same.

    Args:
        location: a file; a folder or a pattern of images; or a URL or a device, of which only the name is known.

    Returns:
        Of a file: an empty name, its bytes, the time of its last change in nanoseconds, SHA-256 of its first and its
        last MiB. Of many images: for each its name, bytes and time. Of anything else: the location.

    Raises:
        OSError: if it cannot be read.
    """
    if os.path.isfile(location):
        state = os.stat(location)
        return [("", state.st_size, state.st_mtime_ns, _digest_ends(location, state.st_size))]
    states = [(os.path.basename(path), os.stat(path)) for path in listed(location)]
    return [(name, state.st_size, state.st_mtime_ns, "") for name, state in states] or [(location, 0, 0, "")]


def files(plan: Plan) -> list[Path]:
    """The files beside the input that shape the result: the preset, what its options name, a plugin's module."""
    folder, names = plan.preset.path.parent, {cls.__module__ for cls in _classes(plan)}
    brought = [sys.modules[name] for name in sorted(names) if name in sys.modules and not name.startswith("streamgan.")]
    plugins = [Path(module.__file__) for module in brought if module.__file__ is not None]
    named = [folder / os.path.expanduser(name) for name in _texts(plan) if name]
    quantised = map(int8_path, models(plan)) if plan.request.precision == "int8" else ()
    return [path for path in (plan.preset.path, *named, *quantised, *plugins) if os.path.isfile(path)]


def models(plan: Plan) -> list[Path]:
    """The model files that the translator's options name, whether they exist or not."""
    folder = plan.preset.path.parent
    return [folder / os.path.expanduser(name) for name in _texts(plan) if name.endswith(".onnx")]


def listed(location: str) -> list[str]:
    """The files that a location stands for, sorted.

    Args:
        location: a file; a folder or a pattern of images, ``@RATE`` at its end or not; anything else has no files.
    """
    if "://" in location:
        return []
    return sorted(str(path) for path in imagenames.find(imagenames.split_rate(location)[0]) if os.path.isfile(path))


def _digest_ends(location: str, size: int) -> str:
    """SHA-256 of the first and the last MiB of a file, in hexadecimal."""
    with open(location, "rb") as file:
        ends = hashlib.sha256(file.read(_ENDS))
        file.seek(max(_ENDS, size - _ENDS))
        ends.update(file.read(_ENDS))
    return ends.hexdigest()


def _classes(plan: Plan) -> list[type]:
    """What makes the pictures: the translator and the filters."""
    return [plan.translator, *(cls for _, cls, _ in plan.filters)]


def _texts(plan: Plan) -> list[str]:
    """Options of translator and filters that are texts, and so may name files."""
    every = [plan.options, *(options for _, _, options in plan.filters)]
    values = [getattr(options, field.name) for options in every for field in dataclasses.fields(options)]
    return [value for value in values if isinstance(value, str)]


def _settings(plan: Plan) -> dict[str, Any]:
    """What was asked for, with the preset's options and the defaults filled in."""
    names = [field.name for field in dataclasses.fields(plan.request)]
    asked = {name: getattr(plan.request, name) for name in names if name not in _APART + _IDLE}
    return {
        "asked": asked | {"backend": None if asked["backend"] == "auto" else asked["backend"]},
        "translator": plan.preset.translator,
        "options": dataclasses.asdict(plan.options),
        "filters": [(name, dataclasses.asdict(options)) for name, _, options in plan.filters],
        "strength": plan.strength,
        "part": dataclasses.asdict(plan.selection),
        "clock": None if plan.info is None else plan.info.time_base,
        "output": (plan.sink.__qualname__, Path(plan.output).suffix.lower()),
    }


def _bits(plan: Plan) -> dict[str, Any]:
    """What changes the bits of a film, and nothing that one could see."""
    encoding = dataclasses.replace(plan.encoding, overwrite=False, copy_from=None)
    precision = plan.request.precision if plan.setup is None else plan.setup.precision
    quantised = map(int8_path, models(plan)) if precision == "int8" else ()
    return {
        "encoding": dataclasses.asdict(encoding),
        "threads": dataclasses.asdict(plan.budget),
        "segment": plan.request.segment,
        "backend": (plan.backend_name, precision),  # in how many streams, which is measured, changes no bit
        "quantised": [digest_once(path) for path in quantised if path.is_file()],
        "machine": (platform.system(), platform.machine()),
        "versions": [each for name in _LIBRARIES for each in _versions(name)],
    }


@functools.cache
def _versions(name: str) -> list[str]:
    """Name and version of a package, or nothing if it is not installed."""
    try:
        return [f"{name} {importlib.metadata.version(name)}"]
    except importlib.metadata.PackageNotFoundError:
        return []
