"""Sinks: what is written is what was given, complete or not at all."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import pytest
from clips import picture, read_pts

from streamgan.api import Color, Encoding, Frame, Selection, SinkError, UsageError, VideoInfo
from streamgan.reading.sources import WHOLE, VideoFile
from streamgan.writing import sinks
from streamgan.writing.sinks import NullSink, VideoFileSink
from streamgan.writing.window import Preview, overlay

MakeClip = Callable[..., Path]
CLOCKS = {
    "25": (Fraction(1, 12800), tuple(range(0, 20 * 512, 512))),
    "ntsc": (Fraction(1, 30000), tuple(range(0, 20 * 1001, 1001))),
    "variable": (Fraction(1, 90000), (0, 3003, 3004, 9000, 45000, 90001, 90100)),
    "later": (Fraction(1, 90000), (126000, 129003, 133000)),
}


def write(
    path: Path, encoding: Encoding, info: VideoInfo, pts: tuple[int, ...] = (0, 1, 2), last: int = 1
) -> VideoFileSink:
    """Writes numbered pictures through the sink."""
    with VideoFileSink(str(path), encoding) as sink:
        sink.open(info)
        for index, tick in enumerate(pts):
            later = pts[index + 1] if index + 1 < len(pts) else tick + last
            sink.write(Frame(picture(index, (info.width, info.height)), tick, info.time_base, later - tick))
    return sink


def info(**fields: object) -> VideoInfo:
    """A small video's properties."""
    return VideoInfo(**({"width": 64, "height": 48, "time_base": Fraction(1, 25), "frame_rate": Fraction(25)} | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_times_survive_tick_for_tick(tmp_path: Path, clock: str, suffix: str) -> None:
    time_base, pts = CLOCKS[clock]
    path = tmp_path / f"out.{suffix}"
    write(path, Encoding(), info(time_base=time_base), pts)
    given, found = [tick * time_base for tick in pts], read_pts(path)
    if suffix == "mkv":  # Matroska counts milliseconds
        assert all(abs(time - wanted) <= Fraction(1, 2000) for time, wanted in zip(found, given, strict=True))
    else:
        assert found == given


def test_last_frame_keeps_its_duration(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4", Encoding(), info(), (0, 1, 2), last=50)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.duration == pytest.approx(2.08e6, abs=1000)


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("full", [False, True])
def test_colors_and_tags_survive(tmp_path: Path, matrix: int, full: bool) -> None:
    path = tmp_path / "out.mp4"
    write(path, Encoding(crf=1), info(width=320, height=240, color=Color(matrix, 1, 13, full)))
    with VideoFile(str(path)) as source:
        image, color = next(source.frames()).image, source.info.color
    assert color == Color(matrix, 1, 13, full)
    difference = np.abs(image.astype(int) - picture(0, (320, 240)))
    assert difference.mean() < 1 and difference.max() <= 5


@pytest.mark.parametrize(
    ("codec", "suffix"), [("h264", "mp4"), ("hevc", "mp4"), ("av1", "mp4"), ("vp9", "webm"), ("ffv1", "mkv")]
)
def test_codecs_and_odd_sizes(tmp_path: Path, codec: str, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    write(path, Encoding(codec=codec), info(width=67, height=65))  # type: ignore[arg-type]
    with VideoFile(str(path)) as source:
        assert [frame.image.shape for frame in source.frames()] == [(65, 67, 3)] * 3


def test_pixel_aspect_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4", Encoding(), info(sample_aspect_ratio=Fraction(64, 45)))
    with VideoFile(str(tmp_path / "out.mp4")) as source:
        assert source.info.sample_aspect_ratio == Fraction(64, 45)


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """Time and content of the packets of one kind of stream."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [(each.pts * each.time_base, bytes(each)) for each in container.demux(stream) if each.pts is not None]


def translate(source: Path, target: Path, selection: Selection = WHOLE) -> VideoFileSink:
    """Source to sink without a change."""
    encoding = Encoding(copy_from=str(source), selection=selection)
    with VideoFile(str(source), selection) as frames, VideoFileSink(str(target), encoding) as sink:
        sink.open(frames.info)
        for frame in frames.frames():
            sink.write(frame)
    return sink


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_audio_is_copied_bit_for_bit(make_clip: MakeClip, tmp_path: Path, suffix: str) -> None:
    source = make_clip(name=f"in.{suffix}", audio=True, title="A film")
    target = tmp_path / f"out.{suffix}"
    assert translate(source, target).notes == []
    assert packets(target, "audio") == packets(source, "audio")
    assert read_pts(target) == read_pts(source)
    with av.open(str(target)) as container:
        assert container.metadata["title"] == "A film"


def test_audio_without_video_before_zero_in_matroska(make_clip: MakeClip, tmp_path: Path) -> None:
    source = make_clip(name="in.mp4", audio=True)  # its audio begins before 0: the encoder's priming
    assert packets(source, "audio")[0][0] < 0
    translate(source, tmp_path / "out.mkv")
    assert read_pts(tmp_path / "out.mkv") == read_pts(source)


def test_a_cut_begins_at_zero_with_its_audio(make_clip: MakeClip, tmp_path: Path) -> None:
    source = make_clip(name="in.mp4", audio=True, pts=range(0, 40 * 512, 512))
    target = tmp_path / "out.mp4"
    translate(source, target, Selection(Fraction("0.4"), Fraction("1.2")))
    assert read_pts(target) == [Fraction(index, 25) for index in range(20)]
    given = dict((content, time) for time, content in packets(source, "audio"))
    moved = packets(target, "audio")
    assert moved and moved[-1][0] < Fraction("0.8")
    for time, content in moved:
        assert abs(given[content] - Fraction("0.4") - time) <= Fraction(1, 48000)


def test_audio_lies_between_the_video(make_clip: MakeClip, tmp_path: Path) -> None:
    source = make_clip(name="in.mp4", audio=True, pts=range(0, 100 * 512, 512))
    translate(source, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        kinds = [packet.stream.type for packet in container.demux() if packet.dts is not None]
    assert len([index for index in range(1, len(kinds)) if kinds[index] != kinds[index - 1]]) > 50


def test_subtitles_become_mp4s_own(make_clip: MakeClip, tmp_path: Path) -> None:
    source = make_clip(name="in.mkv", subtitles=("Hello", "<i>Good</i> night"))
    assert translate(source, tmp_path / "out.mp4").notes == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.subtitles[0]
        texts = [each.dialogue for packet in container.demux(stream) for each in packet.decode()]
    assert [text for text in texts if text] == [b"Hello", b"Good night"]
    translate(source, tmp_path / "out.mkv")
    assert packets(tmp_path / "out.mkv", "subtitle") == packets(source, "subtitle")


def test_a_stream_that_does_not_fit_is_named(make_clip: MakeClip, tmp_path: Path) -> None:
    source = make_clip(name="in.mp4", audio=True)
    with (
        VideoFile(str(source)) as frames,
        VideoFileSink(str(tmp_path / "o.webm"), Encoding("vp9", copy_from=str(source))) as sink,
    ):
        sink.open(frames.info)
        for frame in frames.frames():
            sink.write(frame)
    assert sink.notes == ["audio stream 1 (aac) was left out: webm cannot hold it (--audio aac re-encodes it)"]


def test_refusals_come_before_any_work(make_clip: MakeClip, tmp_path: Path) -> None:
    source = make_clip(name="in.mp4")
    for name, encoding, reason in (
        ("in.mp4", Encoding(), "exists already"),
        ("in.mp4", Encoding(copy_from=str(source), overwrite=True), "is the input itself"),
        ("out.xyz", Encoding(), "names no video format"),
        ("out", Encoding(), "has no ending"),
        ("", Encoding(), "is a folder|names no"),
    ):
        with pytest.raises(UsageError, match=reason):
            VideoFileSink(str(tmp_path / name), encoding)
    with pytest.raises(SinkError, match="does not exist"):
        VideoFileSink(str(tmp_path / "nowhere" / "out.mp4"))
    with pytest.raises(UsageError, match="cannot send to 'gopher:'"):
        VideoFileSink("gopher://host/a")


def test_the_name_appears_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoFileSink(str(path)) as sink:
        sink.open(info())
        sink.write(Frame(picture(0), 0, Fraction(1, 25), 1))
        assert not path.exists() and len(os.listdir(tmp_path)) == 1
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), VideoFileSink(str(tmp_path / "out.mp4")) as sink:
        sink.open(info())
        sink.write(Frame(picture(0), 0, Fraction(1, 25), 1))
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    sink.abort()
    sink.close()


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(SinkError, match="cannot be written") as error:
            write(
                tmp_path / f"out.{suffix}", Encoding(codec="h264", crf=0), info(width=640, height=480), tuple(range(90))
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


def test_a_codec_the_container_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot hold h264; choose --codec vp9 or av1"):
        VideoFileSink(str(tmp_path / "out.webm"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", ["ts", "flv"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_containers_without_negative_times_begin_at_0(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"out.{suffix}"
    write(path, Encoding(codec), info(), tuple(range(12)))  # type: ignore[arg-type]
    assert read_pts(path) == [Fraction(tick, 25) for tick in range(12)]


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with pytest.raises(SinkError, match="nothing was replaced"), VideoFileSink(str(path)) as sink:
        sink.open(info())
        sink.write(Frame(picture(0), 0, Fraction(1, 25), 1))
        path.write_bytes(b"precious")
    assert path.read_bytes() == b"precious" and os.listdir(tmp_path) == ["out.mp4"]
    write(path, Encoding(overwrite=True), info())
    assert read_pts(path) and os.listdir(tmp_path) == ["out.mp4"]


def test_without_links_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
    write(tmp_path / "out.mp4", Encoding(), info())
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_long_names(tmp_path: Path) -> None:
    name = "\N{NIGHT WITH STARS}" * 60 + ".mp4"
    write(tmp_path / name, Encoding(), info())
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(SinkError, match="File name too long"):
        VideoFileSink(str(tmp_path / f"{'x' * 300}.mp4"))
    with pytest.raises(SinkError, match=r"Not a directory|is not a folder"):
        VideoFileSink(str(tmp_path / name / "out.mp4"))


def test_a_size_that_the_encoder_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="libx265 takes no pictures below 16x16, and these have 1x1"):
        write(tmp_path / "out.mp4", Encoding("hevc"), info(width=1, height=1))
    assert os.listdir(tmp_path) == []


def test_the_bin_counts() -> None:
    with NullSink() as sink:
        sink.open(info())
        sink.write(Frame(picture(0), 0, Fraction(1, 25)))
    assert sink.frames == 1


def test_overlay_draws_on_a_copy() -> None:
    image = np.zeros((120, 320, 3), np.uint8)
    drawn = overlay(image, "12.3 fps")
    assert drawn.max() > 200 and image.max() == 0


def test_a_window_needs_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SinkError, match="there is no screen"), Preview() as window:
        window.open(info())


def test_the_input_is_opened_once_and_early(
    tmp_path: Path, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, opened = make_clip(audio=True), list[str]()
    real = sinks.open_input
    monkeypatch.setattr(sinks, "open_input", lambda location: opened.append(location) or real(location))
    with VideoFileSink(str(tmp_path / "o.mp4"), Encoding(copy_from=str(source))) as sink:
        assert opened == [str(source)]  # before there is a frame
        sink.open(info())
        sink.write(Frame(picture(0, (64, 48)), 0, Fraction(1, 25), 1))
    assert opened == [str(source)]
    with VideoFileSink(str(tmp_path / "none.mp4"), Encoding(copy_from=str(source))) as sink:
        pass
    assert sink._input is None and not (tmp_path / "none.mp4").exists()


def test_an_input_that_is_gone_is_said_when_the_output_is_opened(tmp_path: Path) -> None:
    gone = Encoding(copy_from=str(tmp_path / "gone.mp4"))
    with VideoFileSink(str(tmp_path / "o.mp4"), gone) as sink, pytest.raises(SinkError, match="No such file"):
        sink.open(info())
