"""Any footage for a training: films on disk become shots, and shots give frames and clips.

The frames are decoded once and lie on disk as they are drawn from: a film's index (times, cuts) as JSON, and its
reduced frames as one uint8 array in a ``.npy`` file that is mapped into memory, so that all workers share it. Both are
named by what they depend on, are written under another name first, and are made anew if they do not read. Nothing
deletes old entries: the folder may be emptied at any time while no training runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streamgan.api import SinkError, SourceError, UsageError
from streamgan_training.frames import film as films
from streamgan_training.frames import shots
from streamgan_training.frames.film import FRAMES_PER_SECOND, Film, Warn
from streamgan_training.frames.shots import Index

_VERSION = 1
_MICROSECONDS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How frames are taken from films."""

    short_side: int = 360
    """Larger frames are reduced to this (antialiased), in pixels."""
    length: int = 1
    """Frames of a clip."""
    stride_seconds: float | None = None
    """Time between two frames of a clip; None for the film's own next frame."""
    gigabytes: float = 8.0
    """Frames of all films of one call on disk, at most; of more, clips are taken that are spread evenly over each."""
    frames_per_second: float = float(FRAMES_PER_SECOND)
    """Of folders of numbered frames."""

    def __post_init__(self) -> None:
        """Raises UsageError for numbers that make no sense."""
        stride = self.stride_seconds
        for name, value, right in (
            ("short_side", self.short_side, self.short_side >= 1),
            ("length", self.length, self.length >= 1),
            ("stride_seconds", stride, stride is None or 0 < stride < math.inf),
            ("gigabytes", self.gigabytes, self.gigabytes > 0),
            ("frames_per_second", self.frames_per_second, 0 < self.frames_per_second < math.inf),
        ):
            if not right:
                raise UsageError(f"{name}: {value} given, expected a number above 0")


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """The frames of a film that lie on disk."""

    film: Film
    identity: str
    """Of the film's files: changes when they do."""
    index: Index
    rows: npt.NDArray[np.int64]
    """``(N,)`` where each of the film's frames lies in `pixels`, or -1."""
    file: Path
    """The ``.npy`` file."""
    sampling: Sampling

    @functools.cached_property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """``(M, 3, H, W)`` uint8 RGB, mapped from the file, read-only."""
        return np.asanyarray(np.load(self.file, mmap_mode="r"), np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the mapping behind: another process opens the file itself."""
        return {name: value for name, value in self.__dict__.items() if name != "pixels"}


@dataclasses.dataclass(frozen=True, eq=False)
class Shot:
    """One shot of a film: frames without a cut between them, numbered from 0."""

    stored: Stored
    number: int
    """Of the shot within its film, from 0."""
    frames: range
    """The numbers of its frames within the film."""

    @property
    def video(self) -> str:
        """Name of the film: splits are made by it, never by frame."""
        return self.stored.film.name

    @property
    def name(self) -> str:
        """Film and shot, such as ``drive_s0003``."""
        return f"{self.video}_s{self.number:04d}"

    @property
    def kept(self) -> list[int]:
        """The frames of this shot that can be read, growing; all unless the limit in gigabytes was reached."""
        return [index for index, frame in enumerate(self.frames) if self.stored.rows[frame] >= 0]

    def __len__(self) -> int:
        """How many frames it has, kept or not."""
        return len(self.frames)

    def seconds(self, index: int) -> Fraction:
        """When a frame is shown, from the film's beginning."""
        return Fraction(int(self.stored.index.times[self.frames[index]]), _MICROSECONDS)

    def key(self, index: int) -> str:
        """A name for one frame's pixels, for caches of what is made from them: the same in every run.

        It changes with the film's files and with the short side, not with what else is kept of the film.
        """
        return f"{self.stored.identity}-{self.stored.sampling.short_side}-{self.frames[index]:07d}"

    def frame(self, index: int) -> Tensor:
        """One frame, reduced: ``(3, H, W)`` uint8 RGB, a copy.

        Raises:
            IndexError: if it is not in `kept`.
        """
        row = self.stored.rows[self.frames[index]]
        if row < 0:
            raise IndexError(f"{self.name}: frame {index} was not kept; see Shot.kept")
        return torch.from_numpy(np.array(self.stored.pixels[row]))

    def clips(self, length: int, stride_seconds: float | None = None) -> list[tuple[int, ...]]:
        """Every clip of which all frames are kept, one for each frame it may begin with.

        Where the limit in gigabytes was reached, only clips of the `Sampling`'s length and stride are kept for sure.

        Args:
            length: frames of a clip.
            stride_seconds: time between two of them; None for the next frame. Each is the frame nearest to its time,
                and no further from it than half the stride: across a longer gap there is no clip. A stride shorter than
                the usual step from frame to frame means the next frame.

        Returns:
            Numbers of frames, growing.
        """
        every = clip_frames(self.stored.index.times[self.frames.start : self.frames.stop], length, stride_seconds)
        whole = (self.stored.rows[every + self.frames.start] >= 0).all(1)
        return [tuple(row) for row in every[whole].tolist()]


def clip_frames(times: npt.NDArray[np.int64], length: int, stride_seconds: float | None) -> npt.NDArray[np.int64]:
    """The frames of every clip of a shot: ``(clips, length)``; see `Shot.clips`.

    Args:
        times: ``(N,)`` of the shot's frames, in microseconds, growing.
        length: frames of a clip.
        stride_seconds: time between them; None for the next frame.
    """
    first = np.arange(len(times))[:, None]  # (N, 1)
    steps = np.arange(length)  # (length,)
    stride = 0 if stride_seconds is None else round(stride_seconds * _MICROSECONDS)
    usual = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    if not usual or stride <= usual:
        every = first + steps
        return every[every[:, -1] < len(times)]
    wanted = times[:, None] + stride * steps  # (N, length)
    after = np.searchsorted(times, wanted).clip(1, len(times) - 1)
    nearest = np.where(wanted - times[after - 1] <= times[after] - wanted, after - 1, after)
    close = (np.abs(times[nearest] - wanted) * 2 <= stride) & (wanted * 2 <= times[-1] * 2 + usual)
    growing = (np.diff(nearest, axis=1) > 0).all(1)
    chosen: npt.NDArray[np.int64] = nearest[close.all(1) & growing]
    return chosen


def choose_frames(index: Index, sampling: Sampling, limit: int) -> npt.NDArray[np.int64]:
    """The frames of a film that are kept, growing: all, or those of clips that are spread evenly over the film.

    Args:
        index: of the film.
        sampling: the clips.
        limit: how many frames, at most; a single clip may exceed it.
    """
    count = len(index.times)
    if count <= limit:
        return np.arange(count)
    clips = [
        clip_frames(index.times[shot.start : shot.stop], sampling.length, sampling.stride_seconds) + shot.start
        for shot in index.shots
    ]
    every = np.concatenate(clips)
    if not len(every):  # no shot is long enough for a clip: single frames
        every = np.arange(count)[:, None]
    takes = min(len(every), max(1, limit // every.shape[1]))
    return np.unique(every[_spread(len(every), takes)])


def _spread(count: int, takes: int) -> npt.NDArray[np.int64]:
    """`takes` of the numbers below `count`, evenly, each from the middle of its part."""
    return (np.arange(takes) * 2 + 1) * count // (2 * takes)


def open_footage(path: Path, sampling: Sampling, warn: Warn, cache: Path | None = None) -> list[Shot]:
    """The shots of a video file, or of the films and numbered frames in a folder; decodes what is not in the cache yet.

    Args:
        path: what to open.
        sampling: what is taken of it.
        warn: is told what was skipped.
        cache: folder for decoded frames; None for `cache_folder`.

    Raises:
        SourceError: if nothing of it can be read.
        UsageError: if a folder holds no film.
        SinkError: if the cache cannot be written.
    """
    folder = cache or cache_folder()
    found = films.find_films(path, warn)
    indexed = films.each_readable(found, lambda one: (one, film_index(one, sampling, warn, folder)), warn)
    wanted = sum(len(index.times) * _frame_bytes(index, sampling) for _, index in indexed)
    share = min(1.0, sampling.gigabytes * 1e9 / wanted)
    chosen = {
        one: (index, choose_frames(index, sampling, math.floor(len(index.times) * share + 1e-9)))
        for one, index in indexed
    }
    opened = films.each_readable(list(chosen), lambda one: stored_shots(one, *chosen[one], sampling, folder), warn)
    return [shot for of_one in opened for shot in of_one]


def stored_shots(film: Film, index: Index, keep: npt.NDArray[np.int64], sampling: Sampling, folder: Path) -> list[Shot]:
    """The shots of one film with their frames on disk.

    Raises:
        SourceError: if the film's frames cannot be read again.
        SinkError: if the cache cannot be written.
    """
    identity = film_identity(film, sampling)
    picked = hashlib.sha256(keep.tobytes()).hexdigest()[:12]
    file = folder / f"{film.name[:60]}-{identity}-{sampling.short_side}-{picked}.npy"
    width, height = films.reduced_size(index.size, sampling.short_side)
    shape = (len(keep), 3, height, width)
    if not _is_whole(file, shape):
        pictures = films.read_film(film, lambda _: None, Fraction(sampling.frames_per_second))
        wanted = set(keep.tolist())
        chosen = (picture.render() for number, picture in enumerate(pictures) if number in wanted)
        planes = (films.reduced(image, sampling.short_side).transpose(2, 0, 1) for image in chosen)
        _write(file, lambda out: _write_planes(out, planes, shape, film))
    rows = np.full(len(index.times), -1, np.int64)
    rows[keep] = np.arange(len(keep))
    stored = Stored(film, identity, index, rows, file, sampling)
    every = [Shot(stored, number, frames) for number, frames in enumerate(index.shots)]
    return [shot for shot in every if (rows[shot.frames.start : shot.frames.stop] >= 0).any()]


def cache_folder() -> Path:
    """Where decoded frames lie: ``frames`` in the folder that STREAMGAN_CACHE names, or in ``~/.cache/streamgan``."""
    base = os.environ.get("STREAMGAN_CACHE")
    return (Path(base).expanduser() if base else Path.home() / ".cache" / "streamgan") / "frames"


def film_identity(film: Film, sampling: Sampling) -> str:
    """A digest of which files a film is: their paths, sizes and times of change; 20 hexadecimal digits."""
    rate = sampling.frames_per_second if film.numbers else None
    facts: list[Any] = [_VERSION, rate]
    for file in film.files:
        try:
            state = file.stat()
        except OSError as error:
            raise SourceError(f"{file}: cannot be read ({error.strerror})") from None
        facts.append((str(file.resolve()), state.st_size, state.st_mtime_ns))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


def film_index(film: Film, sampling: Sampling, warn: Warn, folder: Path) -> Index:
    """The index of a film, from the cache if it is there.

    Raises:
        SourceError: if the film cannot be read.
        SinkError: if the cache cannot be written.
    """
    file = folder / f"{film.name[:60]}-{film_identity(film, sampling)}.json"
    kept = _read_index(file)
    if kept is not None:
        return kept
    index = shots.index_film(films.read_film(film, warn, Fraction(sampling.frames_per_second)))
    plain = {
        "times": index.times.tolist(),
        "starts": index.starts,
        "sharpness": [round(float(value), 3) for value in index.sharpness],
        "size": index.size,
    }
    _write(file, lambda out: out.write(json.dumps(plain).encode()))
    return index


def _read_index(file: Path) -> Index | None:
    """An index in the cache; None if there is none that reads."""
    try:
        plain = json.loads(file.read_bytes())
        times, starts = np.asarray(plain["times"], np.int64), tuple(int(start) for start in plain["starts"])
        sharp = np.asarray(plain["sharpness"], np.float32)
        width, height = (int(side) for side in plain["size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    right = len(times) == len(sharp) > 0 and starts[:1] == (0,) and starts[-1] < len(times)
    return Index(times, starts, sharp, (width, height)) if right else None


def _frame_bytes(index: Index, sampling: Sampling) -> int:
    """Bytes of one reduced frame."""
    width, height = films.reduced_size(index.size, sampling.short_side)
    return 3 * width * height


def _is_whole(file: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file holds an array of uint8 of this shape, to its last byte."""
    try:
        pixels = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    whole = file.stat().st_size == pixels.offset + pixels.nbytes
    return bool(pixels.dtype == np.uint8 and pixels.shape == shape and whole)


def _write_planes(out: IO[bytes], planes: Iterator[npt.NDArray[np.uint8]], shape: tuple[int, ...], film: Film) -> None:
    """Writes frames one by one as one array: through a file, since a full disk ends a process that writes to a mapping.

    Raises:
        SourceError: if there are not as many frames as there were.
    """
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    count = 0
    for plane in planes:
        out.write(np.ascontiguousarray(plane).tobytes())
        count += 1
    if count != shape[0]:
        raise SourceError(f"{film.location}: gave {count} of the {shape[0]} frames it gave before; did it change?")


def _write(file: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file of the cache so that it is whole or not there.

    Raises:
        SinkError: if it cannot be written.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except SourceError:
        raise
    except OSError as error:
        where = f"{file.parent}: the cache of frames cannot be written ({error.strerror})"
        raise SinkError(f"{where}; make room, or name another folder in the variable STREAMGAN_CACHE") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
