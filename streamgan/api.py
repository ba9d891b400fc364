"""The stable surface for plugins: everything a plugin may import, and nothing else.

A plugin writes ``from streamgan import api`` and finds here the values that flow (`Images`, `Frame`, `VideoInfo`), the
classes it may extend (`Translator`, `Backend`, `Source`, `Sink`), the errors it should raise and the `hookimpl` marker.
Only this module follows semantic versioning (`API_VERSION`); the rest of the package may change between releases.
It needs the standard library, numpy and pluggy.

Errors, from general to specific; each inherits the built-in that fits, and carries its exit code::

    StreamganError                 1   anything streamgan raises on purpose
    ├── UsageError (ValueError)    2   the user asked for something that cannot be
    │   └── PresetError            2   a preset, recipe or option that does not read
    ├── SourceError (OSError)      1   an input that cannot be opened or decoded
    ├── SinkError (OSError)        1   an output that cannot be written
    ├── ModelError (ValueError)    1   a model file that is not one, or does not fit
    ├── BackendError (RuntimeError) 1  a backend that is missing, or failed
    └── PluginError (RuntimeError) 1   a plugin that is broken, or broke its contract
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pluggy

API_VERSION = "1.1"

hookimpl = pluggy.HookimplMarker("streamgan")
"""Marks a function of a plugin as the implementation of the hook of the same name (see `streamgan.hookspecs`)."""

Images: TypeAlias = npt.NDArray[np.uint8]
"""Pictures on their way through a translator: ``(N, H, W, 3)``, uint8, RGB, consecutive and in order."""


class StreamganError(Exception):
    """Base of all: its message tells the user what happened, where, what was expected and how to mend it."""

    exit_code: ClassVar[int] = 1


class UsageError(StreamganError, ValueError):
    """The user asked for something that cannot be: a wrong option, an unknown name."""

    exit_code = 2


class PresetError(UsageError):
    """A preset, a recipe or an option that does not read: broken YAML, an unknown key, a value of the wrong type."""


class SourceError(StreamganError, OSError):
    """An input that cannot be opened or decoded."""


class SinkError(StreamganError, OSError):
    """An output that cannot be written."""


class ModelError(StreamganError, ValueError):
    """A file that is not a streamgan model file, or one that does not fit what it is asked to do."""


class BackendError(StreamganError, RuntimeError):
    """A backend that is not installed, or failed to load or run a model."""


class PluginError(StreamganError, RuntimeError):
    """A plugin that cannot be loaded, or broke the contract of what it registered."""


@dataclasses.dataclass(frozen=True)
class Color:
    """How a stream's numbers stand for colours; the numbers are those of ITU-T H.273, as FFmpeg uses them."""

    matrix: int = 1
    """Matrix coefficients, RGB ↔ YCbCr: 1 is BT.709, 5 and 6 are BT.601."""
    primaries: int = 1
    """Colour primaries: 1 is BT.709, 5 is BT.601 625 lines, 6 is BT.601 525 lines."""
    transfer: int = 1
    """Transfer characteristic: 1 is BT.709, 6 is BT.601, 13 is sRGB, 16 is PQ, 18 is HLG."""
    full_range: bool = False
    """True if luma uses 0..255, False if it uses 16..235."""
    guessed: bool = False
    """True if the stream says nothing of its matrix and it was guessed from the picture's height."""


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its first frame."""

    width: int
    """Width in pixels as shown, that is after rotation."""
    height: int
    """Height in pixels as shown, that is after rotation."""
    time_base: Fraction
    """Seconds per tick of `Frame.pts`."""
    frame_rate: Fraction | None = None
    """Average frames per second; None if unknown."""
    frame_count: int | None = None
    """How many frames are to be expected: an estimate for the progress bar; None if unknown."""
    sample_aspect_ratio: Fraction = Fraction(1)
    """Width of a pixel over its height."""
    color: Color = Color()
    """Matrix, primaries, transfer and range."""
    description: str = ""
    """The stream in words for people, such as ``h264 640x360 30 fps``."""


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One picture and its time. The runtime owns time; a translator never sees a `Frame`."""

    image: npt.NDArray[np.uint8]
    """The picture: ``(H, W, 3)``, uint8, RGB, as shown (rotation applied)."""
    pts: int
    """Presentation time in ticks of `time_base`."""
    time_base: Fraction
    """Seconds per tick."""
    duration: int = 0
    """How long the picture is shown, in ticks; 0 if unknown."""
    captured_at: float | None = None
    """For live sources, `time.monotonic` at capture in seconds; None for files."""

    @property
    def time(self) -> Fraction:
        """Presentation time in seconds, exact."""
        return self.pts * self.time_base

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Frame({width}x{height}, pts={self.pts}, time_base={self.time_base})"


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


@dataclasses.dataclass(frozen=True)
class Availability:
    """Whether a backend can be used on this machine, and how good a choice it is."""

    usable: bool
    """True if `Backend.load` can be expected to work."""
    reason: str
    """One line for people: what it runs on, or what is missing and how to install it."""
    rank: int = 0
    """The larger the faster is it expected to be here; the largest usable rank is the default.
    ONNX Runtime on a CPU has 10."""


class Session(abc.ABC):
    """A model, loaded by a backend and ready to run. Used by one thread at a time."""

    precision: str = "fp32"
    """What the arithmetic runs in: ``fp32``, ``fp16`` or ``bf16``."""
    multiple_of: int = 1
    """Height and width must be multiples of this, in pixels; the runtime fills it in from the model's card."""
    domains: tuple[str, ...] = ()
    """What a model of several domains can translate to, in the order of its further input ``domain``, ``(N,)`` int64;
    the runtime fills it in from the model's card."""

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
    """The precisions that `load` takes beside ``auto``."""

    @classmethod
    @abc.abstractmethod
    def availability(cls) -> Availability:
        """Says whether this backend can be used here. Must be quick, and must not raise."""

    @abc.abstractmethod
    def load(self, path: Path, *, threads: int, precision: str = "auto") -> Session:
        """Loads a streamgan model file.

        Args:
            path: the ``.onnx`` file.
            threads: how many CPU threads the session may use.
            precision: one of `precisions`, or ``auto`` for the backend's own choice.

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


@dataclasses.dataclass(frozen=True)
class Selection:
    """The part of a video that is wanted."""

    start: Fraction | None = None
    """First time wanted, in seconds from the beginning of the video; None for the beginning."""
    end: Fraction | None = None
    """Time at which to stop (exclusive), in seconds from the beginning of the video; None for the end."""


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What a sink that encodes needs to know; a sink that does not may ignore it."""

    codec: Literal["h264", "hevc", "av1", "vp9", "ffv1"] = "h264"
    """The compression of the video."""
    crf: int | None = None
    """Constant rate factor: the lower the better; None for the codec's own default."""
    preset: str | None = None
    """Effort of the encoder, such as ``veryfast``; None for the default."""
    threads: int = 1
    """How many threads the encoder may use."""
    overwrite: bool = False
    """Whether a file that exists may be replaced."""
    copy_from: str | None = None
    """A location whose audio and subtitles are copied beside the video, or None."""
    selection: Selection = Selection()
    """The part of `copy_from` that is wanted."""
    audio: Literal["copy", "aac", "none"] = "copy"
    """The audio of `copy_from`: left out if the output cannot hold it, re-encoded then, or always left out."""


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
