"""From a model file to its sibling in 8-bit integers, and the gate in between."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from streamgan.api import ModelError, SourceError, StreamganError, UsageError
from streamgan.model import ModelCard, SizeRule, int8_path, read_card, write_card
from streamgan.testing import make_clip, make_images, make_model
from streamgan_training.quantising import gate, graph, pictures
from streamgan_training.quantising.gate import Bars
from streamgan_training.quantising.quantise import quantise
from streamgan_training.quantising.quantise_command import quantise as command

UNREACHABLE = Bars(mean=99, least=99)


def make_network(path: Path, outlier: float = 1.0) -> Path:
    """A small generator: convolutions with ReLU, a gain from the mean over the picture, and a skip to the output.

    Args:
        path: the ``.onnx`` file.
        outlier: the second layer makes one channel so many times larger, and the third so many times smaller: the same
            function, but 256 steps for all channels are then too coarse.
    """
    random = np.random.default_rng(1)
    scale = np.ones(8, np.float32)
    scale[0] = outlier

    def weights(out: int, into: int, side: int = 3) -> Any:
        return (random.normal(0, 1, (out, into, side, side)) / np.sqrt(into * side * side)).astype(np.float32)

    constants: dict[str, Any] = {"half": np.float32(127.5), "one": np.float32(1), "axes": np.array([2, 3])}
    constants |= {"low": np.float32(0), "high": np.float32(255), "first": weights(8, 3)}
    constants["second"] = weights(8, 8) * scale[:, None, None, None]
    constants |= {
        "third": weights(8, 8) / scale[:, None, None],
        "gain": np.abs(weights(8, 8, 1)) * 3,
        "last": weights(3, 8) * 2,
    }

    def conv(given: str, name: str) -> list[Any]:
        side = np.shape(constants[name])[-1]
        made = helper.make_node("Conv", [given, name], [f"{name}_made"], pads=[side // 2] * 4, name=f"of_{name}")
        return [made, helper.make_node("Relu", [f"{name}_made"], [f"{name}_out"])]

    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        node("Div", ["planes", "half"], ["scaled"]),
        node("Sub", ["scaled", "one"], ["centred"]),
        *conv("centred", "first"),
        *conv("first_out", "second"),
        *conv("second_out", "third"),
        node("ReduceMean", ["third_out", "axes"], ["mean"]),
        *conv("mean", "gain"),
        node("Mul", ["third_out", "gain_made"], ["gained"]),
        *conv("gained", "last")[:1],
        node("Add", ["centred", "last_made"], ["sum"]),
        node("Tanh", ["sum"], ["tanh"]),
        node("Add", ["tanh", "one"], ["shifted"]),
        node("Mul", ["shifted", "half"], ["levels"]),
        node("Clip", ["levels", "low", "high"], ["clipped"]),
        node("Round", ["clipped"], ["rounded"]),
        node("Transpose", ["rounded"], ["pictures"], perm=[0, 2, 3, 1]),
        node("Cast", ["pictures"], ["frames_out"], to=TensorProto.UINT8),
    ]
    shape = ["N", "H", "W", 3]
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in ("frames", "frames_out")]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    made = helper.make_graph(nodes, "small", values[:1], values[1:], stored)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    size = SizeRule(multiple_of=4, trained=(64, 48))
    write_card(path, ModelCard("small", "none", "day to night", "CC0-1.0", "tests", size, metrics={"swd": 1.5}))
    return path


def write_pictures(folder: Path, count: int = 8) -> Path:
    """A folder of pictures that no model has seen."""
    folder.mkdir()
    for number, image in enumerate(make_images(count, 54, 70, seed=5)):
        Image.fromarray(np.roll(image, 9 * number, axis=1)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file."""
    return make_network(tmp_path / "small.onnx")


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A folder of eight pictures."""
    return write_pictures(tmp_path / "frames")


def run(path: Path, images: Any, **inputs: Any) -> Any:
    """What ONNX Runtime makes of pictures."""
    return onnxruntime.InferenceSession(str(path)).run(None, {"frames": images} | inputs)[0]


def psnr(one: Any, other: Any) -> float:
    """In dB, by its definition."""
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


def kinds_after_fusion(path: Path) -> list[str]:
    """The operators that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_name("fused.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


def stored(path: Path) -> Mapping[str, Any]:
    """The constants of a graph by name."""
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer}


def test_it_computes_in_integers_what_the_original_computes(model: Path, frames: Path) -> None:
    made = quantise(model, [frames])
    assert made.output == int8_path(model) and made.kept == () and made.integer == 4
    images = make_images(2, 48, 64, seed=9)
    assert psnr(run(made.output, images), run(model, images)) > 38
    kinds = kinds_after_fusion(made.output)
    assert kinds.count("QLinearConv") == 4
    assert kinds.count("Conv") + kinds.count("FusedConv") == 1  # that of the mean
    assert "Tanh" in kinds and "QLinearAdd" not in kinds  # what makes the picture stays in floats


def test_the_card_is_kept_and_says_what_it_was_made_from(model: Path, frames: Path) -> None:
    before = read_card(model)
    made = quantise(model, [frames])
    card = read_card(made.output)
    assert card == made.card and card.precision == "int8"
    assert card.quantised_from == hashlib.sha256(model.read_bytes()).hexdigest()
    assert card.calibration == (f"{frames.parent.name}/frames: 6 pictures",)
    assert card.metrics["int8_psnr_mean"] == pytest.approx(made.quality.mean, abs=0.001)
    assert card.metrics["swd"] == 1.5 and "int8_flicker" not in card.metrics
    plain = dataclasses.replace(card, precision="fp32", quantised_from="", calibration=(), metrics=before.metrics)
    assert plain == before


def test_weights_use_seven_bits_so_that_no_cpu_saturates(model: Path, frames: Path) -> None:
    weights = [value for value in stored(quantise(model, [frames]).output).values() if value.dtype == np.int8]
    weights = [value for value in weights if value.ndim == 4]
    assert len(weights) == 4
    assert max(int(np.abs(value.astype(int)).max()) for value in weights) == 64
    assert np.iinfo(np.int16).max >= 2 * 255 * 64


def test_the_gate_refuses_with_numbers_and_names_and_writes_nothing(model: Path, frames: Path) -> None:
    with pytest.raises(ModelError, match=r"not written, mean PSNR \d\d\.\d dB \(at least 99\)") as caught:
        quantise(model, [frames], bars=UNREACHABLE)
    assert "2 of 4 convolutions in fp32" in str(caught.value) and "\n" not in str(caught.value)
    assert sum(name in str(caught.value) for name in ("first", "second", "third", "last")) == 2
    assert sorted(each.name for each in model.parent.iterdir()) == ["frames", "small.onnx"]


def test_force_writes_what_the_gate_refuses(model: Path, frames: Path) -> None:
    made = quantise(model, [frames], bars=UNREACHABLE, force=True)
    assert made.output.is_file() and len(made.faults) == 2
    assert kinds_after_fusion(made.output).count("QLinearConv") == made.integer == 2


def test_a_harmful_convolution_stays_in_floats(tmp_path: Path, frames: Path) -> None:
    model = make_network(tmp_path / "outlier.onnx", outlier=3000)
    made = quantise(model, [frames])
    assert made.kept and set(made.kept) <= {"second", "third"}
    assert made.integer + len(made.kept) == 4 and not made.faults
    images = make_images(2, 48, 64, seed=9)
    assert psnr(run(made.output, images), run(model, images)) > 38


def test_pictures_unlike_those_that_set_the_scales_are_found_out(model: Path, frames: Path, tmp_path: Path) -> None:
    grey = tmp_path / "grey"
    grey.mkdir()
    for number in range(4):
        Image.new("RGB", (64, 48), (120 + number, 128, 128)).save(grey / f"{number}.png")
    with pytest.raises(ModelError, match="not written"):
        quantise(model, [grey], check=[frames])


def test_films_judge_flicker_with_frames_that_set_no_scale(model: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    make_clip(clip, size=(64, 48), frames=40)
    seen = pictures.read([clip], SizeRule(4, (64, 48)), warn=print)
    assert (len(seen.calibration), len(seen.held_out), [len(each) for each in seen.clips]) == (30, 10, [5])
    assert seen.sources == ("clip.mp4: 30 pictures",)
    assert not any((one == other).all() for one in seen.held_out for other in seen.calibration)
    made = quantise(model, [clip])
    assert made.quality.flicker is not None and 0.5 < made.quality.flicker < 1.15
    assert made.card.metrics["int8_flicker"] == pytest.approx(made.quality.flicker, abs=0.001)


def test_a_model_of_several_domains_is_shown_all_of_them(tmp_path: Path, frames: Path) -> None:
    model = make_model(tmp_path / "many.onnx", ("day", "night"))
    made = quantise(model, [frames])
    images, domain = make_images(2), np.array([0, 1])
    assert psnr(run(made.output, images, domain=domain), run(model, images, domain=domain)) > 35


def test_a_stain_that_the_mean_hides_is_measured() -> None:
    flat = np.full((64, 64, 3), 100, np.uint8)
    stained = flat.copy()
    stained[16:32, 32:48] += 9
    assert gate.largest_drift(flat, stained) == 9
    results = [gate.Results((image,), ()) for image in (flat, stained)]
    nothing = pictures.Pictures((), (flat,), (), ())
    assert gate.compare(*results, nothing).faults(Bars()) == ["a place is off by 9.0/255 (at most 8)"]
    assert gate.compare(results[0], results[0], nothing).faults(Bars()) == []


def test_pictures_are_cut_to_what_the_model_takes() -> None:
    image = make_images(1, 30, 50)[0]
    assert (pictures.fit(image, 100, 8) == image[3:27, 1:49]).all()
    assert pictures.fit(image, 16, 8).shape == (16, 24, 3)
    assert pictures.fit(image[:5], 100, 8).shape == (8, 48, 3)


def test_what_follows_a_mean_or_the_last_convolution_is_not_quantised(model: Path, tmp_path: Path) -> None:
    prepared = graph.prepare(model, tmp_path, [{"frames": image[None]} for image in make_images(2)])
    names = [prepared.weights(each) for each in prepared.convolutions]
    assert names == ["first", "second", "third", "last"]
    kinds = {node.name: node.op_type for node in prepared.proto.graph.node}
    assert {kinds[name] for name in prepared.nodes} == {"Transpose", "Conv", "Relu", "Mul"}
    assert {kinds[name] for name in prepared.group(prepared.convolutions[0])} == {"Conv", "Relu"}


def test_wrong_calls_are_one_line_that_helps(model: Path, frames: Path, tmp_path: Path) -> None:
    empty, single = tmp_path / "empty", tmp_path / "single"
    empty.mkdir()
    write_pictures(single, 1)
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    bare = onnx.load(str(model))
    del bare.metadata_props[:]
    onnx.save(bare, str(tmp_path / "bare.onnx"))
    done = quantise(model, [frames], tmp_path / "done.onnx").output
    wrong: list[tuple[type[StreamganError], str, Path, Path, Path]] = [
        (UsageError, "no images and no films in it", model, empty, tmp_path / "new.onnx"),
        (UsageError, "too few pictures", model, single, tmp_path / "new.onnx"),
        (SourceError, "no such file or folder", model, tmp_path / "nowhere", tmp_path / "new.onnx"),
        (SourceError, "cannot be read as a video", model, tmp_path / "noise.onnx", tmp_path / "new.onnx"),
        (ModelError, "no such model file", tmp_path / "gone.onnx", frames, tmp_path / "new.onnx"),
        (ModelError, "not an ONNX model", tmp_path / "noise.onnx", frames, tmp_path / "new.onnx"),
        (ModelError, "without a streamgan card", tmp_path / "bare.onnx", frames, tmp_path / "new.onnx"),
        (ModelError, "is in int8 already", done, frames, tmp_path / "new.onnx"),
        (UsageError, "exists already", model, frames, done),
    ]
    for error, words, path, place, output in wrong:
        with pytest.raises(error, match=words) as caught:
            quantise(path, [place], output)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "new.onnx").exists()


def test_the_command_says_what_it_made_and_passes_what_it_is_told(model: Path, frames: Path) -> None:
    done = CliRunner().invoke(command, [str(model), "--frames", str(frames), "--short-side", "32"])
    assert done.exit_code == 0, done.output
    assert "small.int8.onnx" in done.output and "4 convolutions in int8" in done.output and "PSNR" in done.output
    int8_path(model).unlink()
    again = [str(model), "--frames", str(frames), "--psnr", "99"]
    assert isinstance(CliRunner().invoke(command, again).exception, ModelError)
    forced = CliRunner().invoke(command, [*again, "--force"])
    assert forced.exit_code == 0 and "in fp32: " in forced.output and "forced: mean PSNR" in forced.output
