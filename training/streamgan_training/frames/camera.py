"""What cameras and codecs do to footage, so that a translator trained on clean pictures is not surprised by a webcam.

The order is that of a camera: light is blurred by motion, exposed, balanced and read with noise, then encoded with a
gamma curve and compressed. One draw of settings holds for a whole clip; only the noise is fresh in every frame.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
import torch
from av.codec.codec import UnknownCodecError
from av.video.reformatter import Interpolation
from torch import Tensor

from streamgan import api

Pixels = npt.NDArray[np.float32]
DISPLAY_GAMMA = 2.2
"""Pixels are light to the power of 1 / 2.2, near enough to BT.709 and sRGB."""
_LIGHT = ((np.arange(256) / 255) ** DISPLAY_GAMMA).astype(np.float32)
_SCALER = (
    Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
)
"""How FFmpeg converts RGB ↔ 4:2:0: its default darkens pictures by more than one step of 255."""
DRAWS = 16
"""Random numbers of a clip before the noise; always all of them, so that settings do not change each other's draws."""


@dataclasses.dataclass(frozen=True)
class Camera:
    """How often, and how badly, footage is degraded: chances in [0, 1], all 0, each with a range of severity."""

    blur: float = api.option(0.0, minimum=0, maximum=1)
    """Chance of motion blur: the camera shakes along a straight line."""
    blur_pixels: tuple[float, float] = (3.0, 9.0)
    """Length of the line."""
    exposure: float = api.option(0.0, minimum=0, maximum=1)
    """Chance of another exposure."""
    exposure_stops: tuple[float, float] = (-1.0, 1.0)
    """Light, in powers of two; what gets too bright is clipped."""
    white_balance: float = api.option(0.0, minimum=0, maximum=1)
    """Chance of another white balance."""
    white_balance_gain: tuple[float, float] = (0.75, 1.33)
    """Gains of red and of blue light over green, each drawn by itself, even on a logarithmic scale."""
    noise: float = api.option(0.0, minimum=0, maximum=1)
    """Chance of sensor noise: one level for the clip, fresh noise in every frame, as a real sensor gives it."""
    noise_level: tuple[float, float] = (1.0, 8.0)
    """Standard deviation in 8-bit steps of the gamma-encoded picture."""
    gamma: float = api.option(0.0, minimum=0, maximum=1)
    """Chance of another gamma curve."""
    gamma_exponent: tuple[float, float] = (0.75, 1.33)
    """Exponent of the gamma-encoded pixels in [0, 1], even on a logarithmic scale; above 1 is darker."""
    codec: float = api.option(0.0, minimum=0, maximum=1)
    """Chance of compression as H.264."""
    codec_crf: tuple[int, int] = (24, 40)
    """x264's constant rate factor, 0 to 51, higher is worse: 23 is its default, blocks show from 30 on."""

    def __post_init__(self) -> None:
        lowest = {"exposure_stops": -10.0, "white_balance_gain": 0.01, "gamma_exponent": 0.01}
        highest = {"codec_crf": 51.0, "blur_pixels": 255.0}
        for name in (
            "blur_pixels",
            "exposure_stops",
            "white_balance_gain",
            "noise_level",
            "gamma_exponent",
            "codec_crf",
        ):
            low, high = getattr(self, name)
            minimum, maximum = lowest.get(name, 0.0), highest.get(name, 1000.0)
            if not minimum <= low <= high <= maximum:
                raise api.PresetError(
                    f"{name}: [{low}, {high}] given, expected [smallest, largest] within {minimum:g} and {maximum:g}"
                )

    @property
    def active(self) -> bool:
        """Whether anything can happen."""
        return any((self.blur, self.exposure, self.white_balance, self.noise, self.gamma, self.codec))


@dataclasses.dataclass(frozen=True)
class Degradation:
    """What happens to one clip; the defaults are nothing."""

    blur: tuple[float, float] | None = None
    """Length in pixels and angle in radians of the motion."""
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Exposure and white balance: factors of red, green and blue light."""
    noise: float = 0.0
    """Standard deviation in 8-bit steps."""
    gamma: float = 1.0
    """Exponent of the gamma-encoded pixels in [0, 1]."""
    crf: int | None = None
    """x264's constant rate factor."""


def degrade(clip: Tensor, settings: Camera, generator: torch.Generator) -> Tensor:
    """A clip as a worse camera and codec would have kept it.

    Args:
        clip: consecutive frames, ``(T, 3, H, W)`` uint8 RGB on the CPU; a single picture is T = 1.
        settings: chances and ranges.
        generator: a CPU generator: all of the randomness.

    Returns:
        The same shape and type; `clip` itself where nothing can happen.

    Raises:
        UsageError: if it is to be compressed and PyAV has no libx264.
    """
    if not settings.active:
        return clip
    return apply(clip, draw(settings, generator), generator)


def draw(settings: Camera, generator: torch.Generator) -> Degradation:
    """Decides what happens to one clip."""
    chances = iter(torch.rand(DRAWS, generator=generator, dtype=torch.float64).tolist())
    blur = (_between(settings.blur_pixels, next(chances)), math.pi * next(chances))
    blurred = next(chances) < settings.blur
    stops = _between(settings.exposure_stops, next(chances))
    light = 2**stops if next(chances) < settings.exposure else 1.0
    red, blue = (_between_logarithms(settings.white_balance_gain, next(chances)) for _ in range(2))
    if next(chances) >= settings.white_balance:
        red, blue = 1.0, 1.0
    noise = _between(settings.noise_level, next(chances))
    noisy = next(chances) < settings.noise
    gamma = _between_logarithms(settings.gamma_exponent, next(chances))
    bent = next(chances) < settings.gamma
    low, high = settings.codec_crf
    crf = low + int(next(chances) * (high - low + 1))
    compressed = next(chances) < settings.codec
    return Degradation(
        blur if blurred else None,
        (light * red, light, light * blue),
        noise if noisy else 0.0,
        gamma if bent else 1.0,
        crf if compressed else None,
    )


def apply(clip: Tensor, degradation: Degradation, generator: torch.Generator) -> Tensor:
    """Does to a clip what was drawn.

    Args:
        clip: ``(T, 3, H, W)`` uint8 RGB on the CPU.
        degradation: what happens to it.
        generator: a CPU generator, for the noise.

    Returns:
        The same shape and type.

    Raises:
        UsageError: if it is to be compressed and PyAV has no libx264.
    """
    frames = np.ascontiguousarray(clip.permute(0, 2, 3, 1).numpy())  # (T, H, W, 3) uint8
    if dataclasses.replace(degradation, crf=None) != Degradation():
        frames = np.stack([_expose(frame, degradation, generator) for frame in frames])
    if degradation.crf is not None:
        frames = compress(frames, degradation.crf)
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def _expose(frame: api.Images, degradation: Degradation, generator: torch.Generator) -> api.Images:
    """One frame ``(H, W, 3)`` uint8 through the camera, without the codec."""
    pixels: npt.NDArray[Any] = frame.astype(np.float32) / 255
    if degradation.blur is not None or degradation.gains != (1.0, 1.0, 1.0):
        light = _LIGHT[frame]
        if degradation.blur is not None:
            kernel = motion_kernel(*degradation.blur)
            light = np.asarray(cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.float32)
        pixels = np.clip(light * np.asarray(degradation.gains, np.float32), 0, 1) ** np.float32(1 / DISPLAY_GAMMA)
    if degradation.noise:
        # The noise of photons grows with the root of the light, which gamma encoding turns into an even spread.
        pixels = pixels + torch.randn(pixels.shape, generator=generator).numpy() * (degradation.noise / 255)
    if degradation.gamma != 1.0:
        pixels = np.clip(pixels, 0, 1) ** degradation.gamma
    rounded: api.Images = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
    return rounded


def motion_kernel(length: float, angle: float) -> Pixels:
    """The point spread of an even motion along a line through the middle.

    Args:
        length: of the line in pixels; 0 is no motion.
        angle: in radians, counter-clockwise from the right.

    Returns:
        ``(k, k)`` float32, k odd, of sum 1.
    """
    radius = math.ceil(length / 2) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    along = np.linspace(-length / 2, length / 2, 16 * radius + 1)
    x, y = radius + along * math.cos(angle), radius - along * math.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            np.add.at(kernel, (row, column), weight_x * weight_y)
    normalised: Pixels = (kernel / kernel.sum()).astype(np.float32)
    return normalised


def compress(frames: api.Images, crf: int) -> api.Images:
    """Encodes frames as H.264 in memory, 8-bit 4:2:0 as nearly all footage is, and decodes them again.

    Args:
        frames: ``(T, H, W, 3)`` uint8 RGB, encoded as one stream.
        crf: x264's constant rate factor, 0 to 51.

    Returns:
        The same shape and type.

    Raises:
        UsageError: if PyAV has no libx264.
    """
    _, height, width, _ = frames.shape
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoded = [frame for packet in [*_encode(even, crf), None] for frame in decoder.decode(packet)]
    pictures = np.stack([frame.reformat(format="rgb24", interpolation=_SCALER).to_ndarray() for frame in decoded])
    return np.ascontiguousarray(pictures[:, :height, :width])


def _encode(frames: api.Images, crf: int) -> Iterator[av.Packet[av.VideoStream]]:
    """The packets of an H.264 stream of ``(T, H, W, 3)`` RGB frames with even sides, by one thread: the same always."""
    try:
        encoder = av.CodecContext.create("libx264", "w")
    except UnknownCodecError:
        raise api.UsageError(
            "data: codec: this PyAV was built without libx264; install its wheel (pip install av), or set codec to 0"
        ) from None
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.pix_fmt, encoder.framerate, encoder.thread_count = "yuv420p", Fraction(25), 1
    encoder.options = {"crf": str(crf), "preset": "veryfast"}
    for index, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p", interpolation=_SCALER)
        frame.pts = index
        yield from encoder.encode(frame)
    yield from encoder.encode(None)


def _between(limits: tuple[float, float], chance: float) -> float:
    """From the first limit (chance 0) to the second (chance 1)."""
    return limits[0] + (limits[1] - limits[0]) * chance


def _between_logarithms(limits: tuple[float, float], chance: float) -> float:
    """As `_between`, even on a logarithmic scale."""
    return math.exp(_between((math.log(limits[0]), math.log(limits[1])), chance))
