"""What a run did: the report that it returns, and the record of it as a JSON file."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamgan.api import SinkError, SourceError
from streamgan.model import digest
from streamgan.writing import outputs

if TYPE_CHECKING:
    from streamgan.plan import Plan

FORMAT = 1
"""Version of the file; a newer minor streamgan may add keys to it, never take any away."""
_RUNTIMES = ("onnxruntime", "openvino", "tensorrt")


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run did."""

    output: str
    frames: int
    """Frames written."""
    seconds: float
    """From start to end."""
    busy: dict[str, float]
    """Seconds that each stage worked, without waiting for the others; they overlap."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as streams that could not be kept."""
    decoded: int = 0
    """Frames that the source gave; more than `frames` if the viewer ended the run."""
    resumed: int = 0
    """How many of the frames an interrupted run had made before."""
    lost: int = 0
    """Frames that could not be decoded and were left out."""
    repeated: int = 0
    """Frames that stand in for some that could not be decoded."""

    @property
    def fps(self) -> float:
        """Frames per second of this run, end to end."""
        return (self.frames - self.resumed) / self.seconds if self.seconds else 0.0

    @property
    def bottleneck(self) -> str:
        """The stage that worked longest."""
        return max(self.busy, key=lambda stage: self.busy[stage])


def of(plan: Plan, report: Report) -> dict[str, Any]:
    """The record of a run as JSON holds it: times in seconds, hashes SHA-256 in hexadecimal.

    It measures how much the film flickers (see `streamgan.motion.flicker`), so it takes some seconds.

    Raises:
        OSError: if a file that took part can no longer be read.
    """
    from streamgan import fingerprint  # only here: to read a record needs no video libraries

    source = _file(plan.request.input)
    if plan.info is not None:
        source["video"] = plan.info.description
    return {
        "format": FORMAT,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "input": source,
        "output": _file(report.output),
        "preset": {"name": plan.preset.name} | _file(str(plan.preset.path)),
        "models": [_file(str(path)) for path in fingerprint.models(plan)],
        "versions": _versions(plan),
        "settings": _settings(plan),
        "seconds": {"total": report.seconds} | report.busy,
        "frames": {
            "in": report.decoded,
            "out": report.frames,
            "dropped": report.decoded - report.frames,
            "lost": report.lost,
            "repeated": report.repeated,
            "resumed": report.resumed,
        },
        "warping_error": _warping_error(plan, report),
        "notes": list(report.notes),
    }


def write(path: Path, plan: Plan, report: Report) -> None:
    """Writes the record of a run, whole or not at all.

    Raises:
        SinkError: if it cannot be written; the film is complete then.
    """
    partial = outputs.partial_name(path)
    try:
        partial.write_text(json.dumps(of(plan, report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        outputs.publish(partial, path, plan.request.overwrite)
    except OSError as error:
        if isinstance(error, SinkError):
            raise
        complete = f"{report.output} is complete"
        raise SinkError(f"{path}: the record cannot be written ({error.strerror or error}); {complete}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """Reads what `write` wrote.

    Raises:
        SourceError: if it is no record, or of a newer format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError):
        raise SourceError(f"{path}: not JSON; expected a record, as 'streamgan run --report' writes it") from None
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT or "frames" not in content:
        told = f"has format {version!r}, this streamgan reads {FORMAT}"
        raise SourceError(f"{path}: {told}; expected a record, as 'streamgan run --report' writes it")
    return dict(content)


def _file(location: str) -> dict[str, Any]:
    """A location, and of a file its size and hash."""
    if not os.path.isfile(location):
        return {"location": location}
    return {"location": location, "bytes": os.path.getsize(location), "sha256": digest(Path(location))}


def _warping_error(plan: Plan, report: Report) -> dict[str, Any] | None:
    """How much the film flickers beside its input; None if it is no film that went from a file to a file."""
    from streamgan.motion import flicker
    from streamgan.reading.sources import VideoFile
    from streamgan.writing.sinks import VideoFileSink

    request = plan.request
    from_file = plan.source is VideoFile and not plan.source.live and os.path.isfile(request.input)
    to_file = plan.sink is VideoFileSink and os.path.isfile(report.output)
    if request.compare or not (from_file and to_file):
        return None
    found = flicker.measure(request.input, report.output, report.frames, plan.selection, plan.budget.decode)
    if found is None:
        return None
    return dataclasses.asdict(found) | {"ratio_over_squared_contrast": found.fair_ratio}


def _versions(plan: Plan) -> dict[str, str]:
    """What the result may depend on: the program, its libraries, and the packages of translator and backend."""
    import av
    import cv2
    import numpy as np

    found = {"python": platform.python_version(), "numpy": np.__version__}
    found |= {"av": av.__version__, "ffmpeg": av.ffmpeg_version_info, "opencv": cv2.__version__}
    modules = [cls.__module__.partition(".")[0] for cls in (plan.translator, plan.backend)]
    brought = importlib.metadata.packages_distributions()
    names = [name for module in modules for name in brought.get(module, ()) if module != "streamgan"]
    for name in ["streamgan", *names, *(name for name in _RUNTIMES if name in sys.modules)]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _settings(plan: Plan) -> dict[str, Any]:
    """What was in force, resolved: preset and command line together."""
    request, encoding = plan.request, plan.encoding
    return {
        "translator": plan.preset.translator,
        "options": _options(plan.options),
        "strength": plan.strength,
        "temporal": {name: _options(options) for name, _, options in plan.filters},
        "compare": request.compare,
        **{key: _plain(value) for key, value in dataclasses.asdict(plan.selection).items()},
        "backend": plan.backend_name,
        "precision": request.precision if plan.setup is None else plan.setup.precision,
        "streams": 1 if plan.setup is None else plan.setup.streams,
        "codec": encoding.codec,
        "encoder": encoding.encoder,
        "lossless": encoding.lossless,
        "crf": encoding.crf,
        "encoder_preset": encoding.preset,
        "audio": encoding.audio,
        "alpha": encoding.alpha,
        "threads": dataclasses.asdict(plan.budget),
    }


def _options(options: Any) -> dict[str, Any]:
    """The options of a plugin as JSON holds them."""
    return {key: _plain(value) for key, value in dataclasses.asdict(options).items()}


def _plain(value: Any) -> Any:
    """A value as JSON holds it."""
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | int | float | bool | dict) else str(value)
