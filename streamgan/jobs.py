"""Which films are to be translated, and what each becomes: from names, folders, patterns and manifests to jobs."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from streamgan import images
from streamgan.api import SourceError, UsageError
from streamgan.frames.imagenames import ENDINGS, NUMBER, default_output, made_ending
from streamgan.settings import nearest

FILMS = re.compile(
    r"\.(3g2|3gp|apng|asf|avi|divx|dv|f4v|flv|gif|h26[45]|hevc|ivf|m2ts|m2v|m4v|mjpeg|mkv|mov|mp4|mpe?g|mts|mxf|nut"
    r"|og[mv]|rm|rmvb|ts|vob|webm|wmv|y4m)",
    re.IGNORECASE,
)
"""Endings of the files that are taken for films where a folder is searched; a file that is named needs none of them."""
_KEYS = ("input", "output")
_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")

_Kind: TypeAlias = Literal["film", "image", "images", "other"]


@dataclasses.dataclass(frozen=True)
class Job:
    """One film to translate."""

    input: str
    """Path, URL or device to read."""
    output: str | None = None
    """Path or URL to write; None if it has no name yet, which only `plan.build` can give or refuse."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What `find` found."""

    jobs: tuple[Job, ...]
    """In the order given, those of a folder or pattern sorted; no two write one output."""
    notes: tuple[str, ...] = ()
    """What was left out, one line each."""

    def is_plain(self, output: str | None) -> bool:
        """Whether a single input becomes just what was asked for as `output`, so that nothing else is to be written."""
        return len(self.jobs) == 1 and output in (None, self.jobs[0].output)


@dataclasses.dataclass(frozen=True)
class _Input:
    """A location that becomes one job."""

    location: str
    kind: _Kind
    inside: str = ""
    """The folder that it lies in, relative to the folder that was searched."""


def find(inputs: Iterable[str], output: str | None, look: str, *, ending: str = ".mp4") -> Found:
    """Finds the films that `inputs` stand for, and names what each becomes.

    A folder with films in it, at any depth, stands for these, and its tree is kept below `output`; one with images only
    is a film of images, and so is a pattern that names images only. Any other pattern (``*``, ``?``, ``[…]``, ``**``)
    stands for the files that it names. Neither hidden files are taken, nor what an earlier run made there.

    Args:
        inputs: files, folders and patterns; a URL, a device, ``-`` or a film of images by its pattern only alone.
        output: a folder (it exists, ends in ``/``, or is the output of several inputs); a name with one ``*``, which
            stands for the input's name without its ending; the output itself of a single input; or None for
            ``STEM.LOOK.mp4`` beside each input.
        look: the name of the preset, as `name_of` gives it.
        ending: that of films in a folder or beside the input. Images keep their own.

    Raises:
        UsageError: if two inputs would write one output, or one would replace another; for one output of several
            inputs, or an input that must be alone.
        SourceError: if one of several inputs is not there, or a folder cannot be searched.
    """
    notes: list[str] = []
    named = list(dict.fromkeys(inputs))
    whole = [each for location in named for each in _expand(location, output, look, notes)]
    unique = list({_key(each.location): each for each in reversed(whole)}.values())[::-1]
    if len(named) > 1 or len(unique) > 1:
        for each in unique:
            _check_among(each)
    place = _Place.of(output, look, ending, several=len(unique) > 1)
    return _checked([Job(each.location, place.output_of(each)) for each in unique], output, notes)


def read_manifest(path: Path) -> list[Job]:
    """Reads a list of films.

    Each line of the file is the path or URL of an input, or a JSON object: ``{"input": …, "output": …}``, the output
    optional. Empty lines and those that begin with ``#`` are skipped. Paths are relative to the file's folder.

    Raises:
        UsageError: if it cannot be read, names nothing, or has a line that does not read, with its number.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    texts = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    entries = [_entry(text, f"{path}:{number}") for number, text in texts if text and not text.startswith("#")]
    if not entries:
        raise UsageError(f"{path}: names no film; expected one path a line, or a JSON object with 'input' and 'output'")
    return [Job(*(None if each is None else _beside(path, each) for each in entry)) for entry in entries]  # type: ignore[arg-type]


def find_all(
    inputs: Iterable[str], manifest: Sequence[Job], output: str | None, look: str, *, ending: str = ".mp4"
) -> Found:
    """As `find`, for `inputs` together with what `read_manifest` read: its entries without an output are inputs too."""
    placed = [job for job in manifest if job.output is not None]
    inputs = [*inputs, *(job.input for job in manifest if job.output is None)]
    if not placed:
        return find(inputs, output, look, ending=ending)
    found = find(inputs, output, look, ending=ending) if inputs else Found(())
    return _checked([*found.jobs, *placed], output, list(found.notes))


def shard(jobs: Sequence[Job], number: int, count: int) -> list[Job]:
    """One of `count` parts of the jobs, which together are all of them and share none.

    Bytes are spread evenly: the largest input first, each to the part that has least so far. The parts depend on names
    and sizes of the inputs alone, so every machine that sees the same inputs finds the same parts, however far others
    are.

    Args:
        jobs: all of them, in any order.
        number: which part, from 1 to `count`.
        count: how many parts there are.

    Returns:
        The jobs of the part, the largest first.
    """
    loads, mine = [0] * count, []
    sizes = {job: _bytes(job.input) for job in jobs}
    for job in sorted(jobs, key=lambda job: (-sizes[job], job.input, job.output or "")):
        least = loads.index(min(loads))
        loads[least] += max(1, sizes[job])
        if least == number - 1:
            mine.append(job)
    return mine


def parse_shard(text: str) -> tuple[int, int]:
    """Number and count from ``3/8``; 0 is the last part too, so that counting may begin at 0 or at 1.

    Raises:
        UsageError: if it does not read so, or the number is beyond the count.
    """
    match = _SHARD.fullmatch(text.strip())
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not count or number > count:
        raise UsageError(f"--shard {text}: expected I/N with I from 1 to N (or from 0 to N-1), such as 3/8")
    return number or count, count


def name_of(preset: str) -> str:
    """The look that an output's name tells: the preset's name, or that of its file without the ending."""
    return Path(preset).stem if "/" in preset or "\\" in preset else preset.removesuffix(".yaml").removesuffix(".yml")


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where outputs go."""

    output: str | None
    """As the user gave it; None for beside each input."""
    into: bool
    """Whether `output` is a folder, or a name with a star, into which inputs go under their own names."""
    several: bool
    look: str
    ending: str

    @classmethod
    def of(cls, output: str | None, look: str, ending: str, several: bool) -> _Place:
        """Understands `output`; raises UsageError if several inputs cannot go there."""
        into = output is not None and (output.endswith(("/", os.sep)) or os.path.isdir(output) or _starred(output))
        bare = output is not None and not os.path.splitext(output)[1] and ":" not in output and output != "-"
        if several and output is not None and not into and not bare:
            raise UsageError(
                f"-o {output}: one output for several inputs; name a folder, as -o out/, or -o 'out/*.mp4'"
            )
        return cls(output, into or (several and bare), several, look, ending)

    def output_of(self, each: _Input) -> str | None:
        """What an input becomes."""
        if each.kind == "images":
            return self._of_images(each.location)
        if self.output is None:
            return None if each.kind == "other" else self._beside(each)
        if not self.into or (each.kind == "other" and images.ImageFiles.accepts(each.location)):
            return self.output
        return self._inside(each)

    def _of_images(self, folder: str) -> str:
        """A film of images becomes images."""
        if self.output is None:
            return default_output(folder, self.look)
        if self.several and not _starred(self.output):
            return os.path.join(self.output, os.path.basename(os.path.abspath(folder)), "")
        return self.output.replace("*", os.path.basename(os.path.abspath(folder)))

    def _beside(self, each: _Input) -> str:
        """The name beside the input."""
        stem, own = os.path.splitext(each.location)
        return f"{stem}.{self.look}{made_ending(own) if each.kind == 'image' else self.ending}"

    def _inside(self, each: _Input) -> str:
        """The name in a folder."""
        assert self.output is not None, "into says so"
        name = os.path.basename(urlsplit(each.location).path if "://" in each.location else each.location)
        stem = os.path.splitext(name)[0]
        if each.kind == "other" and (not stem or _is_nameless(each.location)):
            raise UsageError(
                f"-o {self.output}: a folder, and {each.location} has no name; add one, as -o out/film.mp4"
            )
        if _starred(self.output):
            folder, pattern = os.path.split(self.output)
            return os.path.join(folder, each.inside, pattern.replace("*", stem))
        return os.path.join(
            self.output,
            each.inside,
            stem + (made_ending(os.path.splitext(name)[1]) if each.kind == "image" else self.ending),
        )


def _starred(output: str) -> bool:
    """Whether a name has one place for the input's."""
    folder, name = os.path.split(output)
    return name.count("*") == 1 and "*" not in folder


def _kind(path: str) -> _Kind:
    """What a file is, by its ending."""
    return "image" if os.path.splitext(path)[1].lower() in ENDINGS else "film"


def _expand(location: str, output: str | None, look: str, notes: list[str]) -> list[_Input]:
    """The inputs that a location stands for; what cannot be told is left to the run, which knows better words."""
    if os.path.isfile(location):
        return [_Input(location, _kind(location))]
    if os.path.isdir(location):
        return _in_folder(location, output, look, notes)
    if "://" in location or not glob.has_magic(location):
        return [_Input(location, "other")]
    named = sorted(path for path in glob.glob(location, recursive=True) if os.path.isfile(path))
    films = [_Input(path, "film") for path in named if _kind(path) == "film"]
    _note_images(location, len(named) - len(films), notes) if films else None
    return films or [_Input(location, "other")]


def _in_folder(folder: str, output: str | None, look: str, notes: list[str]) -> list[_Input]:
    """The films below a folder, or the folder itself if it is a film of images."""
    films, stills, made = list[_Input](), 0, 0
    into = None if output is None else os.path.abspath(os.path.dirname(output) if _starred(output) else output)
    for where, inner, names in os.walk(folder, onerror=_refuse):
        shown = sorted(name for name in inner if not name.startswith("."))
        inner[:] = [name for name in shown if os.path.abspath(os.path.join(where, name)) != into]
        for name in sorted(name for name in names if not name.startswith(".")):
            stem, ending = os.path.splitext(name)
            stills += ending.lower() in ENDINGS
            if not FILMS.fullmatch(ending):
                continue
            if output is None and stem.endswith(f".{look}"):
                made += 1
                continue
            films.append(_Input(os.path.join(where, name), "film", os.path.relpath(where, folder).removeprefix(".")))
    if made:
        notes.append(f"{folder}: {made} film{'s' * (made > 1)} called *.{look}.* left out, as made by an earlier run")
    if not films:
        return [_Input(folder, "images" if stills else "other")]
    _note_images(folder, stills, notes)
    return films


def _refuse(error: OSError) -> None:
    """Ends the search where a folder cannot be read, rather than lose its films silently."""
    raise SourceError(f"{error.filename}: the folder cannot be read ({error.strerror})") from None


def _note_images(location: str, count: int, notes: list[str]) -> None:
    """Says that images were left out."""
    if count:
        what = f"{count} image{'s were' if count > 1 else ' was'} left out"
        notes.append(f"{location}: {what}; a folder or pattern that has films too is no film of images")


def _check_among(each: _Input) -> None:
    """Refuses an input that cannot be one of several."""
    if each.kind != "other":
        return
    if not each.location:
        raise UsageError("INPUT: is empty; name a file or a URL")
    if _is_nameless(each.location) or "://" in each.location:
        raise UsageError(f"{each.location}: cannot be one of several inputs; run it alone, with -o and a name")
    if os.path.isdir(each.location):
        raise SourceError(f"{each.location}: a folder with neither films nor images in it")
    if glob.has_magic(each.location) or NUMBER.search(each.location):
        if images.ImageFiles.accepts(each.location) and glob.glob(NUMBER.sub("*", each.location)):
            raise UsageError(f"{each.location}: a film of images by its pattern; run it alone")
        raise SourceError(f"{each.location}: no file is named like this")
    raise SourceError(f"{each.location}: no such file")


def _is_nameless(location: str) -> bool:
    """Whether a location that is no file is a pipe or a device, which has no name to give to an output."""
    return location == "-" or location.isdecimal() or location.startswith("/dev/")


def _checked(jobs: Sequence[Job], output: str | None, notes: list[str]) -> Found:
    """Refuses jobs that would write one file, or replace what another one reads."""
    readers = {_key(job.input): job for job in jobs}
    writers: dict[str, Job] = {}
    for job in jobs:
        key = _key(job.output or "")
        if job.output is not None and key in writers:
            both = f"{writers[key].input} and {job.input} would both become {job.output}"
            raise UsageError(f"{both}; translate them one after the other, with -o and different folders")
        if job.output is not None:
            writers[key] = job
    clashes = {key: job for key, job in writers.items() if key in readers and readers[key] is not job}
    for key, job in clashes.items():
        if output is not None:
            raise UsageError(f"{job.output}: is an input, and what {job.input} would become; use -o for another folder")
        notes.append(f"{readers[key].input} left out: it is what {job.input} becomes")
    return Found(tuple(job for job in jobs if _key(job.input) not in clashes), tuple(notes))


def _key(location: str) -> str:
    """What two spellings of one place have in common."""
    return location if "://" in location else os.path.normcase(os.path.abspath(location))


def _bytes(location: str) -> int:
    """The size of an input: of its files, if it is a folder; 0 if it has none."""
    if os.path.isdir(location):
        return sum(entry.stat().st_size for entry in os.scandir(location) if entry.is_file())
    return os.path.getsize(location) if os.path.isfile(location) else 0


def _entry(text: str, where: str) -> tuple[str, str | None]:
    """Input and output of a line of a manifest."""
    if not text.startswith("{"):
        return text, None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UsageError(f'{where}: not JSON ({error}); expected {{"input": …, "output": …}}') from None
    for key, value in content.items():
        if key not in _KEYS:
            raise UsageError(f"{where}: unknown key '{key}'{nearest(key, _KEYS)} (allowed: {', '.join(_KEYS)})")
        if not isinstance(value, str) or not value:
            raise UsageError(f"{where}: {key}: {value!r} given, expected a path")
    if "input" not in content:
        raise UsageError(f"{where}: the key 'input' is missing")
    return content["input"], content.get("output")


def _beside(path: Path, location: str) -> str:
    """A location of a manifest, as seen from here."""
    return location if location == "-" or "://" in location else os.path.join(path.parent, location)
