"""What travels beside the video: kept, converted or named; and in step with the picture."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import pytest
from clips import picture, read_pts

from streamgan.api import Encoding, Selection
from streamgan.reading.sources import WHOLE, VideoFile
from streamgan.writing.sinks import VideoFileSink

MakeClip = Callable[..., Path]
RATE = 48000
CLICKS = (0.5, 1.5)
CHAPTERS = (("One", 0, 500), ("Two", 500, 1200), ("Three", 1200, 2000))
Extra = Callable[[Any], None]


def write(path: Path, before: Extra = lambda output: None, audio: str | None = None, seconds: int = 2) -> Path:
    """A film at 25 fps with PyAV alone; `before` adds to the output before its header is written."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "30"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = output.add_stream(audio, rate=RATE, layout="stereo") if audio else None
        before(output)
        for index in range(25 * seconds):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for frame in clicking(seconds) if sound else ():
            output.mux(sound.encode(frame))
        if sound:
            output.mux(sound.encode(None))
    return path


def clicking(seconds: int) -> list[av.AudioFrame]:
    """Silence with a loud short tone at each of `CLICKS`, in stereo."""
    samples = np.zeros((2, seconds * RATE // 1024 * 1024), np.float32)
    for click in CLICKS:
        samples[:, int(click * RATE) :][:, :200] = np.sin(np.arange(200) * 0.5) * 0.9
    frames = []
    for begins in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(samples[:, begins : begins + 1024].copy(), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, begins, Fraction(1, RATE)
        frames.append(frame)
    return frames


def heard(path: Path) -> list[float]:
    """When the tones begin, in seconds, as another reader decodes them."""
    loud: list[float] = []
    resampler = av.AudioResampler(format="fltp")
    with av.open(str(path)) as container:
        for decoded in container.decode(audio=0):
            for frame in resampler.resample(decoded):
                above = np.abs(frame.to_ndarray()[0]) > 0.3
                loud += [
                    float(frame.pts * frame.time_base) + int(at) / frame.sample_rate for at in np.nonzero(above)[0]
                ]
    return [time for index, time in enumerate(loud) if not index or time - loud[index - 1] > 0.2]


def translate(source: Path, target: Path, **fields: Any) -> list[str]:
    """Source to sink without a change; the notes of both."""
    selection = fields.pop("selection", WHOLE)
    codec = "vp9" if target.suffix == ".webm" else "h264"
    encoding = Encoding(codec, copy_from=str(source), selection=selection, **fields)
    with VideoFile(str(source), selection) as frames, VideoFileSink(str(target), encoding) as sink:
        sink.open(frames.info)
        for frame in frames.frames():
            sink.write(frame)
    return [*frames.notes, *sink.notes]


def streams(path: Path) -> list[str]:
    """Kind and codec of each stream."""
    with av.open(str(path)) as container:
        return [f"{s.type} {s.codec_context.name if s.codec_context else s.name}" for s in container.streams]


def chapters(path: Path) -> list[tuple[str, float, float]]:
    """Title, start and end in seconds of each chapter."""
    with av.open(str(path)) as container:
        found = container.chapters()
    return [(c["metadata"]["title"], *(float(c[key] * c["time_base"]) for key in ("start", "end"))) for c in found]


def with_chapters(output: Any) -> None:
    """Adds `CHAPTERS`."""
    tick = Fraction(1, 1000)
    entries = [
        {"id": index, "start": start, "end": end, "time_base": tick, "metadata": {"title": title}}
        for index, (title, start, end) in enumerate(CHAPTERS)
    ]
    output.set_chapters(entries)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (WHOLE, [("One", 0, 0.5), ("Two", 0.5, 1.2), ("Three", 1.2, 2)]),
        (Selection(Fraction("0.4"), Fraction(1)), [("One", 0, 0.1), ("Two", 0.1, 0.6)]),
        (Selection(Fraction("0.6"), None), [("Two", 0, 0.6), ("Three", 0.6, 1.4)]),
        (Selection(None, Fraction("0.5")), [("One", 0, 0.5)]),
    ],
)
def test_chapters_survive_a_cut(tmp_path: Path, suffix: str, selection: Selection, expected: list[Any]) -> None:
    source = write(tmp_path / "in.mkv", with_chapters)
    assert chapters(source) == [(title, start / 1000, end / 1000) for title, start, end in CHAPTERS]
    assert translate(source, tmp_path / f"out.{suffix}", selection=selection) == []
    found = chapters(tmp_path / f"out.{suffix}")
    assert [title for title, *_ in found] == [title for title, *_ in expected]
    assert [time for _, *times in found for time in times] == pytest.approx(
        [time for _, *times in expected for time in times], abs=0.0011
    )


def test_chapters_that_do_not_fit_are_named(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mp4", with_chapters)
    assert translate(source, tmp_path / "out.ts") == ["3 chapters were left out: ts cannot hold chapters"]
    # An MP4 keeps the titles in a stream of data: it is no loss that is to be named.
    assert translate(source, tmp_path / "out.mkv") == []


def test_an_attachment_is_kept_in_matroska_and_else_named(tmp_path: Path) -> None:
    font = bytes(range(256))
    source = write(tmp_path / "in.mkv", lambda output: output.add_attachment("a.ttf", "font/ttf", font))
    assert translate(source, tmp_path / "out.mkv") == []
    with av.open(str(tmp_path / "out.mkv")) as container:
        (kept,) = [stream for stream in container.streams if stream.type == "attachment"]
        assert (kept.name, kept.mimetype, kept.data) == ("a.ttf", "font/ttf", font)
    assert translate(source, tmp_path / "out.mp4") == [
        "attachment stream 1 (a.ttf) was left out: mp4 cannot hold it (mkv can)"
    ]


def test_other_video_streams_and_covers_are_named(tmp_path: Path) -> None:
    def more(output: Any) -> None:
        for codec, size, disposition in (("libx264", 32, 0), ("mjpeg", 128, 1024)):
            extra = output.add_stream(codec, rate=25)
            extra.width, extra.height, extra.pix_fmt = size, size, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            extra.disposition = disposition
            frame = av.VideoFrame.from_ndarray(picture(0, (size, size)), format="rgb24").reformat(format=extra.pix_fmt)
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            late.append((extra, frame))

    late: list[Any] = []
    path = tmp_path / "in.mp4"
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        more(output)
        frame = av.VideoFrame.from_ndarray(picture(0), format="rgb24")
        for stream, shown in [(video, frame), *late]:
            output.mux(stream.encode(shown))
            output.mux(stream.encode(None))
    assert translate(path, tmp_path / "out.mp4") == [
        "video stream 1 (h264) was left out: only stream 0 is translated",
        "cover picture 2 (mjpeg) was left out",
    ]
    assert streams(tmp_path / "out.mp4") == ["video h264"]


def test_large_stills_beside_a_film_are_not_the_film(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mp4"), "w") as output:
        made = [output.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, size in zip(made, (64, 128), strict=True):
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for stream, size, count in zip(made, (64, 128), (20, 2), strict=True):
            for index in range(count):
                frame = av.VideoFrame.from_ndarray(picture(index, (size, size)), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    notes = translate(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert notes == ["video stream 1 (h264) was left out: only stream 0 is translated"]
    assert len(read_pts(tmp_path / "out.mp4")) == 20


def test_data_streams_are_named(tmp_path: Path) -> None:
    def data(output: Any) -> None:
        stream = output.add_data_stream("bin_data")
        packet = av.Packet(b"position")
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 90000)
        output.start_encoding()
        output.mux(packet)

    source = write(tmp_path / "in.ts", data)
    assert translate(source, tmp_path / "out.mp4") == [
        "data stream 1 (bin_data) was left out: data streams are not copied"
    ]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
def test_text_subtitles_become_the_containers_own(make_clip: MakeClip, tmp_path: Path, suffix: str) -> None:
    texts = ("Hello", "<i>You & me</i>")
    source = make_clip(name="in.mkv", subtitles=texts)
    own = {"mp4": "mov_text", "mov": "mov_text", "mkv": "srt", "webm": "webvtt"}[suffix]
    first, again = tmp_path / f"first.{suffix}", tmp_path / "again.mkv"
    assert translate(source, first) == []
    assert streams(first)[1:] == [f"subtitle {own}"]
    assert translate(first, again) == []
    with av.open(str(again)) as container:
        shown = [
            (p.pts * p.time_base, p.duration, p.decode()[0].dialogue) for p in container.demux(subtitles=0) if p.size
        ]
    plain = b"{\\i1}You & me{\\i0}" if suffix == "mkv" else b"You & me"
    assert shown == [(0, 150, b"Hello"), (Fraction(1, 5), 150, plain)]


def test_subtitles_that_nothing_could_read_are_named(make_clip: MakeClip, tmp_path: Path) -> None:
    source = make_clip(name="in.mkv", subtitles=("Hello",))
    for suffix in ("ts", "flv"):
        (note,) = translate(source, tmp_path / f"out.{suffix}")
        assert note.startswith("subtitle stream 1 (") and note.endswith(f"was left out: {suffix} cannot hold it")
        assert streams(tmp_path / f"out.{suffix}") == ["video h264"]


@pytest.mark.parametrize("start", [None, Fraction("0.3")])
@pytest.mark.parametrize(
    ("codec", "suffix", "made"), [("flac", "ts", "aac"), ("pcm_s16le", "flv", "aac"), ("pcm_s16le", "webm", "opus")]
)
def test_audio_that_does_not_fit_is_re_encoded_in_step(
    tmp_path: Path, codec: str, suffix: str, made: str, start: Fraction | None
) -> None:
    source, target = write(tmp_path / "in.mkv", audio=codec), tmp_path / f"out.{suffix}"
    assert heard(source) == pytest.approx(CLICKS, abs=0.001)
    notes = translate(source, target, audio="aac", selection=Selection(start))
    assert notes == [f"audio stream 1 ({codec}) was re-encoded as {made}: {suffix} cannot hold it"]
    assert [each.split()[0] for each in streams(target)] == ["video", "audio"] and made in streams(target)[1]
    begins = Fraction("0.32") if start else Fraction(0)  # the first picture at 25 fps from 0.3 s on
    assert heard(target) == pytest.approx([click - float(begins) for click in CLICKS], abs=0.001)
    assert read_pts(target)[0] == 0


def test_audio_in_mp4_is_re_encoded_with_its_priming(tmp_path: Path) -> None:
    source = write(tmp_path / "in.avi", audio="adpcm_ms")
    translate(source, tmp_path / "out.mp4", audio="aac")
    assert streams(tmp_path / "out.mp4") == ["video h264", "audio aac"]
    assert heard(tmp_path / "out.mp4") == pytest.approx(heard(source), abs=0.001)


@pytest.mark.parametrize("audio", ["copy", "aac", "none"])
def test_audio_that_fits_is_copied_unless_unwanted(make_clip: MakeClip, tmp_path: Path, audio: str) -> None:
    source = make_clip(name="in.mp4", audio=True)
    assert translate(source, tmp_path / "out.mp4", audio=audio) == []
    assert streams(tmp_path / "out.mp4")[1:] == ([] if audio == "none" else ["audio aac"])
    if audio != "none":
        assert packets(tmp_path / "out.mp4") == packets(source)


def packets(path: Path) -> list[bytes]:
    """The content of the packets of the audio."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0)]
