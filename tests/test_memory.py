"""The benchmark of the memory: its film is what it says, its slope is right, its plot is a drawing; it runs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from clips import read_pts

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module benchmarks/memory.py."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "memory", raising=False)
    return importlib.import_module("memory")


def test_the_clip_is_repeated_without_a_gap(memory: ModuleType, tmp_path: Path) -> None:
    memory.write_clip(tmp_path / "clip.mp4")
    memory.repeat(tmp_path / "clip.mp4", tmp_path / "film.mp4", 3)
    assert read_pts(tmp_path / "film.mp4") == [number / memory.Fraction(25) for number in range(3000)]
    sound = read_pts(tmp_path / "film.mp4", "audio")
    assert len(sound) == pytest.approx(3000 / 25 * 48000 / 1024, rel=0.01)


def test_the_slope_leaves_the_beginning_out(memory: ModuleType) -> None:
    samples = [memory.Sample(frames, 50 if frames < 1000 else 100 + frames / 5000) for frames in range(0, 10_001, 100)]
    assert memory.growth(samples) == pytest.approx(20)


def test_the_plot_is_a_drawing(memory: ModuleType) -> None:
    root = ElementTree.fromstring(
        memory.svg([memory.Sample(0, 90), memory.Sample(500, 180.5), memory.Sample(1000, 180)])
    )
    line = next(each for each in root.iter() if each.tag.endswith("polyline")).attrib["points"].split()
    assert [point.split(",")[0] for point in line] == ["60.0", "338.0", "616.0"]
    assert "180 at most" in "".join(root.itertext()) and "200" in [each.text for each in root.iter()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_short_run(memory: ModuleType, tmp_path: Path) -> None:
    done = CliRunner().invoke(memory.main, ["--frames", "1000", "--plot", str(tmp_path / "plot.svg")])
    assert done.exit_code == 0, done.output
    rows = [line.split("|")[1:3] for line in done.output.splitlines() if line.startswith("| ")][1:]
    assert int(rows[0][0]) == 0 and int(rows[-1][0]) == 1000 and 50 < float(rows[-1][1]) < 2000
    assert ElementTree.parse(tmp_path / "plot.svg").getroot().tag.endswith("svg")
