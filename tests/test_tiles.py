"""Tiles: whole and in tiles, a picture comes out alike."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from clips import write_model
from onnx import TensorProto, helper, numpy_helper

import streamgan
from streamgan import api, model
from streamgan.models import sharednorm, tiles
from streamgan.models.backends import OnnxRuntime
from streamgan.models.translate import ModelTranslator
from streamgan.testing import make_images, make_model, reference

WEIGHTS = (np.random.default_rng(3).normal(0, 0.3, (3, 3, 3, 3)) + np.eye(3)[:, :, None, None] * 0.4).astype(np.float32)
CONSTANTS: dict[str, Any] = {
    "weights": WEIGHTS,
    "pointwise": np.eye(3, dtype=np.float32)[:, :, None, None],
    "one": np.ones(3, np.float32),
    "zero": np.zeros(3, np.float32),
    "double": np.array([1, 1, 2, 2], np.float32),
    "plane": np.array([2, 3]),
    "channel": np.array([1]),
    "column": np.array([3]),
    "rows": np.array([0, 3, -1]),
    "side": np.array([64, 64]),
    "half": np.float32(127.5),
    "unit": np.float32(1),
    "least": np.float32(0),
    "most": np.float32(255),
}
NODES: dict[str, list[tuple[str, list[str], dict[str, Any]]]] = {
    "conv": [("Conv", ["x", "weights"], {"pads": [1] * 4}), ("Tanh", ["x"], {})] * 2,
    "norm": [("Conv", ["x", "weights"], {"pads": [1] * 4}), ("InstanceNormalization", ["x", "one", "zero"], {})],
    "deep": [
        *[("Conv", ["x", "weights"], {"pads": [1] * 4}), ("InstanceNormalization", ["x", "one", "zero"], {})] * 3,
        ("Tanh", ["x"], {}),
    ],
    "pool": [("Conv", ["x", "weights"], {"pads": [1] * 4}), ("GlobalAveragePool", ["x"], {})],
    "mean": [("ReduceMean", ["x", "plane"], {})],
    "larger": [("Conv", ["x", "weights"], {"pads": [1] * 4}), ("Resize", ["x", "", "double"], {"mode": "linear"})],
    "colour": [("ReduceMean", ["x", "channel"], {})],
    "greatest": [("ReduceMax", ["x", "plane"], {})],
    "column": [("ReduceMean", ["x", "column"], {})],
    "attention": [("Reshape", ["x", "rows"], {}), ("MatMul", ["x", "x"], {})],
    "softmax": [("Softmax", ["x"], {"axis": 3})],
    "fixed": [
        ("Shape", ["x"], {"start": 0, "end": 2}),
        ("Concat", ["x", "side"], {"axis": 0}),
        ("Resize", ["planes", "", "", "x"], {"mode": "linear"}),
    ],
    "corners": [
        (
            "Resize",
            ["x", "", "double"],
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        )
    ],
}
"""Nodes between scaled planes, ``x``, and the result; each takes what the one before gives."""


def write(path: Path, kind: str, multiple_of: int = 1, opset: int = 18) -> Path:
    """A model file of one of the `NODES`; a mean is added to the picture it is of."""
    make = helper.make_node
    nodes = [
        make("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        make("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        make("Div", ["planes", "half"], ["bright"]),
        make("Sub", ["bright", "unit"], ["x"]),
    ]
    last = "x"
    for number, (op, inputs, attributes) in enumerate(NODES[kind]):
        name = f"{op}{number}"
        nodes.append(make(op, [last if each == "x" else each for each in inputs], [name], **attributes))
        last = name
    if kind in ("pool", "mean", "greatest", "colour"):
        nodes.append(make("Add", ["x", last], ["added"]))
        last = "added"
    nodes += [
        make("Add", [last, "unit"], ["shifted"]),
        make("Mul", ["shifted", "half"], ["levels"]),
        make("Clip", ["levels", "least", "most"], ["held"]),
        make("Round", ["held"], ["rounded"]),
        *([make("Transpose", ["rounded"], ["pictures"], perm=[0, 2, 3, 1])] if kind != "attention" else []),
        make("Cast", ["pictures" if kind != "attention" else "rounded"], ["frames_out"], to=TensorProto.UINT8),
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("frames_out", TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in CONSTANTS.items() if name in used],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    size = model.SizeRule(multiple_of)
    model.write_card(path, model.ModelCard(kind, "none", "any to any", "CC0-1.0", "tests", size))
    return path


def load(path: str | Path) -> api.Session:
    """A model, loaded as the runtime does it."""
    session, card = OnnxRuntime().load(Path(path), threads=1), model.read_card(Path(path))
    session.multiple_of, session.domains = card.size.multiple_of, card.domains
    return session


def translate(path: Path, images: api.Images, **options: Any) -> api.Images:
    """What the translator `model` makes of pictures."""
    translator = ModelTranslator(ModelTranslator.Options(model=str(path), **options))
    translator.open(api.Context(api.VideoInfo(images.shape[2], images.shape[1], Fraction(1, 25)), load))
    try:
        return translator.translate(images)
    finally:
        translator.close()


def scene(height: int, width: int, count: int = 1) -> api.Images:
    """Pictures that are dark on the left, bright on the right, and soft: ``(count, H, W, 3)`` uint8."""
    soft = np.stack([cv2.GaussianBlur(image, (0, 0), 2) for image in make_images(count, height, width)])
    ramp = np.linspace(0, 0.6, width)[:, None] ** 2 + np.array([0.1, 0.2, 0.4])
    return np.asarray(np.clip(soft * ramp * 2, 0, 255), dtype=np.uint8)


@pytest.mark.parametrize("size", [(160, 160), (64, 150), (97, 131), (70, 64)])
@pytest.mark.parametrize(("multiple_of", "overlap"), [(1, 16), (4, 24), (16, 32)])
def test_a_local_model_gives_the_same_in_tiles(
    tmp_path: Path, size: tuple[int, int], multiple_of: int, overlap: int
) -> None:
    path, images = write(tmp_path / "m.onnx", "conv", multiple_of), scene(*size, count=2)
    whole = translate(path, images)
    made = translate(path, images, tile=64, overlap=overlap)
    assert made.shape == whole.shape
    assert np.abs(made.astype(int) - whole).max() <= 1


def test_a_model_that_enlarges_gives_the_same_in_tiles(tmp_path: Path) -> None:
    path, images = write(tmp_path / "m.onnx", "larger"), scene(100, 140)
    whole, made = translate(path, images), translate(path, images, tile=64, overlap=16)
    assert made.shape == whole.shape == (1, 200, 280, 3)
    assert np.abs(made.astype(int) - whole).max() <= 1


def test_a_model_of_domains_gives_the_same_in_tiles(tmp_path: Path) -> None:
    path, images = make_model(tmp_path / "m.onnx", ("day", "dusk", "night")), scene(100, 140, count=2)
    made = translate(path, images, tile=64, overlap=16, domain="dusk")
    assert np.abs(made.astype(int) - reference(images, np.ones(2, np.int64))).max() <= 1


@pytest.mark.parametrize("opset", [17, 18])
def test_statistics_are_those_of_the_whole_picture(tmp_path: Path, opset: int) -> None:
    derived = sharednorm.derive(write(tmp_path / "m.onnx", "norm", opset=opset), tmp_path)
    images = scene(48, 64)
    planes = np.pad(images[0] / 127.5 - 1, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(planes, (3, 3), axis=(0, 1))  # (H, W, 3, 3, 3)
    features = np.einsum("hwikl,oikl->hwo", windows, WEIGHTS.astype(np.float64))
    assert derived is not None
    given = sharednorm.decode(load(derived.measure).run(images))
    np.testing.assert_allclose(given[:3], features.mean((0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(given[3:], features.var((0, 1)), rtol=1e-4, atol=1e-6)
    ours = load(derived.tiles).run(images, {sharednorm.STATISTICS: given})
    assert np.abs(ours.astype(int) - load(tmp_path / "m.onnx").run(images)).max() <= 1
    assert model.read_card(derived.tiles).inputs == (sharednorm.STATISTICS,)


@pytest.mark.parametrize("kind", ["deep", "norm", "pool", "mean"])
def test_tiles_share_what_is_taken_from_the_whole_picture(tmp_path: Path, kind: str) -> None:
    path, images = write(tmp_path / "m.onnx", kind), scene(120, 160)
    whole = (load(path).run(images) if kind != "pool" else translate(path, images)).astype(int)
    alone = tiles.TiledSession(load(path), None, side=64, overlap=16).run(images)
    shared = translate(path, images, tile=64, overlap=16)
    assert np.abs(shared - whole).mean() < 3
    assert np.abs(shared - whole).mean() < 0.25 * np.abs(alone - whole).mean()


def test_flat_pictures_show_no_seam(tmp_path: Path) -> None:
    images = np.full((1, 150, 150, 3), 90, np.uint8)
    made = translate(write(tmp_path / "m.onnx", "mean"), images, tile=64, overlap=32)
    assert (made == made[0, 0, 0]).all()


def test_every_tile_has_the_same_shape(tmp_path: Path) -> None:
    session, shapes = load(write(tmp_path / "m.onnx", "conv", 16)), set()

    class Watched(api.Session):
        multiple_of = 16

        def run(self, images: api.Images, inputs: Any = None) -> api.Images:
            shapes.add(images.shape)
            return session.run(images, inputs)

    tiles.TiledSession(Watched(), None, side=64, overlap=20).run(scene(160, 208))
    assert shapes == {(1, 64, 64, 3)}


def test_tiles_work_beside_a_smaller_size(tmp_path: Path) -> None:
    path, images = write(tmp_path / "m.onnx", "conv", 4), scene(200, 320)
    whole = translate(path, images, size=100)
    made = translate(path, images, size=100, tile=64, overlap=16)
    assert made.shape == images.shape and np.abs(made.astype(int) - whole).max() <= 2


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("greatest", "ReduceMax"),
        ("column", "ReduceMean"),
        ("attention", "MatMul"),
        ("softmax", "Softmax"),
        ("corners", "Resize"),
        ("fixed", "Resize"),
    ],
)
def test_what_cannot_be_shared_is_refused(tmp_path: Path, kind: str, named: str) -> None:
    path = write(tmp_path / "m.onnx", kind)
    with pytest.raises(api.ModelError, match=rf"m\.onnx: cannot work in tiles: {named} .* set tile to 0"):
        translate(path, scene(100, 140), tile=64, overlap=16)
    assert list(tmp_path.iterdir()) == [path]


def test_a_mean_over_channels_is_local(tmp_path: Path) -> None:
    assert sharednorm.derive(write(tmp_path / "m.onnx", "colour"), tmp_path) is None


def test_a_picture_that_fits_a_tile_is_not_taken_apart(tmp_path: Path) -> None:
    path, images = write(tmp_path / "m.onnx", "corners"), scene(60, 64)
    assert np.array_equal(translate(path, images, tile=64, overlap=16), translate(path, images))


def test_without_the_package_onnx_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.onnx", "conv")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(api.ModelError, match="pip install onnx"):
        translate(path, scene(100, 140), tile=64, overlap=16)


@pytest.mark.parametrize(("tile", "overlap"), [(32, 16), (100, 64)])
def test_too_small_tiles_are_refused(tmp_path: Path, tile: int, overlap: int) -> None:
    path = write(tmp_path / "m.onnx", "conv")
    with pytest.raises(api.PresetError, match=f"tile: {tile} given, expected 0, or at least 64 and twice the overlap"):
        translate(path, scene(100, 140), tile=tile, overlap=overlap)


@pytest.mark.parametrize(
    ("length", "side", "overlap", "step"),
    [(1000, 400, 100, 1), (3840, 512, 64, 16), (512, 512, 64, 16), (528, 512, 64, 16), (2160, 500, 64, 4)],
)
def test_tiles_cover_a_length_and_share_enough(length: int, side: int, overlap: int, step: int) -> None:
    begins = tiles.starts(length, side, overlap, step)
    assert begins[0] == 0 and begins[-1] == length - side
    assert all(begin % step == 0 for begin in begins)
    assert all(left + side - right >= overlap for left, right in itertools.pairwise(begins))


def parts(begins: Sequence[int], side: int, picture: api.Images, axis: int) -> list[api.Images]:
    """Pieces cut out of a picture."""
    return [picture[begin : begin + side] if axis == 0 else picture[:, begin : begin + side] for begin in begins]


@pytest.mark.parametrize("axis", [0, 1])
def test_pieces_join_to_the_picture_they_were(axis: int) -> None:
    picture = make_images(1, 90, 90)[0]
    begins = tiles.starts(90, 40, 16)
    assert np.array_equal(tiles.join(parts(begins, 40, picture, axis), begins, 40, 8, axis), picture)


def test_unequal_pieces_pass_into_each_other_without_a_step() -> None:
    dark, bright = np.full((4, 40, 3), 40, np.uint8), np.full((4, 40, 3), 104, np.uint8)
    row = tiles.join([dark, bright], (0, 20), 40, 16, axis=1)[0, :, 0].astype(int)
    assert (row[:22] == 40).all() and (row[38:] == 104).all()
    assert (np.diff(row) >= 0).all() and np.diff(row).max() <= 64 * np.pi / 2 / 16 + 1


def test_large_negative_and_tiny_statistics_survive_as_digits() -> None:
    values = np.array([0.0, -1.5, 70000.25, 1e-7, 255.998, -3e-4], np.float32)
    rest, digits = np.abs(values.astype(np.float64)) / 65536, []
    for _ in range(8):
        digits.append(np.floor(rest))
        rest = (rest - digits[-1]) * 256
    rows = np.stack([values < 0, *digits], axis=1).astype(np.uint8)
    np.testing.assert_allclose(sharednorm.decode(rows.reshape(1, -1, 3, 3)), values, rtol=1e-6, atol=1e-11)


def test_the_model_of_a_preset_is_found_beside_it(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    write_model(tmp_path / "negative.onnx", -1.0, 255.0)
    preset = tmp_path / "tiled.yaml"
    preset.write_text("title: t\ntranslator: model\noptions: {model: negative.onnx, tile: 64, overlap: 16}\n")
    source = make_clip(size=(128, 80))
    report = streamgan.run(source, preset=str(preset), output=tmp_path / "out.mp4")
    assert report.frames == 20
