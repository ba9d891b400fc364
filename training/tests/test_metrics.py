"""Measures on films whose answer is known."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from streamgan.api import ModelError, UsageError
from streamgan_training.measuring import metrics, quality


def film(frames: int = 5, shift: int = 2) -> list[metrics.Image]:
    """A textured picture that moves to the right by whole pixels."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (20, 40, 3), dtype=np.uint8)
    wide = np.kron(coarse, np.ones((6, 6, 1), np.uint8)).astype(np.float32)
    for axis in (0, 1):
        wide = (np.roll(wide, 1, axis) + wide + np.roll(wide, -1, axis)) / 3
    return [wide[:96, 40 - shift * i : 168 - shift * i].astype(np.uint8).copy() for i in range(frames)]


def test_a_moving_film_does_not_flicker_and_one_with_pumping_brightness_does() -> None:
    source = film()
    steady = metrics.flicker((frame, frame) for frame in source)
    assert steady.ratio == 1.0 and steady.contrast_ratio == 1.0
    pumping = [np.clip(frame.astype(int) + 30 * (i % 2), 0, 255).astype(np.uint8) for i, frame in enumerate(source)]
    assert metrics.flicker(zip(source, pumping, strict=True)).output > steady.source + 0.008


def test_a_flatter_film_gains_nothing_in_the_fair_ratio() -> None:
    random = np.random.default_rng(1)
    source = [np.clip(frame + random.normal(0, 6, frame.shape), 0, 255).astype(np.uint8) for frame in film()]
    flat = [(frame // 2).astype(np.uint8) for frame in source]
    result = metrics.flicker(zip(source, flat, strict=True))
    assert result.ratio == pytest.approx(0.25, rel=0.05)
    assert result.fair_ratio == pytest.approx(1.0, rel=0.05)


def test_flicker_needs_two_frames() -> None:
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        metrics.flicker([(film()[0], film()[0])])
    with pytest.raises(ValueError, match="at least 5 frames, got 4"):
        metrics.flicker([(frame, frame) for frame in film(4)], gap=4)


def test_a_long_gap_sees_a_slow_drift_that_neighbours_hide() -> None:
    source = [film(1)[0]] * 9  # at rest, so that the answer is known: the drift, squared
    drifting = [(frame // 2 + 4 * i).astype(np.uint8) for i, frame in enumerate(source)]
    pairs = list(zip(source, drifting, strict=True))
    assert metrics.flicker(pairs).output == pytest.approx((4 / 255) ** 2)
    assert metrics.flicker(pairs, gap=4).output == pytest.approx((16 / 255) ** 2)
    to_the_first = np.mean([(4 * i / 255) ** 2 for i in range(1, 9)])
    assert metrics.flicker(pairs, gap=None).output == pytest.approx(to_the_first)
    assert metrics.flicker(pairs).source == 0 and metrics.flicker(pairs).ratio == float("inf")


def test_a_long_gap_loses_sight_of_what_moves_out_of_the_frame() -> None:
    pairs = [(frame, frame) for frame in film(9, shift=3)]
    assert metrics.flicker(pairs, gap=None).followed < metrics.flicker(pairs).followed < 1


def test_motion_difference_is_the_speed_that_the_output_misses() -> None:
    moving, slower = film(8, shift=2), film(8, shift=1)
    assert metrics.motion_difference(zip(moving, moving, strict=True)) == 0
    assert metrics.motion_difference(zip(moving, slower, strict=True)) == pytest.approx(1, abs=0.2)
    assert metrics.motion_difference(zip(moving, [moving[0]] * 8, strict=True)) == pytest.approx(2, abs=0.3)
    with pytest.raises(ValueError, match="at least 6 frames"):
        metrics.motion_difference(zip(moving[:5], moving[:5], strict=True))


def test_the_ends_of_a_film_are_left_out() -> None:
    frames = film(7)
    kept = [pair[0] for pair in metrics.inner([(frame, frame) for frame in frames], 2)]
    assert [id(frame) for frame in kept] == [id(frame) for frame in frames[2:5]]


def test_edge_correlation_is_one_for_a_darker_copy_and_low_for_noise() -> None:
    picture = film()[0]
    noise = np.random.default_rng(1).integers(0, 255, picture.shape, dtype=np.uint8)
    assert metrics.edge_correlation(picture, picture // 2) > 0.98
    assert abs(metrics.edge_correlation(picture, noise)) < 0.2


def test_sliced_wasserstein_orders_sets_by_distance() -> None:
    bright = np.stack(film(4))
    dark = bright // 3
    assert metrics.sliced_wasserstein(bright, bright) == 0
    assert metrics.sliced_wasserstein(dark // 2, dark) < metrics.sliced_wasserstein(bright, dark)


def test_psnr_and_ssim_are_those_of_their_papers() -> None:
    first = np.stack(film(2))
    noisy = np.clip(first + np.random.default_rng(2).normal(0, 9, first.shape), 0, 255).astype(np.uint8)
    squares = np.square(first.astype(float) - noisy).mean((1, 2, 3))
    assert quality.psnr(first, noisy) == pytest.approx(np.mean(10 * np.log10(255**2 / squares)), rel=1e-4)
    assert quality.ssim(first, first) == pytest.approx(1)
    expected = [ssim_of_wang(*pictures) for pictures in zip(first, noisy, strict=True)]
    assert quality.ssim(first, noisy) == pytest.approx(np.mean(expected), abs=1e-4)


def ssim_of_wang(first: metrics.Image, second: metrics.Image) -> float:
    """Eq. 13 of the paper, written down with OpenCV's Gaussian of 11 pixels, mirrored at the border."""

    def blur(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (11, 11), 1.5)

    x, y = first.astype(float), second.astype(float)
    mean_x, mean_y, c1, c2 = blur(x), blur(y), (0.01 * 255) ** 2, (0.03 * 255) ** 2
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((top / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean())


def test_fid_and_kid_of_features_are_those_of_their_papers() -> None:
    random = np.random.default_rng(3)
    real, fake = random.normal(0, 1, (40, 6)), random.normal(0.5, 2, (40, 6))
    found = quality.feature_distances(torch.from_numpy(real).float(), torch.from_numpy(fake).float())
    cov_real, cov_fake = np.cov(real.T), np.cov(fake.T)
    values, vectors = np.linalg.eigh(cov_real)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T  # Tr (Σ₁Σ₂)^½ = Tr (Σ₁^½ Σ₂ Σ₁^½)^½, which is symmetric
    trace = np.sqrt(np.linalg.eigvalsh(root @ cov_fake @ root)).sum()
    fid = np.square(real.mean(0) - fake.mean(0)).sum() + np.trace(cov_real) + np.trace(cov_fake) - 2 * trace
    assert found["fid"] == pytest.approx(fid, rel=1e-3)
    within = [kernel(x, x)[~np.eye(40, dtype=bool)].mean() for x in (real, fake)]
    assert found["kid"] == pytest.approx(sum(within) - 2 * kernel(real, fake).mean(), rel=1e-3)


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bińkowski et al. 2018, section 4."""
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def test_measuring_leaves_the_random_numbers_of_the_training_alone() -> None:
    features = torch.arange(30.0).reshape(10, 3)
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    quality.feature_distances(features, features.flip(0))
    assert torch.equal(torch.rand(1), expected)


def test_missing_weights_are_named_with_the_place_they_belong_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    frames = np.stack(film(3))
    found = quality.deep_metrics(frames, frames[:2], frames[:2])
    assert found.values == {} and set(found.unavailable) == {"fid", "kid", "lpips"}
    assert "weights alexnet (alexnet-owt-7be5be79.pth) not on this machine" in found.unavailable["lpips"]
    assert str(tmp_path / "checkpoints") in found.unavailable["lpips"]
    assert found.protocol["real"] == 3 and found.protocol["fake"] == 2
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_what_their_name_says_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    content = b"weights"
    good = quality.Weights("small", f"https://example.org/small-{hashlib.sha256(content).hexdigest()[:8]}.pth")
    good.file.parent.mkdir()
    good.file.write_bytes(content)
    assert quality.find_weights(good) == good.file
    good.file.write_bytes(b"others")
    with pytest.raises(ModelError, match="expected SHA-256"):
        quality.find_weights(good)
    with pytest.raises(UsageError, match="cannot download"):
        quality.find_weights(quality.Weights("none", (tmp_path / "none-00000000.pth").as_uri()), download=True)


def test_perception_in_time_is_zero_for_a_copy_and_a_hundredfold_difference_else() -> None:
    def distance(first: metrics.Image, second: metrics.Image) -> torch.Tensor:
        return torch.from_numpy(np.abs(first.astype(float) - second).mean((1, 2, 3)))

    still, growing = [film(1)[0]] * 8, [np.full((32, 32, 3), 3 * i, np.uint8) for i in range(8)]
    assert quality.temporal_perception_difference(zip(still, still, strict=True), distance) == 0
    assert quality.temporal_perception_difference(zip(still, growing, strict=True), distance) == pytest.approx(300)
