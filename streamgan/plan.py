"""From what the user asks for to what will be done: everything is resolved and checked here, before any work."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from streamgan import images, settings, words
from streamgan.api import (
    Backend,
    Encoding,
    Filter,
    Selection,
    Sink,
    SinkError,
    Source,
    SourceError,
    Translator,
    UsageError,
    VideoInfo,
)
from streamgan.frames import imagenames
from streamgan.frames.planar import PlanarTranslator
from streamgan.models import choice, loading
from streamgan.models.backends import choose
from streamgan.plugins import Provided, Registry, blamed, held
from streamgan.preset import Preset
from streamgan.reading.sources import VideoFile
from streamgan.request import Request
from streamgan.writing import encoders, pipes
from streamgan.writing.animations import AnimationSink
from streamgan.writing.sinks import VideoFileSink

_PICTURES = (images.ImageSink, AnimationSink, pipes.RawOutput)
"""Sinks that have no use for a codec."""
_ALIKE = 100
"""dB of PSNR beyond which pictures of 8 bits are equal."""


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Budget:
    """How many threads each stage may use. The stages overlap, so the sum may exceed the cores."""

    decode: int
    translate: int
    encode: int

    @classmethod
    def of(cls, threads: int | None = None) -> Budget:
        """Shares out `threads`, or all cores that this process may use."""
        cores = threads or usable_cores()
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
    filters: tuple[tuple[str, type[Filter], Any], ...] = ()
    """What works over the translation, in order: name, class and its own `Options`."""
    backends: Mapping[str, type[Backend]] = dataclasses.field(default_factory=dict)
    """All that are registered, by name."""
    setup: loading.Setup | None = None
    """How the model runs, chosen by measurement; None before `settle`, and if no model file is known."""
    notes: tuple[str, ...] = ()
    """What the user should know at the end, one line each."""

    @property
    def model(self) -> Path | None:
        """The model file that the translator's options name first; None if they name none."""
        return choice.model_of(self.preset.path.parent, self.options)

    @property
    def batch(self) -> int:
        """How many frames of a file the translator gets at once: as its option ``batch`` says, if it has one."""
        return max(1, int(getattr(self.options, "batch", self.translator.batch)))

    @property
    def segment(self) -> int:
        """Frames of a segment: as many as the request says, rounded up to whole batches."""
        return -(-self.request.segment // self.batch) * self.batch

    @property
    def planar(self) -> bool:
        """Whether frames may stay Y, Cb and Cr: nothing but such a translator and an encoder works on them."""
        if not issubclass(self.translator, PlanarTranslator) or not issubclass(self.sink, VideoFileSink):
            return False
        bare = self.strength == 1 and not self.filters and not self.request.compare
        if self.info is None or not bare or self.request.skip_similar is not None:
            return False
        return self.translator.takes_planes(self.options, (self.info.width, self.info.height))

    @property
    def may_overlap(self) -> bool:
        """Whether several threads may translate at once, each a frame or a batch of its own."""
        return self.translator.concurrent and not self.has_memory

    @property
    def has_memory(self) -> bool:
        """Whether a frame of the result depends on earlier ones."""
        return self.translator.memory or bool(self.filters)

    def describe(self) -> str:
        """The plan for people, one line for each thing."""
        info, encoding = self.info, self.encoding
        quality = "default quality" if encoding.crf is None else f"crf {encoding.crf}"
        rows = {
            "input": f"{self.request.input} ({'live' if info is None else info.description})",
            "color": None if info is None else words.color_words(info),
            "part": words.part_words(self.selection),
            "preset": f"{self.preset.name}: {self.preset.title}",
            "translator": f"{self.preset.translator} {words.option_words(self.options)}".strip(),
            "temporal": ", ".join(f"{name} {words.option_words(options)}" for name, _, options in self.filters) or None,
            "strength": f"{self.strength:g}",
            "backend": f"{self.setup or self.backend_name} ({self.backend_reason})",
            "output": self.output + ("" if self.sink in _PICTURES else f" ({encoding.codec}, {quality})"),
            "audio": {"aac": "re-encoded if it does not fit", "none": "left out"}.get(encoding.audio),
            "record": self.request.report,
            "threads": f"decode {self.budget.decode}, translate {self.budget.translate}, encode {self.budget.encode}",
        }
        return "\n".join(f"{key:<11}{value}" for key, value in rows.items() if value is not None)


def build(request: Request, registry: Registry, announce: Callable[[str], None] | None = None) -> Plan:
    """Resolves a request and checks all that can be checked without decoding the film.

    Args:
        request: what the user asks for.
        registry: what there is.
        announce: as for `settle`.

    Raises:
        StreamganError: of the fitting kind, if it cannot be done.
    """
    if not request.input or request.output == "":
        raise UsageError(f"{'-o' if request.input else 'INPUT'}: is empty; name a file or a URL")
    selection = _selection(request)
    if request.skip_similar is not None and not 0 < request.skip_similar <= _ALIKE:
        raise UsageError(f"--skip-similar {request.skip_similar:g}: expected dB of PSNR, above 0 and at most {_ALIKE}")
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
        backends=backends,
        budget=budget,
        filters=resolve_filters(request, preset, registry),
    )
    plan = dataclasses.replace(plan, info=_inspect(plan))
    return plan if plan.info is None else settle(plan, plan.info, announce)


def settle(plan: Plan, info: VideoInfo, announce: Callable[[str], None] | None = None, live: bool = False) -> Plan:
    """A plan that says how its model runs: measured once for this machine, the model and its size, then remembered.

    Args:
        plan: from `build`.
        info: of the film, whose size counts.
        announce: called with one line before something is measured, and after each trial.
        live: whether one frame shall be ready soon, rather than many early.

    Returns:
        The plan itself if it has no model file, or says so already.

    Raises:
        BackendError: if what is asked for cannot be used here; ModelError if the model file is none.
    """
    path = plan.model
    if plan.setup is not None or path is None:
        return plan
    wanted = choice.Wanted(
        path=path,
        size=choice.model_size(path, (info.width, info.height), plan.options),
        threads=plan.budget.translate,
        streams=choice.most_streams(plan.translator, live or plan.source.live or plan.has_memory),
        backend=plan.request.backend,
        precision=plan.request.precision,
    )
    chosen = choice.choose(plan.backends, wanted, announce)
    note = f"measured what runs the model fastest here, once: {chosen.setup}, {chosen.reason}"
    return dataclasses.replace(
        plan,
        setup=chosen.setup,
        backend_name=chosen.setup.backend,
        backend=plan.backends[chosen.setup.backend],
        backend_reason=chosen.reason,
        notes=(*plan.notes, note) if chosen.fresh else plan.notes,
    )


def open_source(plan: Plan) -> Source:
    """The source of a plan, not yet started.

    Raises:
        SourceError: if the input cannot be opened.
    """
    with held(plan.source):
        source = plan.source(plan.request.input, plan.selection)
    if isinstance(source, VideoFile):
        source.threads, source.planar = plan.budget.decode, plan.planar
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
    if not plan.source.live and "://" not in plan.request.input and plan.request.input != "-":
        with held(plan.source), open_source(plan) as source:
            info = source.info
    with held(plan.sink):
        open_sink(plan).abort()
    if info is not None and plan.sink in (VideoFileSink, pipes.StandardOutput):
        encoders.check_alpha(plan.output, plan.encoding, info)
        encoders.check_aspect(plan.output, plan.encoding, info)
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
    if request.every < 1 or (request.frames is not None and request.frames < 1):
        raise UsageError(f"--every {request.every}, --frames {request.frames}: expected 1 or more")
    return Selection(start or None, end, request.frames, request.every, request.stream, request.on_error)


def _strength(request: Request, preset: Preset) -> float:
    """How much of the translation is wanted."""
    strength = preset.strength if request.strength is None else request.strength
    if not 0 <= strength <= 1:
        raise UsageError(f"--strength {strength:g}: must be from 0 to 1")
    return strength


def resolve_filters(request: Request, preset: Preset, registry: Registry) -> tuple[tuple[str, type[Filter], Any], ...]:
    """What works over the translation: the preset's filters, and ``smooth`` as strong as the request asks for.

    Raises:
        UsageError: for a filter that there is not; PresetError for options that it does not take.
    """
    wanted, smooth = dict(preset.temporal), request.smooth
    if smooth is not None and not 0 <= smooth <= 1:
        raise UsageError(f"--smooth {smooth:g}: must be from 0 to 1")
    if smooth:
        wanted["smooth"] = {**wanted.get("smooth", {}), "strength": smooth}
    elif smooth == 0:
        wanted.pop("smooth", None)
    where = f"{preset.path}: temporal"
    found = {name: registry.filter(name) for name in wanted}
    return tuple(
        (name, cls, settings.parse(cls.Options, wanted[name], f"{where}.{name}")) for name, cls in found.items()
    )


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
        return imagenames.default_output(request.input, name)
    if source.live or "://" in request.input or request.input == "-":
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
        encoder=request.encoder,
        lossless=request.lossless,
        alpha=request.alpha,
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
