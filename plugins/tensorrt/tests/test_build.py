"""Real engines of TensorRT-RTX, which it builds without a GPU, of every model file that is shipped."""

from __future__ import annotations

import json
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

from streamgan import api, testing
from streamgan_tensorrt import build, cache, engines, graph, progress, runtime
from streamgan_tensorrt.command import tensorrt
from streamgan_tensorrt.profiles import Profile

PRESETS = Path(__file__).parents[3] / "presets"
CASES = [
    pytest.param(path, precision, id=f"{path.stem}-{precision}")
    for path in sorted(PRESETS.glob("*.onnx"))
    for precision in (["int8"] if path.stem.endswith(".int8") else ["fp32", "fp16", "bf16"])
]
PICTURES = "UINT8 (-1, -1, -1, 3)"
SHAPE = (1, 224, 400)


def silent(done: float, phase: str) -> None:
    """Says nothing."""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A tiny model file."""
    return testing.make_model(tmp_path / "tiny.onnx")


@pytest.mark.parametrize("path, precision", CASES)
def test_every_shipped_model_becomes_an_engine(path: Path, precision: str, trt: runtime.Runtime) -> None:
    source = engines.Source.open(trt, path, precision, None)
    entry = engines.obtain(source, SHAPE)
    assert entry.path is not None and entry.profiles == (Profile.static(SHAPE),)
    facts = json.loads(entry.path.with_suffix(".json").read_text())
    assert facts["tensors"] == {"frames": PICTURES, "frames_out": PICTURES}
    assert facts["profiles"] == [[list(SHAPE)] * 3] and facts["runtime"] == trt.name
    assert cache.read(entry.path) == entry.engine and len(entry.engine) > 500_000
    assert engines.obtain(source, SHAPE) == entry


@pytest.mark.parametrize("path", sorted(PRESETS.glob("day2night.onnx")), ids=lambda path: path.name)
def test_half_precision_halves_the_weights(path: Path, trt: runtime.Runtime) -> None:
    weights = path.stat().st_size  # in fp32, and little else
    sizes = {
        precision: len(build.build(trt, graph.typed(path, precision), [Profile.static(SHAPE)], silent).engine)
        for precision in ("fp32", "fp16", "bf16")
    }
    assert abs(sizes["fp16"] - sizes["bf16"]) < 10_000
    assert 0.3 * weights < sizes["fp32"] - sizes["fp16"] < 0.7 * weights  # an engine also holds code


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_networks_have_the_types_that_were_written_down(precision: str, tiny: Path, trt: runtime.Runtime) -> None:
    builder = trt.module.Builder(trt.logger)
    network, parser = build.parse(trt, builder, graph.typed(tiny, precision))
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    (convolution,) = (layer for layer in layers if layer.type == trt.module.LayerType.CONVOLUTION)
    expected = {"fp32": trt.module.float32, "fp16": trt.module.float16, "bf16": trt.module.bfloat16}[precision]
    assert convolution.get_output(0).dtype == convolution.get_input(0).dtype == expected
    assert network.get_flag(trt.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    del network, parser


def test_a_range_of_sizes_and_several_domains(tmp_path: Path, trt: runtime.Runtime) -> None:
    path = testing.make_model(tmp_path / "domains.onnx", ("plain", "bright"))
    profiles = [Profile.spanning([(1, 48, 64), (4, 96, 128)]), Profile.static((2, 720, 1280))]
    entry = engines.make(engines.Source.open(trt, path, "fp16", None), profiles, silent)
    assert entry.path is not None
    facts = json.loads(entry.path.with_suffix(".json").read_text())
    assert facts["tensors"] == {"frames": PICTURES, "frames_out": PICTURES, "domain": "INT64 (-1,)"}
    assert [Profile.from_json(each) for each in facts["profiles"]] == profiles


def test_int8_with_uint8_levels_around_a_zero_point_is_taken(tmp_path: Path, trt: runtime.Runtime) -> None:
    path = testing.make_model(tmp_path / "tiny.int8.onnx")
    proto = onnx.load(str(path))
    for name, value in {"step": np.array(0.01, np.float32), "zero": np.array(120, np.uint8)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    place = next(number for number, each in enumerate(proto.graph.node) if each.op_type == "Conv")
    proto.graph.node[place].input[0] = "values"
    proto.graph.node.insert(place, helper.make_node("DequantizeLinear", ["levels8", "step", "zero"], ["values"]))
    proto.graph.node.insert(place, helper.make_node("QuantizeLinear", ["centred", "step", "zero"], ["levels8"]))
    onnx.save(proto, str(path))
    with pytest.raises(api.BackendError):
        build.build(trt, graph.typed(path, "fp32"), [Profile.static((1, 48, 64))], silent)
    assert build.build(trt, graph.typed(path, "int8"), [Profile.static((1, 48, 64))], silent).engine


def test_what_cannot_be_built_is_said_in_one_line(trt: runtime.Runtime, tiny: Path) -> None:
    day2night = PRESETS / "day2night.onnx"
    source = engines.Source.open(trt, day2night, "fp16", None)
    with pytest.raises(api.BackendError, match=r"no engine could be built for 1x401x225 \(.+\)") as caught:
        engines.obtain(source, (1, 225, 401))
    assert "\n" not in str(caught.value)
    with pytest.raises(api.BackendError, match="cannot be parsed"):
        build.build(trt, b"no graph", [Profile.static(SHAPE)], silent)
    wrong = engines.Source.open(trt, tiny, "fp16", None, "9.9")
    with pytest.raises(api.BackendError, match=r"capability 9\.9 is not possible; choose among 7\.5, .*12\.0"):
        engines.obtain(wrong, SHAPE)
    assert engines.obtain(engines.Source.open(trt, tiny, "fp16", None), SHAPE).engine, "it goes on after a failure"


def test_progress_grows_from_nothing_to_all(trt: runtime.Runtime, tiny: Path) -> None:
    told: list[tuple[float, str]] = []
    build.build(trt, graph.typed(tiny, "fp32"), [Profile.static(SHAPE)], lambda *what: told.append(what))
    done = [part for part, _ in told]
    assert done == sorted(done) and done[0] < 0.2 and done[-1] == 1
    assert "Building engine" in {phase for _, phase in told}


def test_a_build_that_is_interrupted_ends(trt: runtime.Runtime, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[float] = []

    def interrupt(self: Any, timeout: float | None = None) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.Future.result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build.build(trt, graph.typed(tiny, "fp32"), [Profile.static(SHAPE)], lambda done, phase: steps.append(done))
    assert len(steps) < 100, "over 300 steps lead to the end"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tensorrt-build")]


def test_the_command_builds_ahead(trt: runtime.Runtime, tiny: Path, tmp_path: Path, private_cache: Path) -> None:
    arguments = ["build", str(tiny), "--size", "640x360", "--size", "320x180", "--precision", "bf16"]
    done = CliRunner().invoke(tensorrt, [*arguments, "--range", "--capability", "8.9", "-o", str(tmp_path / "e.trt")])
    assert done.exit_code == 0 and done.exception is None
    assert (
        f"{tmp_path / 'e.trt'}: {trt.name}, bf16, 1x320x180 to 1x640x360; for any of compute capability 8.9"
        in done.output
    )
    (kept,) = private_cache.glob("*.engine")
    assert (tmp_path / "e.trt").read_bytes() == cache.read(kept)
    for wrong, said in (["--size", "640"], "expected WIDTHxHEIGHT"), (["--size", "0x8"], "expected WIDTHxHEIGHT"):
        refused = CliRunner().invoke(tensorrt, ["build", str(tiny), *wrong])
        assert isinstance(refused.exception, api.UsageError) and said in str(refused.exception)
    shipped = CliRunner().invoke(tensorrt, ["build", str(PRESETS / "day2night.onnx"), "--size", "640x360"])
    assert ", fp16, 1x640x368; for any from Ampere on" in shipped.output, "rounded up as the runtime pads pictures"
    away = CliRunner().invoke(tensorrt, [*arguments, "-o", str(tmp_path / "no" / "e.trt")])
    assert isinstance(away.exception, api.BackendError) and "cannot be written" in str(away.exception)


def test_phases_inside_phases_are_one_number() -> None:
    phases = progress.Phases()
    phases.start("all", None, 2)
    phases.step("all", 0)
    assert phases.done == 0.5
    phases.start("half", "all", 4)
    phases.step("half", 0)
    assert phases.done == 0.625
    phases.finish("half")
    assert phases.done == 0.625, "it never falls"
    phases.step("all", 1)
    assert phases.done == 1


def test_long_builds_are_announced_and_short_ones_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    seconds = iter([0.0, 3.0, 9.0, 10.5, 10.5, 12.0, 21.0, 21.0])
    tell = progress.announce("day2night", clock=lambda: next(seconds))
    for part in range(5):
        tell(part / 10, "Timing tactics")
    assert caplog.messages == [
        "tensorrt: day2night: 20% built (Timing tactics)",
        "tensorrt: day2night: 40% built (Timing tactics)",
    ]


def test_nothing_is_deprecated(trt: runtime.Runtime, tiny: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build.build(trt, graph.typed(tiny, "fp16"), [Profile.static(SHAPE)], silent, exact=True)
    assert not caught
