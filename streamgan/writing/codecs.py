"""The encoders of FFmpeg that streamgan can use, and what each takes: one row each.

The user speaks of quality and effort in one way, and each row says what that is in the encoder's own words:

===================  ==============================================  =======================================
encoder              ``--crf Q`` becomes                             ``--encoder-preset`` (default)
===================  ==============================================  =======================================
libx264, libx264rgb  ``crf`` Q, 0 to 51                              ultrafast … placebo (veryfast)
libx265              ``crf`` Q, 0 to 51                              ultrafast … placebo (veryfast)
libsvtav1            ``crf`` Q, 0 to 63 (0 means 1)                  0, the slowest, to 13 (10)
libvpx-vp9           ``crf`` Q, 0 to 63                              0, the slowest, to 8: ``cpu-used`` (6)
..._nvenc            ``rc=vbr``, ``cq`` Q (0 means 1)                p1, the fastest, to p7 (p5)
..._qsv              ``global_quality`` Q: ICQ (0 means 1)           veryfast … veryslow (medium)
..._amf              ``rc=cqp``, ``qp_i`` and ``qp_p`` Q, AV1: 4 Q   speed, balanced, quality (balanced)
..._videotoolbox     ``q`` 100 − 2 Q: 100 is its best                none
prores_ks            none                                            the profile: proxy … 4444xq (by need)
prores_videotoolbox  none                                            the profile: proxy … xq (by need)
ffv1                 none: it loses nothing                          none
===================  ==============================================  =======================================

The same number does not mean the same quality in two encoders. The default of Q is the codec's.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av

from streamgan.api import Encoding

SOFTWARE = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "vp9": "libvpx-vp9"}
SOFTWARE |= {"prores": "prores_ks", "ffv1": "ffv1"}
"""FFmpeg's software encoder for each codec."""
WORST = {"h264": 51, "hevc": 51, "av1": 63, "vp9": 63}
"""Largest `Encoding.crf` of each codec that has any; 0 is the best."""
_QUALITY = {"h264": 20, "hevc": 23, "av1": 30, "vp9": 32}
_X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
_QSV = ("veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclasses.dataclass(frozen=True)
class Encoder:
    """One encoder of FFmpeg: what it takes, and its own words for quality and effort.

    In the options, ``{quality}``, ``{effort}`` and ``{threads}`` are filled in.
    """

    name: str
    """FFmpeg's name."""
    codec: str
    """What it makes; see `Encoding.codec`."""
    formats: tuple[str, ...]
    """Pixel formats for ordinary pictures, by rising depth."""
    odd: tuple[str, ...] | None = None
    """Those for odd sides; empty if it takes none, None for no difference. 4:2:0 of H.264 and H.265 has no odd sides;
    padding would change the size of the film, and cropping would lose pixels."""
    exact: tuple[str, ...] = ()
    """Those of `Encoding.lossless`, by rising depth; empty if it always loses something."""
    alpha: tuple[str, ...] = ()
    """Those with transparency, by rising depth; empty if it has none."""
    fuller: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Efforts that keep all colour, and their pixel formats; the first is the default for transparent pictures."""
    smallest: int = 1
    """Shortest side that it takes, in pixels."""
    hardware: bool = False
    """Whether it needs a device that may not be there."""
    law: tuple[int, int] = (0, 1)
    """``{quality}`` is the first number plus the second times `Encoding.crf`."""
    best: int = 0
    """Smallest ``{quality}``: what is below becomes this."""
    efforts: tuple[str, ...] = ()
    """What `Encoding.preset` may be."""
    effort: str = ""
    """The default of `Encoding.preset`."""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Options that are always given."""
    quality: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Options that say the quality; empty if it has no such setting."""
    lossless: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Options in place of `quality` that make it lose nothing."""
    live: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Options that let each frame out at once."""


_PROFILES = ("proxy", "lt", "standard", "hq")
_X264 = Encoder(
    "libx264",
    "h264",
    formats=("yuv420p", "yuv420p10le"),
    odd=("yuv444p", "yuv444p10le"),
    exact=("yuv444p", "yuv444p10le"),
    efforts=_X26X,
    effort="veryfast",
    options={"preset": "{effort}"},
    quality={"crf": "{quality}"},
    lossless={"qp": "0"},
    live={"tune": "zerolatency"},
)
_X265 = Encoder(
    "libx265",
    "hevc",
    formats=("yuv420p", "yuv420p10le", "yuv420p12le"),
    odd=("yuv444p", "yuv444p10le", "yuv444p12le"),
    exact=("gbrp", "gbrp10le", "gbrp12le"),
    smallest=16,
    efforts=_X26X,
    effort="veryfast",
    options={"preset": "{effort}", "x265-params": "log-level=error:pools={threads}"},
    quality={"crf": "{quality}"},
    lossless={"x265-params": "log-level=error:pools={threads}:lossless=1"},
    live={"tune": "zerolatency"},
)
_SVT_AV1 = Encoder(
    "libsvtav1",
    "av1",
    formats=("yuv420p", "yuv420p10le"),
    exact=("yuv420p", "yuv420p10le"),
    smallest=32,  # measured with 4.0: with one side below 28 and the other over 64 it never returns
    best=1,  # FFmpeg takes 0 for none, which is 35
    efforts=tuple(str(number) for number in range(14)),
    effort="10",
    options={"preset": "{effort}"},
    quality={"crf": "{quality}"},
    lossless={"svtav1-params": "lossless=1"},
)
_VP9 = Encoder(
    "libvpx-vp9",
    "vp9",
    formats=("yuv420p", "yuv420p10le", "yuv420p12le"),
    exact=("gbrp", "gbrp10le", "gbrp12le"),
    alpha=("yuva420p",),
    efforts=tuple(str(number) for number in range(9)),
    effort="6",
    options={"deadline": "realtime", "cpu-used": "{effort}", "row-mt": "1"},
    quality={"crf": "{quality}"},
    lossless={"lossless": "1"},
)
_PRORES = Encoder(
    "prores_ks",
    "prores",
    formats=("yuv422p10le",),
    alpha=("yuva444p10le",),
    fuller={"4444": ("yuv444p10le",), "4444xq": ("yuv444p10le",)},
    efforts=(*_PROFILES, "4444", "4444xq"),
    effort="hq",
    options={"profile": "{effort}", "vendor": "apl0"},
)
_FFV1 = Encoder(
    "ffv1",
    "ffv1",
    formats=("bgr0", "gbrp10le", "gbrp12le", "gbrp16le"),
    exact=("bgr0", "gbrp10le", "gbrp12le", "gbrp16le"),
    alpha=("bgra", "gbrap10le", "gbrap12le", "gbrap16le"),
)
_NVENC = Encoder(
    "h264_nvenc",
    "h264",
    formats=("yuv420p", "p010le"),
    odd=("yuv444p",),
    exact=("gbrp",),
    hardware=True,
    best=1,  # 0 would leave the choice to the encoder
    efforts=tuple(f"p{number}" for number in range(1, 8)),
    effort="p5",  # p7 costs a tenth more up to 1080p, but collapses above
    options={"preset": "{effort}", "tune": "hq"},
    quality={"rc": "vbr", "cq": "{quality}", "b": "0"},
    lossless={"tune": "lossless"},
    live={"tune": "ull", "zerolatency": "1", "delay": "0"},
)
_QSV_H264 = Encoder(
    "h264_qsv",
    "h264",
    formats=("nv12",),
    odd=(),
    hardware=True,
    best=1,
    efforts=_QSV,
    effort="medium",
    options={"preset": "{effort}"},
    quality={"global_quality": "{quality}"},
    live={"async_depth": "1"},
)
_AMF = Encoder(
    "h264_amf",
    "h264",
    formats=("nv12",),
    odd=(),
    hardware=True,
    efforts=("speed", "balanced", "quality"),
    effort="balanced",
    options={"quality": "{effort}"},
    quality={"rc": "cqp", "qp_i": "{quality}", "qp_p": "{quality}"},
    live={"usage": "ultralowlatency"},
)
_VIDEOTOOLBOX = Encoder(
    "h264_videotoolbox",
    "h264",
    formats=("nv12",),
    odd=(),
    hardware=True,
    law=(11800, -236),  # 100 − 2 × crf, in FFmpeg's units of 118
    quality={"flags": "+qscale", "global_quality": "{quality}"},
    live={"realtime": "1"},
)
_DEEP = ("nv12", "p010le")
_ALL = (
    _X264,
    dataclasses.replace(_X264, name="libx264rgb", formats=("rgb24",), odd=None, exact=("rgb24",)),
    _X265,
    _SVT_AV1,
    _VP9,
    _PRORES,
    _FFV1,
    _NVENC,
    dataclasses.replace(_NVENC, name="hevc_nvenc", codec="hevc"),
    dataclasses.replace(_NVENC, name="av1_nvenc", codec="av1", odd=(), exact=(), lossless={}),
    _VIDEOTOOLBOX,
    dataclasses.replace(_VIDEOTOOLBOX, name="hevc_videotoolbox", codec="hevc", formats=_DEEP),
    Encoder(
        "prores_videotoolbox",
        "prores",
        formats=("p210le",),
        alpha=("ayuv64le",),
        fuller={"4444": ("p416le",), "xq": ("p416le",)},
        hardware=True,
        efforts=(*_PROFILES, "4444", "xq"),
        effort="hq",
        options={"profile": "{effort}"},
    ),
    _QSV_H264,
    dataclasses.replace(_QSV_H264, name="hevc_qsv", codec="hevc", formats=_DEEP),
    dataclasses.replace(_QSV_H264, name="av1_qsv", codec="av1", formats=_DEEP),
    dataclasses.replace(_QSV_H264, name="vp9_qsv", codec="vp9", formats=_DEEP),
    _AMF,
    dataclasses.replace(_AMF, name="hevc_amf", codec="hevc", formats=_DEEP),
    dataclasses.replace(_AMF, name="av1_amf", codec="av1", formats=_DEEP, law=(0, 4)),
)
ENCODERS: Mapping[str, Encoder] = {encoder.name: encoder for encoder in _ALL}
"""Every encoder that can be named, in the order in which ``auto`` tries those in hardware."""


@functools.cache
def offered(name: str) -> tuple[str, ...]:
    """The pixel formats that this build of FFmpeg has for an encoder; empty if it has no such encoder."""
    try:
        codec = av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return ()
    return tuple(each.name for each in codec.video_formats or ())


def depth(pixel_format: str) -> int:
    """Bits of a sample of a pixel format."""
    return max(part.bits for part in av.VideoFormat(pixel_format).components)


def effort(encoder: Encoder, encoding: Encoding, alpha: bool) -> str:
    """The preset that is asked for, or the default for opaque or transparent pictures."""
    return encoding.preset or (next(iter(encoder.fuller), encoder.effort) if alpha else encoder.effort)


def options(encoder: Encoder, encoding: Encoding, alpha: bool, live: bool) -> dict[str, str]:
    """Settings of an encoder, in its own words.

    Args:
        encoder: a row of the table.
        encoding: what the user asks for.
        alpha: whether the pictures are transparent.
        live: whether each frame is awaited at once.
    """
    crf = _QUALITY.get(encoding.codec, 0) if encoding.crf is None else encoding.crf
    start, step = encoder.law
    words = {
        "quality": str(max(encoder.best, start + step * crf)),
        "effort": effort(encoder, encoding, alpha),
        "threads": str(encoding.threads),
    }
    given = {**encoder.options, **(encoder.live if live else {})}
    given |= encoder.lossless if encoding.lossless else encoder.quality
    return {key: value.format(**words) for key, value in given.items()}
