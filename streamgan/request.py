"""What a user can ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal, Self, get_args, get_type_hints

from streamgan import settings
from streamgan.api import Encoding, Selection, UsageError


@dataclasses.dataclass(frozen=True)
class Request:
    """Everything that a user can ask for; None where the preset or the program decides."""

    input: str
    """Path, URL or device to read."""
    preset: str
    """Name of a preset, or the path of its YAML file."""
    output: str | None = None
    """Path or URL to write; None for ``INPUT.PRESET.mp4`` beside the input, or as `imagenames.default_output` says."""
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
    frames: int | None = None
    """How many frames to make at most."""
    every: int = 1
    """Take one frame in so many."""
    stream: int | None = None
    """Number of the video stream to take; None for the best."""
    on_error: Literal["skip", "stop", "repeat"] = "skip"
    """What a frame that cannot be decoded does; see `Selection`."""
    backend: str | None = None
    """Name of the backend."""
    precision: str = "auto"
    """Number type of the backend's arithmetic."""
    codec: Literal["h264", "hevc", "av1", "vp9", "prores", "ffv1"] = "h264"
    """Compression of the output."""
    encoder: str | None = None
    """What compresses; see `Encoding`."""
    lossless: bool = False
    """Whether the encoder may lose nothing."""
    alpha: Literal["keep", "drop"] = "keep"
    """What becomes of transparency; see `Encoding`."""
    crf: int | None = None
    """Constant rate factor of the encoder: the lower the better."""
    encoder_preset: str | None = None
    """Effort of the encoder."""
    audio: Literal["copy", "aac", "none"] = "copy"
    """What becomes of the audio; see `Encoding`."""
    overwrite: bool = False
    """Whether an existing output may be replaced."""
    resume: bool = False
    """Whether to go on where an interrupted run of the same request ended."""
    segment: int = 250
    """Frames after which what is made is kept for good, should the run be interrupted."""
    smooth: float | None = None
    """Strength of the flicker reduction, 0 to 1; None as the preset says."""
    skip_similar: float | None = None
    """A frame that is like the last translated one, by so many dB of PSNR or more, is shown as that; None to translate
    every frame. 40 dB takes in the noise of an encoder, hardly anything that moves."""
    timeout: float = 300.0
    """Seconds that the translator may take for one call before the run is given up."""
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
        for owner, names in ((Encoding, ("audio", "alpha")), (Selection, ("on_error",))):
            for name in names:
                choices = get_args(get_type_hints(owner)[name])
                if fields.get(name, choices[0]) not in choices:
                    raise UsageError(f"{name}: {fields[name]!r} given, expected {', '.join(choices)}")
        for name in ("start", "end"):
            if fields.get(name) is not None:
                fields[name] = _seconds(name, fields[name])
        return cls(**fields)


def _seconds(name: str, value: Any) -> Fraction:
    """A time that was given as any number of seconds, exactly."""
    try:
        return Fraction(value).limit_denominator(1_000_000_000)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise UsageError(f"{name}: {value!r} given, expected a number of seconds") from None
