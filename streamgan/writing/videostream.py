"""The stream of the translated video in an output: which encoder, how it is set up, and whether it works here."""

from __future__ import annotations

import dataclasses
import functools
import os
from fractions import Fraction

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
from av.codec import CodecContext
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streamgan.api import Encoding, SinkError, UsageError, VideoInfo
from streamgan.frames import color
from streamgan.writing import codecs, encoders
from streamgan.writing.codecs import Encoder

_KEEP_DURATION = 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: else the encoder forgets how long the last frame lasts
_LIVE_KEY_FRAMES = 2  # seconds from one to the next
_RGB_BITS = 8
_REASONS = (
    ("libcuda", "no NVIDIA driver"),
    ("nvcuda", "no NVIDIA driver"),
    ("libnvidia-encode", "the driver came without its encoder; in a container set NVIDIA_DRIVER_CAPABILITIES=all"),
    ("nvEncodeAPI", "the driver came without its encoder; update it"),
    ("minimum required Nvidia driver", "the NVIDIA driver is too old; update it"),
    ("required nvenc API", "the NVIDIA driver is too old; update it"),
    ("unsupported device", "this GPU has no NVENC; A100, H100 and H200 have none"),
    ("No capable devices", "no GPU here has NVENC for this; A100, H100 and H200 have none"),
    ("10 bit encode not supported", "this GPU encodes 8 bits only"),
    ("MFX", "no Intel GPU, or no oneVPL runtime for it"),
    ("amfrt", "no AMD GPU, or no AMF runtime for it"),
)
"""What FFmpeg's log says when hardware does not open, and what it means."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """What will compress a film."""

    encoder: Encoder
    """A row of the table of encoders."""
    pixel_format: str
    """What it gets, by FFmpeg's name."""
    notes: tuple[str, ...] = ()
    """What the user should know, one line each."""


def choose(location: str, encoding: Encoding, info: VideoInfo, live: bool = False) -> Choice:
    """Decides what compresses a film; encoders in hardware are tried with one frame.

    It needs no frame of the film, so it can be called before any work, and again when the first frame is there: a size
    that was tried is not tried again.

    Args:
        location: where the film goes, for its container and for messages.
        encoding: what the user asks for; see `encoders.check`.
        info: of the translated film: width, height, bits and alpha matter.
        live: whether each frame is awaited at once.

    Raises:
        UsageError: if what is asked for does not suit the film.
        SinkError: if the encoder that the user names does not work here.
    """
    encoders.check(location, encoding)
    encoders.check_alpha(location, encoding, info)
    encoders.check_aspect(location, encoding, info)
    if encoding.encoder == encoders.AUTO:
        return _best(location, encoding, info, live)
    encoder = codecs.ENCODERS[encoding.encoder] if encoding.encoder else _software(encoding, info)
    choice = _suited(location, encoder, encoding, info)
    fault = _refusal(choice, encoding, info, live)
    if fault is not None:
        instead = "leave --encoder out, or use --encoder auto to take what works"
        raise SinkError(f"--encoder {encoder.name}: does not work here ({fault}); {instead}")
    return choice


def add_video(
    container: OutputContainer, choice: Choice, info: VideoInfo, encoding: Encoding, live: bool = False
) -> VideoStream:
    """Adds the stream of the translated video, ready to be opened.

    Args:
        container: open for writing, its header not written yet.
        choice: from `choose`.
        info: of the translated film.
        encoding: what the user asks for.
        live: whether each frame is awaited at once, as over a network.
    """
    os.environ.setdefault("SVT_LOG", "0")  # else the AV1 encoder writes thirty lines to the terminal
    settings = codecs.options(choice.encoder, encoding, encoders.keeps_alpha(encoding, info), live)
    stream = container.add_stream(choice.encoder.name, rate=info.frame_rate, options=settings)
    assert isinstance(stream, VideoStream)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = info.width, info.height, choice.pixel_format
    # Before opening, or the encoder's own clock of 1/rate rounds the times away.
    context.time_base = stream.time_base = info.time_base
    context.sample_aspect_ratio = info.sample_aspect_ratio
    context.thread_count = encoding.threads
    context.flags |= _KEEP_DURATION
    if live:
        context.gop_size = round(_LIVE_KEY_FRAMES * (info.frame_rate or 25))
    if live or container.format.name in encoders.NO_REORDERING:
        context.max_b_frames = 0
    color.tag(context, info.color)
    return stream


def _software(encoding: Encoding, info: VideoInfo) -> Encoder:
    """The software encoder for a film; that of H.264 goes by another name for RGB."""
    name = codecs.SOFTWARE[encoding.codec]
    exact = encoding.lossless and info.bits <= _RGB_BITS
    return codecs.ENCODERS["libx264rgb" if exact and name == "libx264" else name]


def _suited(location: str, encoder: Encoder, encoding: Encoding, info: VideoInfo) -> Choice:
    """An encoder and its pixel format; raises UsageError if it does not suit the film."""
    fault = encoders.misfit(location, encoder, encoding, info)
    if fault is not None:
        raise UsageError(f"{location}: {encoder.name} {fault.reason}; {fault.remedy}")
    pixels = encoders.pixel_format(encoder, encoding, info)
    return Choice(encoder, pixels, tuple(encoders.remarks(encoder, encoding, info, pixels)))


def _best(location: str, encoding: Encoding, info: VideoInfo, live: bool) -> Choice:
    """The first encoder in hardware that works here, else software, with a note that says why."""
    software = _software(encoding, info)
    wanted = min(info.bits, codecs.depth(encoders.pixel_format(software, encoding, info)))
    faults = []
    for encoder in codecs.ENCODERS.values():
        if not encoder.hardware or encoder.codec != encoding.codec:
            continue
        unfit = encoders.misfit(location, encoder, encoding, info)
        fault = None if unfit is None else unfit.reason
        if fault is None:
            choice = _suited(location, encoder, encoding, info)
            if codecs.depth(choice.pixel_format) < wanted:
                fault = f"takes {codecs.depth(choice.pixel_format)} bits only"
            else:
                fault = _refusal(choice, encoding, info, live)
            if fault is None:
                return choice
        faults.append(f"{encoder.name}: {fault}")
    choice = _suited(location, software, encoding, info)
    why = "; ".join(faults) or f"there is none for {encoding.codec}"
    return dataclasses.replace(
        choice, notes=(f"{software.name} was used, no encoder in hardware: {why}", *choice.notes)
    )


def _refusal(choice: Choice, encoding: Encoding, info: VideoInfo, live: bool) -> str | None:
    """Why hardware does not encode a frame of the film's size; None if it does, and for software."""
    if not choice.encoder.hardware:
        return None
    settings = codecs.options(choice.encoder, encoding, encoders.keeps_alpha(encoding, info), live)
    return refusal(choice.encoder.name, (info.width, info.height), choice.pixel_format, tuple(sorted(settings.items())))


@functools.cache
def refusal(name: str, size: tuple[int, int], pixel_format: str, options: tuple[tuple[str, str], ...]) -> str | None:
    """Encodes one black frame, and says why if that fails; None if it works.

    FFmpeg's log is kept off the terminal meanwhile; that is a switch of the whole process.

    Args:
        name: FFmpeg's name of an encoder.
        size: (width, height) in pixels.
        pixel_format: FFmpeg's name.
        options: names and values.
    """
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture(local=False) as log:
        try:
            context = CodecContext.create(name, "w")
            assert isinstance(context, VideoCodecContext)
            context.width, context.height, context.pix_fmt = *size, pixel_format
            context.time_base, context.options = Fraction(1, 25), dict(options)
            frame = av.VideoFrame(*size, pixel_format)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.pts = 0
            packets = [*context.encode(frame), *context.encode(None)]
            return None if packets else "it made no packet of a frame"
        except (av.error.FFmpegError, ValueError) as error:
            return _words([message for _, _, message in log], error)
        finally:
            av.logging.set_level(level)


def _words(log: list[str], error: Exception) -> str:
    """Why an encoder did not open, for people."""
    said = " ".join(log)
    known = next((words for sign, words in _REASONS if sign in said), None)
    last = log[-1].strip() if log else getattr(error, "strerror", None) or str(error)
    return known or last
