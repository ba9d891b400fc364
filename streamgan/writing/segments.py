"""What an interrupted run leaves behind: closed segments of encoded video in a hidden folder beside the output.

A segment holds the packets of some hundred frames as a fresh encoder gave them, so it begins with a key frame and needs
nothing of any other: the film is the same packet for packet whether it was made in one go or in ten. A manifest lists
the segments that are whole, with their hashes, under the fingerprint of all that shapes the video. Both are on the disk
(fsync) before a segment counts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias, cast

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import filelock
from av.packet import Packet
from av.video.stream import VideoStream

from streamgan import settings
from streamgan.api import SinkError, UsageError

LENGTH = 250
"""Frames of a segment unless the user says otherwise: as many as libx264 puts between two key frames anyway."""
FORMAT = 1
VideoPacket: TypeAlias = "Packet[VideoStream]"
_MANIFEST, _LOCK = "manifest.json", "lock"
_NAME = re.compile("[0-9]{6,}")
_HEADER = struct.Struct("<qqqqq?I")
"""Before each packet: pts, dts, duration, numerator and denominator of the time base, whether a key frame, bytes."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """A part of the video that is whole."""

    file: str
    """Name within the folder."""
    frames: int
    end: int
    """When its last frame ends, in ticks of the output."""
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The segments that are whole, in order, and what they are of."""

    fingerprint: str
    """Of all that shapes the video; see `streamgan.fingerprint`."""
    width: int = 0
    height: int = 0
    origin: int = 0
    """The source's time that is 0 in the output, in ticks."""
    segments: tuple[Segment, ...] = ()

    @property
    def frames(self) -> int:
        """Frames of all segments."""
        return sum(segment.frames for segment in self.segments)


@dataclasses.dataclass(frozen=True)
class Part:
    """A range of a film's frames, for one of several machines that make it together (see `streamgan.parallel`)."""

    first: int
    """Number of its first frame in the film."""
    frames: int | None
    """How many frames it has; None for all that follow."""
    origin: int
    """The source's time that is 0 in the output, in ticks."""

    def output(self, whole: str) -> Path:
        """The name beside whose place its segments are kept, for the name of the whole film."""
        return Path(f"{whole}.{self.first:09d}")


class Parts:
    """The hidden folder of one output, held by one run at a time."""

    def __init__(
        self, output: Path, fingerprint: str, resume: bool = False, length: int = LENGTH, at_cuts: bool = False
    ) -> None:
        """Takes the folder.

        Args:
            output: the file that is being made.
            fingerprint: of all that shapes the video.
            resume: whether to take over what an earlier run with the same fingerprint has left; else it is removed.
            length: frames of a segment.
            at_cuts: whether a segment may only end where a new shot begins, since the translator has memory.

        Raises:
            SinkError: if another run holds it, or it cannot be made.
        """
        self.length, self.at_cuts = length, at_cuts
        self._folder = folder_of(output)
        try:
            self._folder.mkdir(exist_ok=True)
            self._lock = filelock.FileLock(self._folder / _LOCK, timeout=0)
            self._lock.acquire()
        except filelock.Timeout:
            raise SinkError(f"{output}: another run is making it now; use -o for another name") from None
        except OSError as error:
            raise SinkError(f"{output}: cannot be written ({error.strerror or error})") from None
        found = read_manifest(self._folder)
        usable = resume and found is not None and found.fingerprint == fingerprint
        self.manifest = _intact(self._folder, found) if found is not None and usable else Manifest(fingerprint)
        self._remove_others()

    def partial(self, output: Path) -> Path:
        """Where to write the output until it is complete: nothing of it stays if the run is killed and begun again."""
        return self._folder / f"whole{output.suffix}"

    def begin(self, width: int, height: int, origin: int) -> None:
        """Says what the frames of the first segment are like, before the first `add`."""
        self.manifest = dataclasses.replace(self.manifest, width=width, height=height, origin=origin)

    def add(self, packets: Sequence[VideoPacket], frames: int, end: int) -> None:
        """Keeps a whole segment for good.

        Args:
            packets: all that the encoder gave for it, in order.
            frames: how many frames they hold.
            end: when the last of them ends, in ticks.

        Raises:
            OSError: as on a full disk; those before are kept.
        """
        name, content = f"{len(self.manifest.segments):06d}", dumped(packets)
        _write(self._folder / name, content)
        segment = Segment(name, frames, end, hashlib.sha256(content).hexdigest())
        self._list(dataclasses.replace(self.manifest, segments=(*self.manifest.segments, segment)))

    def adopt(self, other: Parts) -> None:
        """Appends the segments of another folder, which is empty then: those of another machine.

        Raises:
            OSError: if a file cannot be moved.
        """
        segments = list(self.manifest.segments)
        for segment in other.manifest.segments:
            name = f"{len(segments):06d}"
            os.replace(other._folder / segment.file, self._folder / name)
            segments.append(dataclasses.replace(segment, file=name))
        first = self.manifest if self.manifest.segments else other.manifest
        self._list(
            dataclasses.replace(
                self.manifest,
                width=first.width,
                height=first.height,
                origin=first.origin,
                segments=tuple(segments),
            )
        )

    def read(self) -> Iterator[tuple[Segment, list[VideoPacket]]]:
        """The segments that are whole, with their packets.

        Raises:
            OSError: if one cannot be read any more.
        """
        for segment in self.manifest.segments:
            yield segment, list(loaded((self._folder / segment.file).read_bytes()))

    def release(self, done: bool) -> None:
        """Gives the folder back; removes it if the output is `done`, or if nothing in it is worth keeping."""
        self._lock.release()
        if done or not self.manifest.segments:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _list(self, manifest: Manifest) -> None:
        """Replaces the manifest, also on the disk, at once and whole."""
        text = json.dumps({"format": FORMAT} | dataclasses.asdict(manifest), indent=1)
        _write(self._folder / f"{_MANIFEST}.new", text.encode())
        os.replace(self._folder / f"{_MANIFEST}.new", self._folder / _MANIFEST)
        self.manifest = manifest

    def _remove_others(self) -> None:
        """Removes what is of no other run, or of a segment that was not finished."""
        kept = {_LOCK, _MANIFEST, *(segment.file for segment in self.manifest.segments)}
        for path in self._folder.iterdir():
            if path.name not in kept or (path.name == _MANIFEST and not self.manifest.segments):
                path.unlink(missing_ok=True)


def folder_of(output: Path) -> Path:
    """The hidden folder beside an output; the same for the same name."""
    name = output.name if len(output.name.encode()) < 200 else hashlib.sha256(output.name.encode()).hexdigest()
    return output.with_name(f".{name}.parts")


def refuse_leftover(output: Path, fingerprint: str, resume: bool, overwrite: bool) -> None:
    """Refuses to throw away what an interrupted run has made, unless the user says so.

    Raises:
        UsageError: if there is such a thing and neither `resume` nor `overwrite` is given, or it was made with other
            settings.
    """
    found = read_manifest(folder_of(output))
    if found is None or not found.segments or overwrite:
        return
    have = f"{output}: an interrupted run has made {found.frames} frames of it"
    if found.fingerprint != fingerprint:
        raise UsageError(f"{have}, from another input or with other settings; use --overwrite to begin anew, or -o")
    if not resume:
        raise UsageError(f"{have}; use --resume to go on from there, or --overwrite to begin anew")


def read_manifest(folder: Path) -> Manifest | None:
    """What an interrupted run has left in a folder; None if nothing that can be used."""
    try:
        content = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            return None
        manifest = settings.parse(Manifest, content, _MANIFEST)
    except (OSError, ValueError, RecursionError):  # not there, not JSON, or not what a manifest holds
        return None
    return manifest if all(_NAME.fullmatch(segment.file) for segment in manifest.segments) else None


def _intact(folder: Path, manifest: Manifest) -> Manifest:
    """A manifest up to the first segment that is not as it was written, as after a power cut."""
    whole = []
    for segment in manifest.segments:
        try:
            content = (folder / segment.file).read_bytes()
        except OSError:
            break
        if hashlib.sha256(content).hexdigest() != segment.sha256:
            break
        whole.append(segment)
    return dataclasses.replace(manifest, segments=tuple(whole))


def _write(path: Path, content: bytes) -> None:
    """Writes a file, and returns when it is on the disk; nothing of it stays there if that cannot be."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def dumped(packets: Iterable[VideoPacket]) -> bytes:
    """Packets as bytes, each after its header."""
    pieces = []
    for packet in packets:
        times = (packet.pts or 0, packet.dts or 0, packet.duration or 0, *packet.time_base.as_integer_ratio())
        pieces += [_HEADER.pack(*times, packet.is_keyframe, packet.size), bytes(packet)]
    return b"".join(pieces)


def loaded(content: bytes) -> Iterator[VideoPacket]:
    """The packets of `dumped`; they hold on to no encoder."""
    at = 0
    while at < len(content):
        *times, numerator, denominator, key, size = _HEADER.unpack_from(content, at)
        at += _HEADER.size
        packet = cast("VideoPacket", Packet(content[at : at + size]))
        packet.pts, packet.dts, packet.duration = times
        packet.time_base, packet.is_keyframe = Fraction(numerator, denominator), key
        at += size
        yield packet
