"""The reader: selections, damage, clocks and shapes, against FFmpeg's plain decoding of the same file."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import picture, read_pts

from streamgan.api import Frame, Selection, SourceError, VideoInfo
from streamgan.reading import decoder
from streamgan.reading.sources import WHOLE, VideoFile

MakeClip = Callable[..., Path]
LONG = {"pts": range(0, 60 * 512, 512), "size": (96, 80)}


def read(path: Path, selection: Selection = WHOLE, threads: int = 4, skip: int = 0) -> tuple[list[Frame], list[str]]:
    """Frames and notes of a file."""
    with VideoFile(str(path), selection) as source:
        source.threads, source.skip = threads, skip
        frames = list(source.frames())
        assert (source.lost, source.repeated) == (source.lost, source.repeated)
    return frames, source.notes


def plain(path: Path) -> list[int | None]:
    """Times of what FFmpeg decodes with one thread, every packet on its own: what can be had at all."""
    times: list[int | None] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
        for packet in container.demux(stream):
            try:
                times += [frame.pts for frame in packet.decode()]
            except av.error.FFmpegError:
                continue
    return times


def ticks(frames: Sequence[Frame]) -> list[int]:
    """Times in 1/25 s."""
    return [int(frame.time * 25) for frame in frames]


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (Selection(frames=3), range(3)),
        (Selection(every=3), range(0, 20, 3)),
        (Selection(frames=4, every=3), range(0, 12, 3)),
        (Selection(Fraction("0.2"), Fraction("0.6"), every=4), range(5, 15, 4)),
        (Selection(Fraction("0.2"), frames=50), range(5, 20)),
        (Selection(every=99), range(1)),
    ],
)
def test_fewer_frames(make_clip: MakeClip, selection: Selection, kept: range) -> None:
    path = make_clip()
    with VideoFile(str(path), selection) as source:
        frames = list(source.frames())
        assert ticks(frames) == list(kept)
        assert source.info.frame_count == len(kept)
    ends = [frame.time + frame.duration * frame.time_base for frame in frames]
    assert ends[:-1] == [frame.time for frame in frames[1:]]
    assert read(path, selection, skip=2)[0][0].time == frames[2].time if len(kept) > 2 else True


def test_nothing_is_decoded_beyond_the_frames_wanted(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(**LONG)
    seen = []
    original = decoder.Decoder.decode
    monkeypatch.setattr(
        decoder.Decoder, "decode", lambda self, packet: [seen.append(packet), *original(self, packet)][1:]
    )
    assert len(read(path, Selection(frames=2), threads=1)[0]) == 2
    assert len(seen) < 10


def test_skipped_frames_are_not_converted(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip()
    whole = read(path)[0]
    made = []
    from streamgan.frames.convert import FrameMaker

    original = FrameMaker.make
    monkeypatch.setattr(FrameMaker, "make", lambda *given: made.append(1) or original(*given))
    left = read(path, skip=15)[0]
    assert [frame.pts for frame in left] == [frame.pts for frame in whole[15:]]
    assert all((one.image == other.image).all() for one, other in zip(left, whole[15:], strict=True))
    assert len(made) == 5
    assert read(path, skip=99)[0] == []


CODECS = {
    "h264": {"name": "film.mkv", "options": {"g": "12", "preset": "veryfast"}},
    "open": {"name": "film.mp4", "options": {"g": "25", "preset": "veryfast", "x264-params": "open-gop=1:bframes=3"}},
    "hevc": {"name": "film.mkv", "codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=0"}},
    "vp9": {"name": "film.webm", "codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "ts": {"name": "film.ts", "options": {"g": "12", "preset": "veryfast"}},
}


@pytest.mark.parametrize("kind", CODECS)
def test_every_frame_that_can_be_decoded_comes(make_clip: MakeClip, tmp_path: Path, kind: str) -> None:
    """Files with flipped bits, noise and cut ends; threads must lose nothing that one thread gives."""
    random.seed(kind)
    good = make_clip(**LONG, **CODECS[kind]).read_bytes()
    differed = False
    for trial in range(6):
        body = bytearray(good)
        for _ in range(4):
            place = random.randrange(len(body) // 4, len(body) - 50)
            body[place : place + 30] = random.randbytes(30) if trial % 2 else bytes([body[place] ^ 16])
        path = tmp_path / f"bad{trial}{Path(CODECS[kind]['name']).suffix}"
        path.write_bytes(body[: len(body) * 3 // 4] if trial > 3 else body)
        try:
            expected = plain(path)
        except av.error.FFmpegError:  # no longer a film
            continue
        differed = differed or len(expected) < 60
        with VideoFile(str(path)) as source:
            source.threads = 4
            assert len(list(source.frames())) == len(expected)
    assert differed


def break_packets(path: Path, target: Path, broken: set[int]) -> Path:
    """A copy whose packets of these numbers hold nothing but zeros."""
    with av.open(str(path)) as given, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(given.streams.video[0])):
            if packet.dts is None:
                continue
            if number in broken:
                packet.update(bytes(packet.size))
            packet.stream = stream
            output.mux(packet)
    return target


@pytest.mark.parametrize("threads", [1, 4])
def test_what_a_damaged_frame_does(make_clip: MakeClip, tmp_path: Path, threads: int) -> None:
    flat = {"g": "10", "preset": "veryfast", "bf": "0"}
    path = break_packets(make_clip(name="a.mkv", options=flat), tmp_path / "bad.mkv", {6, 7, 15})
    whole = [tick for tick in range(20)]
    assert len(plain(path)) == 17
    with VideoFile(str(path)) as source:
        source.threads = threads
        assert ticks(list(source.frames())) == [tick for tick in whole if tick not in (6, 7, 15)]
        assert (source.lost, source.repeated) == (3, 0)
        assert source.notes == ["3 frames could not be decoded: left out (the first at 0.24 s)"]
    with VideoFile(str(path), Selection(on_error="repeat")) as source:
        source.threads = threads
        frames = list(source.frames())
        assert ticks(frames) == whole
        assert (source.lost, source.repeated) == (0, 3)
        assert (frames[5].image == frames[7].image).all() and (frames[5].image != frames[8].image).any()
        assert source.notes == ["3 frames could not be decoded: replaced by the one before (the first at 0.24 s)"]
    with VideoFile(str(path), Selection(on_error="stop")) as source:
        source.threads = threads
        with pytest.raises(SourceError, match=r"damaged at 0\.24 s; --on-error skip or repeat"):
            list(source.frames())


def test_a_file_that_ends_early_says_so(make_clip: MakeClip, tmp_path: Path) -> None:
    for name, options in (("a.mkv", {}), ("b.mp4", {"movflags": "faststart"})):
        whole = make_clip(name=name, **LONG)
        if options:
            with av.open(str(whole)) as given, av.open(str(tmp_path / "fast.mp4"), "w", options=options) as output:
                stream = output.add_stream_from_template(given.streams.video[0])
                for packet in given.demux(given.streams.video[0]):
                    if packet.dts is not None:
                        packet.stream = stream
                        output.mux(packet)
            whole = tmp_path / "fast.mp4"
        cut = tmp_path / f"cut{whole.suffix}"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
        frames, notes = read(cut)
        assert len(frames) == len(plain(cut))
        last = float(frames[-1].time + frames[-1].duration * frames[-1].time_base)
        assert f"the video ends at {last:.2f} s; the file announces 2.40 s" in notes
        assert not any("announces" in note for note in read(whole)[1])
        assert not any("announces" in note for note in read(cut, Selection(frames=3))[1])


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "libx264"), ("a.ts", "mpeg2video"), ("a.flv", "libx264")])
def test_a_start_between_key_frames(make_clip: MakeClip, name: str, codec: str) -> None:
    """Formats without an index, where a seek lands behind the key frame."""
    path = make_clip(name=name, codec=codec, options={"g": "25"}, time_base=Fraction(1, 25), pts=range(100))
    begins = read_pts(path)[0]
    for start in (Fraction("0.04"), Fraction("0.9"), Fraction(2), Fraction("3.96")):
        frames = read(path, Selection(start=start))[0]
        assert [frame.time - begins for frame in frames] == [
            Fraction(tick, 25) for tick in range(math.ceil(start * 25), 100)
        ]


def test_transport_streams_one_behind_the_other(make_clip: MakeClip, tmp_path: Path) -> None:
    one = make_clip(name="one.ts", audio=True)
    (tmp_path / "two.ts").write_bytes(one.read_bytes() * 3)
    times = [frame.time for frame in read(tmp_path / "two.ts")[0]]
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert len(times) == 60 and set(steps[:19]) == {Fraction(1, 25)}
    assert all(Fraction(1, 50) < step < Fraction(1, 5) for step in steps)


def write_interlaced(path: Path, options: dict[str, str]) -> Path:
    """A bar that moves from field to field, coded as interlaced by FFmpeg's own program or PyAV."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme", "qscale": "2", **options})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(12):
            image = np.zeros((64, 64, 3), np.uint8)
            image[0::2, index * 4 : index * 4 + 8] = 220
            image[1::2, index * 4 + 2 : index * 4 + 10] = 220
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            graph = av.filter.Graph()
            chain = [
                graph.add_buffer(width=64, height=64, format=frame.format, time_base=Fraction(1, 25)),
                graph.add("format", "yuv420p"),
                graph.add("setfield", "tff"),
                graph.add("buffersink"),
            ]
            graph.link_nodes(*chain).configure()
            frame.pts, frame.time_base = index, Fraction(1, 25)
            graph.push(frame)
            output.mux(stream.encode(graph.pull()))
        output.mux(stream.encode(None))
    return path


def test_interlaced_video_is_deinterlaced_frame_for_frame(tmp_path: Path) -> None:
    path = write_interlaced(tmp_path / "fields.mkv", {})
    frames, notes = read(path)
    assert [frame.time for frame in frames] == read_pts(path)
    assert notes == ["the video is interlaced, and was deinterlaced (bwdif, one frame for one)"]
    image = frames[6].image[8:56, :, 1].astype(int)
    assert np.abs(image[1:-1] * 2 - image[:-2] - image[2:]).mean() < 6 < 20  # the comb of the fields is gone
    with av.open(str(path)) as container:
        woven = list(container.decode(video=0))[6].to_ndarray(format="rgb24")[8:56, :, 1].astype(int)
    assert np.abs(woven[1:-1] * 2 - woven[:-2] - woven[2:]).mean() > 20


def test_a_single_interlaced_picture(tmp_path: Path) -> None:
    path = write_interlaced(tmp_path / "fields.mkv", {})
    assert len(read(path, Selection(frames=1))[0]) == len(read(path, Selection(end=Fraction(1, 25)))[0]) == 1


@pytest.mark.parametrize(("size", "words"), [((128, 96), "scaled"), ((96, 96), "scaled with bars")])
def test_a_size_that_changes(make_clip: MakeClip, tmp_path: Path, size: tuple[int, int], words: str) -> None:
    parts = [make_clip(name="a.ts"), make_clip(name="b.ts", size=size)]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, notes = read(path)
    assert len(frames) == 40 and {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert notes == [f"from 0.80 s: size changes to {size[0]}x{size[1]}: {words}"]
    last = frames[39].image.astype(int)
    if words == "scaled":
        assert np.abs(last - picture(19)).mean() < 6
    else:  # 96x96 in 64x48: 48x48 in the middle, 8 pixels of black on either side
        assert last[:, :7].max() < 8 and last[:, 57:].max() < 8
        expected = picture(19, (48, 48))
        assert np.abs(last[:, 8:56] - expected).mean() < 6


def test_transparent_vp9(tmp_path: Path) -> None:
    sample = Path(__file__).parents[2] / "shared/data/torture/mp_transparent.webm"
    if not sample.exists():
        pytest.skip("../shared/data is not there")
    with VideoFile(str(sample), Selection(start=Fraction(1), frames=2)) as source:
        frames = list(source.frames())
        assert source.info.alpha
    assert all(frame.alpha is not None and frame.alpha.min() < 10 < 245 < frame.alpha.max() for frame in frames)
    assert [round(float(frame.time), 2) for frame in frames] == [1.0, 1.03]


def test_times_of_hard_files_are_those_of_ffprobe() -> None:
    folder = Path(__file__).parents[2] / "shared/data/torture"
    if not folder.exists():
        pytest.skip("../shared/data is not there")
    names = ("vfr_irregular.mkv", "ax_mp4_sample_edit_list_only_preroll_sync_sample.mp4")
    names += ("ts_lost_packets.ts", "ax_mp4_iibbibb_editlist_videoonly.mp4")
    names += ("truncated_moov_first.mp4", "ax_ts_sample_iframe.ts", "mpeg2_interlaced_tff.ts")
    command = ["ffprobe", "-v", "quiet", "-select_streams", "v:0", "-of", "csv=p=0"]
    for name in names:
        asked = [*command, "-show_entries", "frame=best_effort_timestamp_time", str(folder / name)]
        try:
            shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        except FileNotFoundError:
            pytest.skip("ffprobe is not installed")
        expected = [float(word.strip(",")) for word in shown.split()]
        given = [float(frame.time) for frame in read(folder / name)[0]]
        assert given == pytest.approx(expected, abs=6e-4), name


def test_info_of_an_inspection_costs_one_frame(make_clip: MakeClip) -> None:
    with VideoFile(str(make_clip())) as source:
        assert isinstance(source.info, VideoInfo) and source.info is source.info
