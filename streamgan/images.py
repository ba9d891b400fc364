"""Images in and out: one file, a folder, a pattern of names; each is a frame."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from streamgan.api import (
    Encoding,
    Frame,
    Selection,
    Sink,
    SinkError,
    Source,
    SourceError,
    UsageError,
    VideoInfo,
    hookimpl,
)
from streamgan.frames import imagefile
from streamgan.frames.convert import fitted, over_white
from streamgan.frames.imagefile import SRGB, Still
from streamgan.frames.imagenames import (
    ENDINGS,
    GREY,
    NUMBER,
    find,
    first_name,
    is_pattern,
    names,
    none_there,
    split_rate,
)
from streamgan.writing import outputs

_WHOLE, _DEFAULT = Selection(), Encoding()
_MILLISECOND = Fraction(1, 1000)


class ImageFiles(Source):
    """One image, the images of a folder, or those that a pattern names, in the order of the numbers in their names.

    A pattern has ``*``, ``?`` or ``[…]``, or ``%06d`` for a number. With ``@RATE`` at the end of the location, such as
    ``shots/@30`` or ``shots/*.png@30000/1001``, the images follow each other at that rate instead of 25 a second. One
    animated WebP is a film with the times of its frames.

    All have one size. The orientation of a camera (EXIF) is applied. If the first image is transparent anywhere, all
    carry their alpha, else later ones are shown over white with a note; 16 bits are kept. A colour profile is not
    applied: the numbers are taken as sRGB.
    """

    def __init__(self, location: str, selection: Selection = _WHOLE) -> None:
        """Finds the images, and decodes none yet.

        Raises:
            SourceError: if there are none, or none within the selection.
        """
        self._notes: dict[str, int] = {}
        where, self._rate = split_rate(location)
        self._paths, self._selection, self._tick = find(where), selection, 1 / self._rate
        lengths = [1] * len(self._paths)
        self._moving = len(self._paths) == 1 and _is_animated(self._paths[0])
        if self._moving:
            lengths, self._tick = imagefile.durations(self._paths[0]), _MILLISECOND
        self._shown = _chosen(lengths, self._tick, selection)
        if not self._shown:
            raise SourceError(none_there(location, where, self._tick * sum(lengths)))
        self._first: Still | None = None

    @classmethod
    def accepts(cls, location: str) -> bool:
        """A name with the ending of an image, a folder, or a pattern that can name images."""
        if "://" in location or location.isdecimal():
            return False
        where, _ = split_rate(location)
        if os.path.isdir(where):
            return True
        ending = os.path.splitext(where)[1].lower()
        return ending in ENDINGS or (is_pattern(where) and (not ending or glob.has_magic(ending)))

    @property
    def notes(self) -> list[str]:  # type: ignore[override]
        """What was done to the images beside decoding, and to how many."""
        return [f"{count} image{'s' if count > 1 else ''}: {what}" for what, count in self._notes.items()]

    @property
    def info(self) -> VideoInfo:
        """Size, rate and number; decodes the first image.

        Raises:
            SourceError: if it cannot be decoded.
        """
        if self._first is None:
            self._stills = self._decoded()
            self._first = next(self._stills)
        height, width = self._first.image.shape[:2]
        count, kind = len(self._shown), self._paths[0].suffix[1:].lower()
        rate = self._rate / self._selection.every
        if self._moving:
            rate = count / (sum(length for _, _, length in self._shown) * self._tick)
        many = f"{count} {kind} images {width}x{height} at {float(rate):.4g} fps"
        return VideoInfo(
            width,
            height,
            self._tick,
            rate,
            count,
            color=SRGB,
            bits=8 if self._first.fine is None else 16,
            alpha=self._first.alpha is not None,
            description=f"{kind} image {width}x{height}" if count == 1 else many,
        )

    def frames(self) -> Iterator[Frame]:
        """Yields every image once, decoded when it is asked for.

        Raises:
            SourceError: if one cannot be decoded, or is not of the first one's size.
        """
        info, first = self.info, self._first
        stills, self._first = self._stills, None
        assert first is not None, "info decodes it"
        for (number, pts, length), still in zip(self._shown, itertools.chain([first], stills), strict=False):
            height, width = still.image.shape[:2]
            if (width, height) != (info.width, info.height):
                expected = f"{info.width}x{info.height} expected, the size of {self._paths[0].name}"
                given = f"{self._paths[number]}: {width}x{height} pixels"
                raise SourceError(f"{given}, {expected}; bring all images to one size first")
            frame = Frame(still.image, pts, self._tick, length, alpha=still.alpha, fine=still.fine)
            yield self._made_alike(frame, info)

    def close(self) -> None:
        """Forgets the first image."""
        self._first = None

    def _decoded(self) -> Iterator[Still]:
        """The images that are wanted, in order."""
        if not self._moving:
            yield from (imagefile.read_image(self._paths[number]) for number, _, _ in self._shown)
            return
        wanted = {number for number, _, _ in self._shown}
        for number, still in enumerate(imagefile.animated_frames(self._paths[0])):
            if number in wanted:
                yield still

    def _made_alike(self, frame: Frame, info: VideoInfo) -> Frame:
        """A frame with an alpha and a fine part if the first one has them; counts what is lost by that."""
        if info.alpha and frame.alpha is None:
            return dataclasses.replace(frame, alpha=np.full(frame.image.shape[:2], 255, np.uint8))
        if frame.alpha is not None and not info.alpha:
            self._count("transparent pixels are shown over white, since the first image has none")
            frame = over_white(frame)
        if frame.fine is not None and info.bits == 8:
            self._count("16 bits were rounded to 8, since the first image has 8")
            frame = dataclasses.replace(frame, fine=None)
        return frame

    def _count(self, what: str) -> None:
        """Notes what was done to an image."""
        self._notes[what] = self._notes.get(what, 0) + 1


def _is_animated(path: Path) -> bool:
    """Whether a file is an animated WebP; what cannot be read is said later."""
    try:
        with path.open("rb") as file:
            return imagefile.is_animated(file.read(21))
    except OSError:
        return False


def _chosen(lengths: list[int], tick: Fraction, selection: Selection) -> list[tuple[int, int, int]]:
    """The images of a selection: number, time and duration, both in ticks; each lasts until the next one taken."""
    start, end = selection.start or 0, selection.end
    begins = [0, *itertools.accumulate(lengths)]
    within = [n for n in range(len(lengths)) if start <= begins[n] * tick and (end is None or begins[n] * tick < end)]
    taken = within[:: selection.every][: selection.frames]
    stops = [begins[number] for number in within[:: selection.every][1:]] + [begins[within[-1] + 1]] if within else []
    return [(number, begins[number], stop - begins[number]) for number, stop in zip(taken, stops, strict=False)]


class ImageSink(Sink):
    """Writes ``night.png``, one image; or a sequence, ``out/%06d.png`` or ``out/``, numbered from 1.

    Transparency and 16 bits are kept by the kinds of file that have them; camera data (EXIF) and colour profile (ICC)
    if one image is made of one.

    An image appears whole. A sequence appears when all of its images are there: its folder is renamed into place if it
    was not there before, else the images are moved into it. Images have no times: those of the film are lost.
    """

    def __init__(self, location: str, encoding: Encoding = _DEFAULT) -> None:
        """Checks all that can be checked before a frame is there.

        Raises:
            UsageError: if an output exists and may not be replaced, or is the input.
            SinkError: if the folder does not take files.
        """
        self.notes: list[str] = []
        self._path = first_name(location)
        if self._path.suffix.lower() in GREY:
            raise UsageError(f"{location}: may hold grey only; use a name that ends in .ppm or .png")
        self._numbered, self._overwrite = bool(NUMBER.search(self._path.name)), encoding.overwrite
        self._keeps_alpha, self._bits = encoding.alpha == "keep", 8
        source = Path(encoding.copy_from or "")
        self._tags = {} if self._numbered or source.suffix.lower() not in ENDINGS else imagefile.read_tags(source)
        if NUMBER.search(str(self._path.parent)) or len(NUMBER.findall(self._path.name)) > 1:
            raise UsageError(f"{location}: one number may be in the name, none in that of its folder; use OUT/%06d.png")
        self._fresh = self._numbered and not os.path.exists(self._path.parent)
        if not self._numbered:
            outputs.check_target(self._path, encoding)
        elif self._fresh:
            outputs.check_folder(self._path.parent.parent, self._path.parent)
        else:
            outputs.check_folder(self._path.parent, self._path)
            self._check_free()
        if encoding.crf is not None or encoding.preset is not None:
            self.notes.append("--crf and --encoder-preset have no meaning for images")
        self._partial: Path | None = None
        self._count = 0

    @classmethod
    def accepts(cls, location: str) -> bool:
        """A name that ends as an image's or in ``/``; a single ``.webp`` may be an animation and is none of these."""
        if "://" in location:
            return False
        path = Path(location)
        single_webp = path.suffix.lower() == ".webp" and not NUMBER.search(path.name)
        return location.endswith("/") or (path.suffix.lower() in ENDINGS and not single_webp)

    def open(self, info: VideoInfo) -> None:
        """Makes the hidden folder that the images wait in.

        Raises:
            UsageError: if the film is transparent, which this kind of image cannot be, and that is to be kept.
            SinkError: if it cannot be made.
        """
        if info.sample_aspect_ratio != 1:
            self.notes.append(f"pixels of {info.sample_aspect_ratio} were kept, which images show as squares")
        self._check_samples(info)
        self._partial = outputs.partial_name(self._path.parent if self._fresh else self._path.parent / "images")
        with self._failures():
            self._partial.mkdir()

    def _check_samples(self, info: VideoInfo) -> None:
        """Decides on transparency and depth, by what the kind of file can hold."""
        kind = self._path.suffix.lower()
        if info.alpha and self._keeps_alpha and kind not in imagefile.TRANSPARENT:
            able = ", ".join(imagefile.TRANSPARENT)
            fault = f"the input is transparent, which {kind[1:]} cannot hold"
            raise UsageError(f"{self._path}: {fault}; use {able}, or --alpha drop to show it over white")
        if info.alpha and not self._keeps_alpha:
            self.notes.append("transparency was left out: shown over white")
        if self._tags and kind not in imagefile.TAGGED:
            self.notes.append(f"camera data and colour profile were left out: {kind[1:]} cannot hold them")
        self._bits = info.bits
        if info.bits > 8 and kind not in imagefile.DEEP:
            self.notes.append(f"{info.bits} bits were rounded to 8: {kind[1:]} holds no more")

    def write(self, frame: Frame) -> None:
        """Encodes one image.

        Raises:
            UsageError: if more than one frame comes, and the name has no place for a number.
            SinkError: if it cannot be written, as on a full disk.
        """
        assert self._partial is not None, "open comes before write"
        self._count += 1
        if self._count > 1 and not self._numbered:
            numbered = self._path.with_name(f"{self._path.stem}-%06d{self._path.suffix}")
            raise UsageError(f"{self._path}: holds one image, but more frames come; use -o {numbered}, or --end")
        frame = fitted(frame) if self._keeps_alpha else over_white(frame)
        with self._failures():
            encoded = imagefile.encode_image(frame, self._path.suffix, self._bits, self._tags)
            (self._partial / self._name(self._count)).write_bytes(encoded)

    def close(self) -> None:
        """Gives the images their names.

        Raises:
            SinkError: if they cannot have them; nothing is left behind then.
        """
        try:
            if self._partial is not None:
                with self._failures():
                    self._publish(self._partial)
        finally:
            self.abort()

    def abort(self) -> None:
        """Leaves nothing behind."""
        partial, self._partial = self._partial, None
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)

    def _publish(self, partial: Path) -> None:
        """The folder by one rename, or else each image; those already there are taken back if one cannot be."""
        if self._fresh and not self._path.parent.exists():
            partial.rename(self._path.parent)
            self._partial = None
            return
        placed: list[Path] = []
        try:
            for number in range(1, self._count + 1):
                target = self._path.with_name(self._name(number))
                outputs.publish(partial / target.name, target, self._overwrite)
                placed.append(target)
        except OSError:
            for target in placed if not self._overwrite else []:
                target.unlink(missing_ok=True)
            raise
        if self._numbered and (older := self._present() - {path.name for path in placed}):
            self.notes.append(f"{len(older)} images of an earlier sequence are still there, up to {max(older)}")

    def _name(self, number: int) -> str:
        """The file name of an image, counted from 1."""
        return NUMBER.sub(lambda match: match[0] % number, self._path.name)

    def _present(self) -> set[str]:
        """Names in the folder that are of the sequence, whatever their number."""
        ours = names(self._path)
        return {name for name in os.listdir(self._path.parent) if ours.fullmatch(name)}

    def _check_free(self) -> None:
        """Refuses a folder that holds such a sequence, unless it may be replaced."""
        if not self._overwrite and (present := self._present()):
            fault = f"images exist already, such as {min(present)}"
            raise UsageError(f"{self._path}: {fault}; use --overwrite to replace them, or -o for another folder")

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turns what cannot be encoded or stored into one line."""
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, SinkError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise SinkError(f"{self._path}: cannot be written ({reason})") from None


def refuse_own_input(location: str, output: str) -> None:
    """Refuses a sequence that would replace the images that it is made from.

    Args:
        location: what is read.
        output: what is written.

    Raises:
        UsageError: if names of the output are those of input images.
    """
    if not (ImageFiles.accepts(location) and ImageSink.accepts(output)):
        return
    path = first_name(output)
    taken = names(path)
    for source in find(split_rate(location)[0]):
        if taken.fullmatch(source.name) and path.parent.is_dir() and path.parent.resolve() == source.parent.resolve():
            raise UsageError(f"{output}: would replace the input {source}; use -o for another folder")


@hookimpl
def register_sources(register: Callable[[str, type[Source]], None]) -> None:
    """Brings images, folders and patterns."""
    register("images", ImageFiles)


@hookimpl
def register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Brings images and sequences of them."""
    register("images", ImageSink)
