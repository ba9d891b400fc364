"""Colours: numbers become RGB and numbers again as ITU-T H.273 says, at any depth, with and without transparency."""

from __future__ import annotations

import io
from fractions import Fraction

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import VideoReformatter

from streamgan.api import Color, Frame, SourceError
from streamgan.frames import color
from streamgan.frames.convert import FrameMaker, to_picture

Planes = list[npt.NDArray[np.float64]]
WIDTH, HEIGHT = 96, 64
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
TICK = Fraction(1, 25)


def scene() -> npt.NDArray[np.float64]:
    """A smooth picture, RGB of 0..1, with all hues and levels."""
    x, y = np.linspace(0, 1, WIDTH)[None], np.linspace(0, 1, HEIGHT)[:, None]
    return np.stack([0.1 + 0.8 * x + 0 * y, 0.1 + 0.8 * y + 0 * x, 0.5 + 0.35 * np.sin(3 * x + 4 * y)], -1)


def spans(full: bool, bits: int) -> tuple[int, int, int]:
    """Codes between black and white, between the ends of chroma, and of black: H.273 table for the range flag."""
    return (2**bits - 1, 2**bits - 1, 0) if full else (219 << bits - 8, 224 << bits - 8, 16 << bits - 8)


def encoded(rgb: npt.NDArray[np.float64], matrix: int, full: bool, bits: int, sub: str) -> Planes:
    """RGB of 0..1 as Y, Cb, Cr, written from the standard and in doubles."""
    red, blue = WEIGHTS[matrix]
    y = red * rgb[..., 0] + (1 - red - blue) * rgb[..., 1] + blue * rgb[..., 2]
    chroma = [(rgb[..., 2] - y) / (2 * (1 - blue)), (rgb[..., 0] - y) / (2 * (1 - red))]
    if sub != "444":
        chroma = [(c[:, ::2] + c[:, 1::2]) / 2 for c in chroma]
    if sub == "420":
        chroma = [(c[::2] + c[1::2]) / 2 for c in chroma]
    luma, span, black = spans(full, bits)
    codes = [y * luma + black, *(c * span + 2 ** (bits - 1) for c in chroma)]
    return [np.clip(np.floor(c + 0.5), 0, 2**bits - 1) for c in codes]


def decoded(planes: Planes, matrix: int, full: bool, bits: int, sub: str) -> npt.NDArray[np.float64]:
    """Y, Cb, Cr as RGB of 0..255, held to it."""
    red, blue = WEIGHTS[matrix]
    luma, span, black = spans(full, bits)
    y, cb, cr = (planes[0] - black) / luma, *((c - 2 ** (bits - 1)) / span for c in planes[1:3])
    if sub == "420":
        cb, cr = cb.repeat(2, 0), cr.repeat(2, 0)
    if sub != "444":
        cb, cr = cb.repeat(2, 1), cr.repeat(2, 1)
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1).clip(0, 1) * 255


def view(plane: av.video.plane.VideoPlane, bits: int) -> npt.NDArray[np.generic]:
    kind = np.dtype("u1" if bits == 8 else "<u2")
    return np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)[: plane.height, : plane.width]


def picture(planes: Planes, pixel_format: str, bits: int, meaning: Color) -> av.VideoFrame:
    made = av.VideoFrame(WIDTH, HEIGHT, pixel_format)
    for plane, codes in zip(made.planes, planes, strict=True):
        view(plane, bits)[...] = codes
    made.colorspace, made.color_range = meaning.matrix, 2 if meaning.full_range else 1
    made.color_primaries, made.color_trc = meaning.primaries, meaning.transfer
    return made


def through_a_file(frame: Frame, meaning: Color, pixel_format: str, codec: str = "ffv1") -> av.VideoFrame:
    """Encodes one frame and decodes it again."""
    file, options = io.BytesIO(), {"crf": "1", "preset": "veryfast"} if codec == "libx264" else {}
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frame.image.shape[:2]
        stream.pix_fmt = pixel_format
        color.tag(stream.codec_context, meaning)
        made = to_picture(VideoReformatter(), frame, meaning, pixel_format)
        made.pts, made.time_base = 0, TICK
        output.mux(stream.encode(made))
        output.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as given:
        return next(given.decode(video=0))


def make(given: av.VideoFrame, codec: str = "") -> tuple[FrameMaker, Frame]:
    maker = FrameMaker(given, codec)
    return maker, maker.make(given, 0, TICK, 1)


def value(frame: Frame) -> npt.NDArray[np.float64]:
    """All that a frame knows of its colours, in levels of 0..255."""
    return frame.image + (0 if frame.fine is None else frame.fine / 256)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("sub", ["420", "422", "444"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 9])
def test_identity(matrix: int, full: bool, sub: str, bits: int) -> None:
    pixel_format = f"yuv{sub}p" + ("" if bits == 8 else f"{bits}le")
    meaning, planes = Color(matrix, 1, 1, full), encoded(scene(), matrix, full, bits, sub)
    maker, frame = make(picture(planes, pixel_format, bits, meaning))
    assert (maker.color, maker.bits, maker.alpha, maker.notes) == (meaning, bits, False, [])
    error = np.abs(value(frame) - decoded(planes, matrix, full, bits, sub))
    assert error.max() < (0.7 if bits == 8 else 0.01) and (frame.fine is None) == (bits == 8)
    again = through_a_file(frame, maker.color, pixel_format)
    read_back = (again.colorspace, again.color_range, again.color_primaries, again.color_trc)
    assert read_back == (matrix, 2 if full else 1, 1, 1)
    for plane, codes in zip(again.planes, planes, strict=True):
        # FFmpeg's scaler, which is the fastest at 8 bits, rounds full range to the neighbour here and there.
        assert np.abs(view(plane, bits) - codes).max() <= (1 if full and bits == 8 else 1 if bits == 16 else 0)


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (6, False), (1, True), (6, True)])
def test_identity_through_h264(matrix: int, full: bool) -> None:
    meaning, planes = Color(matrix, 1, 1, full), encoded(scene(), matrix, full, 8, "420")
    _, frame = make(picture(planes, "yuv420p", 8, meaning))
    _, again = make(through_a_file(frame, meaning, "yuv420p", "libx264"))
    error = np.abs(again.image.astype(int) - frame.image)
    assert error.mean() < 1 and np.quantile(error, 0.999) <= 5  # what crf 1 itself loses here


def test_ten_bits_have_no_bands_of_eight() -> None:
    ramp = np.tile(np.linspace(100, 116, 640), (8, 1))[..., None].repeat(3, 2)
    levels = np.rint(ramp).astype(np.uint8)
    fine = np.rint((ramp - levels) * 256).clip(-128, 127).astype(np.int8)
    for kept, steps in ((fine, 55), (None, 17)):
        frame = Frame(levels, 0, TICK, fine=kept)
        made = to_picture(VideoReformatter(), frame, Color(), "yuv420p10le")
        assert abs(len(np.unique(view(made.planes[0], 10))) - steps) <= 1  # 16 levels × 219 / 255 × 4 codes


DEEP = ["yuv422p10le", "yuv420p10be", "p210le", "gbrp", "gbrp10le", "gbrp16le", "rgb48le", "x2rgb10le", "yuv444p14le"]
CLEAR = ["yuva420p", "yuva444p", "yuva444p10le", "yuva444p12le", "gbrap10le", "rgba", "bgra", "rgba64le", "ayuv64le"]


@pytest.mark.parametrize("pixel_format", [*DEEP, *CLEAR, "nv12", "yuyv422", "bgr0", "gray", "gray10le", "gray16le"])
@pytest.mark.parametrize("size", [(64, 48), (31, 23)])
def test_any_format_comes_back(pixel_format: str, size: tuple[int, int]) -> None:
    full = np.linspace(30, 220, size[0])[None, :, None] + np.linspace(0, 20, size[1])[:, None, None]
    full = np.concatenate([full, full, full], -1)
    image = np.rint(full).astype(np.uint8)
    fine = np.rint((full - image) * 256).clip(-128, 127).astype(np.int8)
    alpha = np.tile(np.linspace(0, 255, size[0]).astype(np.uint8), (size[1], 1))
    clear = pixel_format in CLEAR
    given = Frame(image, 0, TICK, alpha=alpha if clear else None, fine=fine)
    maker, frame = make(to_picture(VideoReformatter(), given, Color(), pixel_format))
    assert maker.alpha == clear and (frame.alpha is not None) == clear
    if frame.alpha is not None:
        assert np.abs(frame.alpha.astype(int) - alpha).max() <= 1
    assert np.abs(value(frame) - full).max() < (2.2 if maker.bits == 8 else 0.4)


def test_missing_alpha_is_opaque_and_other_sizes_are_fitted() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    plain = make(to_picture(VideoReformatter(), Frame(image, 0, TICK), Color(), "yuva444p10le"))[1]
    assert plain.alpha is not None and plain.alpha.min() == 255
    half = np.zeros((20, 30), np.uint8)
    half[:, 15:] = 255
    given = Frame(image, 0, TICK, alpha=half, fine=np.full((20, 30, 3), 99, np.int8))
    scaled = make(to_picture(VideoReformatter(), given, Color(), "yuva444p10le"))[1]
    assert scaled.alpha is not None and scaled.alpha.shape == (40, 60)
    assert scaled.alpha[:, :28].max() == 0 and scaled.alpha[:, 32:].min() == 255
    assert np.abs(value(scaled) - 100).max() < 0.3


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv444p10le"])
def test_without_room_for_alpha_it_is_over_white(pixel_format: str) -> None:
    image = np.full((16, 16, 3), 40, np.uint8)
    alpha = np.full((16, 16), 51, np.uint8)  # a fifth
    made = to_picture(VideoReformatter(), Frame(image, 0, TICK, alpha=alpha), Color(), pixel_format)
    assert np.abs(value(make(made)[1]) - (40 * 0.2 + 255 * 0.8)).max() < 1.1


@pytest.mark.parametrize("depth", ["", "10le"])
def test_alpha_and_depth_turn_with_the_picture(depth: str) -> None:
    alpha = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (16, 1))
    image = np.stack([alpha] * 3, -1) // 2 + 50
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as output:
        stream = output.add_stream("prores_ks" if depth else "png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuva444p10le" if depth else "rgba"
        stream.set_display_rotation(90)
        frame = Frame(image, 0, TICK, alpha=alpha)
        made = to_picture(VideoReformatter(), frame, Color(), stream.pix_fmt)
        made.pts = 0
        output.mux(stream.encode(made))
        output.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as given:
        maker, frame = make(next(given.decode(video=0)))
    assert maker.turned and maker.alpha and frame.alpha is not None
    assert np.abs(frame.alpha.astype(int) - np.rot90(alpha)).max() <= 2
    assert np.abs(frame.image.astype(int) - np.rot90(image)).max() <= 3
    assert (frame.fine is not None and frame.fine.shape == frame.image.shape) == bool(depth)


def test_grey_takes_its_range_from_its_tag() -> None:
    plane = np.full((HEIGHT, WIDTH), 235.0)
    for tag, level in ((1, 255), (2, 235), (0, 235)):
        given = picture([plane], "gray", 8, Color())
        given.color_range = tag
        assert make(given)[1].image.max() == level


def test_a_gif_is_transparent_only_if_its_first_picture_is() -> None:
    solid, hole = np.full((16, 16, 4), 255, np.uint8), np.full((16, 16, 4), 100, np.uint8)
    first, later = (av.VideoFrame.from_ndarray(each, format="bgra") for each in (solid, hole))
    maker, frame = make(first, "gif")
    assert not maker.alpha and frame.alpha is None and maker.notes == []
    frame = maker.make(later, 1, TICK, 1)
    assert frame.alpha is None and abs(int(frame.image[0, 0, 0]) - (100 * 100 + 255 * 155) / 255) < 1
    assert maker.notes == ["transparent pixels are shown over white: the first picture has none"]
    assert make(later, "gif")[0].alpha and make(first, "png")[0].alpha


def test_tags_of_a_later_picture_count() -> None:
    planes = encoded(scene(), 1, False, 8, "444")
    maker, frame = make(picture(planes, "yuv444p", 8, Color(1)))
    other = picture(encoded(scene(), 5, True, 8, "444"), "yuv444p", 8, Color(5, 1, 1, True))
    assert np.abs(maker.make(other, 1, TICK, 1).image.astype(int) - frame.image).max() <= 4


def test_rgb_is_tagged_as_rgb() -> None:
    made = to_picture(VideoReformatter(), Frame(np.zeros((8, 8, 3), np.uint8), 0, TICK), Color(1), "gbrp10le")
    assert (made.colorspace, made.color_range) == (0, 2)


@pytest.mark.parametrize(("matrix", "said"), [(12, "matrix 12 of ITU-T H.273 is not known here"), (1, ""), (2, "")])
def test_an_unknown_matrix_is_said(matrix: int, said: str) -> None:
    given = picture(encoded(scene(), 1, False, 8, "444"), "yuv444p", 8, Color())
    given.colorspace = matrix
    notes = FrameMaker(given).notes
    assert [note.startswith(said) for note in notes] == [True] * bool(said)


def test_what_is_no_matrix_is_refused() -> None:
    given = picture(encoded(scene(), 1, False, 8, "444"), "yuv444p", 8, Color())
    given.colorspace = 14
    with pytest.raises(SourceError, match="its colours are ICtCp"):
        FrameMaker(given)


def test_ycgco_is_read_and_becomes_a_matrix_that_all_know() -> None:
    rgb = scene()
    luma = rgb @ [0.25, 0.5, 0.25]
    chroma = [rgb @ [-0.25, 0.5, -0.25], rgb @ [0.5, 0, -0.5]]  # Cg, Co
    planes = [np.rint(luma * 219 + 16), *(np.rint(each * 224 + 128) for each in chroma)]
    maker, frame = make(picture(planes, "yuv444p", 8, Color(8)))
    assert np.abs(frame.image - rgb * 255).max() < 2.5 and maker.color.matrix == 6


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p12le", "yuva420p10le"])
def test_large_pictures_are_worked_on_in_strips(pixel_format: str) -> None:
    noise = cv2.resize(np.random.default_rng(0).integers(60, 200, (60, 90, 3), np.uint8), (1000, 150))
    fine = np.random.default_rng(1).integers(-128, 128, noise.shape, np.int8)
    given = Frame(noise, 0, TICK, fine=fine, alpha=noise[..., 0] if "yuva" in pixel_format else None)
    maker, once = make(to_picture(VideoReformatter(), given, Color(), pixel_format))
    assert np.abs(value(once) - value(given)).mean() < 8  # chroma is halved
    twice = maker.make(to_picture(VideoReformatter(), once, Color(), pixel_format), 1, TICK, 1)
    assert np.abs(value(twice) - value(once)).max() < 0.02
    assert twice.alpha is None or np.array_equal(twice.alpha, noise[..., 0])
