"""The values that flow through the runtime. Plugins import these from `streamgan.api`."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt


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
    bits: int = 8
    """Bits of a sample: more than 8 only if the frames carry a `Frame.fine`."""
    alpha: bool = False
    """Whether the frames carry a `Frame.alpha`."""
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
    alpha: npt.NDArray[np.uint8] | None = None
    """Opacity: ``(H, W)``, uint8, 255 opaque, not multiplied into `image`; None if the video has none."""
    fine: npt.NDArray[np.int8] | None = None
    """What 8 bits leave of a deeper picture: ``(H, W, 3)``, int8, in 1/256 of a level, so that ``image + fine / 256``
    is the full value; None for 8-bit video. It rides along beside the translation."""
    cut: bool = False
    """Whether a new shot begins here, after a cut; known only if something in the run has memory."""

    @property
    def time(self) -> Fraction:
        """Presentation time in seconds, exact."""
        return self.pts * self.time_base

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture in pixels."""
        return self.image.shape[1], self.image.shape[0]

    def __repr__(self) -> str:
        width, height = self.size
        return f"Frame({width}x{height}, pts={self.pts}, time_base={self.time_base})"


@dataclasses.dataclass(frozen=True)
class Selection:
    """The part of a video that is wanted."""

    start: Fraction | None = None
    """First time wanted, in seconds from the beginning of the video; None for the beginning."""
    end: Fraction | None = None
    """Time at which to stop (exclusive), in seconds from the beginning of the video; None for the end."""
    frames: int | None = None
    """How many frames to take at most; None for all."""
    every: int = 1
    """Take one frame in so many; each lasts until the next one taken."""
    stream: int | None = None
    """Which stream of the file, by its number in the file; None for the best video."""
    on_error: Literal["skip", "stop", "repeat"] = "skip"
    """What a frame that cannot be decoded does: it is left out, ends the run, or is replaced by the one before."""


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What a sink that encodes needs to know; a sink that does not may ignore it."""

    codec: Literal["h264", "hevc", "av1", "vp9", "prores", "ffv1"] = "h264"
    """The compression of the video."""
    encoder: str | None = None
    """What compresses: FFmpeg's name such as ``h264_nvenc``, ``auto`` for hardware if it works here, None for the
    software encoder of the codec."""
    lossless: bool = False
    """Whether nothing may be lost but what the pixel format itself cannot hold."""
    alpha: Literal["keep", "drop"] = "keep"
    """Whether transparency is kept; an output that cannot hold it is refused then."""
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
