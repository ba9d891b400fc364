"""Optional terms against numpy, OpenCV and torchvision; the perceptual network with and without a file of weights."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, vgg16
from torchvision.models.feature_extraction import create_feature_extractor

from streamgan import settings
from streamgan.api import ModelError, PresetError, UsageError
from streamgan_training import losses, terms
from streamgan_training.method import Direction
from streamgan_training.terms import PerceptualNetwork, TermNetworks, Terms

FILE = "vgg16-397923af.pth"


def images(seed: int = 0, size: tuple[int, int] = (40, 48)) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def direction(y: Tensor, x: Tensor, name: str = "ab", back: nn.Module | None = None) -> Direction:
    return Direction(name, 0, 1, x, y, nn.Identity(), back)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_total_variation_is_the_mean_of_the_formula(beta: float) -> None:
    x = images().numpy().astype(np.float64)
    total = 0.0
    for i in range(39):
        for j in range(47):
            across, down = x[:, :, i, j + 1] - x[:, :, i, j], x[:, :, i + 1, j] - x[:, :, i, j]
            total += ((across**2 + down**2) ** (beta / 2)).sum()
    assert losses.total_variation(images(), beta).item() == pytest.approx(total / (2 * 3 * 39 * 47), rel=1e-4)


def test_the_gradient_of_total_variation_is_finite_on_a_plain_picture() -> None:
    plain = torch.zeros(1, 3, 8, 8, requires_grad=True)
    losses.total_variation(plain, beta=1.0).backward()
    assert plain.grad is not None and plain.grad.isfinite().all()


@pytest.mark.parametrize("size", [(40, 48), (37, 51)])
def test_the_pyramid_is_that_of_opencv(size: tuple[int, int]) -> None:
    x = images(size=size)
    pyramid = losses.laplacian_pyramid(x, 4)
    current = x[0].permute(1, 2, 0).numpy()
    for level in pyramid[:-1]:
        smaller = cv2.pyrDown(current)
        wanted = current - cv2.pyrUp(smaller, dstsize=(current.shape[1], current.shape[0]))
        # OpenCV repeats the last pixel when it expands, we mirror: the border differs.
        assert np.abs(level[0].permute(1, 2, 0).numpy() - wanted)[2:-2, 2:-2].max() < 1e-5
        current = smaller
    np.testing.assert_allclose(pyramid[-1][0].permute(1, 2, 0).numpy(), current, atol=1e-5)


def test_a_plain_picture_has_no_details_up_to_the_border() -> None:
    *details, rest = losses.laplacian_pyramid(torch.full((1, 3, 21, 34), 0.7), 3)
    assert len(details) == 2 and all(level.abs().max() < 1e-6 for level in details)
    assert rest.allclose(torch.tensor(0.7))


def test_the_pyramid_ends_early_on_a_small_picture() -> None:
    assert [tuple(level.shape[-2:]) for level in losses.laplacian_pyramid(images(size=(9, 40)), 6)] == [
        (9, 40),
        (5, 20),
        (3, 10),
    ]


def test_the_laplacian_loss_is_the_weighted_sum_of_the_norms() -> None:
    x, y = images(0, (32, 32)), images(1, (32, 32))
    pairs = zip(losses.laplacian_pyramid(x, 4), losses.laplacian_pyramid(y, 4), strict=True)
    wanted = sum(2 ** (2 * j) * np.abs(one.numpy() - two.numpy()).sum() for j, (one, two) in enumerate(pairs))
    assert losses.laplacian(x, y, 4).item() == pytest.approx(wanted / x.numel(), rel=1e-5)


def test_without_weights_there_are_no_terms_and_no_networks() -> None:
    assert terms.extra_terms(Terms(), direction(images(), images(1)), None, terms.load_networks(Terms())) == {}


def test_terms_are_named_after_the_direction_and_weighted() -> None:
    x, y = images(0), images(1)
    target = images(2)
    wanted = Terms(total_variation=2, laplacian=3, laplacian_cycle=4, exposure=5, exposure_ceiling=0.5, paired=6)
    back = nn.Hardtanh(-0.5, 0.5)
    got = terms.extra_terms(wanted, direction(y, x, "ab", back), target, TermNetworks())
    expected = {
        "total_variation_ab": 2 * losses.total_variation(y),
        "laplacian_ab": 3 * losses.laplacian(y, x),
        "laplacian_cycle_ab": 4 * losses.laplacian(y.clamp(-0.5, 0.5), x),
        "exposure_ab": 5 * losses.exposure_prior(y, x, 0.5),
        "paired_ab": 6 * (y - target).abs().mean(),
    }
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].item() == pytest.approx(value.item(), rel=1e-5), name


def test_the_exposure_prior_is_for_the_direction_that_darkens() -> None:
    x, y = -torch.ones(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    assert terms.extra_terms(Terms(exposure=1), direction(y, x, "ba"), None, TermNetworks()) == {}
    everywhere = Terms(exposure=1, exposure_directions=())
    assert terms.extra_terms(everywhere, direction(y, x, "ba"), None, TermNetworks())["exposure_ba"] > 0


def test_terms_that_cannot_be_had_are_refused() -> None:
    one = direction(images(), images(1))
    with pytest.raises(UsageError, match="no translation back"):
        terms.extra_terms(Terms(laplacian_cycle=1), one, None, TermNetworks())
    with pytest.raises(UsageError, match="no pairs"):
        terms.extra_terms(Terms(paired=1), one, None, TermNetworks())
    with pytest.raises(UsageError, match="load_networks"):
        terms.extra_terms(Terms(perceptual=1), one, None, TermNetworks())


@pytest.fixture(scope="module")
def features() -> nn.Sequential:
    """The convolutions of VGG-16, of random weights."""
    with torch.device("meta"):
        model: nn.Sequential = vgg16(weights=None, init_weights=False).features
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        fan_in = weight[0].numel() if weight.ndim > 1 else 1e4
        nn.init.normal_(weight, 0.0, (2 / fan_in) ** 0.5, generator=generator)
    return model.eval()


def test_features_are_those_that_torchvision_extracts(features: nn.Sequential) -> None:
    ours = PerceptualNetwork(("relu1_2", "relu2_2", "relu4_3", "relu5_3"), features)
    # The layers of the paper, found by counting: block 2 begins after the first pooling, and so on.
    rectified, block, place = {}, 1, 0
    for index, module in enumerate(features):
        if isinstance(module, nn.ReLU):
            place += 1
            rectified[f"relu{block}_{place}"] = str(index)
        if isinstance(module, nn.MaxPool2d):
            block, place = block + 1, 0
    names = {rectified[name]: name for name in ("relu1_2", "relu2_2", "relu4_3", "relu5_3")}
    reference = create_feature_extractor(features, return_nodes=names)
    normalised = ((images() + 1) / 2 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    for got, wanted in zip(ours(images()), reference(normalised).values(), strict=True):
        assert got.allclose(wanted, atol=1e-5)


def test_the_perceptual_loss_compares_features_without_mean_and_spread() -> None:
    whole = PerceptualNetwork(("relu1_2",), nn.Sequential(*[nn.Identity()] * 4))  # the picture is its own feature
    x, y = images(0), images(1)
    a, b = (one.numpy() for one in (whole(y)[0], whole(x)[0]))
    plain = ((a - b) ** 2).mean()
    assert terms.perceptual_loss(whole, y, x, instance_norm=False).item() == pytest.approx(plain, rel=1e-4)
    a, b = ((one - one.mean((2, 3), keepdims=True)) / one.std((2, 3), keepdims=True) for one in (a, b))
    assert terms.perceptual_loss(whole, y, x).item() == pytest.approx(((a - b) ** 2).mean(), rel=1e-3)
    assert terms.perceptual_loss(whole, 0.5 * x + 0.2, x).item() < 1e-4


def test_the_gradient_reaches_the_translation_and_nothing_else(features: nn.Sequential) -> None:
    ours = PerceptualNetwork(("relu2_2",), features[:9])
    x, y = images(0).requires_grad_(), images(1).requires_grad_()
    got = terms.extra_terms(Terms(perceptual=2.0), direction(y, x), None, TermNetworks(ours))
    got["perceptual_ab"].backward()
    assert y.grad is not None and y.grad.abs().sum() > 0
    assert x.grad is None and all(weight.grad is None for weight in ours.parameters())


def test_pictures_too_small_for_the_last_layer_are_refused(features: nn.Sequential) -> None:
    ours = PerceptualNetwork(("relu5_3",), features)
    small = images(size=(24, 48))
    with pytest.raises(UsageError, match="48×24"):
        terms.perceptual_loss(ours, small, small)
    assert terms.perceptual_loss(ours, images(0, (32, 32)), images(1, (32, 32))).isfinite()


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's folder of downloads, empty, on a machine without internet."""

    def no_internet(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_internet)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_weights_on_the_machine_are_used(downloads: Path, features: nn.Sequential) -> None:
    state = {f"features.{key}": value for key, value in features[:9].state_dict().items()}
    torch.save(state, downloads / FILE)
    wanted = Terms(perceptual=1.0, perceptual_layers=("relu1_2", "relu2_2"))
    loaded = terms.load_networks(wanted).perceptual
    assert loaded is not None
    reference = PerceptualNetwork(("relu1_2", "relu2_2"), features)
    for got, expected in zip(loaded(images()), reference(images()), strict=True):
        assert got.equal(expected)
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_the_file_is_the_one_torchvision_looks_for() -> None:
    assert VGG16_Weights.IMAGENET1K_V1.url.endswith("/" + FILE)


def test_without_weights_the_error_names_the_file_and_the_host(downloads: Path) -> None:
    with pytest.raises(UsageError) as caught:
        terms.load_networks(Terms(perceptual=1.0))
    assert str(downloads / FILE) in str(caught.value)
    assert "download.pytorch.org" in str(caught.value)


def test_a_file_that_is_not_vgg_is_refused(downloads: Path) -> None:
    for content in (b"", b"<html>sign in first</html>"):
        (downloads / FILE).write_bytes(content)
        with pytest.raises(ModelError, match="not VGG-16's weights"):
            terms.load_networks(Terms(perceptual=1.0))
    torch.save({"features.0.weight": torch.zeros(1)}, downloads / FILE)
    with pytest.raises(ModelError, match="not VGG-16's weights"):
        terms.load_networks(Terms(perceptual=1.0))


def test_a_file_of_weights_cannot_run_code(downloads: Path) -> None:
    torch.save({"features.0.weight": Path("/")}, downloads / FILE)  # a pickle of a class
    with pytest.raises(ModelError):
        terms.load_networks(Terms(perceptual=1.0))


def test_a_recipe_reads_it_and_refuses_nonsense() -> None:
    read = settings.parse(Terms, {"perceptual": "0.1", "perceptual_layers": ["relu3_3"]}, "x")
    assert (read.perceptual, read.perceptual_layers) == (0.1, ("relu3_3",))
    for wrong in ({"laplacian": -1}, {"perceptual_layers": ["relu9_9"]}, {"perceptual": 1, "perceptual_layers": []}):
        with pytest.raises(PresetError):
            settings.parse(Terms, wrong, "x")
