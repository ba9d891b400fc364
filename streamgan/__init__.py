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

    Args:
        input: path or URL of the video.
        preset: name of a preset, or path of its YAML file.
        output: where to write; ``INPUT.PRESET.mp4`` beside the input if None.
        options: further fields of `streamgan.pipeline.Request`, such as ``size=360`` or ``overwrite=True``.

    Returns:
        What was done: frames, seconds, and what each stage took.

    Raises:
        StreamganError: if it cannot be done; the message says why.
    """
    from streamgan import pipeline, plugins

    target = None if output is None else fspath(output)
    request = pipeline.Request.of(input=fspath(input), preset=preset, output=target, **options)
    return pipeline.run(pipeline.build(request, plugins.load()))
