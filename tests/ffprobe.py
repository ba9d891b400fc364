"""What ffprobe and ffmpeg, the programs, say of a file: a reader that shares nothing with the code under test.

All times are exact fractions of a second. Debian's package ``ffmpeg`` brings both programs.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SIDE = 32
"""Width and height of a thumbnail, in pixels."""
_PATIENCE, _REORDERED = 120, 20
_FILM = 5
"""Frames from which on a stream is a film and not a still picture."""
_DEEP = re.compile(r"(?:p|gray|gbrp|gbrap|yuva?4\d\dp)(9|10|12|14|16)(?:le|be)|(?:rgb|bgr|rgba|ya)(48|64|16)(?:le|be)")


@dataclasses.dataclass(frozen=True)
class Shown:
    """One decoded frame."""

    time: Fraction
    duration: Fraction | None
    size: tuple[int, int]
    pixels: str
    interlaced: bool
    turned: int = 0
    """Degrees by which a viewer turns it, clockwise, from 0 to 270: what the EXIF tag of a photo says."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """One packet."""

    time: Fraction
    duration: Fraction
    content: str
    """Its size, and a hash of what is in it."""


@dataclasses.dataclass(frozen=True)
class Track:
    """One stream of a file."""

    index: int
    kind: str
    codec: str
    tick: Fraction
    raw: dict[str, Any]
    pieces: tuple[Piece, ...]

    @property
    def is_cover(self) -> bool:
        """Whether it is a picture of the cover and no film."""
        return bool(self.raw.get("disposition", {}).get("attached_pic"))

    @property
    def tags(self) -> dict[str, str]:
        """What the file says of it, names in lower case."""
        return {key.lower(): value for key, value in self.raw.get("tags", {}).items()}

    @property
    def duration(self) -> Fraction | None:
        """How long it is by the file's header."""
        return self.raw["duration_ts"] * self.tick if self.raw.get("duration_ts") else None

    @property
    def turned(self) -> int:
        """Degrees by which a player turns it, clockwise, from 0 to 270."""
        sides = self.raw.get("side_data_list", [])
        return _turned(sides)

    @property
    def aspect(self) -> Fraction:
        """Width of a pixel over its height, before it is turned."""
        width, _, height = self.raw.get("sample_aspect_ratio", "1:1").partition(":")
        return Fraction(int(width), int(height)) if int(width) and int(height) else Fraction(1)


@dataclasses.dataclass(frozen=True)
class Film:
    """What a file holds."""

    path: Path
    container: str
    tags: dict[str, str]
    chapters: tuple[tuple[str, Fraction, Fraction], ...]
    """Title, begin and end of each."""
    tracks: tuple[Track, ...]
    decoded: tuple[Shown, ...] | None = None
    """Frames that another reader found, where this one has no decoder."""
    limit: int | None = None
    """How many frames are decoded at the most; None for all."""

    @cached_property
    def video(self) -> Track | None:
        """The stream that is the film: the largest that moves."""
        films = [track for track in self.tracks if track.kind == "video" and not track.is_cover]
        return max(films, key=lambda track: (min(len(track.pieces), _FILM), _area(track)), default=None)

    @cached_property
    def frames(self) -> tuple[Shown, ...]:
        """What can be decoded of `video`, by one thread; empty if there is none."""
        if self.decoded is not None or self.video is None:
            return self.decoded or ()
        return _frames(self.path, self.video, self.limit)

    @property
    def turned(self) -> int:
        """Degrees by which a player turns the pictures, clockwise, from 0 to 270."""
        assert self.video is not None
        return self.video.turned or (self.frames[0].turned if self.frames else 0)

    @property
    def aspect(self) -> Fraction:
        """Width of a pixel over its height, as shown."""
        assert self.video is not None
        return 1 / self.video.aspect if self.turned % 180 else self.video.aspect

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) as shown, each size that comes, the first frame's first."""
        found = dict.fromkeys(frame.size[::-1] if self.turned % 180 else frame.size for frame in self.frames)
        return list(found)

    def thumbnails(self, codec: str | None = None, pixels: str = "rgb24") -> npt.NDArray[np.uint8]:
        """Every frame of `video`, upright, as ``(N, SIDE, SIDE, channels)`` uint8.

        The matrix is that of the tags, else that which players take for this height.

        Args:
            codec: a decoder to use instead of the usual one.
            pixels: ``rgb24`` or ``rgba``.
        """
        assert self.video is not None
        height = int(self.video.raw.get("height", 0))
        untagged = self.video.raw.get("color_space") in (None, "unknown", "reserved")
        matrix = ("bt709" if height >= 720 else "bt601") if untagged else "auto"
        scale = f"scale={SIDE}:{SIDE}:flags=area+accurate_rnd+full_chroma_inp:in_color_matrix={matrix},format={pixels}"
        command = ["ffmpeg", "-v", "error", "-nostdin", "-threads", "1", *(["-c:v", codec] if codec else [])]
        command += ["-noautorotate", "-i", _name(self.path), "-map", f"0:{self.video.index}", "-vf", scale]
        command += ["-frames:v", str(self.limit)] if self.limit else []
        command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-"]
        data = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_PATIENCE).stdout
        channels = len(pixels.rstrip("0123456789"))
        whole = len(data) // (SIDE * SIDE * channels) * SIDE * SIDE * channels
        images = np.frombuffer(data[:whole], np.uint8).reshape(-1, SIDE, SIDE, channels)
        return np.rot90(images, -self.turned // 90, axes=(1, 2))


def missing() -> str | None:
    """Which of the programs is not there, or None."""
    return next((name for name in ("ffprobe", "ffmpeg") if shutil.which(name) is None), None)


def version() -> str:
    """The version of ffprobe, without what a distribution adds to it."""
    first = subprocess.run(["ffprobe", "-version"], capture_output=True, text=True, check=True).stdout.split()[2]
    return first.partition("-")[0]


def read(path: Path) -> Film | None:
    """What is in a file, or None if it does not open."""
    asked = ["-show_streams", "-show_format", "-show_chapters", "-show_packets", "-show_data_hash", "CRC32"]
    found = _ask(path, asked)
    if "format" not in found:
        return None
    pieces: dict[int, list[Piece]] = {}
    ticks = {each["index"]: Fraction(each["time_base"]) for each in found.get("streams", [])}
    for packet in found.get("packets", []):
        index = packet["stream_index"]
        pieces.setdefault(index, []).append(_piece(packet, ticks.get(index, Fraction(1))))
    return Film(
        path=path,
        container=found["format"]["format_name"],
        tags={key.lower(): value for key, value in found["format"].get("tags", {}).items()},
        chapters=tuple(_chapter(each) for each in found.get("chapters", [])),
        tracks=tuple(
            Track(
                index=each["index"],
                kind=each.get("codec_type", "unknown"),
                codec=each.get("codec_name", "unknown"),
                tick=Fraction(each["time_base"]),
                raw=each,
                pieces=tuple(pieces.get(each["index"], ())),
            )
            for each in found.get("streams", [])
        ),
    )


def bits(pixels: str) -> int:
    """Bits of a sample of a pixel format, by its name."""
    found = _DEEP.search(pixels)
    if found is None:
        return 8
    return int(found[1]) if found[1] else 16


def _chapter(each: dict[str, Any]) -> tuple[str, Fraction, Fraction]:
    """Title, begin and end of a chapter."""
    tick = Fraction(each["time_base"])
    return each.get("tags", {}).get("title", ""), each["start"] * tick, each["end"] * tick


def _piece(packet: dict[str, Any], tick: Fraction) -> Piece:
    """One packet; one without a time is shown when it is decoded."""
    ticks = packet.get("pts", packet.get("dts", 0))
    return Piece(ticks * tick, packet.get("duration", 0) * tick, f"{packet['size']} {packet.get('data_hash')}")


def _frames(path: Path, video: Track, limit: int | None) -> tuple[Shown, ...]:
    """The frames of one stream; one without a time follows the frame before it."""
    wanted = "frame=best_effort_timestamp,pkt_duration,duration,width,height,pix_fmt,interlaced_frame"
    wanted += ":frame_side_data=rotation"
    asked = ["-threads", "1", "-select_streams", str(video.index), "-show_frames", "-show_entries", wanted]
    asked += [] if limit is None else ["-read_intervals", f"%+#{limit + _REORDERED}"]
    shown: list[Shown] = []
    for frame in _ask(path, asked).get("frames", []):
        ticks, lasts = frame.get("best_effort_timestamp"), frame.get("pkt_duration", frame.get("duration"))
        duration = None if lasts is None else lasts * video.tick
        if ticks is None:
            time = shown[-1].time + (shown[-1].duration or 0) if shown else Fraction(0)
        else:
            time = ticks * video.tick
        size, turned = (frame["width"], frame["height"]), _turned(frame.get("side_data_list", []))
        shown.append(Shown(time, duration, size, frame["pix_fmt"], bool(frame["interlaced_frame"]), turned))
    return tuple(shown[:limit])


def _turned(sides: list[dict[str, Any]]) -> int:
    """Degrees clockwise, from 0 to 270, by a display matrix among side data."""
    return -round(next((side["rotation"] for side in sides if "rotation" in side), 0)) % 360


def _ask(path: Path, asked: list[str]) -> dict[str, Any]:
    """Runs ffprobe; what it cannot answer is missing from the answer."""
    command = ["ffprobe", "-v", "error", "-of", "json", *asked, _name(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_PATIENCE)
    answer: dict[str, Any] = json.loads(done.stdout or b"{}")
    return answer


def _name(path: Path) -> str:
    """A path that is never taken for an option or a protocol, nor for a pattern of names."""
    return f"file:{path.absolute()}"


def _area(track: Track) -> int:
    """Pixels of a picture."""
    return int(track.raw.get("width", 0)) * int(track.raw.get("height", 0))
