"""Terms that any method may add to its objective, for each of its translations y = G(x).

Total variation (Mahendran & Vedaldi 2015; Johnson et al. 2016, section 3.2), the Laplacian pyramid loss (Bojanowski et
al. 2018), the perceptual loss (Johnson et al. 2016, eq. 2; of instance-normalised features as in Huang et al. 2018,
"Multimodal Unsupervised Image-to-Image Translation", and in UNIT's present code), an exposure prior, and the distance
to the partner where pictures come in pairs (Isola et al. 2017, eq. 3).
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VGG16_Weights, vgg16

from streamgan import api
from streamgan_training import losses
from streamgan_training.method import Direction

Layer = Literal["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]
LAYERS: Mapping[Layer, int] = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}
"""Where torchvision's VGG-16 keeps the last rectified layer of each block."""
SMALLEST_SIDE = 32
"""Below this many pixels the last block has a single value a channel, which cannot be normalised."""


@dataclasses.dataclass(frozen=True)
class Terms:
    """Weights of the terms, all 0, and what they need to know. x is what is translated, y its translation."""

    total_variation: float = api.option(0.0, minimum=0)
    """Of y: keeps it smooth."""
    total_variation_beta: float = api.option(2.0, minimum=0.5, maximum=4)
    """β: 1 leaves edges sharp, 2 leaves no spikes."""
    laplacian: float = api.option(0.0, minimum=0)
    """Lap₁(y, x): y keeps the details and the tones of x."""
    laplacian_cycle: float = api.option(0.0, minimum=0)
    """Lap₁(F(y), x), where the method translates back: sharper cycles than a distance of pixels alone."""
    laplacian_levels: int = api.option(5, minimum=1, maximum=10)
    """Levels of the pyramids, at most."""
    perceptual: float = api.option(0.0, minimum=0)
    """Distance of y and x as VGG-16 sees them: y keeps the content of x."""
    perceptual_layers: tuple[Layer, ...] = ("relu5_3",)
    """The layers that are compared; Johnson et al. take relu2_2 for content."""
    perceptual_instance_norm: bool = True
    """Compare features without their mean and spread, which carry the domain more than the content."""
    exposure: float = api.option(0.0, minimum=0)
    """One-sided prior: regions of y brighter than the ceiling cost."""
    exposure_ceiling: float = api.option(1.0, minimum=0)
    """The ceiling, as a fraction of the brightness of x."""
    exposure_region: int = api.option(16, minimum=1)
    """Side of a region, in pixels; lamps must be smaller than that."""
    exposure_directions: tuple[str, ...] = ("ab",)
    """The directions that darken; none given is all."""
    paired: float = api.option(0.0, minimum=0)
    """‖y − target‖₁, for data sets of pairs."""

    def __post_init__(self) -> None:
        if self.perceptual and not self.perceptual_layers:
            raise api.PresetError(f"perceptual_layers: none given, expected some of {', '.join(LAYERS)}")


class PerceptualNetwork(nn.Module):
    """The rectified features of VGG-16 (Simonyan & Zisserman 2015): fixed, the judge of the perceptual loss.

    Args:
        layers: which of them.
        features: torchvision's ``vgg16(…).features``, as far as the last of the layers.
        weights: whose mean and spread of ImageNet the pictures are normalised with.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, layers: tuple[Layer, ...], features: nn.Sequential, weights: VGG16_Weights = VGG16_Weights.IMAGENET1K_V1
    ) -> None:
        super().__init__()
        self.layers = tuple(LAYERS[layer] for layer in layers)
        self.features = features.eval().requires_grad_(False)
        preset = weights.transforms()
        self.register_buffer("mean", torch.tensor(preset.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preset.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """The features of ``(N, 3, H, W)`` in [-1, 1], by layer, each ``(N, C, h, w)``."""
        out, current = {}, ((images + 1) / 2 - self.mean) / self.std
        for index, module in enumerate(self.features):
            current = module(current)
            if index in self.layers:
                out[index] = current
        return [out[index] for index in self.layers]


@dataclasses.dataclass(frozen=True)
class TermNetworks:
    """Fixed networks that terms need: loaded once, and no part of a method, so that no checkpoint holds them."""

    perceptual: PerceptualNetwork | None = None
    """For `Terms.perceptual`."""


def load_networks(settings: Terms, device: torch.device | str = "cpu") -> TermNetworks:
    """The networks that the settings need, on a device.

    Raises:
        UsageError: if weights are neither on this machine nor can be downloaded.
        ModelError: if the file of weights is not what it should be.
    """
    if not settings.perceptual:
        return TermNetworks()
    return TermNetworks(load_perceptual(settings.perceptual_layers).to(device))


def load_perceptual(
    layers: tuple[Layer, ...], weights: VGG16_Weights = VGG16_Weights.IMAGENET1K_V1
) -> PerceptualNetwork:
    """VGG-16 with torchvision's weights, from torch's folder of downloads (``TORCH_HOME``) or the internet.

    Raises:
        UsageError: if the weights are neither on this machine nor can be downloaded.
        ModelError: if the file of weights is not what it should be.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(weights.url).path).name
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:  # URLError is one of them
        raise api.UsageError(
            f"terms.perceptual: VGG-16's weights are not at {file} and cannot be fetched from "
            f"{urlsplit(weights.url).hostname} ({error}); download {weights.url} elsewhere and put the file there, "
            "or set terms.perceptual to 0"
        ) from None
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise _broken(file, weights, error) from None
    features = _empty_features(layers)
    try:
        features.load_state_dict({key: state[f"features.{key}"] for key in features.state_dict()}, assign=True)
    except (KeyError, TypeError, RuntimeError) as error:
        raise _broken(file, weights, error) from None
    return PerceptualNetwork(layers, features, weights)


def _empty_features(layers: tuple[Layer, ...]) -> nn.Sequential:
    """VGG-16 as far as the last of the layers, without memory for its weights."""
    with torch.device("meta"):
        features: nn.Sequential = vgg16(weights=None, init_weights=False).features
    return features[: max(LAYERS[layer] for layer in layers) + 1]


def _broken(file: Path, weights: VGG16_Weights, error: Exception) -> api.ModelError:
    """The error for a file that is not VGG-16."""
    return api.ModelError(
        f"{file}: not VGG-16's weights ({(str(error) or type(error).__name__).splitlines()[0]}); "
        f"delete it, and it is fetched anew from {weights.url}"
    )


def perceptual_loss(network: PerceptualNetwork, y: Tensor, x: Tensor, instance_norm: bool = True) -> Tensor:
    """Σ over layers of the mean of (φ(y) − φ(x))²: Johnson et al. 2016, eq. 2.

    Args:
        network: φ.
        y: the translation, ``(N, 3, H, W)`` in [-1, 1]; the gradient goes there alone.
        x: what was translated, the same shape.
        instance_norm: whether each channel of φ is brought to mean 0 and spread 1 first, as Huang et al. 2018 do.

    Raises:
        UsageError: if the pictures are too small.
    """
    if min(y.shape[-2:]) < SMALLEST_SIDE:
        raise api.UsageError(
            f"terms.perceptual: pictures of {y.shape[-1]}×{y.shape[-2]} given, expected at least {SMALLEST_SIDE} "
            "pixels a side; set data.size higher, or terms.perceptual to 0"
        )
    with torch.no_grad():
        wanted = network(x)
    pairs = [(one.float(), other.float()) for one, other in zip(network(y), wanted, strict=True)]
    if instance_norm:
        pairs = [(F.instance_norm(one), F.instance_norm(other)) for one, other in pairs]
    return torch.stack([F.mse_loss(one, other) for one, other in pairs]).sum()


def extra_terms(
    settings: Terms, direction: Direction, target: Tensor | None, networks: TermNetworks
) -> dict[str, Tensor]:
    """The terms of one translation, weighted.

    Args:
        settings: which, and how much they weigh.
        direction: the translation.
        target: the partners of `direction.x`, ``(N, 3, H, W)`` in [-1, 1], where the data set has pairs.
        networks: what `load_networks` gave for these settings.

    Returns:
        Scalars by name, such as ``total_variation_ab``; none for a weight of 0.

    Raises:
        UsageError: for a term that this method or this data set cannot have.
    """
    terms = {**dict(_without_reference(settings, direction)), **dict(_to_source(settings, direction, networks))}
    if settings.paired:
        if target is None:
            raise api.UsageError("terms.paired: the data has no pairs; name folders of pairs, or set terms.paired to 0")
        terms["paired"] = settings.paired * F.l1_loss(direction.y, target)
    return {f"{name}_{direction.name}": value for name, value in terms.items()}


def _without_reference(settings: Terms, direction: Direction) -> Iterator[tuple[str, Tensor]]:
    """The terms of y alone."""
    if settings.total_variation:
        variation = losses.total_variation(direction.y, settings.total_variation_beta)
        yield "total_variation", settings.total_variation * variation


def _to_source(settings: Terms, direction: Direction, networks: TermNetworks) -> Iterator[tuple[str, Tensor]]:
    """The terms that hold y, or the cycle, against x."""
    x, y = direction.x, direction.y
    if settings.laplacian:
        yield "laplacian", settings.laplacian * losses.laplacian(y, x, settings.laplacian_levels)
    if settings.laplacian_cycle:
        if direction.backward is None:
            raise api.UsageError(
                f"terms.laplacian_cycle: this method has no translation back of '{direction.name}'; "
                "set it to 0, or take terms.laplacian"
            )
        cycled = direction.backward(y) if direction.cycled is None else direction.cycled
        yield "laplacian_cycle", settings.laplacian_cycle * losses.laplacian(cycled, x, settings.laplacian_levels)
    if settings.perceptual:
        if networks.perceptual is None:
            raise api.UsageError("terms.perceptual: its network is not loaded; give what load_networks returns")
        loss = perceptual_loss(networks.perceptual, y, x, settings.perceptual_instance_norm)
        yield "perceptual", settings.perceptual * loss
    if settings.exposure and (not settings.exposure_directions or direction.name in settings.exposure_directions):
        prior = losses.exposure_prior(y, x, settings.exposure_ceiling, settings.exposure_region)
        yield "exposure", settings.exposure * prior
