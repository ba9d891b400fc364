"""Reports of runs that are whole, young, torn, old and empty."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from streamgan.api import SinkError, UsageError
from streamgan_training.reporting import charts, history, measures, pictures, report
from streamgan_training.reporting.history import Series
from streamgan_training.reporting.report_commands import report as command

VOID = {"meta", "img", "br", "link", "input"}


class Strict(HTMLParser):
    """Fails on tags that do not nest; keeps the attributes of each tag."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(text: str) -> Strict:
    parser = Strict()
    parser.feed(re.sub(r"<(\w+)([^>]*)/>", r"<\1\2></\1>", text))
    assert parser.open == []
    return parser


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 400 steps with everything a run can have."""
    folder = tmp_path / "007-dusk"
    for name in ("samples", "strips"):
        (folder / name).mkdir(parents=True)
    for step in range(0, 500, 50):
        Image.new("RGB", (60, 20), (step // 2, 0, 0)).save(folder / "samples" / f"{step:08d}.png")
    Image.new("RGB", (3200, 90)).save(folder / "strips" / "drive-00000400.png")
    (folder / "recipe.yaml").write_text("name: dusk <b>\nmethod: {name: cut}\ntrain: {iterations: 800}\n")
    lines = [
        {"step": step, "losses": {"cycle_a": 2.0 - step / 400, "discriminator_a": 0.25, "temporal": 0.1},
         "observed": {"augment_p/a": 0.1}, "learning_rate": {"generators": 2e-4}, "seconds": step * 0.2,
         "memory_bytes": 2**30}
        for step in range(10, 401, 10)
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "stats.jsonl").write_text(text + '{"step": 410, "losses": {"cyc', encoding="utf-8")
    evaluations = [
        {"step": step, "best": step == 200,
         "metrics": {"swd_output/ab": 50 - step / 20, "swd_source/ab": 104.0, "warping_error_output/drive": 2e-4,
                     "warping_error_source/drive": 1e-4, "tof/drive": 0.4}}
        for step in (100, 200, 400)
    ]  # fmt: skip
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in evaluations))
    final = {"step": 400.0, "edge_correlation/ab": 0.875, "warping_error_ratio/drive": math.inf}
    protocol = {"ab": {"real": 12, "unavailable": {"fid": "weights inception not on this machine"}}}
    (folder / "metrics.json").write_text(json.dumps(final | {"protocol": protocol}))
    return folder


def test_a_report_is_one_page_that_needs_nothing_else(run: Path) -> None:
    path = report.make(run)
    assert path == run / "report.html"
    text = path.read_text(encoding="utf-8")
    parser = parse(text)
    for tag, attributes in parser.found:
        assert tag not in ("script", "link", "iframe")
        assert not any(name in attributes for name in ("href", "onclick", "srcset"))
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/jpeg;base64,") and attributes["alt"]
        if tag == "svg":
            assert attributes["role"] == "img" and "step" in (attributes["aria-label"] or "")
    assert "url(" not in text and "@import" not in text


def test_a_report_tells_what_the_run_recorded(run: Path) -> None:
    text = report.make(run).read_text(encoding="utf-8")
    assert "dusk &lt;b&gt;" in text and "<b>dusk" not in text and "cut · 007-dusk" in text
    assert "450 of 800 steps" in text  # the newest picture is newer than the newest record
    assert "step 200 <span class=best>best</span>" in text
    assert "Per 1000 steps</dt><dd>3 min 20 s</dd>" in text
    assert "1.00 GiB" in text and "stats.jsonl: line 41 was not finished" in text
    assert "weights inception not on this machine" in text and "∞" in text
    row = text[text.index("mean square, values in [0, 1]</span>") :].split("</tr>")[0]
    assert row.startswith("mean square, values in [0, 1]</span></th><td>1e−4</td><td>2e−4</td>")
    assert [text.count(f">step {step}</figcaption>") for step in (0, 450)] == [1, 1]
    assert text.count('<figure class="wide">') == pictures.MOST_SAMPLES + 1


@pytest.mark.parametrize(
    "gone", ["stats.jsonl", "evaluations.jsonl", "metrics.json", "recipe.yaml", "samples", "strips"]
)
def test_whatever_is_missing_is_left_out(run: Path, gone: str) -> None:
    (run / gone).rename(run.parent / gone)
    parse(report.make(run).read_text(encoding="utf-8"))


def test_broken_files_are_named_and_left_out(run: Path) -> None:
    (run / "samples" / "00000000.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    (run / "metrics.json").write_text('{"step": ')
    (run / "recipe.yaml").write_text("name: [")
    (run / "evaluations.jsonl").write_text('7\n{"step": "x"}\n{"step": 3, "metrics": 5}\n')
    text = report.make(run).read_text(encoding="utf-8")
    for note in ("samples/00000000.png", "metrics.json: is not JSON", "recipe.yaml: does not read"):
        assert note in text
    assert "<h1>007-dusk</h1>" in text


def test_a_run_of_version_0_1_reads_too(tmp_path: Path) -> None:
    (tmp_path / "losses.jsonl").write_text('{"step": 20, "cycle_a": 1.5}\n{"step": 40, "cycle_a": 1.25}\n')
    (tmp_path / "metrics.json").write_text('{"step": 40, "swd_output_to_b": 16.9, "swd_a_to_b": 103.25}')
    text = report.make(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "1.25 at step 40" in text
    assert "<td>103.2</td><td>16.9</td>" in text


def test_a_folder_that_is_no_run_and_a_place_that_cannot_be_written_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such run folder"):
        report.make(tmp_path / "none")
    with pytest.raises(UsageError, match="is no run folder"):
        report.make(tmp_path)
    with pytest.raises(SinkError, match="cannot write the report"):
        report.make(run, tmp_path / "none" / "page.html")


def test_the_command_names_the_page(run: Path) -> None:
    result = CliRunner().invoke(command, [str(run), "-o", str(run / "x.html")])
    assert result.exit_code == 0 and "x.html" in result.output and (run / "x.html").is_file()


def test_of_two_records_of_a_step_the_later_one_counts_and_what_is_not_finite_is_counted(tmp_path: Path) -> None:
    lines = ['{"step": 2, "losses": {"x": 9}}', '{"step": 1, "losses": {"x": 1}}', '{"step": 2, "losses": {"x": 2}}']
    (tmp_path / "stats.jsonl").write_text("\n".join([*lines, '{"step": 3, "losses": {"x": NaN}}']))
    series = history.read(tmp_path).losses["x"]
    assert (series.steps.tolist(), series.values.tolist(), series.left_out) == ([1, 2], [1, 2], 1)


def line(values: list[float], smooth: bool = False) -> charts.Line:
    return charts.Line("x", Series(np.arange(1.0, len(values) + 1), np.array(values)), smooth=smooth)


@pytest.mark.parametrize(
    ("values", "low", "high", "logarithmic"),
    [
        ([0.91, 0.93, 0.95], 0, 1, False),  # not cut off at 0.9
        ([0.5, 49.0], 0, 50, False),  # less than two decades
        ([0.02, 30.0], 0.01, 100, True),
        ([0.0, 0.02, 30.0], 0, 30, False),  # zero has no logarithm
        ([-3.0, 2.0], -3, 2, False),
        ([-4.0, -2.0], -4, 0, False),
        ([0.0, 0.0], 0, 1, False),
    ],
)
def test_axes_hold_zero_or_say_that_they_are_logarithmic(
    values: list[float], low: float, high: float, logarithmic: bool
) -> None:
    axis = charts.vertical_axis([line(values)])
    assert (axis.low, axis.high, axis.logarithmic) == (pytest.approx(low), pytest.approx(high), logarithmic)
    drawn = charts.svg(charts.Chart("x", "dB", (line(values),), 10))
    assert ("log scale" in drawn) == logarithmic and "dB" in drawn


def test_a_value_is_drawn_where_the_axis_says() -> None:
    drawn = charts.svg(charts.Chart("x", "loss", (line([0.0, 5.0, 10.0]),), 4))
    bottom, middle = charts.HEIGHT - charts.BOTTOM, (charts.HEIGHT - charts.BOTTOM + charts.TOP) / 2
    width = charts.WIDTH - charts.RIGHT - charts.LEFT
    circles = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)
    expected = [
        (charts.LEFT + width / 4, bottom),
        (charts.LEFT + width / 2, middle),
        (charts.LEFT + width * 0.75, charts.TOP),
    ]
    assert np.allclose(np.array(circles, float), expected, atol=0.06)


def test_a_single_record_is_seen() -> None:
    assert charts.svg(charts.Chart("x", "loss", (line([3.0], smooth=True),), 4)).count("<circle") == 1


def test_time_counts_from_step_0_and_over_the_steps_between_records() -> None:
    pace = report.per_thousand(Series(np.array([100.0, 300.0]), np.array([50.0, 90.0])))
    assert (pace.steps.tolist(), pace.values.tolist()) == ([100, 300], [500, 200])


def test_a_spike_survives_thinning_and_a_mean_of_a_line_is_the_line() -> None:
    values = np.zeros(10_000)
    values[4321] = 7
    thinned = charts.thin(Series(np.arange(10_000.0), values))
    assert len(thinned.values) <= charts.MOST_POINTS and thinned.values.max() == 7
    assert thinned.steps[thinned.values.argmax()] == 4321
    ramp = np.arange(20.0)
    assert np.allclose(charts.running_mean(ramp, 3)[3:-3], ramp[3:-3])
    assert charts.running_mean(np.array([3.0, 9.0, 6.0]), 1).tolist() == [6.0, 6.0, 7.5]


def test_numbers_are_short() -> None:
    given = [0, 0.5, 12345, 1.2345e-5, -2.5, 3.4e7, math.inf, 100, 0.1 + 0.2]
    assert [charts.number(one) for one in given] == ["0", "0.5", "12345", "1.23e−5", "−2.5", "3.4e7", "∞", "100", "0.3"]
    assert [charts.steps(one) for one in (0, 500, 1500, 200_000, 1e6)] == ["0", "500", "1.5k", "200k", "1M"]
    assert [report.duration(one) for one in (41, 750, 11_100)] == ["41 s", "12 min", "3 h 05 min"]


def test_pictures_are_found_by_clip_and_step_and_reduced(tmp_path: Path) -> None:
    for name in ("drive-00000100", "drive-00000900", "drive-00000500", "00000300", "still"):
        Image.new("RGB", (2 * pictures.WIDEST, 100)).save(tmp_path / f"{name}.png")
    found = pictures.find(tmp_path)
    assert [(one.name, one.step) for one in pictures.ends(found)] == [
        ("", 300), ("drive", 100), ("drive", 900), ("still", None),
    ]  # fmt: skip
    picture = pictures.read(found[:1], [])[0]
    assert (picture.width, picture.height) == (pictures.WIDEST, 50)
    assert pictures.spread(range(10), 4) == [0, 3, 6, 9]


def test_the_floor_of_a_measure_is_the_inputs() -> None:
    assert measures.floor_name("warping_error_output/drive") == "warping_error_source/drive"
    assert measures.floor_name("new_output/drive") == "new_source/drive"
    assert measures.floor_name("edge_correlation/ab") is None
    names = {"swd_output/ab", "swd_source/ab", "swd_source/ba"}
    assert measures.floors(names) == {"swd_source/ab"}
