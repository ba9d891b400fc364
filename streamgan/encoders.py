"""Which container a location names, which codecs it holds, and what each encoder takes: checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from streamgan.api import Encoding, UsageError, VideoInfo
from streamgan.settings import nearest

ENCODERS = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "vp9": "libvpx-vp9", "ffv1": "ffv1"}
"""FFmpeg's encoder for each codec."""
NO_REORDERING = ("mpegts", "flv")
"""Containers whose decoding times cannot lie before 0: with B-frames the whole film would begin later."""
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
_FORMATS |= {".ts": "mpegts", ".flv": "flv"}
_NETWORK = {"rtmp": "flv", "rtmps": "flv", "udp": "mpegts", "srt": "mpegts", "tcp": "mpegts", "rtsp": "rtsp"}
_HOLDS = {
    "mp4": ("h264", "hevc", "av1", "vp9", "ffv1"),
    "matroska": ("h264", "hevc", "av1", "vp9", "ffv1"),
    "mov": ("h264", "hevc"),
    "webm": ("vp9", "av1"),
    "mpegts": ("h264", "hevc"),  # FFmpeg writes the others too, but into streams that nothing can read
    "flv": ("h264", "hevc", "av1", "vp9"),
    "rtsp": ("h264", "hevc"),
}
_QUALITY = {"h264": 20, "hevc": 23, "av1": 30, "vp9": 32}
_WORST = {"h264": 51, "hevc": 51, "av1": 63, "vp9": 63}
_X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
_EFFORTS: Mapping[str, tuple[str, ...]] = {
    "h264": _X26X,
    "hevc": _X26X,
    "av1": tuple(str(number) for number in range(14)),
    "vp9": tuple(str(number) for number in range(9)),
}


def format_of(location: str) -> str:
    """FFmpeg's name of the container for a path or a network address.

    Raises:
        UsageError: if the ending or the protocol names none.
    """
    scheme, separator, _ = location.partition("://")
    if separator:
        if scheme not in _NETWORK:
            raise UsageError(f"{location}: cannot send to '{scheme}:'; possible are {', '.join(sorted(_NETWORK))}")
        return _NETWORK[scheme]
    suffix = Path(location).suffix.lower()
    if suffix not in _FORMATS:
        given = f"ends in '{suffix}'" if suffix else "has no ending"
        what = "has no times for its frames" if suffix == ".avi" else "names no video format"
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
        other = "" if "://" in location else ", or a name that ends in .mkv"
        raise UsageError(f"{location}: cannot hold {codec}; choose --codec {' or '.join(held)}{other}")
    worst, efforts = _WORST.get(codec), _EFFORTS.get(codec)
    if worst is None or efforts is None:
        for option, value in (("--crf", encoding.crf), ("--encoder-preset", encoding.preset)):
            if value is not None:
                raise UsageError(f"{option} {value}: {codec} loses nothing and has no such setting; leave it out")
        return
    if encoding.crf is not None and not 0 <= encoding.crf <= worst:
        raise UsageError(f"--crf {encoding.crf}: {codec} takes 0 (best) to {worst}")
    if encoding.preset is not None and encoding.preset not in efforts:
        numbers = efforts[0] == "0"
        span = f"0 (slowest) to {efforts[-1]}" if numbers else ", ".join(efforts)
        near = "" if numbers else nearest(encoding.preset, efforts)
        raise UsageError(f"--encoder-preset {encoding.preset}: {codec} takes {span}{near}")


def container_options(format_name: str, time_base: Fraction) -> dict[str, str]:
    """For MP4: ready to play from the network, and a start that is exact, not rounded to milliseconds."""
    if format_name not in ("mp4", "mov"):
        return {}
    return {"movflags": "+faststart", "movie_timescale": str(min(time_base.denominator, 2**31 - 1))}


def pixel_format(encoding: Encoding, info: VideoInfo) -> str:
    """4:2:0, which plays everywhere; but 4:4:4 if a side is odd, where H.264 and H.265 have no 4:2:0.

    Padding to even sides would change the size of the film, and cropping would lose pixels. VP9 and AV1 take odd
    sides as they are; FFV1 is for keeping, so it keeps all colour.
    """
    odd = info.width % 2 or info.height % 2
    if encoding.codec == "ffv1" or (odd and encoding.codec in ("h264", "hevc")):
        return "yuv444p"
    return "yuv420p"


def options(encoding: Encoding, live: bool) -> dict[str, str]:
    """Settings of the encoder, in its own words."""
    crf = _QUALITY.get(encoding.codec) if encoding.crf is None else encoding.crf
    given: dict[str, str] = {} if crf is None else {"crf": str(crf)}
    if encoding.codec in ("h264", "hevc"):
        given["preset"] = encoding.preset or "veryfast"
        if live:
            given["tune"] = "zerolatency"
    elif encoding.codec == "av1":
        given["preset"] = encoding.preset or "10"
    elif encoding.codec == "vp9":
        given |= {"deadline": "realtime", "cpu-used": encoding.preset or "6", "row-mt": "1"}
    if encoding.codec == "hevc":
        given["x265-params"] = f"log-level=error:pools={encoding.threads}"
    return given
