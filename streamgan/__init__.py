"""streamgan: translates video from one look to another, day to night for example, with models in files.

From Python, the whole main job is one call::

    import streamgan

    streamgan.run("drive.mp4", preset="day2night", output="night.mp4")

Importing this package is light: the video and inference libraries are loaded by the first `run`.
"""

from __future__ import annotations

import os
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamgan.pipeline import Report

__version__ = "0.1.0"
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reports to its makers from its import on


def run(
    input: str | PathLike[str], *, preset: str, output: str | PathLike[str] | None = None, **options: Any
) -> Report:
    """Translates a video, as the command ``streamgan run`` does.

    Many films: see `streamgan.batch.run`.

    Args:
        input: path or URL of the video.
        preset: name of a preset, or path of its YAML file.
        output: where to write: a file, or a folder, ``out/``; ``INPUT.PRESET.mp4`` beside the input if None.
        options: further fields of `streamgan.pipeline.Request`, such as ``size=360`` or ``overwrite=True``.

    Returns:
        What was done: frames, seconds, and what each stage took.

    Raises:
        StreamganError: if it cannot be done; the message says why.
    """
    from streamgan import batch, jobs, plugins
    from streamgan.api import UsageError

    target = None if output is None else fspath(output)
    ending = batch.ending_of(options.get("codec"))
    found = jobs.find([fspath(input)], target, jobs.name_of(preset), ending=ending)
    if len(found.jobs) > 1:
        raise UsageError(f"{input}: stands for {len(found.jobs)} films; use streamgan.batch.run, which takes many")
    fields, tracked = {**options, "preset": preset}, not found.is_plain(target)
    report = batch.attempt(found.jobs[0], fields, plugins.load(), tracked=tracked).report
    assert report is not None, "nothing is skipped unless one says so"
    return report
