"""High dynamic range: what comes out is what the standards' own formulas give, in doubles and without tables."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import VideoReformatter

from streamgan.api import Color, Frame
from streamgan.frames import color, hdr
from streamgan.frames.convert import FrameMaker, to_picture
from streamgan.reading.sources import VideoFile

Array = npt.NDArray[np.float64]
PQ, HLG = 16, 18
TICK = Fraction(1, 25)
TORTURE = Path(__file__).parents[2] / "shared" / "data" / "torture"
LUMA = np.array([0.2627, 0.6780, 0.0593])
# BT.2087, annex 1: the matrix from BT.2020 to BT.709, as printed there.
TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])


def pq_light(signal: Array) -> Array:
    """ST 2084: cd/m²."""
    root = signal ** (32 / 2523)
    return 10000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (16384 / 2610)


def hlg_light(signal: Array) -> Array:
    """BT.2100: cd/m² of a display of 1000."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return 1000 * scene * (scene @ LUMA)[..., None] ** 0.2


def method_a(light: Array, peak: float) -> Array:
    """BT.2446, method A, step by step; then BT.709 levels of 0..255."""
    given = np.clip(light / peak, 0, 1) ** (1 / 2.4)
    luma = given @ LUMA
    rho_hdr, rho_sdr = 1 + 32 * (peak / 10000) ** (1 / 2.4), 1 + 32 * (100 / 10000) ** (1 / 2.4)
    y_p = np.log(1 + (rho_hdr - 1) * luma) / np.log(rho_hdr)
    y_c = np.where(y_p <= 0.7399, 1.077 * y_p, -1.151 * y_p**2 + 2.7811 * y_p - 0.6302)
    y_c = np.where(y_p >= 0.9909, 0.5 * y_p + 0.5, y_c)
    y_sdr = (rho_sdr**y_c - 1) / (rho_sdr - 1)
    f = y_sdr / (1.1 * luma)
    cb, cr = f * (given[..., 2] - luma) / 1.8814, f * (given[..., 0] - luma) / 1.4746
    y_tmo = y_sdr - np.maximum(0.1 * cr, 0)
    red, blue = y_tmo + 1.4746 * cr, y_tmo + 1.8814 * cb
    green = (y_tmo - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    shown = np.stack([red, green, blue], -1).clip(0, 1) ** 2.4
    return (shown @ TO_709.T).clip(0, 1) ** (1 / 2.4) * 255


def mapped(signal: Array, transfer: int, peak: float = 1000) -> Array:
    """What streamgan makes of a signal of 0..1, in levels of 0..255."""
    values = np.rint(signal * color.WHITE).astype(np.uint16)
    return hdr.tone_map(values, hdr.curve(transfer, 9, peak)) / 256


def test_the_reference_knows_the_printed_values() -> None:
    # BT.2408, table 1: HDR reference white is 58 % of PQ and 75 % of HLG; 1000 cd/m² are 75 % and 100 %.
    assert pq_light(np.array([0.5807, 0.7518, 1.0])) == pytest.approx([203, 1000, 10000], rel=2e-3)
    assert hlg_light(np.full((1, 3), 0.75))[0] == pytest.approx(203, rel=3e-3)
    assert hlg_light(np.ones((1, 3)))[0] == pytest.approx(1000, rel=1e-3)


@pytest.mark.parametrize(("transfer", "peak"), [(PQ, 1000), (PQ, 4000), (PQ, 400), (HLG, 1000)])
def test_follows_the_standards(transfer: int, peak: float) -> None:
    signal = np.random.default_rng(0).uniform(0.05, 0.75 if transfer == PQ else 1, (40, 50, 3))
    expected = method_a(pq_light(signal) if transfer == PQ else hlg_light(signal), peak)
    error = np.abs(mapped(signal, transfer, peak) - expected)
    assert error.mean() < 0.03 and np.quantile(error, 0.995) < 0.3  # the printed matrix has four places


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_greys_stay_grey_and_in_order(transfer: int) -> None:
    ramp = mapped(np.linspace(0, 1, 1024)[None, :, None].repeat(3, 2), transfer)[0]
    assert np.abs(ramp - ramp.mean(1, keepdims=True)).max() < 0.1
    assert np.all(np.diff(ramp[:, 1]) >= 0) and ramp[0, 1] == 0 and ramp[-1, 1] == pytest.approx(255, abs=0.01)
    white = mapped(np.full((1, 1, 3), 0.5807 if transfer == PQ else 0.75), transfer)
    assert white == pytest.approx(0.687 * 255, abs=1)  # diffuse white, as the module says


def test_a_film_becomes_sdr_of_ten_bits_and_says_so() -> None:
    levels = np.tile(np.linspace(20, 200, 64).astype(np.uint8), (48, 1))
    frame = Frame(np.stack([levels] * 3, -1), 0, TICK)
    for transfer, name in ((PQ, "PQ"), (HLG, "HLG")):
        given = to_picture(VideoReformatter(), frame, Color(9, 9, transfer), "yuv420p10le")
        maker = FrameMaker(given)
        assert (maker.color, maker.bits) == (Color(1, 1, 1, False), 10)
        (note,) = maker.notes
        assert note == f"HDR ({name}, up to 1000 cd/m²) was tone-mapped to SDR: BT.709, by method A of BT.2446"
        made = maker.make(given, 0, TICK, 1)
        assert made.fine is not None
        signal = np.stack([levels] * 3, -1) / 255
        expected = method_a(pq_light(signal) if transfer == PQ else hlg_light(signal), 1000)
        assert np.abs(made.image + made.fine / 256 - expected).max() < 0.6


def test_the_peak_is_the_films_own() -> None:
    file, params = io.BytesIO(), "log-level=error:hdr10=1:max-cll=600,400"
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("libx265", rate=25, options={"x265-params": params, "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        color.tag(stream.codec_context, Color(9, 9, PQ))
        frame = Frame(np.full((64, 64, 3), 120, np.uint8), 0, TICK)
        made = to_picture(VideoReformatter(), frame, Color(9, 9, PQ), "yuv420p10le")
        made.pts, made.time_base = 0, TICK
        output.mux(stream.encode(made))
        output.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as given:
        first = next(given.decode(video=0))
    assert hdr.peak(first) == 600
    assert "up to 600 cd/m²" in FrameMaker(first).notes[0]


@pytest.mark.parametrize("name", ["ax_mp4_hdr10-av1.mp4", "ax_mp4_hlg10-color-test.mp4", "ax_mp4_dolbyVision-hdr.MOV"])
def test_real_films_are_neither_dark_nor_washed_out(name: str) -> None:
    if not (TORTURE / name).exists():
        pytest.skip(f"no {TORTURE / name}: the shared data is not here")
    with VideoFile(str(TORTURE / name)) as source:
        image = next(source.frames()).image
        assert source.info.color == hdr.SDR and source.info.bits == 10
        assert [note for note in source.notes if note.startswith("HDR (")]
    low, middle, high = np.percentile(image.max(-1), [1, 50, 99])
    assert low < 60 < 90 < middle < 210 < 235 < high
