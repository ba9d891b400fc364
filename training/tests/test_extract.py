"""Frame data sets from films: every shot, sharp frames, no duplicates, nothing half-written."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from streamgan.api import SourceError, UsageError
from streamgan_training.frames import data_commands, extract
from streamgan_training.frames.extract import Wanted
from streamgan_training.frames.shots import Index


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "cache"))


def picture(seed: int, shift: int = 0) -> np.ndarray:
    """Soft blobs, moved to the left by some pixels: ``(96, 128, 3)`` uint8."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 255, (12, 40, 3), dtype=np.uint8))
    return np.array(coarse.resize((400, 96), Image.Resampling.BICUBIC))[:, shift : shift + 128].copy()


def write_film(path: Path) -> Path:
    """Two shots of 2 s at 25 fps, the first of moving blobs with blurred frames, the second still."""
    import av

    moving = [picture(1, 4 * step) for step in range(50)]
    moving = [cv2.GaussianBlur(image, (0, 0), 4) if step % 5 != 2 else image for step, image in enumerate(moving)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "bgr0"
        for number, image in enumerate([*moving, *[picture(2)] * 50]):
            frame = av.VideoFrame.from_ndarray(np.asarray(image, np.uint8), format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(data_commands.frames, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_every_shot_gives_sharp_frames_and_a_still_one_a_single_one(tmp_path: Path) -> None:
    film, out = write_film(tmp_path / "my film.mkv"), tmp_path / "out"
    code, said = run(film, "-o", out, "--every", "0.4", "--short-side", "48")
    assert code == 0 and "of 2 shots of 1 films" in said
    rows = list(csv.DictReader((out / "frames.csv").read_text(encoding="utf-8").splitlines()))
    assert sorted(path.name for path in out.iterdir()) == sorted(["frames.csv", *[row["file"] for row in rows]])
    assert [row["shot"] for row in rows].count("1") == 1
    moving = [row for row in rows if row["shot"] == "0"]
    assert len(moving) == 5
    assert all(round(float(row["seconds"]) * 25) % 5 == 2 for row in moving)  # the frames that are not blurred
    assert moving[1]["file"] == "my-film_s0000_00000480.png"
    expected = Image.fromarray(picture(1, 48)).resize((64, 48), Image.Resampling.BICUBIC, reducing_gap=3.0)
    assert np.array_equal(np.array(Image.open(out / moving[1]["file"])), np.array(expected))


def test_a_blurred_frame_is_dropped_but_never_the_last_of_a_shot() -> None:
    sharp = np.array([10, 10, 2, 10, 10, 1], np.float32)
    index = Index(np.arange(6) * 1_000_000, (0, 5), sharp, (8, 8))
    assert extract.choose(index, Wanted(every=1)).tolist() == [0, 1, 3, 4, 5]
    assert extract.choose(index, Wanted(every=1, sharpness=0)).tolist() == [0, 1, 2, 3, 4, 5]
    assert extract.choose(index, Wanted(every=1, limit=2)).tolist() == [1, 4]
    assert extract.choose(index, Wanted(every=2)).tolist() == [0, 4, 5]


def test_a_folder_with_something_in_it_is_refused_unless_one_appends(tmp_path: Path) -> None:
    film, out = write_film(tmp_path / "a.mkv"), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="not empty; give a new folder with -o, or --append"):
        run(film, "-o", out)
    assert run(film, "-o", out, "--append", "--format", "jpg", "--limit", "2")[0] == 0
    first = extract.read_manifest(out / "frames.csv")
    assert [Path(row.file).suffix for row in first] == [".jpg", ".jpg"]
    (tmp_path / "b").mkdir()
    write_film(tmp_path / "b" / "a.mkv")
    assert run(tmp_path / "b", "-o", out, "--append", "--duplicates", "-1")[0] == 0
    rows = extract.read_manifest(out / "frames.csv")
    assert rows[:2] == first and all(row.file.startswith("a-2_s") for row in rows[2:])
    assert (out / "mine.txt").read_text() == "keep"


def test_broken_films_are_skipped_and_named(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no film")
    with pytest.raises(SourceError, match=r"bad\.mp4: cannot be read"):
        run(tmp_path / "bad.mp4", "-o", tmp_path / "one")
    code, said = run(tmp_path / "bad.mp4", write_film(tmp_path / "good.mkv"), "-o", tmp_path / "two")
    assert code == 0 and "warning: skipped:" in said and "bad.mp4" in said
    (tmp_path / "two" / "frames.csv").write_text("file\nx\n")
    with pytest.raises(SourceError, match="not a manifest of frames"):
        run(tmp_path / "good.mkv", "-o", tmp_path / "two", "--append")
