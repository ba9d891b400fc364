"""The verdict on a session: what is measured, what passes, and what is remembered."""

from __future__ import annotations

import json
import math
from pathlib import Path

import engines
import numpy as np
import pytest
from clips import write_model

from streamgan import api, testing
from streamgan.models import calibration, memo, verify
from streamgan.models.backends import OnnxRuntime

SIZE = (48, 32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the folder of verdicts in it."""
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "verdicts"


def session(fault: engines.Fault | None = None, precision: str = "fp32") -> engines.Session:
    """A session that inverts, and errs."""
    return engines.Session(engines.Told(), precision, 1.0, fault)


def subject(path: Path, **fields: object) -> verify.Subject:
    """What is tried: the model that inverts, by a backend of no matter which name."""
    return verify.Subject(**{"path": path, "backend": "fake", "says": "fake 1.0", "size": SIZE, **fields})  # type: ignore[arg-type]


def test_the_same_pictures_pass(negative_model: Path) -> None:
    verdict = verify.verdict(session(), subject(negative_model))
    assert (verdict.psnr, verdict.max_error, verdict.black, verdict.passed) == (99.0, 0, 0.0, True)


def test_psnr_is_that_of_the_worst_picture() -> None:
    wanted = calibration.pictures(SIZE)
    made = wanted.copy()
    made[1] = np.where(wanted[1] < 255, wanted[1] + 1, 254)
    verdict = verify.compare(made, wanted, "fp16")
    assert verdict.psnr == pytest.approx(20 * math.log10(255), abs=0.01) and verdict.max_error == 1
    assert verdict.passed and not verify.compare(made, wanted, "fp32").passed
    assert "PSNR 48.1 dB (at least 50), largest error 1" in str(verify.compare(made, wanted, "fp32"))


def test_black_pictures_are_found(negative_model: Path) -> None:
    verdict = verify.verdict(session(engines.black, "int8"), subject(negative_model))
    shown = len(calibration.pictures(SIZE)) - 2  # the black and the white one are flat whatever one does
    assert verdict.black == pytest.approx(shown / (shown + 2)) and not verdict.passed
    assert "60% of the pictures black or flat" in str(verdict)


def test_the_worst_picture_counts_wherever_it_stands() -> None:
    wanted = np.full((3, 8, 8, 3), 100, np.uint8)
    made = wanted + np.array([1, 2, 1], np.uint8)[:, None, None, None]
    assert verify.compare(made, wanted, "int8").psnr == pytest.approx(20 * math.log10(255 / 2), abs=0.01)


def test_black_is_found_where_little_is_seen_anyway() -> None:
    dusk = np.random.default_rng(0).integers(0, 7, (1, 48, 64, 3)).astype(np.uint8)
    verdict = verify.compare(np.zeros_like(dusk), dusk, "int8")
    assert verdict.psnr >= verify.GATES["int8"].psnr and verdict.black == 1 and not verdict.passed


def test_a_few_broken_values_do_not_hide_in_the_mean() -> None:
    wanted = np.full((1, 400, 400, 3), 200, np.uint8)
    made = wanted.copy()
    made[0, :2, :2] = 0
    verdict = verify.compare(made, wanted, "fp16")
    assert verdict.psnr > verify.GATES["fp16"].psnr and verdict.max_error == 200 and not verdict.passed


def test_an_unknown_precision_is_held_to_the_strictest_gate() -> None:
    wanted = np.full((1, 8, 8, 3), 100, np.uint8)
    assert not verify.compare(wanted + np.uint8(1), wanted, "fp4").passed
    assert all(gate.psnr <= verify.GATES["fp32"].psnr for gate in verify.GATES.values())


def test_results_that_share_their_memory_are_found(negative_model: Path) -> None:
    memory = np.zeros((1, SIZE[1], SIZE[0], 3), np.uint8)

    def into_the_same_memory(made: api.Images) -> api.Images:
        np.copyto(memory, made)
        return memory

    assert not verify.verdict(session(into_the_same_memory), subject(negative_model)).passed
    assert not verify.verdict(session(into_the_same_memory), subject(negative_model, streams=2)).passed


def test_a_verdict_is_remembered(negative_model: Path, cache: Path) -> None:
    first = session(engines.brighter)
    verdict = verify.verdict(first, subject(negative_model))
    second = session()  # would pass, if it were asked
    assert verify.verdict(second, subject(negative_model)) == verdict and not second.told.runs
    assert len(list(cache.glob("*.json"))) == 1 and not list(cache.glob("*.partial"))


@pytest.mark.parametrize("change", [{"size": (64, 32)}, {"says": "fake 2.0"}, {"backend": "other"}, {"streams": 2}])
def test_what_changed_is_tried_again(negative_model: Path, change: dict[str, object]) -> None:
    verify.verdict(session(), subject(negative_model))
    again = session()
    verify.verdict(again, subject(negative_model, **change))
    assert again.told.runs


def test_another_file_precision_or_build_is_tried_again(negative_model: Path) -> None:
    verify.verdict(session(), subject(negative_model))
    other, rebuilt = session(precision="fp16"), session()
    rebuilt.build = "second"
    for each in (other, rebuilt):
        verify.verdict(each, subject(negative_model))
        assert each.told.runs
    write_model(negative_model, -1.0, 250.0)
    assert verify.verdict(session(), subject(negative_model)).max_error == 5


@pytest.mark.parametrize("content", ["", "{", "[]", '{"verdict": {"psnr": "high"}}', "null", "\0"])
def test_a_corrupt_cache_is_measured_again(negative_model: Path, cache: Path, content: str) -> None:
    verify.verdict(session(), subject(negative_model))
    (file,) = cache.glob("*.json")
    kept = json.loads(file.read_text())
    damaged = json.dumps({**kept, **json.loads(content)}) if content.startswith('{"') else content
    file.write_text(damaged)
    again = session()
    assert verify.verdict(again, subject(negative_model)).passed and again.told.runs
    assert json.loads(file.read_text())["verdict"] == kept["verdict"], "the file is whole again"


def test_works_where_nothing_can_be_kept(negative_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        each = session()
        assert verify.verdict(each, subject(negative_model)).passed and each.told.runs


def test_pictures_of_the_film_count_too(negative_model: Path) -> None:
    def wrong_on_red(made: api.Images) -> api.Images:
        return engines.black(made) if made[..., 0].max() == 0 and made[..., 1].min() == 255 else made

    red = np.zeros((1, SIZE[1], SIZE[0], 3), np.uint8)
    red[..., 0] = 255
    assert verify.verdict(session(wrong_on_red), subject(negative_model)).passed
    assert not verify.verdict(session(wrong_on_red), subject(negative_model), red).passed


def test_a_model_of_several_domains(tmp_path: Path) -> None:
    path = testing.make_model(tmp_path / "domains.onnx", ("plain", "bright", "brighter"))
    loaded = OnnxRuntime().load(path, threads=1)
    loaded.domains = ("plain", "bright", "brighter")
    assert verify.verdict(loaded, subject(path)).psnr == 99
    always_the_first = OnnxRuntime().load(path, threads=1)
    always_the_first.domains = ("plain",)
    (tried,) = memo.everything("verdicts")
    assert tried["key"]["model"] == "domains" and tried["verdict"]["max_error"] == 0
    made = verify.compare(
        np.concatenate([always_the_first.run(each[None], verify.inputs(0, 1)) for each in calibration.pictures(SIZE)]),
        verify.expected(path, memo.digest_once(path), SIZE, 3),
        "fp32",
    )
    assert not made.passed, "domains take turns, so a backend that ignores them is found"


def test_wrong_shapes_and_raising_sessions_are_errors(negative_model: Path) -> None:
    with pytest.raises(api.BackendError, match=r"'fake' on .*gave pictures of \(5, 16, 48, 3\) uint8, expected"):
        verify.verdict(session(lambda made: made[:, ::2]), subject(negative_model))
    with pytest.raises(api.PluginError, match=r"backend 'fake' failed on .*RuntimeError: driver lost"):
        verify.verdict(session(engines.broken), subject(negative_model))


def test_the_reference_is_onnx_runtime_in_fp32_on_the_cpu(negative_model: Path) -> None:
    loaded = OnnxRuntime().load(negative_model, threads=1)
    assert verify.is_reference(OnnxRuntime, loaded) and not verify.is_reference(engines.make(), loaded)
    loaded.device = "cuda"
    assert not verify.is_reference(OnnxRuntime, loaded)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 48), (1280, 720)])
def test_calibration_pictures(size: tuple[int, int]) -> None:
    pictures = calibration.pictures(size)
    assert pictures.shape[1:] == (size[1], size[0], 3) and pictures.dtype == np.uint8
    assert np.array_equal(pictures, calibration.pictures(size)) and not pictures.flags.writeable
    *scenes, black, white = pictures
    assert black.max() == 0 and white.min() == 255
    if min(size) > 40:
        assert scenes[0].std() > 30 and np.abs(np.diff(scenes[0].astype(int), axis=1)).max() > 60


def test_scenes_have_light_and_dark() -> None:
    means = [picture.mean() for picture in calibration.pictures((160, 90))[:-2]]
    assert means == sorted(means, reverse=True) and means[0] > 100 and means[-1] < 40
