"""Text subtitles in the form that the output's container takes."""

from __future__ import annotations

import html
import re
import struct
from fractions import Fraction
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

OWN = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
"""The text subtitles that each container has; those without any are not named."""
TEXT = ("subrip", "srt", "ass", "ssa", "webvtt", "text", "mov_text")
"""Codecs that are text, so that one can be made of another."""
_PICTURES = {"mpegts": ("dvbsub", "dvb_subtitle", "dvb_teletext", "libzvbi_teletextdec")}
_ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
_STYLING = re.compile(r"\{\\[^}]*\}")


def held(codec: str, container: str) -> bool:
    """Whether a container may take this codec unchanged; the container itself may still refuse it.

    Args:
        codec: FFmpeg's name of the codec.
        container: FFmpeg's name of the format.
    """
    if container in ("mp4", "mov"):  # these copy some others too, into streams that hardly anything reads
        return codec == "mov_text"
    return codec in _PICTURES[container] if container in _PICTURES else container in OWN


def add(output: OutputContainer, codec: str) -> SubtitleStream | None:
    """A stream of the container's own text subtitles, if it has some and `codec` is text."""
    name = OWN.get(output.format.name)
    if name is None or codec not in TEXT:
        return None
    target = output.add_stream(name)
    assert isinstance(target, SubtitleStream)
    target.codec_context.subtitle_header = _ASS_HEADER
    target.time_base = Fraction(1, 1000)
    return target


def converted(packet: Packet[Any], codec: str) -> Packet[Any] | None:
    """A text subtitle as `codec` (one of `OWN`) has it, without styling; None if it shows nothing or is damaged."""
    try:
        texts = [each.dialogue.decode(errors="replace") for each in packet.decode() if isinstance(each, AssSubtitle)]
    except av.error.FFmpegError:
        return None
    text = _STYLING.sub("", "\n".join(texts)).replace("\\N", "\n")
    if not text:
        return None
    content = html.escape(text, quote=False).encode() if codec == "webvtt" else text.encode()
    if codec == "mov_text":
        content = struct.pack(">H", len(content)) + content
    made: Packet[Any] = Packet(content)
    made.time_base = packet.time_base
    made.pts, made.dts, made.duration = packet.pts, packet.pts, packet.duration
    return made
