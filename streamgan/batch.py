"""Many films, one after the other: each is a job that can be done again at no harm, on this machine or on another.

From Python::

    from streamgan import batch

    for outcome in batch.run(["clips/"], preset="day2night", output="out/", size=360, skip_existing=True):
        print(outcome)

A scheduler asks `jobs.find` for the jobs, and gives each to `run_job` where it sees fit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, TypeAlias

from streamgan import fingerprint, model, pipeline, receipts
from streamgan.api import SinkError, StreamganError, UsageError
from streamgan.frames.imagenames import NUMBER
from streamgan.jobs import Job, find, name_of
from streamgan.pipeline import Interrupted, Plan, Progress, Report, Request
from streamgan.plugins import Registry, blamed, load

Announce: TypeAlias = Callable[[str], None]
"""Called with one line before something that takes seconds."""
_ENDINGS = {"prores": ".mov", "ffv1": ".mkv"}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a job. It can be sent to another process."""

    job: Job
    state: Literal["made", "skipped", "failed"]
    output: str | None = None
    """What was written, or was there already; None if the job failed."""
    report: Report | None = None
    """What the run did; None if there was none, or it failed."""
    error: str = ""
    """Why it failed, in one line."""
    notes: tuple[str, ...] = ()
    """What the user should know beside the notes of the report."""

    def __str__(self) -> str:
        if self.state == "failed":
            named = self.error.startswith((self.job.input, self.job.output or self.job.input))
            return self.error if named else f"{self.job.input}: {self.error}"
        done = "" if self.report is None else f", {self.report.frames} frames in {self.report.seconds:.1f} s"
        return f"{self.output}: {self.state}{done}"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A job that is resolved and checked."""

    plan: Plan
    finished: bool = False
    """Whether its output is there already, complete and made in the same way."""


def run(
    inputs: Iterable[str | PathLike[str]],
    *,
    preset: str,
    output: str | PathLike[str] | None = None,
    skip_existing: bool = False,
    **options: Any,
) -> Iterator[Outcome]:
    """Translates many films, one after the other, as the command ``streamgan run`` does; one that fails stops no other.

    Args:
        inputs: files, folders and patterns, as `jobs.find` takes them.
        preset: name of a preset, or path of its YAML file.
        output: a folder, or what else `jobs.find` takes.
        skip_existing: as for `run_job`.
        options: further fields of `pipeline.Request`, such as ``size=360`` or ``overwrite=True``.

    Yields:
        What became of each, as soon as it is known.

    Raises:
        StreamganError: before any work, if inputs and output do not go together.
    """
    target = None if output is None else fspath(output)
    found = find([fspath(each) for each in inputs], target, name_of(preset), ending=ending_of(options.get("codec")))
    fields, registry = {**options, "preset": preset}, load()
    return (run_job(job, fields, registry, skip_existing=skip_existing) for job in found.jobs)


def ending_of(codec: str | None) -> str:
    """The ending of films of a codec, as far as nobody says otherwise: ``.mp4``, if it can hold the codec."""
    return _ENDINGS.get(codec or "", ".mp4")


def run_job(
    job: Job,
    fields: Mapping[str, Any],
    registry: Registry,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    on_plan: Callable[[Plan], None] | None = None,
    announce: Announce | None = None,
    skip_existing: bool = False,
) -> Outcome:
    """Does one job, whatever happens to it; the model is loaded for each job anew.

    The output appears when it is complete, with a receipt in ``.streamgan`` beside it, so a job may be repeated after
    any accident: with `skip_existing`, one that is done costs nothing. Missing folders are made.

    Args:
        job: what to read and to write.
        fields: fields of `pipeline.Request` beside ``input`` and ``output``; ``preset`` at least.
        registry: from `plugins.load`; the same for all jobs.
        on_progress: as for `pipeline.run`.
        on_plan: called with the plan before the work begins.
        announce: as for `pipeline.build`.
        skip_existing: whether an output that is complete, and was made of the same input in the same way, is left as
            it is, and one that was interrupted is gone on with. Any other output that exists is an error, or made
            again if ``overwrite`` is among the fields.

    Raises:
        Interrupted: on Ctrl-C; all other errors become an `Outcome`.
    """
    try:
        with blamed(job.input):
            return attempt(
                job, fields, registry, on_progress, on_plan=on_plan, announce=announce, skip_existing=skip_existing
            )
    except Interrupted:
        raise
    except StreamganError as error:
        return Outcome(job, "failed", error=" ".join(str(error).split()), notes=tuple(getattr(error, "__notes__", ())))


def attempt(
    job: Job,
    fields: Mapping[str, Any],
    registry: Registry,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    on_plan: Callable[[Plan], None] | None = None,
    announce: Announce | None = None,
    skip_existing: bool = False,
    tracked: bool = True,
) -> Outcome:
    """As `run_job`, but what goes wrong is raised.

    Args:
        tracked: whether missing folders are made, and a receipt is left beside the output.

    Raises:
        StreamganError: if it cannot be done.
    """
    if tracked and _missing_folders(job):  # an input that does not open leaves no folder behind
        pipeline.build(Request.of(**{**fields, "input": job.input, "output": "null:"}), registry, announce)
    with folder_for(job, keep=False) if tracked else contextlib.nullcontext():
        prepared = prepare(job, fields, registry, announce, skip_existing=skip_existing)
        plan = prepared.plan
        if on_plan is not None:
            on_plan(plan)
        if prepared.finished:
            return Outcome(job, "skipped", plan.output)
        if not tracked:
            return Outcome(job, "made", plan.output, pipeline.run(plan, on_progress))
        return finish(job, plan, lambda: pipeline.run(plan, on_progress))


def finish(job: Job, plan: Plan, make: Callable[[], Report]) -> Outcome:
    """Does the work of a job and leaves a receipt beside its output.

    Args:
        job: what the plan is of.
        plan: from `prepare`.
        make: the work: `pipeline.run`, or anything that completes the same output.

    Raises:
        StreamganError: whatever `make` raises; there is no receipt then.
    """
    made_as = fingerprint.of(plan)  # of the input as it was at the start
    report = make()
    return Outcome(job, "made", plan.output, report, notes=tuple(_noted(plan, made_as)))


def prepare(
    job: Job,
    fields: Mapping[str, Any],
    registry: Registry,
    announce: Announce | None = None,
    *,
    skip_existing: bool = False,
) -> Prepared:
    """Resolves and checks a job, without any work; arguments as for `run_job`.

    Raises:
        StreamganError: if it cannot be done; UsageError also, if its output exists and may be neither skipped nor
            replaced.
    """
    request = Request.of(**{**fields, "input": job.input, "output": job.output})
    if skip_existing:  # then nothing that was made is made again, the segments of an interrupted run included
        request = dataclasses.replace(request, resume=True)
    if not skip_existing or (job.output is not None and not receipts.exists(job.output)):
        return Prepared(pipeline.build(request, registry, announce))
    plan = pipeline.build(dataclasses.replace(request, overwrite=True), registry, announce)
    if not receipts.exists(plan.output):
        return Prepared(pipeline.build(request, registry, announce))
    fault = receipts.fault(plan.output, fingerprint.of(plan))
    if fault and not request.overwrite:
        raise UsageError(f"{plan.output}: exists already, but {fault}; use --overwrite to make it again")
    return Prepared(plan, finished=not fault)


def check_models(plan: Plan) -> None:
    """Opens the model files that a plan needs, as far as its options name them.

    Raises:
        ModelError: if one is missing, or is no model file.
    """
    for path in fingerprint.models(plan):
        model.read_card(path)


@contextlib.contextmanager
def folder_for(job: Job, keep: bool = True) -> Iterator[None]:
    """Makes the missing folders that an output will lie in, if there is something to read.

    Args:
        job: its output may be a file, ``out/`` or ``out/%06d.png``.
        keep: whether the folders stay if nothing was put into them.

    Raises:
        SinkError: if they cannot be made.
    """
    missing = _missing_folders(job)
    try:
        for each in missing:
            each.mkdir(exist_ok=True)
    except OSError as error:
        raise SinkError(f"{job.output}: its folder cannot be made ({error.strerror}); use -o for another") from None
    try:
        yield
    finally:
        for each in [] if keep else reversed(missing):
            with contextlib.suppress(OSError):  # something is in it
                each.rmdir()


def _missing_folders(job: Job) -> list[Path]:
    """The folders that an output lacks, from the outermost on; none if there is nothing to read."""
    if job.output is None or "://" in job.output or not ("://" in job.input or os.path.exists(job.input)):
        return []
    path = Path(job.output)
    folder = path.parent.parent if NUMBER.search(path.name) else path.parent  # a sequence makes its own folder
    return [each for each in (*reversed(folder.parents), folder) if not os.path.exists(each)]


def _noted(plan: Plan, made_as: str) -> Iterator[str]:
    """Writes the receipt of a finished output; the film is not lost if that cannot be done."""
    if "://" in plan.output or not receipts.exists(plan.output):
        return
    try:
        receipts.write(plan.output, made_as, plan.request.input)
    except OSError as error:
        fault = f"that it is complete could not be noted ({error.strerror or error})"
        yield f"{plan.output}: {fault}; --skip-existing will not recognise it"
