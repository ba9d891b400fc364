"""The measuring: fresh processes, medians and noise, JSON and back, ratios, and errors in one line; never how fast."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from streamgan import bench, pipeline, plugins, rounds
from streamgan.api import PresetError, SourceError, StreamganError, UsageError
from streamgan.bench import Cost, Measurement
from streamgan.cli.program import execute

Make = Callable[..., Path]
MakePreset = Callable[..., str]
COSTS = {"decode": Cost(0.002, 0.002), "translate": Cost(0.02, 0.03), "encode": Cost(0.01, 0.012)}


def run_of(**changes: object) -> Measurement:
    """A measurement with known figures."""
    run = Measurement("drive.mp4", (640, 360), 100, COSTS, 40.0, 2, 0.05, 0.8, 300_000_000, "openvino fp32")
    return dataclasses.replace(run, **changes)  # type: ignore[arg-type]


def measured(*speeds: float, preset: str = "day2night", **changes: object) -> rounds.Measured:
    """One clip, measured in so many processes."""
    runs = tuple(run_of(end_to_end=speed, **changes) for speed in speeds)
    return rounds.Measured(preset, (rounds.Result(runs, 5.0),), {"threads": 2}, {"cores": 2})


def ratio_of(new: rounds.Measured, old: rounds.Measured, figure: str = "end to end") -> rounds.Ratio:
    """One of the ratios."""
    return next(each for each in rounds.compare(new, old) if each.figure == figure)


def test_the_bound_is_the_slowest_stage_or_all_cores() -> None:
    assert (run_of().bound, run_of().bound_by) == (pytest.approx(2 / 0.044), "all cores")
    assert run_of().efficiency == pytest.approx(40 * 0.044 / 2)
    slow = run_of(costs={**COSTS, "encode": Cost(0.1, 0.012)})
    assert (slow.bound, slow.bound_by) == (pytest.approx(10), "encode")


def test_noise_is_half_of_the_range_over_the_median() -> None:
    spread = rounds.Spread.of([90.0, 100.0, 130.0])
    assert (spread.median, spread.low, spread.high, spread.noise) == (100, 90, 130, pytest.approx(0.2))
    assert rounds.Spread.of([7.0]).noise == 0 and rounds.Spread.of([0.0, 0.0]).noise == 0


def test_json_and_back() -> None:
    given = measured(40.0, 42.0)
    assert rounds.from_json(rounds.to_json(given), "file") == given
    data = json.loads(rounds.to_json(given))
    assert data["format"] == rounds.FORMAT and data["results"][0]["runs"][1]["costs"]["encode"]["cpu"] == 0.012


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "not JSON", '{"format": 1}', '{"format": 1, "preset": "x", "results": 3}']
)
def test_refuses_other_files(text: str) -> None:
    with pytest.raises(UsageError, match=r"old\.json: is no file that streamgan bench --json wrote"):
        rounds.from_json(text, "old.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("end_to_end", "fast"),
        ("end_to_end", None),
        ("costs", {}),
        ("size", [1]),
        ("costs", {"decode": {"wall": 0, "cpu": 0}}),
    ],
)
def test_refuses_files_that_were_changed(key: str, value: object) -> None:
    data = json.loads(rounds.to_json(measured(40.0)))
    data["results"][0]["runs"][0][key] = value
    with pytest.raises(UsageError, match=r"old\.json: is no file that streamgan bench --json wrote"):
        rounds.from_json(json.dumps(data), "old.json")


@pytest.mark.parametrize("change", [{"settings": 3}, {"machine": None}, {"results": []}])
def test_refuses_files_without_what_is_compared(change: dict[str, object]) -> None:
    text = json.dumps(json.loads(rounds.to_json(measured(40.0))) | change)
    with pytest.raises(UsageError, match=r"old\.json: is no file that streamgan bench --json wrote"):
        rounds.from_json(text, "old.json")


def test_refuses_another_format() -> None:
    text = rounds.to_json(measured(40.0)).replace('"format": 1', '"format": 99')
    with pytest.raises(UsageError, match="format 99, and this streamgan reads 1"):
        rounds.from_json(text, "old.json")


def test_a_change_must_be_larger_than_the_noise() -> None:
    old = measured(40.0, 41.0, 42.0)
    faster, slower, same = measured(50.0, 51.0, 55.0), measured(30.0, 31.0, 39.0), measured(39.0, 45.0, 50.0)
    assert [ratio_of(each, old).change for each in (faster, slower, same)] == [1, -1, 0]
    ratio = ratio_of(faster, old)
    assert (ratio.value, ratio.low, ratio.high) == tuple(pytest.approx(each) for each in (51 / 41, 50 / 42, 55 / 40))


def test_less_memory_and_time_are_better() -> None:
    old, new = measured(40.0), measured(40.0, peak=150_000_000, start=1.6)
    assert (ratio_of(new, old, "peak memory").value, ratio_of(new, old, "peak memory").change) == (0.5, 1)
    assert (ratio_of(new, old, "first frame").value, ratio_of(new, old, "first frame").change) == (2, -1)


def test_what_the_system_does_not_say_is_no_change() -> None:
    assert ratio_of(measured(40.0, peak=0), measured(40.0, peak=0), "peak memory").value == 1


def test_refuses_another_preset_and_another_size() -> None:
    with pytest.raises(UsageError, match="the file is of preset ukiyoe, not of day2night; give -p ukiyoe"):
        rounds.compare(measured(40.0), measured(40.0, preset="ukiyoe"))
    with pytest.raises(UsageError, match=r"measured drive\.mp4 1280x720, but the file has drive\.mp4 640x360"):
        rounds.compare(measured(40.0, size=(1280, 720)), measured(40.0))


def test_says_what_else_is_different() -> None:
    new, old = measured(40.0, backend="onnxruntime int8", frames=50), measured(40.0)
    new = dataclasses.replace(new, settings={"threads": 1}, machine={"cores": 2})
    assert rounds.differences(new, old) == [
        "threads: 1, and 2 then",
        "drive.mp4: backend onnxruntime int8, and openvino fp32 then",
        "drive.mp4: frames 50, and 100 then",
    ]
    assert rounds.differences(old, old) == []


def test_settings_are_what_is_not_as_usual() -> None:
    request = pipeline.Request.of(input="a.mp4", preset="x", threads=1, start=0.5, overwrite=True)
    assert rounds.settings_of(request, "x") == {"threads": 1, "start": "1/2"}


def test_a_fresh_process_for_each_run(
    make_clip: Make, make_preset: MakePreset, negative_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    request = pipeline.Request.of(input=str(make_clip()), preset=make_preset("model", model=negative_model.name))
    began, calls = rounds._in_fresh_process, []
    monkeypatch.setattr(
        rounds, "_in_fresh_process", lambda *given, **more: calls.append((given, more)) or began(*given, **more)
    )
    result = rounds.measure(rounds.Job(request, frames=6), repeat=2, on_run=said.append)
    assert said == ["clip.mp4: first start", "clip.mp4: run 1 of 2", "clip.mp4: run 2 of 2"]
    assert [more.get("start_only", False) for _, more in calls] == [True, False, False]
    assert "STREAMGAN_CACHE" in calls[0][0][1] and calls[0][0][1] != os.environ["STREAMGAN_CACHE"]
    assert result.cold is not None and result.cold > 0
    assert [(run.clip, run.frames, *sorted(run.costs)) for run in result.runs] == [
        ("clip.mp4", 6, "decode", "encode", "translate")
    ] * 2
    assert all(run.start > 0 and 20e6 < run.peak < 4e9 and run.cpu > 0 for run in result.runs)
    assert result.runs[0].backend.startswith(("onnxruntime", "openvino")) and result.runs[0] != result.runs[1]


@pytest.mark.parametrize(
    ("field", "value", "kind"), [("input", "missing.mp4", SourceError), ("preset", "missing.yaml", PresetError)]
)
def test_an_error_comes_back_as_it_is(
    field: str, value: str, kind: type[StreamganError], make_clip: Make, make_preset: MakePreset, tmp_path: Path
) -> None:
    fields = {"input": str(make_clip()), "preset": make_preset("model"), field: str(tmp_path / value)}
    request = pipeline.Request.of(**fields)
    expected = rounds.work({"request": fields, "plugin_files": [], "frames": 4, "start_only": False, "began": 0.0})
    with pytest.raises(kind, match=value) as raised:
        rounds.measure(rounds.Job(request, 4), 1, cold=False)
    assert {"error": str(raised.value), "kind": kind.__name__} == expected and "\n" not in str(raised.value)


def test_a_process_that_dies_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds.sys, "executable", "/bin/false")
    with pytest.raises(StreamganError, match=r"a\.mp4: the process that measured ended with 1 \(it said nothing\)"):
        rounds.measure(rounds.Job(pipeline.Request.of(input="a.mp4", preset="x")), 1, cold=False)


def test_the_start_counts_from_the_given_moment(
    make_clip: Make, make_preset: MakePreset, registry: plugins.Registry
) -> None:
    request = pipeline.Request.of(input=str(make_clip()), preset=make_preset("identity"))
    assert bench.measure_start(request, registry, began=bench.time.time() - 1000) > 1000


def test_peak_memory_is_this_process_s() -> None:
    before = bench.peak_memory()
    more = bytearray(os.urandom(1 << 20) * 128)
    assert bench.peak_memory() - before > 50e6 and len(more) == 1 << 27


def test_the_command_compares(
    make_clip: Make, make_preset: MakePreset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(rounds, "measure", lambda job, repeat, on_run: rounds.Result((run_of(),) * repeat, 5.0))
    monkeypatch.setattr(bench, "synthetic_clip", lambda path, *_: make_clip(name=path.name))
    preset, file = make_preset("model", model="none.onnx"), tmp_path / "made.json"
    monkeypatch.setattr("streamgan.cli.bench._check", lambda *_: "trial")
    common = ["bench", "-p", preset, "--repeat", "2"]
    assert execute([*common, "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "median of 2 processes" in shown and "40.0 ±0%" in shown and "all cores" in shown and "5.00 s" in shown
    kept = rounds.from_json(file.read_text(), "made")
    assert (kept.preset, len(kept.results[0].runs)) == ("trial", 2)
    faster = rounds.Result((run_of(end_to_end=60.0),) * 2)
    monkeypatch.setattr(rounds, "measure", lambda job, repeat, on_run: faster)
    assert execute([*common, "--compare", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  end to end    1.50  (1.50 to 1.50)  better" in lines
    assert "  decode        1.00  (1.00 to 1.00)  no difference beyond the noise" in lines
    file.write_text(rounds.to_json(dataclasses.replace(kept, preset="other")))
    assert execute([*common, "--compare", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--compare", "none.json"], "none.json: cannot be read"),
        (["--compare", "."], ".: cannot be read"),
        (["--json", "no/folder.json"], "cannot be written"),
        (["--json", "film.mp4"], "expected a name that ends in .json"),
        (["--resolution", "big"], "expected WIDTHxHEIGHT"),
    ],
)
def test_wrong_files_are_said_before_anything_is_measured(
    given: list[str], said: str, make_preset: MakePreset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "synthetic_clip", lambda *_: pytest.fail("measured"))
    assert execute(["bench", "-p", make_preset("model"), *given]) != 0
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
