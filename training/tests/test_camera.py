"""Camera and codec: one draw for a clip, each change against its physics."""

from __future__ import annotations

import math
import types

import cv2  # before av

# isort: split
import numpy as np
import numpy.typing as npt
import pytest
import torch
from av.codec.codec import UnknownCodecError

from streamgan import settings
from streamgan.api import PresetError, UsageError
from streamgan_training.frames import camera
from streamgan_training.frames.camera import Camera, Degradation

Pixels = npt.NDArray[np.uint8]
EVERYTHING = Camera(blur=1, exposure=1, white_balance=1, noise=1, gamma=1, codec=1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def still(frames: int = 3, size: tuple[int, int] = (48, 64)) -> torch.Tensor:
    """A smooth picture with an edge, repeated."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    picture = np.stack([60 + columns, 200 - 2 * rows, 90 + 50 * (columns > 30)]).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(picture).expand(frames, -1, -1, -1)


def test_nothing_happens_by_default() -> None:
    clip, before = still(), generator()
    assert camera.degrade(clip, Camera(), before) is clip
    assert before.get_state().equal(generator().get_state())


def test_what_was_drawn_holds_for_the_whole_clip() -> None:
    out = camera.degrade(still(4), Camera(blur=1, exposure=1, white_balance=1, gamma=1), generator())
    assert (out == out[:1]).all() and not out.equal(still(4))


def test_noise_has_one_level_and_is_fresh_in_every_frame() -> None:
    grey = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    noise = camera.apply(grey, Degradation(noise=6.0), generator()).float() - 128
    spreads = noise.flatten(1).std(1)
    assert spreads.allclose(torch.tensor(6.0), rtol=0.03)
    assert np.abs(np.corrcoef(noise.flatten(1).numpy()) - np.eye(4)).max() < 0.05


def test_the_same_generator_gives_the_same_clip() -> None:
    one, two, other = (camera.degrade(still(), EVERYTHING, generator(seed)) for seed in (1, 1, 2))
    assert one.equal(two) and not one.equal(other)
    assert one.shape == still().shape and one.dtype == torch.uint8


def test_one_stop_is_twice_the_light() -> None:
    pixels = torch.arange(0, 120, dtype=torch.uint8).view(1, 1, 1, -1).expand(1, 3, 4, -1)
    brighter = camera.apply(pixels, Degradation(gains=(2.0, 1.0, 0.5)), generator())[0, :, 0].numpy()
    light = (np.arange(120) / 255) ** 2.2
    for channel, gain in enumerate((2.0, 1.0, 0.5)):
        wanted = 255 * (light * gain) ** (1 / 2.2)
        assert np.abs(brighter[channel] - wanted).max() <= 0.51


def test_gamma_is_an_exponent_of_the_pixels() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, -1).expand(1, 3, 2, -1)
    bent = camera.apply(pixels, Degradation(gamma=1.3), generator())[0, 0, 0].numpy()
    assert np.abs(bent - 255 * (np.arange(256) / 255) ** 1.3).max() <= 0.51


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, 2.5])
def test_a_motion_kernel_is_a_line_of_the_length_and_angle(angle: float) -> None:
    kernel = camera.motion_kernel(8.0, angle).astype(float)
    radius = kernel.shape[0] // 2
    y, x = np.mgrid[: kernel.shape[0], : kernel.shape[1]] - radius
    assert kernel.sum() == pytest.approx(1)
    assert (kernel * x).sum() == pytest.approx(0, abs=1e-6) and (kernel * y).sum() == pytest.approx(0, abs=1e-6)
    along = x * math.cos(angle) - y * math.sin(angle)
    across = x * math.sin(angle) + y * math.cos(angle)
    assert (kernel * along**2).sum() == pytest.approx(8**2 / 12, rel=0.1)  # the variance of an even spread
    assert (kernel * across**2).sum() < 0.3


def test_blur_leaves_edges_along_the_motion_and_smears_those_across() -> None:
    clip = torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    clip[..., 20:] = 200
    along = camera.apply(clip, Degradation(blur=(7.0, math.pi / 2)), generator())
    across = camera.apply(clip, Degradation(blur=(7.0, 0.0)), generator())
    assert (along.int() - clip.int()).abs().max() <= 1
    assert 5 <= int(((across[0, 0, 20] > 5) & (across[0, 0, 20] < 195)).sum()) <= 9


def moving(frames: int, size: tuple[int, int] = (96, 96)) -> Pixels:
    """Coloured blobs that drift two pixels a frame."""
    noise = np.random.default_rng(3).normal(0, 1, (size[0], size[1] + 2 * frames, 3))
    blurred = cv2.GaussianBlur(noise, (0, 0), 3)
    texture = np.clip(128 + 45 * blurred / blurred.std(), 0, 255).astype(np.uint8)
    return np.stack([texture[:, 2 * t : 2 * t + size[1]] for t in range(frames)])


def psnr(one: Pixels, two: Pixels) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - two) ** 2)))


def test_compression_keeps_order_and_colours_and_costs_more_with_a_higher_crf() -> None:
    clip = moving(6)
    fine, middle, coarse = (camera.compress(clip, crf) for crf in (5, 28, 45))
    matrix = [[psnr(fine[i], clip[j]) for j in range(6)] for i in range(6)]
    assert [int(np.argmax(row)) for row in matrix] == list(range(6))
    assert psnr(fine, clip) > 34
    assert psnr(fine, clip) > psnr(middle, clip) + 3 > psnr(coarse, clip) + 6
    assert np.abs(fine.astype(float).mean((0, 1, 2)) - clip.mean((0, 1, 2))).max() < 0.3


def test_strong_compression_shows_blocks() -> None:
    """Steps of brightness between columns are larger at the borders of transform blocks than inside them."""
    ramp = moving(1, (128, 128))
    coarse = camera.compress(ramp, 51)[0].astype(float).mean(2)
    steps = np.abs(np.diff(coarse, axis=1)).mean(0)  # steps[i]: between columns i and i + 1
    border = np.arange(len(steps)) % 8 == 7
    clean = np.abs(np.diff(ramp[0].astype(float).mean(2), axis=1)).mean(0)
    assert steps[border].mean() > 1.3 * steps[~border].mean()
    assert clean[border].mean() < 1.1 * clean[~border].mean()


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (16, 2)])
def test_any_size_can_be_compressed(size: tuple[int, int]) -> None:
    assert camera.degrade(still(2, size), Camera(codec=1), generator()).shape == (2, 3, *size)


def test_without_libx264_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, mode: str) -> None:
        raise UnknownCodecError(name)

    monkeypatch.setattr(camera.av, "CodecContext", types.SimpleNamespace(create=missing))
    with pytest.raises(UsageError, match="libx264"):
        next(camera._encode(moving(1), 30))


def test_each_chance_is_kept_and_ranges_are_reached() -> None:
    drawn = [camera.draw(Camera(codec=0.5, noise=1.0), generator(seed)) for seed in range(300)]
    crfs = [one.crf for one in drawn if one.crf is not None]
    assert len(crfs) / 300 == pytest.approx(0.5, abs=0.09)
    assert set(crfs) <= set(range(24, 41)) and {min(crfs), max(crfs)} == {24, 40}
    assert 1.0 <= min(one.noise for one in drawn) < 1.5 and 7.5 < max(one.noise for one in drawn) <= 8.0
    assert all(one.blur is None and one.gains == (1.0, 1.0, 1.0) and one.gamma == 1.0 for one in drawn)


def test_a_recipe_reads_it_and_refuses_nonsense() -> None:
    assert settings.parse(Camera, {"codec": 0.3, "codec_crf": [20, 30]}, "x").codec_crf == (20, 30)
    for wrong in ({"codec": 2}, {"codec_crf": [40, 20]}, {"codec_crf": [0, 60]}, {"gamma_exponent": [0, 1]}):
        with pytest.raises(PresetError, match=next(iter(wrong))):
            settings.parse(Camera, wrong, "x")
