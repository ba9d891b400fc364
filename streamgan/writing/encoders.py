"""Which container a location names, which codecs it holds, and what suits a film: checked before any work.

``lossless`` keeps the translated pictures bit for bit, as RGB, where the encoder takes RGB of their depth: H.264 (8
bits), H.265 (to 12), VP9 (8) and FFV1 (to 16). H.264 of 10 bits keeps YCbCr 4:4:4, which is rounded once on the way
from RGB; AV1 has 4:2:0 only, half the resolution of colour. A note says so where it is less than everything.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from streamgan.api import Encoding, UsageError, VideoInfo
from streamgan.settings import nearest
from streamgan.writing.codecs import ENCODERS, SOFTWARE, WORST, Encoder, depth, effort, offered

NO_REORDERING = ("mpegts", "flv")
"""Containers whose decoding times cannot lie before 0: with B-frames the whole film would begin later."""
STANDARD_OUTPUT = "-"
"""The location of standard output, which gets Matroska."""
AUTO = "auto"
"""What `Encoding.encoder` is to take hardware if it works here."""
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
_FORMATS |= {".ts": "mpegts", ".m2ts": "mpegts", ".flv": "flv"}
_NETWORK = {"rtmp": "flv", "rtmps": "flv", "udp": "mpegts", "srt": "mpegts", "tcp": "mpegts", "rtsp": "rtsp"}
_TIMELESS = (".avi", ".mxf")
_HOLDS = {
    "mp4": ("h264", "hevc", "av1", "vp9", "ffv1"),
    "matroska": ("h264", "hevc", "av1", "vp9", "prores", "ffv1"),
    "mov": ("h264", "hevc", "prores"),
    "webm": ("vp9", "av1"),
    "mpegts": ("h264", "hevc"),  # FFmpeg writes the others too, but into streams that nothing can read
    "flv": ("h264", "hevc", "av1", "vp9"),
    "rtsp": ("h264", "hevc"),
}
_HOLDS_ALPHA = {"vp9": ("webm", "matroska"), "prores": ("mov", "matroska"), "ffv1": ("matroska", "mp4")}
_HOLD_ASPECT = ("mp4", "mov")  # PyAV has no way to tell the other containers; these codecs say it themselves:
_SAY_ASPECT = ("h264", "hevc")
_SEE_THROUGH = "--codec vp9 (.webm or .mkv), prores (.mov or .mkv) or ffv1 (.mkv or .mp4)"


@dataclasses.dataclass(frozen=True)
class Misfit:
    """Why an encoder does not suit a film."""

    reason: str
    """What it does not do, for people: ``h264_qsv: takes no odd sizes``, without the name."""
    remedy: str
    """What to do instead."""


def format_of(location: str) -> str:
    """FFmpeg's name of the container for a path, a network address or standard output.

    Raises:
        UsageError: if the ending or the protocol names none.
    """
    if location == STANDARD_OUTPUT:
        return "matroska"
    scheme, separator, _ = location.partition("://")
    if separator:
        if scheme not in _NETWORK:
            raise UsageError(f"{location}: cannot send to '{scheme}:'; possible are {', '.join(sorted(_NETWORK))}")
        return _NETWORK[scheme]
    suffix = Path(location).suffix.lower()
    if suffix not in _FORMATS:
        given = f"ends in '{suffix}'" if suffix else "has no ending"
        what = "has no times for its frames" if suffix in _TIMELESS else "names no video format"
        others = "an image's (.png, .jpg, …), an animation's (.gif, .webp, .apng), or OUT/ for a folder of images"
        raise UsageError(f"{location}: {given}, which {what}; use one of {', '.join(_FORMATS)}, {others}")
    return _FORMATS[suffix]


def check(location: str, encoding: Encoding) -> None:
    """Refuses a codec that the container cannot hold, and settings that the encoder does not take.

    Raises:
        UsageError: with what would be possible.
    """
    codec, held = encoding.codec, _HOLDS[format_of(location)]
    if codec not in held:
        other = "" if "://" in location or location == STANDARD_OUTPUT else ", or a name that ends in .mkv"
        raise UsageError(f"{location}: cannot hold {codec}; choose --codec {' or '.join(held)}{other}")
    encoder = _named(encoding)
    _check_quality(encoder, encoding)
    _check_effort(encoder, encoding)


def _named(encoding: Encoding) -> Encoder:
    """The encoder that the user names; the codec's software encoder for None and ``auto``."""
    name, codec = encoding.encoder, encoding.codec
    if name is None or name == AUTO:
        return ENCODERS[SOFTWARE[codec]]
    own = [each.name for each in ENCODERS.values() if each.codec == codec]
    if name not in ENCODERS:
        known = f"for {codec} there is {AUTO}, {', '.join(own)}"
        raise UsageError(f"--encoder {name}: no encoder has this name; {known}{nearest(name, (*ENCODERS, AUTO))}")
    encoder = ENCODERS[name]
    if encoder.codec != codec:
        raise UsageError(
            f"--encoder {name}: makes {encoder.codec}, not {codec}; use --codec {encoder.codec}, or one of "
            f"{AUTO}, {', '.join(own)}"
        )
    return encoder


def _check_quality(encoder: Encoder, encoding: Encoding) -> None:
    """Refuses a quality that the encoder does not take."""
    crf, worst = encoding.crf, WORST.get(encoder.codec)
    if encoding.lossless and not encoder.exact:
        exact = [name for name, other in SOFTWARE.items() if ENCODERS[other].exact]
        raise UsageError(f"--lossless: {encoder.name} always loses something; use --codec {' or '.join(exact)}")
    if crf is None:
        return
    if worst is None:
        why = "loses nothing" if encoder.exact else "takes its quality from --encoder-preset"
        raise UsageError(f"--crf {crf}: {encoder.codec} {why} and has no such setting; leave it out")
    if encoding.lossless:
        raise UsageError(f"--crf {crf}: says how much may be lost, and --lossless that nothing may; leave one out")
    if not 0 <= crf <= worst:
        raise UsageError(f"--crf {crf}: {encoder.codec} takes 0 (best) to {worst}")


def _check_effort(encoder: Encoder, encoding: Encoding) -> None:
    """Refuses a preset that the encoder does not have."""
    preset, efforts = encoding.preset, encoder.efforts
    if preset is None:
        return
    given = f"--encoder-preset {preset}"
    if encoding.encoder == AUTO:
        raise UsageError(
            f"{given}: each encoder has its own, and --encoder auto may take any; name one, or leave it out"
        )
    if not efforts:
        why = "loses nothing and has" if encoder.codec in SOFTWARE and encoder.exact else "has"
        raise UsageError(f"{given}: {encoder.name} {why} no such setting; leave it out")
    if preset not in efforts:
        numbers = efforts[0] == "0"
        span = f"0 (slowest) to {efforts[-1]}" if numbers else ", ".join(efforts)
        name = encoder.name if encoder.hardware else encoder.codec
        raise UsageError(f"{given}: {name} takes {span}{'' if numbers else nearest(preset, efforts)}")


def keeps_alpha(encoding: Encoding, info: VideoInfo) -> bool:
    """Whether the output shall be transparent."""
    return info.alpha and encoding.alpha == "keep"


def check_alpha(location: str, encoding: Encoding, info: VideoInfo) -> None:
    """Refuses an output that cannot keep the transparency of a film.

    Raises:
        UsageError: with what can keep it.
    """
    if not keeps_alpha(encoding, info):
        return
    codec = encoding.codec
    if codec not in _HOLDS_ALPHA or format_of(location) not in _HOLDS_ALPHA[codec]:
        where = "" if codec not in _HOLDS_ALPHA else f" in {format_of(location)}"
        raise UsageError(
            f"{location}: the input is transparent, which {codec}{where} cannot keep; use {_SEE_THROUGH}, "
            "or --alpha drop to show it over white"
        )


def check_aspect(location: str, encoding: Encoding, info: VideoInfo) -> None:
    """Refuses an output in which pixels that are not square would become so.

    Raises:
        UsageError: with what keeps them.
    """
    codec, container, aspect = encoding.codec, format_of(location), info.sample_aspect_ratio
    if aspect == 1 or container in _HOLD_ASPECT or codec in _SAY_ASPECT:
        return
    able = [f"--codec {name}" for name in _SAY_ASPECT if name in _HOLDS[container]]
    endings = [f"a name that ends in .{name}" for name in _HOLD_ASPECT if codec in _HOLDS[name]]
    raise UsageError(
        f"{location}: the input's pixels are not square ({aspect.numerator}:{aspect.denominator}), which {codec} in "
        f"{container} cannot keep here; use {' or '.join([*able, *endings])}"
    )


def misfit(location: str, encoder: Encoder, encoding: Encoding, info: VideoInfo) -> Misfit | None:
    """Why an encoder cannot make this film, as far as that can be said without it; None if it can.

    Args:
        location: where the film goes.
        encoder: a row of the table.
        encoding: what the user asks for, checked.
        info: of the translated film.
    """
    if not offered(encoder.name):
        return Misfit("is not in this build of FFmpeg", "leave --encoder out, or use --encoder auto")
    if encoding.lossless and not encoder.exact:
        return Misfit("always loses something", "leave --encoder or --lossless out")
    if keeps_alpha(encoding, info) and not encoder.alpha:
        return Misfit("keeps no transparency", "leave --encoder out, or use --alpha drop")
    profile = effort(encoder, encoding, keeps_alpha(encoding, info))
    if keeps_alpha(encoding, info) and encoder.fuller and profile not in encoder.fuller:
        return Misfit(f"keeps no transparency as '{profile}'", f"use --encoder-preset {' or '.join(encoder.fuller)}")
    size, side = f"{info.width}x{info.height}", min(info.width, info.height)
    if side < encoder.smallest:
        able = [codec for codec in _HOLDS[format_of(location)] if ENCODERS[SOFTWARE[codec]].smallest <= side]
        least = f"{encoder.smallest}x{encoder.smallest}"
        return Misfit(f"takes no pictures below {least}, and these have {size}", f"use --codec {' or '.join(able)}")
    if not _wanted(encoder, encoding, info):
        return Misfit(f"takes no odd sizes, and the pictures have {size}", "leave --encoder out")
    return None


def pixel_format(encoder: Encoder, encoding: Encoding, info: VideoInfo) -> str:
    """What an encoder that suits a film gets: as many bits as the film has, if it takes that many.

    Ordinary pictures become 4:2:0, which plays everywhere, unless the encoder needs more for odd sides.
    """
    has = offered(encoder.name)
    formats = [name for name in _wanted(encoder, encoding, info) if name in has]
    return next((name for name in formats if depth(name) >= info.bits), formats[-1])


def _wanted(encoder: Encoder, encoding: Encoding, info: VideoInfo) -> tuple[str, ...]:
    """The pixel formats that suit a film, by rising depth; empty if none does."""
    if keeps_alpha(encoding, info):
        return encoder.alpha
    if encoding.lossless:
        return encoder.exact
    if encoding.preset is not None and encoding.preset in encoder.fuller:
        return encoder.fuller[encoding.preset]
    odd = info.width % 2 or info.height % 2
    return encoder.odd if odd and encoder.odd is not None else encoder.formats


def remarks(encoder: Encoder, encoding: Encoding, info: VideoInfo, pixels: str) -> list[str]:
    """What the user should know of an encoder and a pixel format that were chosen, one line each."""
    bits, notes = depth(pixels), []
    if info.alpha and encoding.alpha == "drop":
        notes.append("transparency was dropped (--alpha drop): it is shown over white")
    if bits < info.bits:
        deeper = "ffv1" if info.bits > 12 or info.alpha else "hevc or ffv1"
        notes.append(f"{info.bits} bits became {bits}: {encoder.name} takes no more here (--codec {deeper} does)")
    elif encoder.codec == "h264" and bits > 8 and not encoding.lossless:
        notes.append(f"H.264 of {bits} bits plays in few browsers and devices; --codec hevc or av1 play in more")
    if encoding.lossless and "420" in pixels:
        notes.append(f"lossless but for colour at half the resolution: {encoder.codec} has only 4:2:0 here")
    elif encoding.lossless and "yuv" in pixels:
        notes.append(f"lossless but for rounding from RGB to YCbCr: {encoder.name} takes no RGB of {bits} bits")
    return notes


def container_options(format_name: str, clock: int) -> dict[str, str]:
    """For MP4: ready to play from the network, and starts that are exact, not rounded to milliseconds.

    Args:
        format_name: FFmpeg's name of the container.
        clock: ticks per second of the whole movie; see `streamgan.writing.muxing.movie_clock`.
    """
    if format_name not in ("mp4", "mov"):
        return {}
    return {"movflags": "+faststart", "movie_timescale": str(clock)}
