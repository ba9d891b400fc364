"""Loading: a model that computes something else makes way for the next best, but not where it was asked for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import engines
import pytest
from clips import write_model

from streamgan import api, testing
from streamgan.models import loading
from streamgan.models.backends import OnnxRuntime
from streamgan.models.loading import Setup, ladder

SIZE = (48, 32)
HALF = ("fp16", "bf16", "fp32")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache."""
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "cache"))


def load(
    path: Path, first: Setup, backends: dict[str, Any], backend: str | None = None, precision: str = "auto"
) -> loading.Loaded:
    """Loads a model as a run does."""
    return loading.load(path, ladder(first, backends, backend, precision), backends, SIZE)


def steps(first: Setup, backends: dict[str, Any], backend: str | None = None, precision: str = "auto") -> list[str]:
    """The ladder in words."""
    return [str(step) for step in ladder(first, backends, backend, precision)]


def test_the_ladder_goes_down_in_precision_then_to_other_backends() -> None:
    backends = {
        "antique": engines.make(1, precisions=("fp32", "fp16")),
        "absent": engines.make(99, usable=False),
        "gpu": engines.make(50, precisions=("fp16", "bf16", "fp32", "int8"), streams=4),
        "cpu": engines.make(10, precisions=("fp32", "int8"), streams=2),
    }
    first = Setup("gpu", "fp16", 4, 8)
    others = ["cpu fp32, 2 streams", "antique fp32"]
    assert steps(first, backends) == [
        *("gpu fp16, 4 streams", "gpu bf16, 4 streams", "gpu fp32, 4 streams"),
        *others,
    ]
    assert steps(dataclasses.replace(first, precision="int8"), backends)[1] == "gpu fp16, 4 streams"
    assert steps(dataclasses.replace(first, precision="fp32"), backends) == ["gpu fp32, 4 streams", *others]


def test_what_was_asked_for_has_no_stand_in() -> None:
    backends = {"gpu": engines.make(50, precisions=HALF), "cpu": engines.make(10, precisions=("fp32", "fp16"))}
    first = Setup("gpu", "fp16")
    assert steps(first, backends, "gpu") == ["gpu fp16", "gpu bf16", "gpu fp32"]
    assert steps(first, backends, None, "fp16") == ["gpu fp16", "cpu fp16"]
    assert steps(first, backends, "gpu", "fp16") == ["gpu fp16"]


def test_falls_back_to_a_safer_precision_and_says_so(negative_model: Path) -> None:
    gpu = engines.make(50, precisions=HALF, faults={"fp16": engines.black}, refuses=("bf16",))
    loaded = load(negative_model, Setup("gpu", "fp16"), {"gpu": gpu, "onnxruntime": OnnxRuntime})
    assert str(loaded.setup) == "gpu fp32" and loaded.verdict is not None and loaded.verdict.passed
    first, second = loaded.notes
    assert first.startswith("gpu fp16 is not used but gpu fp32:") and "black or flat" in first
    assert second == "gpu bf16 is not used but gpu fp32: fake: no bf16 on this machine"
    assert not any("\n" in note for note in loaded.notes)
    assert gpu.told.closed == 1, "the wrong one is freed"


def test_falls_back_to_the_next_backend(negative_model: Path) -> None:
    gpu = engines.make(50, faults={"fp32": engines.broken}, streams=2)
    loaded = load(negative_model, Setup("gpu", "fp32", 2, 2), {"gpu": gpu, "onnxruntime": OnnxRuntime})
    assert loaded.setup == Setup("onnxruntime", "fp32", 2, 2) and loaded.verdict is None
    assert "RuntimeError: driver lost" in loaded.notes[0]


def test_what_was_asked_for_and_is_wrong_is_an_error(negative_model: Path) -> None:
    backends = {"gpu": engines.make(precisions=HALF, faults={"fp16": engines.black}), "onnxruntime": OnnxRuntime}
    with pytest.raises(api.BackendError) as error:
        load(negative_model, Setup("gpu", "fp16"), backends, "gpu", "fp16")
    text = str(error.value)
    assert "gpu fp16 does not compute what negative.onnx should" in text and "\n" not in text
    assert "(at least 40)" in text and "(at most 32)" in text and "leave --backend and --precision out" in text
    with pytest.raises(api.BackendError, match=r"nothing here can run it as it should be .*gpu fp16: .*; gpu fp32: "):
        everywhere = dict.fromkeys(("fp16", "fp32"), engines.black)
        gpu = engines.make(precisions=("fp16", "fp32"), faults=everywhere)
        load(negative_model, Setup("gpu", "fp16"), {**backends, "gpu": gpu}, "gpu")


def test_what_was_asked_for_and_cannot_be_loaded_is_its_own_error(negative_model: Path) -> None:
    backends = {"gpu": engines.make(precisions=HALF, refuses=("fp16",)), "onnxruntime": OnnxRuntime}
    with pytest.raises(api.BackendError, match=r"^fake: no fp16 on this machine$"):
        load(negative_model, Setup("gpu", "fp16"), backends, "gpu", "fp16")


def test_int8_is_the_quantised_sibling(tmp_path: Path) -> None:
    path, backends = write_model(tmp_path / "m.onnx", -1.0, 255.0), {"onnxruntime": OnnxRuntime, "cpu": engines.make()}
    with pytest.raises(api.BackendError, match=r"precision int8 needs the quantised file m\.int8\.onnx"):
        load(path, Setup("onnxruntime", "int8"), backends, "onnxruntime", "int8")
    sibling = write_model(tmp_path / "m.int8.onnx", -1.0, 252.0)
    with pytest.raises(
        api.BackendError, match=r"m\.int8\.onnx: was not made of m\.onnx as it is now; streamgan quantise"
    ):
        load(path, Setup("onnxruntime", "int8"), backends, "onnxruntime", "int8")
    write_model(sibling, -1.0, 252.0, of=path)
    loaded = load(path, Setup("onnxruntime", "int8"), backends)
    assert loaded.setup.precision == "int8" and not loaded.notes and loaded.session.path == path
    assert loaded.verdict is not None and loaded.verdict.max_error == 3, "compared with the file in fp32"
    write_model(sibling, 0.0, 0.0, of=path)
    loaded = load(path, Setup("onnxruntime", "int8"), backends)
    assert loaded.setup.precision == "fp32" and "black or flat" in loaded.notes[0]


@pytest.mark.parametrize(("found", "refused"), [("cpu", True), ("CUDA:0", False), ("cuda", False), ("", False)])
def test_another_device_than_promised_is_refused(negative_model: Path, found: str, refused: bool) -> None:
    backends = {"gpu": engines.make(promises="cuda", found=found), "onnxruntime": OnnxRuntime}
    if refused:
        with pytest.raises(api.BackendError, match="backend gpu: promises cuda, but the model was loaded on cpu"):
            loading.open_session(negative_model, Setup("gpu"), backends)
        assert load(negative_model, Setup("gpu"), backends).setup.backend == "onnxruntime"
    else:
        assert load(negative_model, Setup("gpu"), backends).setup.backend == "gpu"


def test_another_precision_than_asked_for_is_refused(negative_model: Path) -> None:
    backends = {"gpu": engines.make(precisions=HALF, computes="fp32")}
    with pytest.raises(api.BackendError, match="backend gpu: asked for fp16, computes in fp32"):
        loading.open_session(negative_model, Setup("gpu", "fp16"), backends)
    assert loading.open_session(negative_model, Setup("gpu", "auto"), backends).precision == "fp32"


def test_the_session_knows_what_the_card_says(tmp_path: Path) -> None:
    path = testing.make_model(tmp_path / "domains.onnx", ("plain", "bright"))
    backends = {"onnxruntime": OnnxRuntime}
    loaded = load(path, Setup("onnxruntime", threads=1), backends)
    assert (loaded.session.domains, loaded.session.multiple_of) == (("plain", "bright"), 1)
    assert loaded.session.path == path and loaded.setup.precision == "fp32" and loaded.verdict is None


def test_streams_are_passed_on_only_where_there_are_several(negative_model: Path) -> None:
    class Old(api.Backend):
        """As a plugin for API 1.2 was written."""

        @classmethod
        def availability(cls) -> api.Availability:
            return api.Availability(True, "old")

        def load(self, path: Path, *, threads: int, precision: str = "auto") -> api.Session:  # type: ignore[override]
            return engines.Session(engines.Told(), "fp32", 1.0, None)

    assert load(negative_model, Setup("old"), {"old": Old}).setup.backend == "old"
    new = engines.make(streams=4)
    load(negative_model, Setup("new", "fp32", 3, 4), {"new": new})
    assert new.told.loads == [("negative.onnx", "fp32", 3)]


def test_what_cannot_be_tried_is_not(negative_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"gpu": engines.make(faults={"fp32": engines.black})}
    loaded = loading.load(negative_model, ladder(Setup("gpu"), wrong), wrong)
    assert loaded.verdict is None and not wrong["gpu"].told.runs
    card = dataclasses.replace(loading.card_of(negative_model), inputs=("statistics",))
    monkeypatch.setattr(loading, "card_of", lambda path: card)
    assert load(negative_model, Setup("gpu"), wrong).verdict is None


def test_a_file_that_is_no_model_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for name in ("broken.onnx", "absent.onnx"):
        with pytest.raises(api.ModelError, match=name):
            load(tmp_path / name, Setup("onnxruntime"), {"onnxruntime": OnnxRuntime})


def test_a_card_is_read_again_when_the_file_changes(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", 1.0, 0.0)
    assert loading.card_of(path) is loading.card_of(path)
    write_model(path, 1.0, 0.0, multiple_of=16)
    assert loading.card_of(path).size.multiple_of == 16


def test_a_card_is_remembered_and_a_damaged_memory_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(tmp_path / "m.onnx", 1.0, 0.0, multiple_of=8)
    card = loading.card_of(path)
    with monkeypatch.context() as patch:
        patch.setattr(loading, "read_card", lambda path: pytest.fail("read again"))
        loading._card.cache_clear()
        assert loading.card_of(path) == card
    (kept,) = (tmp_path / "cache" / "cards").iterdir()
    for damage in (None, "", "{", '{"format": 99}'):
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"card": damage}))
        loading._card.cache_clear()
        assert loading.card_of(path) == card
