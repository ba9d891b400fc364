"""The stream of the video: every encoder makes what was asked for, or says why not."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import VideoReformatter
from clips import picture

from streamgan.api import Encoding, Frame, SinkError, UsageError, VideoInfo
from streamgan.frames.convert import to_picture
from streamgan.writing import codecs, encoders, videostream

TICK = Fraction(1, 25)


def info(**fields: Any) -> VideoInfo:
    """A small film's properties."""
    return VideoInfo(**({"width": 64, "height": 48, "time_base": TICK, "frame_rate": Fraction(25)} | fields))


def film(path: Path, encoding: Encoding, about: VideoInfo, frames: list[Frame], live: bool = False) -> list[str]:
    """Writes frames through the encoder that is chosen; returns the notes."""
    choice = videostream.choose(str(path), encoding, about, live)
    reformatter = VideoReformatter()
    with av.open(str(path), "w", format=encoders.format_of(str(path))) as output:
        stream = videostream.add_video(output, choice, about, encoding, live)
        for frame in frames:
            made = to_picture(reformatter, frame, about.color, choice.pixel_format)
            made.pts, made.time_base, made.duration = frame.pts, frame.time_base, frame.duration
            output.mux(stream.encode(made))
        output.mux(stream.encode(None))
    return list(choice.notes)


def pictures(count: int, size: tuple[int, int] = (64, 48), **fields: Any) -> list[Frame]:
    """Numbered frames at 25 a second."""
    return [Frame(picture(index, size), index, TICK, 1, **fields) for index in range(count)]


def decoded(path: Path, decoder: str | None = None) -> list[av.VideoFrame]:
    """The frames of a file, by FFmpeg's own decoder or a named one."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if decoder is None:
            return list(container.decode(stream))
        context = av.CodecContext.create(decoder, "r")
        context.extradata = stream.codec_context.extradata
        return [frame for packet in container.demux(stream) for frame in context.decode(packet)]  # type: ignore[misc]


def plane(frame: av.VideoFrame, index: int) -> npt.NDArray[Any]:
    """One plane as stored."""
    kind: Any = np.dtype("<u2") if frame.format.components[0].bits > 8 else np.uint8
    stored = frame.planes[index]
    rows = np.frombuffer(stored, kind).reshape(stored.height, -1)
    return rows[:, : stored.width]


def ramp(width: int = 1024) -> Frame:
    """A frame of 16 bits that rises by 1/4 of a level from column to column."""
    values = np.tile(np.arange(width) * 255 * 256 // width, (32, 1))  # (H, W), in 1/256 of a level
    rounded = (values + 128) // 256
    image = np.repeat(rounded[..., None], 3, axis=2).astype(np.uint8)
    fine = np.repeat((values - rounded * 256)[..., None], 3, axis=2).astype(np.int8)
    return Frame(image, 0, TICK, 1, fine=fine)


@pytest.mark.parametrize(
    ("codec", "bits", "made", "note"),
    [
        ("h264", 8, "yuv420p", None),
        ("h264", 10, "yuv420p10le", "H.264 of 10 bits plays in few"),
        ("h264", 12, "yuv420p10le", "12 bits became 10: libx264 takes no more here"),
        ("hevc", 10, "yuv420p10le", None),
        ("hevc", 12, "yuv420p12le", None),
        ("hevc", 16, "yuv420p12le", "16 bits became 12: libx265 takes no more here (--codec ffv1 does)"),
        ("av1", 10, "yuv420p10le", None),
        ("prores", 8, "yuv422p10le", None),
        ("prores", 10, "yuv422p10le", None),
        ("ffv1", 8, "bgr0", None),
        ("ffv1", 10, "gbrp10le", None),
        ("ffv1", 16, "gbrp16le", None),
    ],
)
def test_deep_pictures_stay_deep(tmp_path: Path, codec: Any, bits: int, made: str, note: str | None) -> None:
    path = tmp_path / "out.mkv"
    about = info(width=1024, height=32, bits=bits)
    notes = film(path, Encoding(codec, crf=1 if codec in codecs.WORST else None), about, [ramp()])
    (frame,) = decoded(path)
    assert frame.format.name == made
    levels = len(np.unique(plane(frame, 0)[16]))
    assert levels > 400 if bits > 8 else levels <= 256 or codec == "prores"
    if note is None:
        assert notes == []
    else:
        assert len(notes) == 1 and note in notes[0]


def test_vp9_of_this_build_says_what_it_lacks(tmp_path: Path) -> None:
    deep = "yuv420p10le" in codecs.offered("libvpx-vp9")
    choice = videostream.choose("out.webm", Encoding("vp9"), info(bits=10))
    assert choice.pixel_format == ("yuv420p10le" if deep else "yuv420p")
    assert bool(choice.notes) != deep


@pytest.mark.parametrize(("codec", "suffix"), [("h264", "mp4"), ("hevc", "mp4"), ("vp9", "webm"), ("ffv1", "mkv")])
def test_lossless_is_exact(tmp_path: Path, codec: Any, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
    frames = [Frame(image, index, TICK, 1) for index, image in enumerate(noise)]
    path = tmp_path / f"out.{suffix}"
    assert film(path, Encoding(codec, lossless=True), info(), frames) == []
    for frame, image in zip(decoded(path), noise, strict=True):
        assert np.array_equal(frame.to_ndarray(format="rgb24"), image)


@pytest.mark.parametrize("codec", ["hevc", "ffv1"])
def test_lossless_is_exact_in_ten_bits(tmp_path: Path, codec: Any) -> None:
    frame, about, path = ramp(), info(width=1024, height=32, bits=10), tmp_path / "out.mkv"
    assert film(path, Encoding(codec, lossless=True), about, [frame]) == []
    assert frame.fine is not None
    exact = (frame.image[..., 0] + frame.fine[..., 0] / 256) * (1023 / 255)
    (found,) = decoded(path)
    assert np.abs(plane(found, 0) - exact).max() <= 0.501  # rounding to 10 bits, and nothing else


def test_lossless_that_is_less_than_everything_says_so(tmp_path: Path) -> None:
    gray = [dataclasses.replace(frame, image=frame.image[..., :1].repeat(3, axis=2)) for frame in pictures(2)]
    notes = film(tmp_path / "av1.mkv", Encoding("av1", lossless=True), info(), gray)
    assert notes == ["lossless but for colour at half the resolution: av1 has only 4:2:0 here"]
    for frame, given in zip(decoded(tmp_path / "av1.mkv"), gray, strict=True):  # grey has no colour to lose
        luma = np.rint(16 + given.image[..., 0] * (219 / 255))
        assert np.abs(plane(frame, 0) - luma).max() <= 1
    notes = film(tmp_path / "h264.mkv", Encoding("h264", lossless=True), info(bits=10), pictures(2))
    assert notes == ["lossless but for rounding from RGB to YCbCr: libx264 takes no RGB of 10 bits"]


@pytest.mark.parametrize(
    ("codec", "suffix", "decoder", "error"),
    [
        ("vp9", "webm", "libvpx-vp9", 6),
        ("vp9", "mkv", "libvpx-vp9", 6),
        ("prores", "mov", None, 0),
        ("prores", "mkv", None, 0),
        ("ffv1", "mkv", None, 0),
        ("ffv1", "mp4", None, 0),
    ],
)
@pytest.mark.parametrize("bits", [8, 10])
def test_alpha_is_kept(tmp_path: Path, codec: Any, suffix: str, decoder: str | None, error: int, bits: int) -> None:
    alpha = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    alpha[10:20] = 255
    path = tmp_path / f"out.{suffix}"
    film(path, Encoding(codec), info(alpha=True, bits=bits), pictures(4, alpha=alpha))
    frames = decoded(path, decoder)
    assert len(frames) == 4
    for frame in frames:
        bits = frame.format.components[-1].bits
        packed = frame.format.name == "bgra"
        found = frame.to_ndarray()[..., 3] if packed else plane(frame, 3) * (255 / (2**bits - 1))
        assert np.abs(np.rint(found) - alpha).max() <= error


@pytest.mark.parametrize(
    ("name", "codec", "words"),
    [
        ("out.mp4", "h264", "h264 cannot keep; use --codec vp9"),
        ("out.mkv", "hevc", "hevc cannot keep"),
        ("out.webm", "av1", "av1 cannot keep"),
        ("out.mp4", "vp9", "vp9 in mp4 cannot keep"),
    ],
)
def test_alpha_is_refused_or_dropped_aloud(name: str, codec: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        videostream.choose(name, Encoding(codec), info(alpha=True))
    choice = videostream.choose(name, Encoding(codec, alpha="drop"), info(alpha=True))
    assert choice.notes == ("transparency was dropped (--alpha drop): it is shown over white",)
    assert "a" not in choice.pixel_format


@pytest.mark.parametrize(
    ("preset", "profile", "pixels"),
    [
        (None, "HQ", "yuv422p10le"),
        ("proxy", "Proxy", "yuv422p10le"),
        ("lt", "LT", "yuv422p10le"),
        ("standard", "Standard", "yuv422p10le"),
        ("4444", "4444", "yuv444p12le"),
        ("4444xq", "XQ", "yuv444p12le"),
    ],
)
def test_profiles_of_prores(tmp_path: Path, preset: str | None, profile: str, pixels: str) -> None:
    film(tmp_path / "out.mov", Encoding("prores", preset=preset), info(), pictures(2))
    with av.open(str(tmp_path / "out.mov")) as container:
        assert container.streams.video[0].codec_context.profile == profile
    assert decoded(tmp_path / "out.mov")[0].format.name == pixels


def test_a_profile_without_alpha_is_refused() -> None:
    with pytest.raises(UsageError, match="no transparency as 'lt'; use --encoder-preset 4444 or 4444xq"):
        videostream.choose("out.mov", Encoding("prores", preset="lt"), info(alpha=True))


@pytest.mark.parametrize(("codec", "least"), [("hevc", 16), ("av1", 32)])
def test_tiny_pictures(tmp_path: Path, codec: Any, least: int) -> None:
    for size in ((least - 1, 200), (200, least - 1), (1, 1)):
        with pytest.raises(UsageError, match=f"takes no pictures below {least}x{least}, .* use --codec h264 or"):
            videostream.choose("out.mp4", Encoding(codec), info(width=size[0], height=size[1]))
    for size in ((least, 200), (200, least)):
        path = tmp_path / f"{size[0]}.mp4"
        film(path, Encoding(codec), info(width=size[0], height=size[1]), pictures(3, size))
        assert [(frame.width, frame.height) for frame in decoded(path)] == [size] * 3


@pytest.mark.parametrize("codec", ["h264", "vp9", "prores", "ffv1"])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 200)])
def test_pictures_that_are_not_too_tiny(tmp_path: Path, codec: Any, size: tuple[int, int]) -> None:
    film(tmp_path / "out.mkv", Encoding(codec), info(width=size[0], height=size[1]), pictures(3, size))
    assert [(frame.width, frame.height) for frame in decoded(tmp_path / "out.mkv")] == [size] * 3


def test_auto_without_hardware_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videostream, "refusal", lambda *_: "no such device")
    choice = videostream.choose("out.mp4", Encoding(encoder="auto"), info())
    assert choice.encoder.name == "libx264"
    (note,) = choice.notes
    assert note.startswith("libx264 was used, no encoder in hardware: h264_nvenc: no such device; ")
    for name in ("h264_qsv", "h264_amf", "h264_videotoolbox"):
        assert f"{name}: " in note
    choice = videostream.choose("out.mkv", Encoding("ffv1", encoder="auto"), info())
    assert choice.notes == ("ffv1 was used, no encoder in hardware: there is none for ffv1",)


@pytest.mark.parametrize(
    ("encoding", "about", "chosen", "pixels"),
    [
        (Encoding(encoder="auto"), info(), "h264_nvenc", "yuv420p"),
        (Encoding("hevc", encoder="auto"), info(bits=10), "hevc_nvenc", "p010le"),
        (Encoding("hevc", encoder="auto"), info(bits=12), "libx265", "yuv420p12le"),
        (Encoding("hevc", encoder="auto"), info(width=63), "hevc_nvenc", "yuv444p"),
        (Encoding("av1", encoder="auto"), info(width=63), "libsvtav1", "yuv420p"),
        (Encoding("vp9", encoder="auto"), info(), "vp9_qsv", "nv12"),
        (Encoding("vp9", encoder="auto"), info(alpha=True), "libvpx-vp9", "yuva420p"),
        (Encoding("hevc", encoder="auto", lossless=True), info(), "hevc_nvenc", "gbrp"),
        (Encoding("av1", encoder="auto", lossless=True), info(), "libsvtav1", "yuv420p"),
    ],
)
def test_auto_takes_hardware_that_suits(
    monkeypatch: pytest.MonkeyPatch, encoding: Encoding, about: VideoInfo, chosen: str, pixels: str
) -> None:
    for name in ("h264_nvenc", "vp9_qsv"):
        if not codecs.offered(name):
            pytest.skip(f"this build of FFmpeg has no {name}")
    monkeypatch.setattr(videostream, "refusal", lambda *_: None)
    choice = videostream.choose("out.mkv", encoding, about)
    assert (choice.encoder.name, choice.pixel_format) == (chosen, pixels)


@pytest.mark.parametrize("name", ["h264_nvenc", "hevc_nvenc", "h264_qsv", "av1_qsv", "h264_amf"])
def test_named_hardware_works_or_is_an_error(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    encoding, about = Encoding(codecs.ENCODERS[name].codec, encoder=name), info(width=256, height=256)  # type: ignore[arg-type]
    try:
        film(tmp_path / "out.mkv", encoding, about, pictures(3, (256, 256)))
    except (SinkError, UsageError) as error:
        assert f"{name}: " in str(error) and "--encoder auto" in str(error) and "\n" not in str(error)
    else:
        assert len(decoded(tmp_path / "out.mkv")) == 3
    assert av.logging.get_level() is None
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_what_the_log_says_in_words() -> None:
    words = videostream._words(
        ["OpenEncodeSessionEx failed: unsupported device (2)", "No capable devices found"], OSError()
    )
    assert words == "this GPU has no NVENC; A100, H100 and H200 have none"
    assert videostream._words(["Something new\n"], OSError()) == "Something new"
    assert videostream._words([], OSError(22, "Invalid argument")) == "Invalid argument"


def test_live_streams_hold_nothing_back() -> None:
    for codec in ("h264", "hevc"):
        encoding = Encoding(codec)  # type: ignore[arg-type]
        choice = videostream.choose("udp://localhost:1", encoding, info(), live=True)
        settings = codecs.options(choice.encoder, encoding, False, live=True)
        assert settings["tune"] == "zerolatency"


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9", "prores", "ffv1"])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "ts", "m2ts", "flv"])
def test_pixels_that_are_not_square_stay_so_or_are_refused(tmp_path: Path, suffix: str, codec: Any) -> None:
    path = tmp_path / f"out.{suffix}"
    try:
        film(path, Encoding(codec), info(sample_aspect_ratio=Fraction(64, 45)), pictures(8))
    except UsageError as error:
        assert "cannot hold" in str(error) or "not square (64:45)" in str(error)
    else:
        with av.open(str(path)) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(64, 45)
