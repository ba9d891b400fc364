"""Frames that stay Y, Cb and Cr: what they are, when there are any, and that what comes out is what RGB gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from clips import picture

from streamgan import pipeline, plan, plugins
from streamgan.api import Color, Frame, Images
from streamgan.frames import color, planar
from streamgan.frames.convert import FrameMaker, to_picture
from streamgan.frames.planar import PlanarFrame, Planes
from streamgan.models import planes, scaling
from streamgan.models.translate import ModelTranslator
from streamgan.plan import Plan

TICK, BT709 = Fraction(1, 25), Color()
SMALL = (80, 60)
Make = Callable[..., Path]
Preset = Callable[..., str]


def decoded(pixel_format: str = "yuv420p", size: tuple[int, int] = (320, 240), meaning: Color = BT709) -> av.VideoFrame:
    """A smooth picture with a fine pattern, as a decoder gives it."""
    coarse = np.random.default_rng(3).integers(70, 180, (7, 9, 3), np.uint8)
    image = np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    image[::4] += 20
    return to_picture(VideoReformatter(), Frame(image, 0, TICK), meaning, pixel_format)


def made_by(given: av.VideoFrame) -> Frame:
    """The frame that is made of it where it may stay as it is."""
    maker = FrameMaker(given)
    maker.planar = True
    return maker.make(given, 7, TICK, 1)


@pytest.mark.parametrize("matrix", [1, 5, 9])
@pytest.mark.parametrize("full", [False, True])
def test_its_image_is_what_rgb_is(matrix: int, full: bool) -> None:
    given = decoded(meaning=Color(matrix, full_range=full))
    frame, plain = made_by(given), FrameMaker(given).make(given, 7, TICK, 1)
    assert isinstance(frame, PlanarFrame) and not isinstance(plain, PlanarFrame)
    assert frame.size == plain.size == (320, 240) and (frame.planes.color.matrix, frame.planes.color.full_range) == (
        matrix,
        full,
    )
    assert np.array_equal(frame.image, plain.image) and frame.image is frame.image
    bare = frame.in_rgb()
    assert type(bare) is Frame and np.array_equal(bare.image, plain.image) and bare.pts == 7


def test_rgb_is_made_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = made_by(decoded())
    monkeypatch.setattr(Planes, "to_rgb", lambda planes: pytest.fail("nobody asked for it"))
    later = dataclasses.replace(frame, pts=8, duration=2)
    assert isinstance(later, PlanarFrame) and later.planes is frame.planes and (later.pts, frame.pts) == (8, 7)  # type: ignore[attr-defined]
    assert "320x240" in repr(later)
    with pytest.raises(AttributeError, match="pixels"):
        _ = later.pixels  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("pixel_format", "size"),
    [
        ("yuv420p10le", (320, 240)),
        ("yuv422p", (320, 240)),
        ("yuv444p", (320, 240)),
        ("nv12", (320, 240)),
        ("yuva420p", (320, 240)),
        ("gray", (320, 240)),
        ("gbrp", (320, 240)),
        ("yuv420p", (319, 240)),
        ("yuv420p", (320, 239)),
    ],
)
def test_other_pictures_become_rgb(pixel_format: str, size: tuple[int, int]) -> None:
    assert type(made_by(decoded(pixel_format, size))) is Frame


def test_turned_pictures_and_those_of_another_depth_become_rgb() -> None:
    given = decoded()
    maker = FrameMaker(given)
    maker.planar, maker._rotation = True, cv2.ROTATE_180
    assert type(maker.make(given, 0, TICK, 1)) is Frame
    deep = FrameMaker(decoded("yuv420p10le"))
    deep.planar = True
    assert type(deep.make(given, 0, TICK, 1)) is Frame


def test_an_encoder_gets_what_was_drawn_and_nothing_else() -> None:
    meaning, reformatter = Color(), VideoReformatter()
    drawn = planar.draw((64, 48), meaning)
    for samples in drawn.samples:
        samples[:] = 128
    frame = PlanarFrame(0, TICK, planes=drawn)
    assert to_picture(reformatter, frame, meaning, "yuv420p") is drawn.picture
    assert drawn.picture.colorspace == meaning.matrix and drawn.picture.color_range == color.LIMITED
    for other, pixel_format in ((Color(full_range=True), "yuv420p"), (Color(5), "yuv420p"), (meaning, "yuv444p")):
        made = to_picture(reformatter, frame, other, pixel_format)
        assert made is not drawn.picture and made.format.name == pixel_format
    source = PlanarFrame(0, TICK, planes=Planes(drawn.picture, meaning))
    assert to_picture(reformatter, source, meaning, "yuv420p") is not drawn.picture


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("guided", [False, True])
def test_both_ways_enlarge_alike(full: bool, guided: bool) -> None:
    meaning = Color(full_range=full)
    frame = made_by(decoded(meaning=meaning))
    assert isinstance(frame, PlanarFrame)
    seen = scaling.shrink(frame.image, SMALL)
    small = planes.shrink_planes(frame.planes, SMALL)
    assert np.abs(planes.to_rgb(small, meaning).astype(int) - seen).mean() < 1
    made = (seen * np.array([0.3, 0.4, 0.6]) + 5).astype(np.uint8)
    enlarge = scaling.enlarge_guided if guided else scaling.enlarge_bilinear
    wanted = enlarge(made, seen, frame.image)
    result = planes.enlarge_planes(made, small, frame.planes, scaling.make_room((240, 320)), guided)
    assert result.drawn and result.size == (320, 240) and result.color == meaning
    assert np.abs(result.to_rgb().astype(int) - wanted).mean() < 1.5
    assert [samples.shape for samples in result.samples] == [(240, 320), (120, 160), (120, 160)]


def test_samples_stay_within_their_range() -> None:
    frame = made_by(decoded())
    assert isinstance(frame, PlanarFrame)
    small = planes.shrink_planes(frame.planes, SMALL)
    for level in (0, 255):
        made = np.full((60, 80, 3), level, np.uint8)
        result = planes.enlarge_planes(made, small, frame.planes, scaling.make_room((240, 320)))
        luma, *chroma = result.samples
        assert luma.min() >= 16 and luma.max() <= 235 and all(16 <= each.min() <= each.max() <= 240 for each in chroma)


def test_a_model_that_sees_more_than_the_chroma() -> None:
    frame = made_by(decoded())
    assert isinstance(frame, PlanarFrame)
    small = planes.shrink_planes(frame.planes, (240, 180))  # of chroma there are 160x120
    seen = scaling.shrink(frame.image, (240, 180))
    assert small.shape == seen.shape and np.abs(planes.to_rgb(small, Color()).astype(int) - seen).mean() < 1.5


def built(clip: Path, preset: str, output: Path, **fields: object) -> Plan:
    """What will be done."""
    request = pipeline.Request.of(input=str(clip), preset=preset, output=str(output), overwrite=True, **fields)
    return pipeline.build(request, plugins.load())


def frames_of(path: Path) -> list[Images]:
    """What a film shows, in RGB."""
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


@pytest.mark.parametrize("options", [{}, {"upsample": "bilinear"}, {"batch": 3}, {"tile": 64, "overlap": 16}])
def test_a_film_is_the_same_either_way(
    make_clip: Make,
    make_preset: Preset,
    negative_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
) -> None:
    clip = make_clip(size=(320, 240))
    work = built(clip, make_preset("model", model=negative_model.name, size=120, **options), tmp_path / "a.mp4", crf=1)
    assert work.planar
    asked: list[Planes] = []
    monkeypatch.setattr(Planes, "to_rgb", asked.append)  # None: whoever needs it fails
    report = pipeline.run(work)
    monkeypatch.undo()
    assert not asked and report.frames == 20
    monkeypatch.setattr(Plan, "planar", False)
    pipeline.run(dataclasses.replace(work, output=str(tmp_path / "b.mp4")))
    for one, other in zip(frames_of(tmp_path / "a.mp4"), frames_of(tmp_path / "b.mp4"), strict=True):
        assert np.abs(one.astype(int) - other).mean() < 1.5


def test_what_a_model_has_enlarged_itself_goes_on_in_rgb(
    make_clip: Make, make_preset: Preset, negative_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def doubled(translator: ModelTranslator, seen: list[Images], options: object) -> Images:
        return np.stack([255 - image.repeat(2, 0).repeat(2, 1) for image in seen])

    monkeypatch.setattr(ModelTranslator, "_run", doubled)
    work = built(
        make_clip(size=(160, 120)), make_preset("model", model=negative_model.name, size=60), tmp_path / "a.mp4"
    )
    assert work.planar and pipeline.run(work).frames == 20
    (first, *_), wanted = frames_of(tmp_path / "a.mp4"), 255 - picture(0, (160, 120)).astype(int)
    assert first.shape == (120, 160, 3) and np.abs(first - wanted).mean() < 10


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, {"strength": 0.5}),
        ({}, {"compare": True}),
        ({}, {"skip_similar": 40.0}),
        ({"size": 0}, {}),
        ({"size": 48}, {}),
    ],
)
def test_where_more_is_done_frames_are_rgb(
    make_clip: Make,
    make_preset: Preset,
    negative_model: Path,
    tmp_path: Path,
    options: dict[str, object],
    fields: dict[str, object],
) -> None:
    preset = make_preset("model", **{"model": negative_model.name, "size": 24} | options)
    work = built(make_clip(), preset, tmp_path / "a.mp4", **fields)
    assert not work.planar
    with plan.open_source(work) as source:
        assert {type(frame) for frame in source.frames()} == {Frame}


def test_pictures_for_others_than_an_encoder_are_rgb(
    make_clip: Make, make_preset: Preset, negative_model: Path, tmp_path: Path
) -> None:
    preset = make_preset("model", model=negative_model.name, size=24)
    assert built(make_clip(), preset, tmp_path / "a.mp4").planar
    assert not built(make_clip(), preset, tmp_path / "a.gif").planar
    assert not built(make_clip(), preset, tmp_path / "%d.png").planar
