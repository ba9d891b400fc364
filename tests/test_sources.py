"""Sources: what comes out of a file is what is in it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import picture, read_pts

from streamgan.api import Selection, SourceError
from streamgan.reading.cameras import Camera
from streamgan.reading.sources import VideoFile

MakeClip = Callable[..., Path]
NTSC = Fraction(1001, 30000)


def test_yields_every_frame_with_its_time(make_clip: MakeClip) -> None:
    pts = [0, 1, 4, 5, 11, 30]
    path = make_clip(time_base=NTSC, pts=pts)
    with VideoFile(str(path)) as source:
        frames = list(source.frames())
    assert [frame.time for frame in frames] == [tick * NTSC for tick in pts] == read_pts(path)
    assert frames[0].duration * frames[0].time_base == NTSC
    assert frames[4].duration * frames[4].time_base == 19 * NTSC


def test_info_says_what_is_known_before_the_first_frame(make_clip: MakeClip) -> None:
    with VideoFile(str(make_clip())) as source:
        info = source.info
    assert (info.width, info.height, info.frame_rate, info.frame_count) == (64, 48, 25, 20)
    assert info.time_base == Fraction(1, 12800)
    assert "h264 64x48 25 fps" in info.description


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_rotation_is_applied(make_clip: MakeClip, rotation: int, turns: int) -> None:
    with VideoFile(str(make_clip(rotation=rotation))) as source:
        info, first = source.info, next(source.frames()).image
    upright = np.rot90(picture(0), turns)
    assert first.shape == upright.shape == (info.height, info.width, 3)
    assert np.abs(first.astype(int) - upright).mean() < 6


@pytest.mark.parametrize("size", [(63, 47), (1, 1), (64, 47)])
def test_odd_sizes(make_clip: MakeClip, size: tuple[int, int]) -> None:
    path = make_clip(name="odd.mkv", codec="ffv1", options={}, size=size, pixel_format="yuv444p", pts=(0, 512))
    with VideoFile(str(path)) as source:
        assert [frame.image.shape for frame in source.frames()] == [(size[1], size[0], 3)] * 2


@pytest.mark.parametrize(("matrix", "given", "guessed"), [(2, 6, True), (1, 1, False), (5, 5, False), (9, 9, False)])
def test_matrix_is_read_or_guessed(make_clip: MakeClip, matrix: int, given: int, guessed: bool) -> None:
    with VideoFile(str(make_clip(colorspace=matrix, pts=(0, 512)))) as source:
        assert (source.info.color.matrix, source.info.color.guessed) == (given, guessed)


@pytest.mark.parametrize("matrix", [1, 5])
def test_colors_are_those_of_the_matrix(make_clip: MakeClip, matrix: int) -> None:
    with VideoFile(str(make_clip(colorspace=matrix, pixel_format="yuv444p"))) as source:
        image = next(source.frames()).image
    assert np.abs(image.astype(int) - picture(0)).mean() < 2.5


def test_high_definition_without_a_tag_is_709(make_clip: MakeClip) -> None:
    with VideoFile(str(make_clip(size=(64, 720), pts=(0, 512)))) as source:
        assert source.info.color.matrix == 1


@pytest.mark.parametrize(
    ("start", "end", "kept"), [(None, "0.2", range(5)), ("0.2", None, range(5, 20)), ("0.22", "0.4", range(6, 10))]
)
def test_selection(make_clip: MakeClip, start: str | None, end: str | None, kept: range) -> None:
    selection = Selection(start and Fraction(start), end and Fraction(end))  # type: ignore[arg-type]
    with VideoFile(str(make_clip()), selection) as source:
        assert [frame.time * 25 for frame in source.frames()] == list(kept)
        assert source.info.frame_count == len(kept) or start == "0.22"


def test_selection_beyond_the_end(make_clip: MakeClip) -> None:
    with (
        VideoFile(str(make_clip()), Selection(start=Fraction(9))) as source,
        pytest.raises(SourceError, match=r"lasts 0\.80 s"),
    ):
        source.info  # noqa: B018


def test_animated_gif(make_clip: MakeClip) -> None:
    path = make_clip(
        name="a.gif", codec="gif", options={}, pixel_format="rgb8", time_base=Fraction(1, 100), pts=(0, 4, 8)
    )
    with VideoFile(str(path)) as source:
        assert len(list(source.frames())) == 3
        assert source.info.color.guessed


def test_refusals_are_one_line(tmp_path: Path, make_clip: MakeClip) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    for location, reason in (("absent.mp4", "no such file"), ("", "a folder"), ("text.mp4", "cannot be read")):
        with pytest.raises(SourceError, match=reason) as error:
            VideoFile(str(tmp_path / location))
        assert "\n" not in str(error.value)
    audio = make_clip(name="clip.mkv", audio=True)
    import av

    with av.open(str(audio)) as given, av.open(str(tmp_path / "only.m4a"), "w", format="mp4") as output:
        target = output.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(given.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = target
                output.mux(packet)
    with pytest.raises(SourceError, match="no video in this file; found: audio"):
        VideoFile(str(tmp_path / "only.m4a"))


def test_truncated_file_gives_what_it_has(make_clip: MakeClip, tmp_path: Path) -> None:
    whole = make_clip(name="whole.mkv", pts=range(0, 40 * 512, 512)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    with VideoFile(str(tmp_path / "cut.mkv")) as source:
        assert 5 < len(list(source.frames())) < 40


def test_names_that_look_like_protocols(make_clip: MakeClip, tmp_path: Path) -> None:
    odd = make_clip().rename(tmp_path / "a:b %03d.mp4")
    with VideoFile(str(odd)) as source:
        assert len(list(source.frames())) == 20


@pytest.mark.parametrize("location", ["87", "99999999999999", "/dev/video87"])
def test_a_camera_that_is_not_there_is_one_line(location: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match=f"camera {location}: cannot be opened"):
        Camera(location)
    assert capfd.readouterr() == ("", "")


def test_camera_takes_numbers_and_device_files() -> None:
    assert Camera.accepts("0") and Camera.accepts("/dev/video2")
    assert not Camera.accepts("0.mp4")
