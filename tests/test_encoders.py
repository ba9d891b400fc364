"""Encoders: which container holds which codec, and which settings there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from clips import read_pts
from test_videostream import TICK, film, info, pictures

from streamgan.api import Encoding, Frame, UsageError
from streamgan.writing import codecs, encoders

CODECS = get_args(get_type_hints(Encoding)["codec"])
SUFFIXES = ["mp4", "m4v", "mov", "mkv", "webm", "ts", "m2ts", "flv"]
KINDS = {
    "8 bits": ({}, {}),
    "10 bits": ({}, {"bits": 10}),
    "12 bits": ({}, {"bits": 12}),
    "alpha": ({}, {"alpha": True}),
    "lossless": ({"lossless": True}, {}),
    "deep lossless": ({"lossless": True}, {"bits": 10}),
    "odd": ({}, {"width": 67, "height": 45}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_not_refused_can_be_read(tmp_path: Path, suffix: str, codec: Any, kind: str) -> None:
    path, (asked, known) = tmp_path / f"out.{suffix}", KINDS[kind]
    about, encoding = info(**known), Encoding(codec, **asked)
    alpha = np.full((about.height, about.width), 99, np.uint8) if about.alpha else None
    try:
        film(path, encoding, about, pictures(6, (about.width, about.height), alpha=alpha))
    except UsageError as error:
        assert any(word in str(error) for word in ("cannot hold", "cannot keep", "--lossless: prores_ks always loses"))
        assert not path.exists()
    else:
        times = read_pts(path)
        assert len(times) == 6
        assert all(abs(float(time - times[0]) * 25 - index) < 0.03 for index, time in enumerate(times))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crf": 52}, "--crf 52: h264 takes 0 .* to 51"),
        ({"codec": "hevc", "crf": 60}, "--crf 60: hevc takes"),
        ({"codec": "vp9", "crf": 64}, "--crf 64: vp9 takes 0 .* to 63"),
        ({"codec": "ffv1", "crf": 1}, "--crf 1: ffv1 loses nothing"),
        ({"codec": "prores", "crf": 1}, "--crf 1: prores takes its quality from --encoder-preset"),
        ({"crf": 1, "lossless": True}, "--crf 1: says how much may be lost, and --lossless"),
        ({"codec": "prores", "lossless": True}, "--lossless: prores_ks always loses .* use --codec h264 or .* ffv1$"),
        ({"encoder": "h264_qsv", "lossless": True}, "--lossless: h264_qsv always loses"),
        ({"codec": "ffv1", "preset": "slow"}, "--encoder-preset slow: ffv1 loses nothing"),
        ({"preset": "slwo"}, "did you mean 'slow'"),
        ({"codec": "av1", "preset": "14"}, r"av1 takes 0 \(slowest\) to 13$"),
        ({"codec": "vp9", "preset": "fast"}, r"vp9 takes 0 \(slowest\) to 8$"),
        (
            {"codec": "prores", "preset": "444"},
            "prores takes proxy, lt, standard, hq, 4444, 4444xq; did you mean '4444'",
        ),
        ({"encoder": "h264_nvenc", "preset": "slow"}, "h264_nvenc takes p1, p2, p3"),
        ({"encoder": "h264_videotoolbox", "preset": "slow"}, "h264_videotoolbox has no such setting"),
        ({"encoder": "auto", "preset": "slow"}, "--encoder auto may take any"),
        ({"encoder": "h264_nvnc"}, "for h264 there is auto, libx264, .*; did you mean 'h264_nvenc'"),
        ({"encoder": "libx265"}, "--encoder libx265: makes hevc, not h264; use --codec hevc, or one of auto, libx264"),
    ],
)
def test_settings_that_an_encoder_does_not_take(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        encoders.check("out.mkv", Encoding(**fields))


@pytest.mark.parametrize(
    ("codec", "encoder", "preset"),
    [
        ("h264", None, "placebo"),
        ("h264", "libx264", "fast"),
        ("h264", "libx264rgb", "fast"),
        ("hevc", "libx265", "fast"),
        ("av1", "auto", None),
        ("av1", "libsvtav1", "13"),
        ("vp9", None, "8"),
    ],
)
def test_settings_that_it_takes(tmp_path: Path, codec: Any, encoder: str | None, preset: str | None) -> None:
    encoding = Encoding(codec, encoder=encoder, crf=51, preset=preset)
    film(tmp_path / "out.mkv", encoding, info(width=256, height=256), pictures(3, (256, 256)))
    assert len(read_pts(tmp_path / "out.mkv")) == 3


@pytest.mark.parametrize("suffix", ["avi", "mxf"])
def test_a_container_without_times_is_refused(suffix: str) -> None:
    with pytest.raises(UsageError, match="has no times for its frames"):
        encoders.format_of(f"out.{suffix}")


@pytest.mark.parametrize("codec", codecs.WORST)
def test_better_quality_is_more_bytes(tmp_path: Path, codec: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    frames = [Frame(image, index, TICK, 1) for index, image in enumerate(noise)]
    sizes = []
    for crf in (0, 10, 20, 35, 50):
        film(tmp_path / "out.mkv", Encoding(codec, crf=crf), info(), frames)
        sizes.append((tmp_path / "out.mkv").stat().st_size)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1] * 2


@pytest.mark.parametrize(
    ("name", "crf", "expected"),
    [
        ("h264_nvenc", 0, {"rc": "vbr", "cq": "1", "b": "0", "preset": "p5", "tune": "hq"}),
        ("hevc_nvenc", None, {"rc": "vbr", "cq": "23", "b": "0", "preset": "p5", "tune": "hq"}),
        ("h264_qsv", 30, {"global_quality": "30", "preset": "medium"}),
        ("av1_amf", 30, {"rc": "cqp", "qp_i": "120", "qp_p": "120", "quality": "balanced"}),
        ("h264_videotoolbox", 20, {"flags": "+qscale", "global_quality": str(60 * 118)}),
    ],
)
def test_quality_in_the_words_of_hardware(name: str, crf: int | None, expected: dict[str, str]) -> None:
    encoder = codecs.ENCODERS[name]
    encoding = Encoding(encoder.codec, encoder=name, crf=crf)  # type: ignore[arg-type]
    assert codecs.options(encoder, encoding, alpha=False, live=False) == expected


def test_every_row_of_the_table_is_whole() -> None:
    for name, encoder in codecs.ENCODERS.items():
        assert encoder.codec in CODECS and encoder.formats
        assert not encoder.effort or encoder.effort in encoder.efforts
        for formats in (encoder.formats, encoder.odd or (), encoder.exact, encoder.alpha):
            depths = [codecs.depth(each) for each in formats]
            assert depths == sorted(depths), name
            if codecs.offered(name) and formats:
                assert formats[0] in codecs.offered(name), name
        assert bool(encoder.lossless) == bool(encoder.exact) or name == "ffv1"
    assert set(codecs.SOFTWARE) == set(CODECS)
