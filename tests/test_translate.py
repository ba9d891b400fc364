"""The translator ``model``: sizes, padding, and details that survive."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from clips import write_model

from streamgan import api
from streamgan.cli.program import execute
from streamgan.model import read_card
from streamgan.models.backends import OnnxRuntime
from streamgan.models.scaling import Room, enlarge_bilinear, enlarge_guided, fit, pad, shrink
from streamgan.models.translate import ModelTranslator
from streamgan.testing import make_clip, make_images, make_model, reference


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
    return image, np.asarray(cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA), np.uint8)


def test_guided_keeps_details_that_bilinear_loses() -> None:
    image, seen = scene()
    made = (seen * 0.5).astype(np.uint8)
    sharp, bilinear = enlarge_guided(made, seen, image), enlarge_bilinear(made, seen, image)
    wanted = image * 0.5
    assert np.abs(sharp - wanted).mean() < 0.5 * np.abs(bilinear - wanted).mean()


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


Doubles = npt.NDArray[np.float64]


def guided(made: api.Images, seen: api.Images, image: api.Images) -> Doubles:
    """The enlargement in doubles, written from equations 5 and 8 of the paper and the rules of `enlarge_guided`."""

    def mean(values: Doubles) -> Doubles:
        padded = np.pad(values, ((3, 3), (3, 3), (0, 0)), mode="symmetric")
        return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, (7, 7), (0, 1)).mean((3, 4)), np.float64)

    half = (seen.shape[1] // 2, seen.shape[0] // 2)
    small = [cv2.resize(each, half, interpolation=cv2.INTER_AREA).astype(np.float64) for each in (seen, made)]
    means = [mean(each) for each in small]
    covariance = mean(small[0] * small[1]) - means[0] * means[1]
    spread = mean(small[0] ** 2) - means[0] ** 2
    ratio = np.minimum(means[1] / (means[0] + 1), 1) * (covariance >= 0)
    gain = mean((covariance + 104.04 * ratio) / (spread + 104.04)).clip(-7, 7)
    rest = made - cv2.resize(gain, seen.shape[1::-1]) * seen
    size = image.shape[1::-1]
    return np.asarray(np.clip(cv2.resize(gain, size) * image + cv2.resize(rest, size), 0, 255), np.float64)


@pytest.mark.parametrize("size", [(320, 240), (333, 251), (1024, 131)])
@pytest.mark.parametrize("factor", [-1.0, 0.3, 1.7])
def test_guided_is_what_the_paper_says(size: tuple[int, int], factor: float) -> None:
    image = np.asarray(cv2.GaussianBlur(noise(1, size[1], size[0])[0], (0, 0), 2), np.uint8)
    image = np.asarray(cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX), np.uint8)  # type: ignore[call-overload]
    seen = np.asarray(cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA), np.uint8)
    made = np.asarray(np.clip(seen * factor + (255 if factor < 0 else 9), 0, 255), np.uint8)
    made[60:64, 70:90] = 250
    error = np.abs(enlarge_guided(made, seen, image) - guided(made, seen, image))
    assert error.max() < 1.6 and error.mean() < 0.4


@pytest.mark.parametrize("size", [(1280, 720), (640, 360), (333, 251), (1920, 1080), (225, 224), (3000, 230)])
def test_shrunk_is_nearly_the_mean_over_areas(size: tuple[int, int]) -> None:
    small = fit(size, 224)
    x, y = np.arange(size[0])[None] * small[0] / size[0], np.arange(size[1])[:, None] * small[1] / size[1]
    waves = 127 + 60 * np.sin(x * 2 * np.pi / 5) + 60 * np.sin((x + 2 * y) * 2 * np.pi / 9)
    image = np.rint(waves).astype(np.uint8)[..., None].repeat(3, 2)
    error = np.abs(shrink(image, small) - cv2.resize(waves, small, interpolation=cv2.INTER_AREA)[..., None])
    assert error.mean() < 2 and error.max() < 10
    assert shrink(image, size) is image


def test_shrunk_stripes_do_not_shimmer() -> None:
    image = np.zeros((720, 1280, 3), np.uint8)
    image[:, ::2] = 255
    made = shrink(image, (398, 224)).astype(int)
    assert np.abs(made[:, 2:-2] - 127).max() <= 64  # unfiltered, it would be 127


def test_several_threads_may_translate_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translator = opened(write_model(tmp_path / "m.onnx", 0.5, 10.0), size=40)
    assert translator.concurrent
    smooth = [cv2.GaussianBlur(noise(1, 96, 128 + step)[0, :, :128], (0, 0), 5)[None] for step in range(4)]
    pictures = [np.asarray(each, np.uint8) for each in smooth]
    alone = [translator.translate(images) for images in pictures]
    both = threading.Barrier(2, timeout=20)

    def together(made: api.Images, seen: api.Images, image: api.Images, room: Room) -> api.Images:
        room[:] = image[0, 0, 0]
        both.wait()  # two are here at once
        assert (room == image[0, 0, 0]).all()
        return enlarge_guided(made, seen, image, room)

    monkeypatch.setattr("streamgan.models.translate.enlarge_guided", together)
    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(translator.translate, pictures))
    assert all(np.array_equal(*each) for each in zip(alone, made, strict=True))


DOMAINS = ("day", "dusk", "night")


def of_domains(path: Path, domain: str, domains: tuple[str, ...] = DOMAINS) -> ModelTranslator:
    """A translator with a model of several domains, loaded as the runtime does it."""
    translator = ModelTranslator(ModelTranslator.Options(model=str(make_model(path, domains)), domain=domain))

    def load(name: str) -> api.Session:
        session = OnnxRuntime().load(Path(name), threads=1)
        session.domains = read_card(Path(name)).domains
        return session

    translator.open(api.Context(api.VideoInfo(64, 48, Fraction(1, 25)), load))
    return translator


@pytest.mark.parametrize(("domain", "number"), [("day", 0), ("night", 2), ("1", 1)])
def test_a_domain_reaches_the_model_by_name_or_number(tmp_path: Path, domain: str, number: int) -> None:
    images = make_images(2)
    made = of_domains(tmp_path / "m.onnx", domain).translate(images).astype(int)
    assert np.abs(made - reference(images, np.full(2, number))).max() <= 1
    assert np.abs(made - reference(images, np.full(2, (number + 1) % 3))).max() > 20


def test_a_domain_may_change_between_two_calls(tmp_path: Path) -> None:
    translator, images = of_domains(tmp_path / "m.onnx", "day"), make_images(1)
    first = translator.translate(images)
    translator.options = dataclasses.replace(translator.options, domain="night")
    assert (translator.translate(images).astype(int) - first).mean() > 20


def test_the_only_domain_need_not_be_named(tmp_path: Path) -> None:
    images = make_images(1)
    made = of_domains(tmp_path / "m.onnx", "", ("night",)).translate(images).astype(int)
    assert np.abs(made - reference(images, np.zeros(1, np.int64))).max() <= 1


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("", r"'domain' is missing: .*m\.onnx translates to day, dusk, night; name one, such as --set domain=night"),
        ("nigth", "'nigth' given, expected one of day, dusk, night .*; did you mean 'night'"),
        ("3", r"'3' given, .* \(or a number from 0 to 2\)$"),
        ("-1", "'-1' given"),
    ],
)
def test_a_wrong_domain_ends_the_run_before_it_begins(tmp_path: Path, domain: str, message: str) -> None:
    with pytest.raises(api.PresetError, match=message):
        of_domains(tmp_path / "m.onnx", domain)


def test_a_model_of_one_direction_takes_no_domain(tmp_path: Path) -> None:
    with pytest.raises(api.PresetError, match=r"'night' given, but .* translates to one look only; leave 'domain' out"):
        opened(write_model(tmp_path / "m.onnx", 1.0, 0.0), domain="night")


def test_a_film_runs_with_a_domain(tmp_path: Path) -> None:
    make_model(tmp_path / "m.onnx", DOMAINS)
    make_clip(tmp_path / "film.mp4", frames=4)
    (tmp_path / "sky.yaml").write_text("{title: Sky, translator: model, options: {model: m.onnx, domain: day}}")
    means = []
    for name, settings in (("day", []), ("night", ["--set", "domain=night"])):
        output = tmp_path / f"{name}.mkv"
        command = ["run", str(tmp_path / "film.mp4"), "--preset", str(tmp_path / "sky.yaml"), "-o", str(output)]
        assert execute([*command, "--codec", "ffv1", "--quiet", *settings]) == 0
        capture = cv2.VideoCapture(str(output))
        means.append(float(np.mean(capture.read()[1])))
        capture.release()
    assert means[1] > means[0] + 20
