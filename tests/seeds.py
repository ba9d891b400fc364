"""What the fuzzer mutates: one small file of each kind, made on the spot, and some of the torture set where it is."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
from clips import Clip, picture, write_clip, write_model

from streamgan import api, pipeline, plugins

TORTURE = Path(__file__).parents[2] / "shared" / "data" / "torture"
LARGEST = 300_000
"""Files of the torture set above this many bytes are left out."""
SLOW = ("ax_webp_black_large.webp",)
"""Files of the torture set that take longer than a case may: pictures of 16000x9000 pixels."""
CHANGED = 1_700_000_000
"""When each file of a case was last changed, in seconds: a run that goes on knows its input by that too."""
PLUGIN = b"""from streamgan import api


class Same(api.Translator):
    def translate(self, images):
        return images


class Tired(Same):
    left = 260

    def translate(self, images):
        self.left -= len(images)
        if self.left < 0:
            raise ValueError("enough")
        return images


@api.hookimpl
def register_translators(register):
    register("same", Same)
    register("tired", Tired)
"""
PRESET = b"title: A trial\ntranslator: same\n"
TIRED_PRESET = b"title: A trial\ntranslator: tired\n"
MODEL_PRESET = b"title: A trial\ntranslator: model\noptions:\n  model: negative.onnx\n  size: 16\n"


@dataclasses.dataclass(frozen=True)
class Seeds:
    """What is mutated, as bytes."""

    films: Mapping[str, bytes]
    """By name."""
    model: bytes
    record: bytes
    interrupted: Mapping[str, bytes]
    """A film, a preset, and what an interrupted run of them to ``out.mp4`` left, by name in their folder."""


def make(folder: Path) -> Seeds:
    """Makes the seeds in an empty folder."""
    films = {path.name: path.read_bytes() for path in (*_films(folder), *_stills(folder), _sound(folder))}
    if TORTURE.is_dir():
        hard = [path for path in sorted(TORTURE.iterdir()) if path.is_file() and path.suffix not in (".tsv", ".md")]
        hard = [path for path in hard if path.name not in SLOW]
        films |= {path.name: path.read_bytes() for path in hard if path.stat().st_size <= LARGEST}
    write_model(folder / "negative.onnx", -1.0, 255.0)
    (folder / "same.py").write_bytes(PLUGIN)
    registry = plugins.load([folder / "same.py"])
    (folder / "look.yaml").write_bytes(PRESET)
    _run(folder, registry, "clip.mp4", "clip.out.mp4", report=str(folder / "run.json"))
    model, record = (folder / "negative.onnx").read_bytes(), (folder / "run.json").read_bytes()
    return Seeds(films, model, record, _interrupted(folder, registry))


def _run(folder: Path, registry: plugins.Registry, film: str, output: str, **fields: Any) -> None:
    """Translates one of the films, as the command lines of the cases do."""
    names = {"input": str(folder / film), "output": str(folder / output), "preset": str(folder / "look.yaml")}
    pipeline.run(pipeline.build(pipeline.Request.of(**names, threads=1, **fields), registry))


def _films(folder: Path) -> list[Path]:
    """A film in each container."""
    pts = tuple(range(0, 12 * 512, 512))
    fast = {"crf": "40", "cpu-used": "8"}
    return [
        write_clip(folder / "clip.mp4", Clip(pts=pts, audio=True)),
        write_clip(folder / "clip.mkv", Clip(pts=pts, audio=True, subtitles=("one", "two"), title="A title")),
        write_clip(folder / "clip.ts", Clip(pts=pts, audio=True)),
        write_clip(folder / "turned.mov", Clip(pts=pts, rotation=90, codec="mpeg4", options={})),
        write_clip(folder / "clip.webm", Clip(pts=pts, codec="libvpx-vp9", options=fast)),
        write_clip(folder / "deep.mkv", Clip(pts=pts, codec="ffv1", options={}, pixel_format="yuv420p10le")),
        write_clip(folder / "clip.gif", Clip(pts=pts, codec="gif", options={}, pixel_format="rgb8")),
    ]


def _stills(folder: Path) -> list[Path]:
    """A picture in each format."""
    paths = [folder / f"still.{ending}" for ending in ("png", "jpg", "webp", "bmp", "tiff")]
    for path in paths:
        cv2.imwrite(str(path), picture(3))
    return paths


def _sound(folder: Path) -> Path:
    """A file without pictures."""
    with av.open(str(folder / "sound.wav"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        output.mux([*stream.encode(frame), *stream.encode(None)])
    return folder / "sound.wav"


def _interrupted(folder: Path, registry: plugins.Registry) -> dict[str, bytes]:
    """A film of 300 frames, and the closed segment of a run of it that failed."""
    film = write_clip(folder / "film.mp4", Clip(size=(32, 32), pts=tuple(range(0, 300 * 512, 512))))
    os.utime(film, (CHANGED, CHANGED))
    (folder / "look.yaml").write_bytes(TIRED_PRESET)
    with contextlib.suppress(api.PluginError):
        _run(folder, registry, "film.mp4", "out.mp4")
    left = [path for path in (folder / ".out.mp4.parts").rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in (film, folder / "look.yaml", *left)}
