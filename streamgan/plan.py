"""From what the user asks for to what will be done: everything is resolved and checked here, before any work."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_type_hints

from streamgan import images, settings
from streamgan.animations import AnimationSink
from streamgan.api import (
    Backend,
    Encoding,
    Selection,
    Sink,
    SinkError,
    Source,
    SourceError,
    Translator,
    UsageError,
    VideoInfo,
)
from streamgan.backends import choose
from streamgan.plugins import Provided, Registry, blamed, held
from streamgan.preset import Preset
from streamgan.sources import VideoFile

_PICTURES = (images.ImageSink, AnimationSink)
"""Sinks that have no use for a codec."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Everything that a user can ask for; None where the preset or the program decides."""

    input: str
    """Path, URL or device to read."""
    preset: str
    """Name of a preset, or the path of its YAML file."""
    output: str | None = None
    """Path or URL to write; None for ``INPUT.PRESET.mp4`` beside the input, or as `images.default_output` says."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the translator, over those of the preset."""
    strength: float | None = None
    """How much of the translation is blended over the source, 0 to 1."""
    size: int | None = None
    """Short side that the model sees, in pixels."""
    start: Fraction | None = None
    """First time wanted, in seconds."""
    end: Fraction | None = None
    """Time to stop at, in seconds."""
    backend: str | None = None
    """Name of the backend."""
    precision: str = "auto"
    """Number type of the backend's arithmetic."""
    codec: Literal["h264", "hevc", "av1", "vp9", "ffv1"] = "h264"
    """Compression of the output."""
    crf: int | None = None
    """Constant rate factor of the encoder: the lower the better."""
    encoder_preset: str | None = None
    """Effort of the encoder."""
    audio: Literal["copy", "aac", "none"] = "copy"
    """What becomes of the audio; see `Encoding`."""
    overwrite: bool = False
    """Whether an existing output may be replaced."""
    report: str | None = None
    """Path of a JSON file to write the record of the run to; None for none."""
    compare: bool = False
    """Whether the source is put beside the translation."""
    threads: int | None = None
    """Cores to use; None for all that the process may use."""

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """A request from names and values; times may be any number of seconds.

        Raises:
            UsageError: for a field that there is not, with the nearest name, or a value of the wrong kind.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                raise UsageError(f"run: no option '{name}'{settings.nearest(name, known)}")
        if fields.get("audio", "copy") not in get_args(get_type_hints(Encoding)["audio"]):
            raise UsageError(f"audio: {fields['audio']!r} given, expected copy, aac or none")
        for name in ("start", "end"):
            if fields.get(name) is not None:
                fields[name] = _seconds(name, fields[name])
        return cls(**fields)


@dataclasses.dataclass(frozen=True)
class Budget:
    """How many threads each stage may use. The stages overlap, so the sum may exceed the cores."""

    decode: int
    translate: int
    encode: int

    @classmethod
    def of(cls, threads: int | None = None) -> Budget:
        """Shares out `threads`, or all cores that this process may use."""
        cores = threads or len(os.sched_getaffinity(0))
        return cls(decode=min(cores, 4), translate=cores, encode=cores)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What will be done, resolved and checked."""

    request: Request
    preset: Preset
    translator: type[Translator]
    options: Any
    """The translator's own `Options`, preset and request together."""
    strength: float
    source: type[Source]
    selection: Selection
    info: VideoInfo | None
    """What is known of the input; None for a live one, which is not opened twice."""
    sink: type[Sink]
    output: str
    encoding: Encoding
    backend_name: str
    backend: type[Backend]
    backend_reason: str
    budget: Budget

    def describe(self) -> str:
        """The plan for people, one line for each thing."""
        info, encoding = self.info, self.encoding
        quality = "default quality" if encoding.crf is None else f"crf {encoding.crf}"
        rows = {
            "input": f"{self.request.input} ({'live' if info is None else info.description})",
            "color": None if info is None else _color_words(info),
            "part": _part_words(self.selection),
            "preset": f"{self.preset.name}: {self.preset.title}",
            "translator": f"{self.preset.translator} {_option_words(self.options)}".strip(),
            "strength": f"{self.strength:g}",
            "backend": f"{self.backend_name} ({self.backend_reason})",
            "output": self.output + ("" if self.sink in _PICTURES else f" ({encoding.codec}, {quality})"),
            "audio": {"aac": "re-encoded if it does not fit", "none": "left out"}.get(encoding.audio),
            "record": self.request.report,
            "threads": f"decode {self.budget.decode}, translate {self.budget.translate}, encode {self.budget.encode}",
        }
        return "\n".join(f"{key:<11}{value}" for key, value in rows.items() if value is not None)


def _seconds(name: str, value: Any) -> Fraction:
    """A time that was given as any number of seconds, exactly."""
    try:
        return Fraction(value).limit_denominator(1_000_000_000)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise UsageError(f"{name}: {value!r} given, expected a number of seconds") from None


def build(request: Request, registry: Registry) -> Plan:
    """Resolves a request and checks all that can be checked without decoding the film.

    Raises:
        StreamganError: of the fitting kind, if it cannot be done.
    """
    if not request.input or request.output == "":
        raise UsageError(f"{'-o' if request.input else 'INPUT'}: is empty; name a file or a URL")
    selection = _selection(request)
    _check_report(request)
    preset = Preset.load(registry.preset_path(request.preset))
    translator = registry.translator(preset.translator)
    backends: dict[str, type[Backend]] = {name: provided.value for name, provided in registry.backends.items()}
    if request.backend not in (None, "auto"):
        registry.backend(str(request.backend))
    backend_name, backend, reason = choose(backends, request.backend)
    source: type[Source] = _accepting(registry.sources, request.input, "input")
    output = _default_output(request, source) if request.output is None else request.output
    images.refuse_own_input(request.input, output)
    sink: type[Sink] = _accepting(registry.sinks, output, "output")
    budget = Budget.of(request.threads)
    plan = Plan(
        request=request,
        preset=preset,
        translator=translator,
        options=settings.parse(translator.Options, _options(request, preset, translator), _where(preset)),
        strength=_strength(request, preset),
        source=source,
        selection=selection,
        info=None,
        sink=sink,
        output=output,
        encoding=_encoding(request, source, selection, budget),
        backend_name=backend_name,
        backend=backend,
        backend_reason=reason,
        budget=budget,
    )
    return dataclasses.replace(plan, info=_inspect(plan))


def open_source(plan: Plan) -> Source:
    """The source of a plan, not yet started.

    Raises:
        SourceError: if the input cannot be opened.
    """
    with held(plan.source):
        source = plan.source(plan.request.input, plan.selection)
    if isinstance(source, VideoFile):
        source.threads = plan.budget.decode
    return source


def open_sink(plan: Plan) -> Sink:
    """The sink of a plan, not yet opened.

    Raises:
        StreamganError: if the output cannot be written there.
    """
    with held(plan.sink):
        return plan.sink(plan.output, plan.encoding)


def _inspect(plan: Plan) -> VideoInfo | None:
    """Opens the input, decodes its first wanted frame, and lets the sink check its location."""
    info = None
    if not plan.source.live and "://" not in plan.request.input:
        with held(plan.source), open_source(plan) as source:
            info = source.info
    with held(plan.sink):
        open_sink(plan).abort()
    return info


def _accepting(provided: Mapping[str, Provided], location: str, what: str) -> Any:
    """The class that says it is the one for a location; the first wins."""
    for each in provided.values():
        with blamed(f"{each.plugin}: {each.name}.accepts"):
            if each.value.accepts(location):
                return each.value
    raise UsageError(f"{location}: nothing installed takes this as {what}; there is {', '.join(provided) or 'nothing'}")


def _selection(request: Request) -> Selection:
    """The part of the film that is wanted."""
    start, end = request.start, request.end
    if start is not None and start < 0:
        raise UsageError(f"--start {float(start):g}: must not be negative")
    if end is not None and end <= (start or 0):
        raise UsageError(f"--end {float(end):g}: must be later than the start, {float(start or 0):g} s")
    return Selection(start or None, end)


def _strength(request: Request, preset: Preset) -> float:
    """How much of the translation is wanted."""
    strength = preset.strength if request.strength is None else request.strength
    if not 0 <= strength <= 1:
        raise UsageError(f"--strength {strength:g}: must be from 0 to 1")
    return strength


def _options(request: Request, preset: Preset, translator: type[Translator]) -> dict[str, Any]:
    """The translator's options: the preset's, then the request's."""
    options = dict(preset.options) | dict(request.options)
    if request.size is not None:
        if "size" not in {field.name for field in dataclasses.fields(translator.Options)}:
            raise UsageError(f"--size {request.size}: translator '{preset.translator}' has no size")
        options["size"] = request.size
    return options


def _where(preset: Preset) -> str:
    """Where options come from, for messages."""
    return f"options of preset {preset.name} (translator '{preset.translator}')"


def _default_output(request: Request, source: type[Source]) -> str:
    """``INPUT.PRESET.mp4`` beside the input; for images, more images."""
    path = Path(request.input)
    name = Path(request.preset).stem if "/" in request.preset else request.preset.removesuffix(".yaml")
    if source is images.ImageFiles:
        return images.default_output(request.input, name)
    if source.live or "://" in request.input:
        raise UsageError(f"{request.input}: is no file, so the output needs a name; give one with -o")
    if not os.path.exists(path):  # unlike Path.exists, False for a name that is too long
        raise SourceError(f"{request.input}: no such file")
    if not path.name or (source is VideoFile and path.is_dir()):
        raise SourceError(f"{request.input}: a folder, not a video file")
    return str(path.with_name(f"{path.stem}.{name}.mp4"))


def _encoding(request: Request, source: type[Source], selection: Selection, budget: Budget) -> Encoding:
    """What the sink has to know."""
    return Encoding(
        codec=request.codec,
        crf=request.crf,
        preset=request.encoder_preset,
        threads=budget.encode,
        overwrite=request.overwrite,
        copy_from=None if source.live or not os.path.isfile(request.input) else request.input,
        selection=selection,
        audio=request.audio,
    )


def _check_report(request: Request) -> None:
    """Refuses a record that must not or cannot be written, before any work is done."""
    path, given = Path(request.report or ""), f"--report {request.report}"
    if request.report is None:
        return
    if path.suffix.lower() != ".json":  # so it is never the input nor the output
        raise UsageError(f"{given}: expected a name that ends in .json")
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise SinkError(f"{given}: cannot be written ({error.strerror})") from None
    else:
        if not request.overwrite:
            raise UsageError(f"{given}: exists already; use --overwrite to replace it, or another name")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise SinkError(f"{given}: cannot be written; choose a file in a folder that exists and takes files")


def _color_words(info: VideoInfo) -> str:
    """The colours of a stream for people."""
    names = {1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020"}
    matrix = names.get(info.color.matrix, f"matrix {info.color.matrix}")
    guessed = ", guessed from the height" if info.color.guessed else ""
    return f"{matrix}, {'full' if info.color.full_range else 'limited'} range{guessed}"


def _part_words(selection: Selection) -> str | None:
    """A selection for people; None for the whole film."""
    if selection == Selection():
        return None
    end = "the end" if selection.end is None else f"{float(selection.end):g} s"
    return f"from {float(selection.start or 0):g} s to {end}"


def _option_words(options: Any) -> str:
    """Options for people."""
    return " ".join(f"{field.name}={getattr(options, field.name)}" for field in dataclasses.fields(options))
