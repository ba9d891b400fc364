"""Standard output: a film for the program behind the pipe, and one line if that is gone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import picture, read_pts

from streamgan.api import Color, Encoding, Frame, Selection, SinkError, UsageError, VideoInfo
from streamgan.reading.sources import VideoFile
from streamgan.writing import pipes
from streamgan.writing.pipes import RawOutput, StandardOutput

MakeClip = Callable[..., Path]


def info(**fields: Any) -> VideoInfo:
    """A small film's properties."""
    return VideoInfo(
        **({"width": 64, "height": 48, "time_base": Fraction(1, 1000), "frame_rate": Fraction(25)} | fields)
    )


@contextlib.contextmanager
def standard_output(path: Path) -> Iterator[None]:
    """Standard output of this process, as C sees it, goes to a file."""
    kept = os.dup(1)
    try:
        with path.open("wb") as file:
            os.dup2(file.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def send(sink: StandardOutput | RawOutput, about: VideoInfo, times: list[int], last: int = 40) -> list[str]:
    """Writes numbered pictures at times in ticks; returns the notes."""
    with sink:
        sink.open(about)
        for index, tick in enumerate(times):
            later = times[index + 1] if index + 1 < len(times) else tick + last
            image = picture(index, (about.width, about.height))
            sink.write(Frame(image, tick, about.time_base, later - tick))
    return list(sink.notes)


def y4m(path: Path) -> tuple[dict[str, str], list[bytes]]:
    """Header and frames of a YUV4MPEG2 file, read by hand."""
    header, _, rest = path.read_bytes().partition(b"\n")
    magic, *fields = header.decode().split(" ")
    assert magic == "YUV4MPEG2"
    assert rest.startswith(b"FRAME\n")
    known = {field[0]: field[1:] for field in fields if not field.startswith("X")}
    width, height = int(known["W"]), int(known["H"])
    size = (
        width * height * 3
        if known["C"].startswith("444")
        else width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)
    )
    assert len(rest) % (size + 6) == 0
    frames = [rest[start : start + size + 6] for start in range(0, len(rest), size + 6)]
    assert all(frame.startswith(b"FRAME\n") for frame in frames)
    return known, [frame[6:] for frame in frames]


@pytest.mark.parametrize("codec", ["h264", "prores", "ffv1"])
def test_matroska_that_is_piped_has_every_time(tmp_path: Path, codec: Any) -> None:
    times, path = [0, 40, 77, 200, 1000], tmp_path / "out.mkv"
    with standard_output(path):
        assert send(StandardOutput("-", Encoding(codec)), info(), times) == []
    assert read_pts(path) == [Fraction(tick, 1000) for tick in times]


def test_what_stands_beside_the_video_is_piped_too(make_clip: MakeClip, tmp_path: Path) -> None:
    source, path = make_clip(name="in.mkv", audio=True, subtitles=("Hello",)), tmp_path / "out.mkv"
    selection = Selection(start=Fraction("0.2"))
    encoding = Encoding(copy_from=str(source), selection=selection)
    with standard_output(path), VideoFile(str(source), selection) as frames, StandardOutput("-", encoding) as sink:
        sink.open(frames.info)
        for frame in frames.frames():
            sink.write(frame)
    assert read_pts(path) == [Fraction(index, 25) for index in range(15)]
    assert len(read_pts(path, "audio")) > 10


def test_raw_pictures_are_those_given(tmp_path: Path) -> None:
    path = tmp_path / "out.y4m"
    about = info(sample_aspect_ratio=Fraction(4, 3), frame_rate=Fraction(30000, 1001), color=Color(1, 1, 1))
    with standard_output(path):
        assert send(RawOutput("y4m:-", Encoding(lossless=True)), about, [0, 33, 67, 100], 33) == []
    known, frames = y4m(path)
    assert known | {"W": "64", "H": "48", "F": "30000:1001", "A": "4:3"} == known
    assert known["C"].startswith("444") and len(frames) == 4
    for index, frame in enumerate(frames):
        red, green, blue = np.moveaxis(picture(index) / 255, -1, 0)
        luma = 16 + 219 * (0.2126 * red + 0.7152 * green + 0.0722 * blue)
        found = np.frombuffer(frame[: 64 * 48], np.uint8).reshape(48, 64)
        assert np.abs(found - luma).max() <= 1


@pytest.mark.parametrize("size", [(64, 48), (33, 21)])
def test_raw_is_420_unless_lossless(tmp_path: Path, size: tuple[int, int]) -> None:
    with standard_output(tmp_path / "out.y4m"):
        send(RawOutput(), info(width=size[0], height=size[1]), [0, 40])
    known, frames = y4m(tmp_path / "out.y4m")
    assert known["C"].startswith("420") and len(frames) == 2


def test_raw_keeps_time_at_one_rate(tmp_path: Path) -> None:
    path = tmp_path / "out.y4m"
    with standard_output(path):
        notes = send(RawOutput(), info(), [500, 540, 545, 660, 700], last=120)
    _, frames = y4m(path)
    blue = [frame[64 * 48] for frame in frames]  # first sample of Cb, which tells the picture's index
    steps = [sorted(set(blue)).index(value) for value in blue]
    assert steps == [0, 1, 1, 1, 2, 3, 3, 3]  # what came at 540 lasted 5 ms and has no place
    first, second = blue[0], blue[1]
    assert second - first >= 3  # two pictures later
    assert notes == ["4 frames were repeated and 1 left out: y4m:- has one rate, 25 frames a second"]


def test_what_raw_cannot_hold(tmp_path: Path) -> None:
    for field, message in (
        ({"crf": 3}, "--crf 3: y4m:- is not compressed"),
        ({"codec": "hevc"}, "--codec hevc: y4m:- is not"),
        ({"encoder": "auto"}, "--encoder auto: y4m:- is not"),
        ({"preset": "fast"}, "--encoder-preset fast: y4m:- is not"),
    ):
        with pytest.raises(UsageError, match=message):
            RawOutput("y4m:-", Encoding(**field))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is transparent, which YUV4MPEG2 cannot keep; use --alpha drop"):
        RawOutput().open(info(alpha=True))
    with pytest.raises(UsageError, match="frame rate is unknown"):
        RawOutput().open(info(frame_rate=None))
    with standard_output(tmp_path / "out.y4m"):
        notes = send(RawOutput("y4m:-", Encoding(copy_from="in.mp4")), info(bits=10), [0])
    assert notes == [
        "10 bits became 8: y4m:- has no more (-o - does)",
        "only the video was written: y4m:- holds nothing else (-o - does)",
    ]


@pytest.mark.parametrize("sink", [StandardOutput, RawOutput])
def test_a_screen_is_refused(monkeypatch: pytest.MonkeyPatch, sink: Any) -> None:
    monkeypatch.setattr(pipes.os, "isatty", lambda descriptor: descriptor == 1)
    with pytest.raises(UsageError, match="standard output is a terminal"):
        sink()


@pytest.mark.parametrize("location", ["-", "y4m:-"])
def test_a_reader_that_leaves(make_clip: MakeClip, tmp_path: Path, location: str) -> None:
    plugin, preset = tmp_path / "same.py", tmp_path / "same.yaml"
    plugin.write_text(
        textwrap.dedent('''
            from streamgan import api
            class Same(api.Translator):
                """Changes nothing."""
                def translate(self, images):
                    return images
            @api.hookimpl
            def register_translators(register):
                register("same", Same)
        ''')
    )
    preset.write_text("title: same\ntranslator: same\n")
    clip = make_clip(name="long.mkv", pts=range(0, 300 * 512, 512), size=(320, 240))
    command = [sys.executable, "-m", "streamgan", "--plugin", str(plugin), "run", str(clip), "-p", str(preset)]
    with subprocess.Popen([*command, "-o", location], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(100)
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode == 1
    assert "the program that reads standard output has ended before the film did" in said
    assert "Traceback" not in said and "Exception ignored" not in said


def test_output_that_cannot_be_written_is_one_line() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    for sink in (StandardOutput(), RawOutput()):
        with standard_output(Path("/dev/full")), pytest.raises(SinkError, match="No space left on device") as error:
            send(sink, info(width=320, height=240), list(range(0, 4000, 40)))
        assert "\n" not in str(error.value)
