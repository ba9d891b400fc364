"""One film made by several machines: each makes closed segments of a part, one joins them and adds what lies beside.

The parts meet where the segments of a single machine end, so that joined by packet copy they are the film that it would
have made. Whoever distributes the work, such as a plugin, calls `split`, then `make` anywhere and as often as it fails,
then `join`; all see the same files.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from streamgan import fingerprint, pipeline
from streamgan.api import Frame, UsageError
from streamgan.motion.shots import CutDetector
from streamgan.pipeline import Part, Progress, Report
from streamgan.plan import Plan, open_source
from streamgan.writing.segments import folder_of, read_manifest

_TASKS_EACH = 2
"""Parts for each worker: with more none is idle for long at the end, but each decodes the film up to its part."""


def split(work: Plan, workers: int) -> list[Part]:
    """Cuts a film into parts of whole segments, a few for each worker, without what an interrupted run has made.

    If something in the run has memory, parts begin where shots do, and the film is decoded once to find out.

    Args:
        work: from `pipeline.build`; input and output are files.
        workers: how many machines share the film.

    Returns:
        The parts in order. There are fewer than two if the film is too short, or if it is not known how long it is.

    Raises:
        UsageError: if the output is not made in segments.
        SourceError: if the input cannot be read.
    """
    if not pipeline.leaves_segments(work):
        raise UsageError(f"{work.output}: only a film that goes from file to file is made in parts")
    origin, begins = _survey(work)
    each, kept = max(1, round(len(begins) / (workers * _TASKS_EACH))), _kept(work)
    ranges = itertools.pairwise([*begins[::each], None])
    left = [(max(first or 0, kept), end) for first, end in ranges if end is None or end > kept]
    return [Part(first, None if end is None else end - first, origin) for first, end in left]


def make(work: Plan, part: Part, on_progress: Callable[[Progress], None] | None = None) -> int:
    """Makes the segments of a part, and keeps them beside the output; those that it had made before are kept.

    Returns:
        How many frames it has.

    Raises:
        StreamganError: as `pipeline.run`; what is whole is kept.
    """
    return pipeline.run(work, on_progress, part).frames


def join(work: Plan, parts: Iterable[Part], on_progress: Callable[[Progress], None] | None = None) -> Report:
    """Joins the parts, in order, and completes the output with all that the input has beside its video.

    What is missing, as after a part that failed for good, is made here. Nothing of any part is left behind.

    Raises:
        StreamganError: as `pipeline.run`; the parts that were joined are kept.
    """
    whole = pipeline.open_parts(work, resume=True)
    try:
        for part in parts:
            if part.first == whole.manifest.frames and made(work, part):  # else an interrupted `join` had taken it
                kept = pipeline.open_parts(work, part)
                whole.adopt(kept)
                kept.release(done=True)
    finally:
        whole.release(done=False)
    resumed = dataclasses.replace(work, request=dataclasses.replace(work.request, resume=True))
    report = pipeline.run(resumed, on_progress)
    clear(work)
    return report


def clear(work: Plan) -> None:
    """Removes the parts of a film, of whatever split, once it is complete."""
    name = re.escape(Path(work.output).name)
    for path in Path(work.output).parent.iterdir():
        if re.fullmatch(rf"\.{name}\.[0-9]{{9,}}\.parts", path.name):
            shutil.rmtree(path, ignore_errors=True)


def made(work: Plan, part: Part) -> int:
    """How many frames of a part are kept already."""
    manifest = read_manifest(folder_of(part.output(work.output)))
    return 0 if manifest is None else manifest.frames


def _kept(work: Plan) -> int:
    """How many frames of the film itself an interrupted run has left."""
    manifest = read_manifest(folder_of(Path(work.output)))
    return 0 if manifest is None or manifest.fingerprint != fingerprint.of(work, exact=True) else manifest.frames


def _survey(work: Plan) -> tuple[int, Sequence[int]]:
    """The time that becomes 0, in ticks, and the number of the first frame of each segment."""
    length = work.segment
    with open_source(work) as source:
        frames, count = source.frames(), source.info.frame_count
        first = next(frames, None)
        if first is None:
            return 0, [0]
        origin = first.pts if work.selection.start or first.pts < 0 else 0
        if work.has_memory:
            return origin, [*_begins(first, frames, length)]
    return origin, range(0, max(1, count or 1), length)


def _begins(first: Frame, others: Iterator[Frame], length: int) -> Iterator[int]:
    """Where segments begin that may end only with a shot."""
    cuts, begun = CutDetector(), 0
    cuts.is_cut(first.image)
    yield 0
    for number, frame in enumerate(others, 1):
        if cuts.is_cut(frame.image) and number - begun >= length:
            begun = number
            yield number
