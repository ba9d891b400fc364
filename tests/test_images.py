"""Images: what is read is what a viewer shows, and what is written is whole or not there."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import picture, read_pts
from imagefiles import SIZE, chunk, indices, read, save, write

from streamgan import pipeline
from streamgan.api import Encoding, Frame, Selection, SinkError, SourceError, UsageError, VideoInfo
from streamgan.images import ImageFiles, ImageSink
from streamgan.plugins import Registry
from streamgan.reading.sources import VideoFile
from streamgan.writing.animations import AnimationSink

MakeClip = Callable[..., Path]


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm", "jpg", "webp", "JPG"])
def test_one_image_of_each_kind(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"a.{ending}", 3)
    (frame,) = read(path)
    assert np.abs(frame.image.astype(int) - picture(3)).mean() < (3 if ending in ("jpg", "webp", "JPG") else 1e-9)
    assert (frame.pts, frame.duration, frame.time_base) == (0, 1, Fraction(1, 25))
    with ImageFiles(str(path)) as source:
        assert (source.info.width, source.info.height, source.info.frame_count) == (*SIZE, 1)


def test_a_folder_is_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for index in (0, 1, 2, 10, 9, 11):
        save(tmp_path / f"a{index}.png", index)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    save(tmp_path / ".hidden.png", 50)
    for location in (tmp_path, tmp_path / "*.png", tmp_path / "a%d.png", tmp_path / "a*"):
        assert ImageFiles.accepts(str(location))
        assert indices(read(location)) == [0, 1, 2, 9, 10, 11], location
    assert indices(read(tmp_path / "a1*.png")) == [1, 10, 11]


@pytest.mark.parametrize(("given", "rate"), [("", 25), ("@10", 10), ("@30000/1001", Fraction(30000, 1001))])
def test_rate_and_selection(tmp_path: Path, given: str, rate: Fraction) -> None:
    for index in range(10):
        save(tmp_path / f"{index}.png", index)
    frames = read(f"{tmp_path}{given}", Selection(2 / Fraction(rate), 5 / Fraction(rate)))
    assert indices(frames) == [2, 3, 4]
    assert [frame.time for frame in frames] == [index / Fraction(rate) for index in (2, 3, 4)]
    with pytest.raises(SourceError, match="no image in the part wanted; all together they last"):
        read(f"{tmp_path}{given}", Selection(Fraction(99)))


def test_a_name_with_an_at_sign_is_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "shots@2"
    folder.mkdir()
    save(folder / "0.png")
    with ImageFiles(str(folder)) as source:
        assert source.info.frame_rate == 25
    with pytest.raises(UsageError, match="a rate of @0"):
        ImageFiles(f"{tmp_path}@0")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = picture(5)
    # What the EXIF standard says of where row 0 and column 0 of the stored picture lie.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    tag = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1" + struct.pack(">H", orientation) + b"\0\0\0\0\0\0"
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(stored[..., ::-1]))[1].tobytes()
    exif = b"Exif\0\0" + tag
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    png = cv2.imencode(".png", np.ascontiguousarray(stored[..., ::-1]))[1].tobytes()
    (tmp_path / "a.png").write_bytes(png[:33] + chunk(b"eXIf", tag) + png[33:])
    for name in ("a.jpg", "a.png"):
        (frame,) = read(tmp_path / name)
        assert frame.image.shape == upright.shape, name
        assert np.abs(frame.image.astype(int) - upright).mean() < 3, name


def test_every_and_frames(tmp_path: Path) -> None:
    for index in range(10):
        save(tmp_path / f"{index}.png", index)
    with ImageFiles(f"{tmp_path}@10", Selection(every=3)) as source:
        assert (source.info.frame_count, source.info.frame_rate) == (4, Fraction(10, 3))
        frames = list(source.frames())
    assert indices(frames) == [0, 3, 6, 9] and [frame.pts for frame in frames] == [0, 3, 6, 9]
    assert [frame.duration for frame in frames] == [3, 3, 3, 1]
    assert indices(read(tmp_path, Selection(frames=2))) == [0, 1]
    assert indices(read(tmp_path, Selection(start=Fraction(1, 5), every=2, frames=2))) == [5, 7]


def test_one_size_only(tmp_path: Path) -> None:
    save(tmp_path / "a1.png"), save(tmp_path / "a2.png", 0, (32, 48))
    with pytest.raises(SourceError, match=r"a2\.png: 32x48 pixels, 64x48 expected, the size of a1\.png"):
        read(tmp_path)


def test_refusals_name_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    png, jpg = save(tmp_path / "a.png").read_bytes(), save(tmp_path / "a.jpg").read_bytes()
    (tmp_path / "short.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "short.jpg").write_bytes(jpg[:200])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "moving.png").write_bytes(png[:33] + chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + png[33:])
    cv2.imwrite(str(tmp_path / "float.tif"), np.zeros((4, 4, 3), np.float32))
    (tmp_path / "none").mkdir()
    for name, reason in {
        "short.png": "cut short",
        "short.jpg": "damaged",
        "empty.png": "it is empty",
        "text.jpg": "of another kind",
        "absent.png": "no such file",
        "moving.png": "an animated PNG",
        "float.tif": "float32 pixels",
        "none": "a folder, not a video file, and no images in it",
        "none/*.png": "no image is named like this",
    }.items():
        with pytest.raises(SourceError, match=reason) as error:
            read(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_what_is_no_image_is_left_to_others() -> None:
    for location in ("0", "film.mp4", "http://host/a.png", "*.mp4", "/dev/video0", "a.gif"):
        assert not ImageFiles.accepts(location)
    for location in ("film.mp4", "http://host/a.png", "out.gif", "out.webp", "window:"):
        assert not ImageSink.accepts(location)
    assert ImageSink.accepts("a.JPG") and ImageSink.accepts("out/") and ImageSink.accepts("out/%03d.webp")
    assert AnimationSink.accepts("a.GIF") and not AnimationSink.accepts("out/%03d.webp")


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm", "jpg"])
def test_writes_one_image(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"night.{ending}"
    with ImageSink(str(path)) as sink:
        sink.open(VideoInfo(*SIZE, Fraction(1, 25)))
        sink.write(Frame(picture(7), 0, Fraction(1, 25)))
        assert not path.exists()
    assert os.listdir(tmp_path) == [path.name]
    difference = cv2.imread(str(path))[..., ::-1].astype(int) - picture(7)
    assert np.abs(difference).mean() < (2 if ending == "jpg" else 1e-9)
    with pytest.raises(UsageError, match="exists already"):
        ImageSink(str(path))
    write(ImageSink(str(path), Encoding(overwrite=True)))
    with pytest.raises(UsageError, match="is the input itself"):
        ImageSink(str(path), Encoding(overwrite=True, copy_from=str(path)))


def test_one_name_holds_one_image(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds one image, but more frames come; use -o .*night-%06d\.png"):
        write(ImageSink(str(tmp_path / "night.png")), 2)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["out/", "out/%06d.png"])
@pytest.mark.parametrize("there", [False, True])
def test_writes_a_sequence(tmp_path: Path, name: str, there: bool) -> None:
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    write(ImageSink(f"{tmp_path}/{name}"), 3)
    assert set(os.listdir(tmp_path)) == {"out"}
    wanted = [f"00000{number}.png" for number in (1, 2, 3)]
    assert sorted(os.listdir(folder)) == wanted + ["notes.txt"] * there
    assert indices(read(folder)) == [0, 1, 2]
    assert folder.stat().st_mode & 0o777 == 0o777 & ~_umask()
    with pytest.raises(UsageError, match=r"images exist already, such as 000001\.png"):
        ImageSink(f"{tmp_path}/{name}")
    sink = write(ImageSink(f"{tmp_path}/{name}", Encoding(overwrite=True)), 2)
    assert sink.notes == ["1 images of an earlier sequence are still there, up to 000003.png"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("name", ["a.png", "out/", "there/%d.jpg", "a.gif", "a.webp", "a.apng"])
def test_an_error_leaves_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    cls = AnimationSink if AnimationSink.accepts(name) else ImageSink
    with pytest.raises(RuntimeError), cls(f"{tmp_path}/{name}") as sink:
        sink.open(VideoInfo(*SIZE, Fraction(1, 25), Fraction(25)))
        sink.write(Frame(picture(0), 0, Fraction(1, 25), 1))
        raise RuntimeError
    assert os.listdir(tmp_path) == ["there"] and os.listdir(tmp_path / "there") == []
    sink.abort()
    sink.close()


@pytest.mark.parametrize("name", ["a.png", "out/", "a.gif", "a.webp", "a.apng"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    cls = AnimationSink if AnimationSink.accepts(name) else ImageSink
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        with pytest.raises(SinkError, match="cannot be written") as error, cls(f"{tmp_path}/{name}") as sink:
            sink.open(VideoInfo(320, 240, Fraction(1, 25), Fraction(25)))
            sink.write(Frame(noise, 0, Fraction(1, 25), 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == []


def test_names_with_odd_digits(tmp_path: Path) -> None:
    for index, name in enumerate(("a1", "a10", "a²", "a٣")):
        save(tmp_path / f"{name}.png", index)
    assert len(read(tmp_path)) == 4


@pytest.mark.parametrize("name", ["a.png", "there/%d.png", "a.gif", "a.webp"])
def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    taken = tmp_path / (name % 2 if "%" in name else name)
    cls = AnimationSink if AnimationSink.accepts(name) else ImageSink
    with pytest.raises(SinkError, match="nothing was replaced"), cls(f"{tmp_path}/{name}") as sink:
        sink.open(VideoInfo(*SIZE, Fraction(1, 25), Fraction(25)))
        for index in range(3 if "%" in name or cls is AnimationSink else 1):
            sink.write(Frame(picture(index), index, Fraction(1, 25), 1))
        taken.write_bytes(b"precious")
    assert taken.read_bytes() == b"precious"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [taken]


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    for name, reason in (("nowhere/a.png", "does not exist"), ("nowhere/out/", "does not exist")):
        with pytest.raises(SinkError, match=reason):
            ImageSink(f"{tmp_path}/{name}")
    with pytest.raises(UsageError, match="one number may be in the name"):
        ImageSink(f"{tmp_path}/%d/%d.png")
    with pytest.raises(SinkError, match="cannot be written"):
        write(ImageSink(f"{tmp_path}/a.jpg"), size=(65536, 1))
    assert os.listdir(tmp_path) == []


def test_gif_shows_the_frames_at_their_times(tmp_path: Path) -> None:
    write(AnimationSink(str(tmp_path / "a.gif")), 10, rate=30)
    assert read_pts(tmp_path / "a.gif") == [Fraction(round(index * 100 / 30), 100) for index in range(10)]
    assert b"NETSCAPE2.0\x03\x01\x00\x00" in (tmp_path / "a.gif").read_bytes()  # for ever
    with VideoFile(str(tmp_path / "a.gif")) as source:
        for index, frame in enumerate(source.frames()):
            assert np.abs(frame.image.astype(int) - picture(index)).mean() < 4


def test_apng_loses_nothing(tmp_path: Path) -> None:
    write(AnimationSink(str(tmp_path / "a.apng")), 5)
    assert read_pts(tmp_path / "a.apng") == [Fraction(index, 25) for index in range(5)]
    with VideoFile(str(tmp_path / "a.apng")) as source:
        assert [np.array_equal(f.image, picture(i)) for i, f in enumerate(source.frames())] == [True] * 5


def test_webp_has_every_frame_and_its_duration(tmp_path: Path) -> None:
    write(AnimationSink(str(tmp_path / "a.webp")), 5)
    data, at, durations, loops = (tmp_path / "a.webp").read_bytes(), 12, [], None
    while at < len(data):  # the chunks of the container, by its specification
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + length]
        if kind == b"ANIM":
            loops = int.from_bytes(body[4:6], "little")
        elif kind == b"ANMF":
            durations.append(int.from_bytes(body[12:15], "little"))
        at += 8 + length + length % 2
    assert (durations, loops) == ([40] * 5, 0)
    write(AnimationSink(str(tmp_path / "still.webp")))
    (frame,) = read(tmp_path / "still.webp")
    assert np.abs(frame.image.astype(int) - picture(0)).mean() < 4


def test_what_browsers_slow_down_is_left_out_and_said(tmp_path: Path) -> None:
    sink = write(AnimationSink(str(tmp_path / "a.gif")), 20, rate=100)
    assert read_pts(tmp_path / "a.gif") == [Fraction(index, 50) for index in range(10)]
    assert sink.notes == ["10 frames were left out: gif is shown at no more than 50 a second"]


@pytest.fixture
def translate(registry: Registry, make_preset: Callable[..., str]) -> Callable[..., pipeline.Report]:
    """Runs the whole pipeline with a translator that changes nothing."""
    preset = make_preset("identity")
    return lambda given, **fields: pipeline.run(
        pipeline.build(pipeline.Request.of(input=str(given), preset=preset, **fields), registry)
    )


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_a_run_makes_the_same_kind_beside(tmp_path: Path, translate: Callable[..., object], ending: str) -> None:
    path = save(tmp_path / f"photo.{ending}", 4)
    translate(path)
    (given,), (made,) = read(path), read(tmp_path / f"photo.trial.{ending}")
    assert np.abs(made.image.astype(int) - given.image).mean() < (1e-9 if ending == "png" else 2)
    translate(path, output=str(tmp_path / "photo.mp4"))
    assert read_pts(tmp_path / "photo.mp4") == [0]


def test_a_run_of_a_folder(tmp_path: Path, translate: Callable[..., object]) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    for index in range(12):
        save(shots / f"{index}.png", index)
    translate(shots)
    assert indices(read(tmp_path / "shots.trial")) == list(range(12))
    translate(f"{shots}@10", output=str(tmp_path / "film.mp4"), end="0.5")
    assert read_pts(tmp_path / "film.mp4") == [Fraction(index, 10) for index in range(5)]
    for output in (f"{shots}/%d.png", f"{shots}/3.png"):
        with pytest.raises(UsageError, match="would replace the input"):
            translate(shots, output=output, overwrite=True)
    with pytest.raises(UsageError, match="names several images"):
        translate(shots / "*.png")
    with pytest.raises(SourceError, match="no such file"):
        translate(shots / "99.png")


def test_a_run_of_a_film(make_clip: MakeClip, tmp_path: Path, translate: Callable[..., pipeline.Report]) -> None:
    clip = make_clip(audio=True)
    translate(clip, output=f"{tmp_path}/out/")
    assert len(os.listdir(tmp_path / "out")) == 20
    assert translate(clip, output=str(tmp_path / "a.gif")).notes == ("audio was left out: gif cannot hold it",)
    with pytest.raises(UsageError, match="or OUT/ for a folder of images"):
        translate(clip, output=str(tmp_path / "a.xyz"))
