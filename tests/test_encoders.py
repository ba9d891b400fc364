"""Encoders: which container holds which codec, and which settings there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from clips import read_pts
from test_sinks import info, write

from streamgan import encoders
from streamgan.api import Encoding, UsageError

CODECS = get_args(get_type_hints(Encoding)["codec"])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "ts", "flv"])
def test_what_is_not_refused_can_be_read(tmp_path: Path, suffix: str, codec: Any) -> None:
    path = tmp_path / f"out.{suffix}"
    try:
        encoders.check(str(path), Encoding(codec))
    except UsageError as error:
        assert f"cannot hold {codec}" in str(error)
    else:
        write(path, Encoding(codec), info(), tuple(range(8)))
        assert len(read_pts(path)) == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crf": 52}, "--crf 52: h264 takes 0 .* to 51"),
        ({"codec": "hevc", "crf": 60}, "--crf 60: hevc takes"),
        ({"codec": "vp9", "crf": 64}, "--crf 64: vp9 takes 0 .* to 63"),
        ({"codec": "ffv1", "crf": 1}, "--crf 1: ffv1 loses nothing"),
        ({"codec": "ffv1", "preset": "slow"}, "--encoder-preset slow: ffv1 loses nothing"),
        ({"preset": "slwo"}, "did you mean 'slow'"),
        ({"codec": "av1", "preset": "14"}, r"av1 takes 0 \(slowest\) to 13$"),
        ({"codec": "vp9", "preset": "fast"}, r"vp9 takes 0 \(slowest\) to 8$"),
    ],
)
def test_settings_that_an_encoder_does_not_take(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        encoders.check("out.mkv", Encoding(**fields))


@pytest.mark.parametrize(("codec", "preset"), [("h264", "placebo"), ("hevc", "fast"), ("av1", "13"), ("vp9", "8")])
def test_settings_that_it_takes(tmp_path: Path, codec: Any, preset: str) -> None:
    encoding = Encoding(codec, crf=51, preset=preset)
    encoders.check("out.mkv", encoding)
    write(tmp_path / "out.mkv", encoding, info())


def test_a_container_without_times_is_refused() -> None:
    with pytest.raises(UsageError, match="has no times for its frames"):
        encoders.format_of("out.avi")
