"""The stable surface for plugins: everything a plugin may import, and nothing else.

A plugin writes ``from streamgan import api`` and finds here the values that flow (`Images`; `Frame`, `VideoInfo` …
from `streamgan.video`), the classes it may extend (`Translator`, `Filter`, `Backend`, `Source`, `Sink`), the errors it
should raise (from `streamgan.errors`) and the `hookimpl` marker. Only this module follows semantic versioning
(`API_VERSION`); the rest of the package may change between releases. It needs the standard library, numpy and pluggy.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pluggy

from streamgan.caches import cache_folder as cache_folder
from streamgan.errors import BackendError as BackendError
from streamgan.errors import ModelError as ModelError
from streamgan.errors import PluginError as PluginError
from streamgan.errors import PresetError as PresetError
from streamgan.errors import SinkError as SinkError
from streamgan.errors import SourceError as SourceError
from streamgan.errors import StreamganError as StreamganError
from streamgan.errors import UsageError as UsageError
from streamgan.video import Color as Color
from streamgan.video import Encoding as Encoding
from streamgan.video import Frame as Frame
from streamgan.video import Selection as Selection
from streamgan.video import VideoInfo as VideoInfo

API_VERSION = "1.3"

hookimpl = pluggy.HookimplMarker("streamgan")
"""Marks a function of a plugin as the implementation of the hook of the same name (see `streamgan.hookspecs`)."""

Images: TypeAlias = npt.NDArray[np.uint8]
"""Pictures on their way through a translator: ``(N, H, W, 3)``, uint8, RGB, consecutive and in order."""


def option(
    default: Any,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] | None = None,
    live: bool = False,
    help: str = "",
) -> Any:
    """Declares one option in the `Options` of a `Translator`: a `dataclasses.field` that carries it as metadata.

    Args:
        default: value if the user gives none.
        minimum: smallest value allowed.
        maximum: largest value allowed.
        choices: the strings allowed.
        live: whether it may change between two frames.
        help: one line for people, with the unit.
    """
    declared = {"minimum": minimum, "maximum": maximum, "choices": choices, "live": live, "help": help}
    return dataclasses.field(default=default, metadata=declared)


@dataclasses.dataclass(frozen=True)
class Context:
    """What the runtime hands to a translator when the film is known (see `Translator.open`)."""

    info: VideoInfo
    """The video that is about to be translated."""
    load_model: Callable[[str], Session]
    """Loads a streamgan model file with the backend of this run; a relative path is relative to the preset."""
    threads: int = 1
    """How many threads this translator may use."""


class Translator(abc.ABC):
    """Turns pictures into pictures of the same number.

    The runtime makes one translator per run, calls `open` once, then `translate` again and again from one thread, then
    `close`. Time, audio, order and batching belong to the runtime.

    A subclass declares its options as a frozen dataclass of the name `Options`; they become keys of a preset and
    ``--set key=value`` on the command line::

        class Tint(api.Translator):
            \"\"\"Mixes a colour into the picture.\"\"\"

            @dataclasses.dataclass(frozen=True)
            class Options:
                amount: float = api.option(0.3, minimum=0, maximum=1, live=True, help="0 keeps the picture")
    """

    @dataclasses.dataclass(frozen=True)
    class Options:
        """No options; a subclass may replace this."""

    batch: ClassVar[int] = 1
    """How many pictures `translate` likes to get at once; the last call of a film may bring fewer."""
    memory: ClassVar[bool] = False
    """Whether a result depends on earlier pictures. If so, `reset` is called at every scene cut."""
    concurrent: ClassVar[bool] = False
    """Whether several threads may call `translate` at once; a film's frames then share the cores better."""

    def __init__(self, options: Any = None) -> None:
        self.options = self.Options() if options is None else options
        """The options in force; the runtime replaces the value between two calls when a live option changes."""

    def open(self, context: Context) -> None:  # noqa: B027 - optional, not abstract
        """Prepares for one film, once, before `translate`; raises a StreamganError if it cannot."""

    @abc.abstractmethod
    def translate(self, images: Images) -> Images:
        """Translates consecutive pictures.

        Args:
            images: ``(N, H, W, 3)`` uint8 RGB, read-only, N ≥ 1.

        Returns:
            ``(N, H', W', 3)`` uint8 RGB, the same N; H' and W' stay the same throughout a film. The next call must not
            overwrite it: it waits in a queue.
        """

    def reset(self) -> None:  # noqa: B027 - optional, not abstract
        """Forgets the past: called at the start, after a seek and at a scene cut."""

    def close(self) -> None:  # noqa: B027 - optional, not abstract
        """Frees what `open` took. May be called twice, and without `open`."""


class Filter(abc.ABC):
    """Works over what a translator made, with the source at hand: against flicker, for example.

    A preset names it under ``temporal:`` with its options, which are declared as those of a `Translator` are. Called
    from the translator's thread, after `Translator.translate` and before the strength is applied; it is opened once,
    and `reset` at the start and at every scene cut.
    """

    @dataclasses.dataclass(frozen=True)
    class Options:
        """No options; a subclass may replace this."""

    def __init__(self, options: Any = None) -> None:
        self.options = self.Options() if options is None else options
        """The options in force."""

    def open(self, context: Context) -> None:  # noqa: B027 - optional, not abstract
        """Prepares for one film, once, before `apply`; raises a StreamganError if it cannot."""

    @abc.abstractmethod
    def apply(self, images: Images, made: Images) -> Images:
        """Works over consecutive pictures.

        Args:
            images: the source, ``(N, H, W, 3)`` uint8 RGB, read-only.
            made: its translation, ``(N, H', W', 3)`` uint8 RGB.

        Returns:
            As `made`, of the same shape; it must not be overwritten by the next call.
        """

    def reset(self) -> None:  # noqa: B027 - optional, not abstract
        """Forgets the past."""

    def close(self) -> None:  # noqa: B027 - optional, not abstract
        """Frees what `open` took. May be called twice, and without `open`."""


@dataclasses.dataclass(frozen=True)
class Availability:
    """Whether a backend can be used on this machine, and how good a choice it is."""

    usable: bool
    """True if `Backend.load` can be expected to work."""
    reason: str
    """One line for people: what it runs on, or what is missing and how to install it."""
    rank: int = 0
    """The larger the faster is it expected to be here; the largest usable rank is the default where nothing was
    measured. ONNX Runtime on a CPU has 10. With 1 or less it is not measured unless it is asked for, and
    used only where nothing else can be."""


class Session(abc.ABC):
    """A model, loaded by a backend and ready to run. As many threads may use it at once as `Backend.load` was told."""

    precision: str = "fp32"
    """What the arithmetic runs in: ``fp32``, ``fp16``, ``bf16`` or ``int8``."""
    multiple_of: int = 1
    """Height and width must be multiples of this, in pixels; the runtime fills it in from the model's card."""
    domains: tuple[str, ...] = ()
    """What a model of several domains can translate to, in the order of its further input ``domain``, ``(N,)`` int64;
    the runtime fills it in from the model's card."""
    path: Path | None = None
    """The model file that it was loaded from; the runtime fills it in."""
    device: str = ""
    """What it runs on, as far as it knows: ``cpu``, ``cuda`` …; one that differs from `Backend.device` is refused."""
    build: str = ""
    """What tells a compiled engine from another build of the same model, such as its digest; empty if nothing was."""

    @abc.abstractmethod
    def run(self, images: Images, inputs: Mapping[str, npt.NDArray[Any]] | None = None) -> Images:
        """Runs the model.

        Args:
            images: ``(N, H, W, 3)`` uint8 RGB; H and W obey the size rule of the model's card.
            inputs: further inputs that the card names, by name.

        Returns:
            ``(N, H', W', 3)`` uint8 RGB, not overwritten by the next call.

        Raises:
            BackendError: if the runtime refuses.
        """

    def close(self) -> None:  # noqa: B027 - optional, not abstract
        """Frees the model. May be called twice."""


class Backend(abc.ABC):
    """Runs model files: one runtime, such as ONNX Runtime, OpenVINO or TensorRT."""

    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    """The precisions that `load` takes beside ``auto``. With ``int8``, the file that it is given is a quantised one."""
    max_streams: ClassVar[int] = 1
    """How many threads may call `Session.run` at once, at most; only if more than 1, `load` is given ``streams``."""
    device: ClassVar[str] = ""
    """What its sessions run on, ``cpu``, ``cuda`` …; empty if that hangs on the machine."""

    @classmethod
    @abc.abstractmethod
    def availability(cls) -> Availability:
        """Says whether this backend can be used here. Must be quick, and must not raise."""

    @abc.abstractmethod
    def load(self, path: Path, *, threads: int, precision: str = "auto", streams: int = 1) -> Session:
        """Loads a streamgan model file.

        Args:
            path: the ``.onnx`` file.
            threads: how many CPU threads the session may use, all streams together.
            precision: one of `precisions`, or ``auto`` for the backend's own choice.
            streams: how many threads will call `Session.run` at once, from 1 to `max_streams`: 1 where a single picture
                shall be ready soon, as in live video; more where many shall be ready early, as in files.

        Raises:
            BackendError: if the runtime is missing or refuses the model.
        """


class _Resource(abc.ABC):
    """A thing that is opened and closed; use it with ``with``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @abc.abstractmethod
    def close(self) -> None:
        """Completes what is unfinished and frees everything. May be called twice."""

    def abort(self) -> None:
        """Throws away what is unfinished and frees everything. May be called twice, and after `close`."""
        self.close()


class Source(_Resource):
    """Yields the frames of a video, in order of presentation."""

    live: ClassVar[bool] = False
    """True if frames come at their own pace and lateness means dropping."""
    notes: Sequence[str] = ()
    """What the user should know at the end, one line each, such as packets that could not be decoded."""
    lost: int = 0
    """How many frames could not be decoded and were left out, as far as one knows."""
    repeated: int = 0
    """How many frames were shown once more in place of damaged ones."""

    @abc.abstractmethod
    def __init__(self, location: str, selection: Selection) -> None:
        """Opens `location`; raises SourceError if it cannot."""

    @classmethod
    @abc.abstractmethod
    def accepts(cls, location: str) -> bool:
        """Whether this source is the one for `location` (a path, a URL, a device). Must not open it."""

    @property
    @abc.abstractmethod
    def info(self) -> VideoInfo:
        """What is known of the video."""

    @abc.abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yields every selected frame once; raises SourceError if the input cannot be decoded."""


class Sink(_Resource):
    """Takes the translated frames. Leaving ``with`` completes the output; leaving it with an error calls `abort`."""

    notes: Sequence[str] = ()
    """What the user should know at the end, one line each, such as a subtitle stream that could not be kept."""
    stopped: bool = False
    """True once the viewer has asked to end, as with ``q`` in a window; the run then ends and is completed."""

    @abc.abstractmethod
    def __init__(self, location: str, encoding: Encoding) -> None:
        """Checks `location`; raises SinkError or UsageError if it must not be written. Writes nothing yet."""

    @classmethod
    @abc.abstractmethod
    def accepts(cls, location: str) -> bool:
        """Whether this sink is the one for `location`. Must not open it."""

    @abc.abstractmethod
    def open(self, info: VideoInfo) -> None:
        """Prepares for frames of this size, once, before the first `write`; raises SinkError if it cannot."""

    @abc.abstractmethod
    def write(self, frame: Frame) -> None:
        """Takes one frame, in order of presentation; raises SinkError if it cannot be written."""
