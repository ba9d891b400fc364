"""The benchmarks of speed: clips, plots, verdicts and the plain script; never how fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from streamgan import pipeline, plugins
from streamgan.bench import Cost, Measurement

FOLDER = Path(__file__).parents[1] / "benchmarks"
Make = Callable[..., Path]
MakePreset = Callable[..., str]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module of the folder benchmarks."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("footage", "stages", "speed", "plots", "growth", "straightforward"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module


def brightness(path: Path) -> list[int]:
    """The mean of each frame."""
    import av

    with av.open(str(path)) as film:
        return [round(float(frame.to_ndarray(format="gray").mean())) for frame in film.decode(video=0)]


def test_short_footage_runs_to_and_fro(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    import av

    levels, path = [40, 90, 140, 190], tmp_path / "rise_day_48p.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in levels:
            picture = av.VideoFrame.from_ndarray(np.full((48, 64), level, np.uint8), format="gray")
            output.mux(stream.encode(picture.reformat(format="yuv420p", dst_color_range="JPEG")))
        output.mux(stream.encode(None))
    (clip,) = script("footage").clips(tmp_path, (128, 96), 10, tmp_path, (path.name, "missing.mp4"))
    assert clip.name == "rise_day_96p.mp4"
    told, rise = brightness(clip), brightness(path)
    assert np.diff(rise).min() > 30
    assert np.abs(np.array(told) - [rise[place] for place in (0, 1, 2, 3, 2, 1, 0, 1, 2, 3)]).max() <= 2


def test_a_synthetic_clip_where_there_is_no_footage(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    (clip,) = script("footage").clips(tmp_path, (128, 96), 5, tmp_path / "none")
    assert clip.name == "synthetic_96p.mp4" and len(brightness(clip)) == 5


def test_the_plot_shows_every_line(script: Callable[[str], ModuleType]) -> None:
    series = {"one": [(0.0, 1.0), (2.0, 3.0)], "t < 2": [(1.0, 10.0)]}
    root = ElementTree.fromstring(script("plots").lines(series, "pixels", "ms", "A & B"))
    drawn = [each.attrib["points"] for each in root.iter() if each.tag.endswith("polyline")]
    assert drawn == ["60.0,236.4 616.0,189.2", "338.0,24.0"]  # of 60..616 across 0..2, of 260..24 up 0..10
    words = [each.text for each in root.iter() if each.text]
    assert {"A & B", "one", "t < 2", "pixels", "ms", "10", "1.2"} <= set(words)


def test_bars_pass_and_miss(script: Callable[[str], ModuleType]) -> None:
    speed = script("speed")
    costs = {"decode": Cost(0.002, 0.002), "translate": Cost(0.02, 0.03), "encode": Cost(0.01, 0.012)}
    films = [
        speed.Film(
            f"clip{place}",
            size,
            [Measurement("clip", size, 100, costs, fps, 2, start=0.9) for fps in speeds],
            plain,
            [2 * fps for fps in plain],
        )
        for place, (size, speeds, plain) in enumerate(
            [(speed.SIZES[0], (40, 41, 44), (20, 10, 11)), (speed.SIZES[1], (50, 70, 55), (20, 20, 20))]
        )
    ]
    found = {bar.what: bar for bar in speed.bars(films, [500e6, 610e6])}
    assert {what: bar.passed for what, bar in found.items()} == {
        "end to end, 1280×720": True,
        "efficiency, 1280×720": True,
        "against a plain script, 1280×720": True,
        "against one that shrinks for the model, 1280×720": False,
        "end to end, 640×360": False,
        "efficiency, 640×360": True,
        "against a plain script, 640×360": True,
        "against one that shrinks for the model, 640×360": False,
        "start to first frame, warm cache": True,
        "peak memory, 1920×1080": True,
        "memory of three times the frames, 1920×1080": False,
    }
    assert (
        found["end to end, 640×360"].row()
        == "| end to end, 640×360 | ≥ 60 fps | 55 fps (55–55) | **miss** | clip1 55 |"
    )
    assert found["against a plain script, 1280×720"].figure.median == pytest.approx(4)  # of 2, 4.1 and 4, turn by turn
    assert found["peak memory, 1920×1080"].figure.high == 610


def test_the_plain_script_translates(
    script: Callable[[str], ModuleType], make_clip: Make, negative_model: Path, tmp_path: Path
) -> None:
    plain, clip = script("straightforward"), make_clip()
    options = ["--short-side", "24", "--multiple-of", "4", "--frames", "5", "--crf", "10"]
    done = CliRunner().invoke(plain.main, [str(clip), str(tmp_path / "out.mp4"), str(negative_model), *options])
    assert done.exit_code == 0, done.output
    assert float(done.output) > 0
    given, made = brightness(clip)[:5], brightness(tmp_path / "out.mp4")
    assert len(made) == 5 and np.abs(np.array(given) + np.array(made) - 255).max() < 6
    assert plain.model_size((1280, 720), 224, 16) == (400, 224) and plain.model_size((64, 48), 0, 1) == (64, 48)


def test_the_profile_names_every_step(
    script: Callable[[str], ModuleType], make_clip: Make, make_preset: MakePreset, negative_model: Path, tmp_path: Path
) -> None:
    stages = script("stages")
    preset = make_preset("model", model=negative_model.name, size=24)
    request = pipeline.Request.of(
        input=str(make_clip()), preset=preset, output=str(tmp_path / "out.mp4"), overwrite=True
    )
    work = pipeline.build(request, plugins.load())
    costs = stages.profile(work)
    assert tuple(costs) == stages.STEPS
    assert all(seconds > 0 for seconds in costs.values())
    assert stages.table({"decode": 0.002, "model": 0.006}).splitlines()[2:] == [
        "| decode | 2.0 | 25% |",
        "| model | 6.0 | 75% |",
        "| together | 8.0 | |",
    ]


def test_without_the_profiler_nothing_is_said_of_the_lock(
    script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = script("stages")
    monkeypatch.setattr(stages.shutil, "which", lambda _: None)
    assert stages.gil(None) == (
        "How much Python's lock is held was not measured: that needs py-spy (pip install py-spy)."
    )


def test_growth_in_words_and_as_a_table(script: Callable[[str], ModuleType]) -> None:
    growth = script("growth")
    series = {"a": [(1.0, 2.0), (4.0, 8.0)], "b": [(1.0, 3.0), (4.0, 9.0)]}
    assert growth.table(series, "n").splitlines() == [
        "| n | a | b |",
        "|---|---|---|",
        "| 1 | 2.0 | 3.0 |",
        "| 4 | 8.0 | 9.0 |",
    ]
    assert growth.told(series) == "a 2.0 at 1, 8.0 at 4; b 3.0 at 1, 9.0 at 4"
