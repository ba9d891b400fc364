"""Images: transparency, 16 bits, camera data and profiles go in and come out; animated WebP is a film."""

from __future__ import annotations

import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from clips import picture
from imagefiles import SIZE, chunk, indices, read, save, write

from streamgan.api import Encoding, Frame, Selection, SourceError, UsageError, VideoInfo
from streamgan.images import ImageFiles, ImageSink
from streamgan.reading.sources import VideoFile
from streamgan.writing.animations import AnimationSink


def clear(path: Path, index: int = 0, least: int = 0) -> npt.NDArray[np.uint8]:
    """Writes a picture whose opacity grows from left to right; returns the opacity."""
    alpha = np.tile(np.linspace(least, 255, 64).astype(np.uint8), (48, 1))
    cv2.imwrite(str(path), np.dstack([picture(index)[..., ::-1], alpha]))
    return alpha


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_alpha_is_carried(tmp_path: Path, ending: str) -> None:
    alpha = clear(tmp_path / "a.png")
    with ImageFiles(str(tmp_path / "a.png")) as source:
        info, (frame,) = source.info, list(source.frames())
    assert info.alpha and np.array_equal(frame.alpha, alpha) and np.array_equal(frame.image, picture(0))
    with ImageSink(str(tmp_path / f"out-%d.{ending}")) as sink:
        sink.open(info)
        sink.write(frame)
    again = cv2.imread(str(tmp_path / f"out-1.{ending}"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(again[..., 3], alpha)
    assert np.abs(again[..., 2::-1].astype(int) - picture(0))[alpha > 0].mean() < (3 if ending == "webp" else 1e-9)


def test_alpha_of_some_images_only(tmp_path: Path) -> None:
    alpha = clear(tmp_path / "a1.png")
    clear(tmp_path / "a2.png", least=255)
    first, second = read(tmp_path)
    assert np.array_equal(first.alpha, alpha) and second.alpha is not None and second.alpha.min() == 255
    clear(tmp_path / "a0.png", least=255)
    with ImageFiles(str(tmp_path)) as source:
        assert not source.info.alpha
        _, shown, _ = source.frames()
        assert source.notes == ["1 image: transparent pixels are shown over white, since the first image has none"]
    share = alpha[..., None] / 255
    assert shown.alpha is None and np.abs(shown.image - (picture(0) * share + 255 * (1 - share))).max() <= 0.51


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_a_grey_png_may_name_one_level_as_transparent(tmp_path: Path, bits: int) -> None:
    header = struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" + bytes([0b10000000, 0, 0, 0, 0, 0, 0, 1][:bits]))
    tail = chunk(b"tRNS", struct.pack(">H", 1)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + tail)
    (frame,) = read(tmp_path / "a.png")
    if bits == 2:  # the first level is 2 of 3: nothing has level 1
        assert frame.alpha is None
    else:
        assert frame.alpha is not None and (frame.alpha == 0).tolist()[0] == [bits == 1] + [False] * 6 + [bits == 8]


def test_what_cannot_hold_alpha_is_refused_or_shown_over_white(tmp_path: Path) -> None:
    alpha = clear(tmp_path / "a.png")
    with ImageFiles(str(tmp_path / "a.png")) as source:
        info, (frame,) = source.info, list(source.frames())
    with (
        pytest.raises(UsageError, match=r"which jpg cannot hold; use \.png, .* or --alpha drop") as error,
        ImageSink(str(tmp_path / "a.jpg")) as sink,
    ):
        sink.open(info)
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == ["a.png"]
    for name in ("b.jpg", "b.png", "b.apng", "b.gif"):
        cls = AnimationSink if AnimationSink.accepts(name) else ImageSink
        with cls(str(tmp_path / name), Encoding(alpha="drop")) as dropped:
            dropped.open(info)
            dropped.write(frame)
        assert dropped.notes == ["transparency was left out: shown over white"]
    shown = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    share = alpha[..., None] / 255
    assert shown.shape[2] == 3 and np.abs(shown - (picture(0) * share + 255 * (1 - share))).max() <= 0.51


def test_a_transparent_image_that_was_turned(tmp_path: Path) -> None:
    alpha = clear(tmp_path / "a.png")
    tag = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    png = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(png[:33] + chunk(b"eXIf", tag) + png[33:])
    (frame,) = read(tmp_path / "a.png")
    assert np.array_equal(frame.image, np.rot90(picture(0), -1)) and np.array_equal(frame.alpha, np.rot90(alpha, -1))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_may_be_transparent(tmp_path: Path, ending: str) -> None:
    given = np.random.default_rng(0).integers(0, 65536, (48, 64, 4), np.uint16)
    given[0, :2, 3] = (0, 65535)
    cv2.imwrite(str(tmp_path / "a.png"), given)
    with ImageFiles(str(tmp_path / "a.png")) as source, ImageSink(f"{tmp_path}/b.{ending}") as sink:
        sink.open(source.info)
        sink.write(next(source.frames()))
    again = cv2.imread(f"{tmp_path}/b.{ending}", cv2.IMREAD_UNCHANGED).astype(int)
    assert np.abs(again - given)[..., :3].max() <= 2 and again[0, :2, 3].tolist() == [0, 65535]
    assert np.abs(again - given)[..., 3].max() <= 129  # 8 bits of opacity


@pytest.mark.parametrize("ending", ["png", "tif", "ppm"])
def test_sixteen_bits_are_kept(tmp_path: Path, ending: str) -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    cv2.imwrite(str(tmp_path / "1.png"), np.dstack([levels, levels.T, levels[::-1]]))
    cv2.imwrite(str(tmp_path / "2.tif"), np.dstack([levels] * 3))
    with ImageFiles(str(tmp_path)) as source:
        info, frames = source.info, list(source.frames())
        assert info.bits == 16 and source.notes == []
    for frame in frames:
        assert frame.fine is not None
        assert np.abs(frame.image + frame.fine / 256 - np.rint(frame.image)).max() <= 0.5
    assert np.array_equal(frames[1].image[..., 0], np.rint(levels / 257).astype(np.uint8))
    with ImageSink(f"{tmp_path}/out-%d.{ending}") as sink:
        sink.open(info)
        for frame in frames:
            sink.write(frame)
    again = cv2.imread(str(tmp_path / f"out-1.{ending}"), cv2.IMREAD_UNCHANGED)
    assert again.dtype == np.uint16
    assert np.abs(again.astype(int) - np.dstack([levels, levels.T, levels[::-1]])).max() <= 2
    with ImageSink(str(tmp_path / "low.jpg")) as low:
        low.open(info)
        low.write(frames[0])
    assert low.notes == ["16 bits were rounded to 8: jpg holds no more"]


@pytest.mark.parametrize("given", ["jpg", "png", "webp"])
@pytest.mark.parametrize("made", ["jpg", "png", "webp", "bmp"])
def test_one_image_keeps_its_camera_data_and_profile(tmp_path: Path, given: str, made: str) -> None:
    exif = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    head = struct.pack(">I4xI4s4s4s12x4s24xI", 344, 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp", 0)
    noise = np.random.default_rng(0).integers(65, 90, 191, np.uint8).tobytes()  # libpng takes no shorter ones
    text = struct.pack(">I4sII", 1, b"cprt", 144, 200) + b"text\0\0\0\0" + noise + b"\0"
    profile = head + bytes.fromhex("0000f6d6000100000000d32d") + bytes(48) + text
    kinds = [cv2.IMAGE_METADATA_EXIF, cv2.IMAGE_METADATA_ICCP]
    parts = [np.frombuffer(each, np.uint8) for each in (exif, profile)]
    data = cv2.imencodeWithMetadata(f".{given}", np.ascontiguousarray(picture(3)[..., ::-1]), kinds, parts)[1]
    path = tmp_path / f"a.{given}"
    path.write_bytes(data.tobytes())
    (frame,) = read(path)
    encoding = Encoding(copy_from=str(path))
    with ImageSink(f"{tmp_path}/b%d.png", encoding) as many, ImageSink(f"{tmp_path}/b.{made}", encoding) as sink:
        for each in (many, sink):
            each.open(VideoInfo(frame.image.shape[1], frame.image.shape[0], Fraction(1, 25)))
            each.write(frame)
    _, found, tags = cv2.imdecodeWithMetadata(np.fromfile(tmp_path / f"b.{made}", np.uint8), cv2.IMREAD_UNCHANGED)
    kept = {int(kind): bytes(tag.ravel()) for kind, tag in zip(found, tags, strict=True)}
    if made == "bmp":
        assert kept == {} and sink.notes == ["camera data and colour profile were left out: bmp cannot hold them"]
    else:
        assert kept[kinds[0]] == exif.replace(b"\0\6", b"\0\1") and kept[kinds[1]] == profile and sink.notes == []
    (again,) = read(tmp_path / f"b.{made}")
    assert np.abs(again.image.astype(int) - frame.image).mean() < 3


def test_an_animated_webp_is_a_film(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.webp"
    with AnimationSink(str(path)) as sink:
        sink.open(VideoInfo(*SIZE, Fraction(1, 100), alpha=True))
        for index, pts in enumerate((0, 5, 7, 20)):
            alpha = np.full(SIZE[::-1], 255 - index, np.uint8)
            sink.write(Frame(picture(index), pts, Fraction(1, 100), (5, 2, 13, 4)[index], alpha=alpha))
    with ImageFiles(str(path)) as source:
        info, frames = source.info, list(source.frames())
    assert (info.frame_count, info.alpha, info.frame_rate) == (4, False, Fraction(4 * 100, 24))
    assert [frame.time * 100 for frame in frames] == [0, 5, 7, 20]
    assert [frame.duration for frame in frames] == [50, 20, 130, 40]
    for index, frame in enumerate(frames):
        assert np.abs(frame.image.astype(int) - picture(index)).mean() < 5
    with ImageFiles(str(path), Selection(start=Fraction(6, 100))) as source:
        assert indices(list(source.frames())) == [2, 3]
    save(tmp_path / "b.png")
    with pytest.raises(SourceError, match=r"a\.webp: an animated WebP among images; give it alone"):
        read(tmp_path)
    (tmp_path / "cut.webp").write_bytes(path.read_bytes()[:300])
    with pytest.raises(SourceError, match=r"cut\.webp: cannot be read as an animation \(it is cut short\)"):
        read(tmp_path / "cut.webp")
    many = tmp_path / "many.webp"
    write(AnimationSink(str(many)), 40)
    frames = read(many)
    errors = [np.abs(frame.image.astype(int) - picture(index)).mean() for index, frame in enumerate(frames)]
    assert len(frames) == 40 and max(errors) < 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("ending", "note"), [("gif", True), ("webp", False), ("apng", False)])
def test_animations_keep_transparency(tmp_path: Path, ending: str, note: bool) -> None:
    path, alpha = tmp_path / f"a.{ending}", clear(tmp_path / "a.png")
    with AnimationSink(str(path)) as sink:
        sink.open(VideoInfo(*SIZE, Fraction(1, 25), Fraction(25), alpha=True))
        for index in range(3):
            turned = np.ascontiguousarray(alpha[:, :: (-1) ** index])
            sink.write(Frame(picture(index), index, Fraction(1, 25), 1, alpha=turned))
    assert sink.notes == ["transparency was kept as all or nothing: gif holds no more"] * note
    source: ImageFiles | VideoFile = ImageFiles(str(path)) if ending == "webp" else VideoFile(str(path))
    with source:
        frames = list(source.frames())
    for index, frame in enumerate(frames):
        wanted = alpha[:, :: (-1) ** index]
        assert np.array_equal(frame.alpha, np.where(wanted >= 128, 255, 0) if ending == "gif" else wanted)
        assert np.abs(frame.image.astype(int) - picture(index))[wanted >= 128].mean() < (0.1 if ending == "apng" else 4)
