"""The translator ``model``: sizes, padding, and details that survive."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_model

from streamgan import api
from streamgan.backends import OnnxRuntime
from streamgan.translate import ModelTranslator, enlarge_bilinear, enlarge_guided, fit, pad


def opened(path: Path, multiple_of: int = 1, **options: object) -> ModelTranslator:
    """A translator with its model loaded, as the runtime does it."""
    translator = ModelTranslator(ModelTranslator.Options(model=str(path), **options))  # type: ignore[arg-type]

    def load(name: str) -> api.Session:
        session = OnnxRuntime().load(Path(name), threads=1)
        session.multiple_of = multiple_of
        return session

    translator.open(api.Context(api.VideoInfo(64, 48, Fraction(1, 25)), load))
    return translator


def noise(*shape: int) -> api.Images:
    """Random pictures."""
    return np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 48, 64), (2, 47, 63), (3, 1, 1), (1, 720, 16)])
def test_a_model_at_full_size_is_exact(tmp_path: Path, shape: tuple[int, ...]) -> None:
    translator = opened(write_model(tmp_path / "m.onnx", -1.0, 255.0), multiple_of=16)
    images = noise(*shape)
    assert np.array_equal(translator.translate(images), 255 - images)
    translator.close()
    translator.close()


@pytest.mark.parametrize("upsample", ["guided", "bilinear"])
@pytest.mark.parametrize("shape", [(1, 96, 128), (2, 95, 127)])
def test_a_smaller_size_gives_the_same_shape(tmp_path: Path, upsample: str, shape: tuple[int, ...]) -> None:
    translator = opened(write_model(tmp_path / "m.onnx", 0.5, 10.0), multiple_of=32, size=40, upsample=upsample)
    images = cv2.GaussianBlur(noise(*shape).reshape(-1, shape[2], 3), (0, 0), 5).reshape(*shape, 3)
    made = translator.translate(np.asarray(images))
    assert made.shape == images.shape and made.dtype == np.uint8
    assert np.abs(made.astype(float) - (images * 0.5 + 10)).mean() < 2


def test_without_a_model_it_says_so() -> None:
    with pytest.raises(api.PresetError, match="'model' is missing"):
        ModelTranslator().open(api.Context(api.VideoInfo(64, 48, Fraction(1, 25)), lambda name: pytest.fail(name)))


def test_fit_keeps_the_shape_and_never_enlarges() -> None:
    assert fit((1280, 720), 360) == (640, 360)
    assert fit((720, 1280), 360) == (360, 640)
    assert fit((640, 360), 0) == fit((640, 360), 360) == fit((640, 360), 999) == (640, 360)
    assert fit((1000, 3), 1) == (333, 1)


def test_pad_repeats_the_edge() -> None:
    image = noise(1, 5, 7)[0]
    padded = pad(image, 4)
    assert padded.shape == (8, 8, 3)
    assert np.array_equal(padded[:5, :7], image)
    assert (padded[5:, :7] == image[-1]).all() and (padded[:5, 7:] == image[:, -1:]).all()


def scene() -> tuple[api.Images, api.Images]:
    """A picture with fine detail, and its half-size version."""
    image = np.full((240, 320, 3), 120, np.uint8)
    image[:, 160:] = 200
    image[::4, :160] = 60
    return image, cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA)


def test_guided_keeps_details_that_bilinear_loses() -> None:
    image, seen = scene()
    made = (seen * 0.5).astype(np.uint8)
    guided, bilinear = enlarge_guided(made, seen, image), enlarge_bilinear(made, seen, image)
    wanted = image * 0.5
    assert np.abs(guided - wanted).mean() < 0.5 * np.abs(bilinear - wanted).mean()


def test_guided_keeps_lamps_that_the_model_lights() -> None:
    image = np.full((240, 320, 3), 150, np.uint8)
    seen = np.asarray(cv2.resize(image, (160, 120)), np.uint8)
    made = (seen * 0.2).astype(np.uint8)
    made[50:53, 70:73] = 255
    result = enlarge_guided(made, seen, image)
    assert (result[103, 143] > 240).all()
    assert np.abs(result[:90].astype(int) - 30).max() <= 1


def test_guided_adds_no_halo_at_an_edge() -> None:
    image = np.full((240, 320, 3), 40, np.uint8)
    image[:100] = 230  # a sky that the model darkens below the ground
    seen = np.asarray(cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA), np.uint8)
    made = np.full_like(seen, 30)
    made[:50] = 10
    result = enlarge_guided(made, seen, image)
    assert result.min() >= 10 - 2 and result.max() <= 30 + 2


def test_guided_shrunk_again_is_what_the_model_made() -> None:
    image = np.asarray(cv2.GaussianBlur(noise(1, 240, 320)[0], (0, 0), 3), np.uint8)
    seen = np.asarray(cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA), np.uint8)
    made = np.asarray(255 - seen // 2, np.uint8)
    again = cv2.resize(enlarge_guided(made, seen, image), (160, 120), interpolation=cv2.INTER_AREA)
    assert np.abs(again.astype(int) - made).mean() < 1.5
