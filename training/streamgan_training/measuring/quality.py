"""Measures of pictures that torchmetrics computes: PSNR, SSIM, and those of pretrained networks, FID, KID and LPIPS.

Frames are uint8 RGB, ``(N, H, W, 3)``, as a PNG would keep them: JPEG alone moved a published FID by 40. Nothing is
downloaded unless `download` says so. Sources: Wang et al. 2004, "Image Quality Assessment" (SSIM); Heusel et al. 2017,
"GANs Trained by a Two Time-Scale Update Rule" (FID); Bińkowski et al. 2018, "Demystifying MMD GANs" (KID); Zhang et al.
2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (LPIPS); Chu et al. 2020, TecoGAN (tLP).
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from streamgan.api import ModelError, UsageError
from streamgan_training.measuring.metrics import Image, inner

Distance = Callable[[Image, Image], Tensor]
"""Compares two stacks of frames ``(N, H, W, 3)`` one by one: ``(N,)`` float32."""
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
"""Bińkowski et al. 2018 average over 100 random subsets of 1000; of fewer frames, as many as there are."""
LPIPS_LEAST_SIDE = 64
"""The smallest side of a picture that AlexNet's strides leave anything of, in pixels."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """A file of pretrained weights, kept where torch.hub keeps its own."""

    name: str
    url: str
    """Ends in a file name with the first eight digits of the file's SHA-256 in it."""

    @property
    def file(self) -> Path:
        """Where the file is, or would be."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rsplit("/", 1)[1]

    @property
    def digest(self) -> str:
        """The first eight digits of the SHA-256 that the file must have."""
        return Path(self.url).stem.rsplit("-", 1)[1]


INCEPTION = Weights(
    "inception",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
"""InceptionV3 of FID and KID: TensorFlow's of 2015-12-05, converted by torch-fidelity."""
ALEXNET = Weights("alexnet", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth")
"""The network below LPIPS, torchvision's; the linear layers on top come with torchmetrics."""


@dataclasses.dataclass(frozen=True)
class DeepMetrics:
    """What pretrained networks say, what they could not say, and how it was measured."""

    values: dict[str, float]
    """``fid``, ``kid``, ``kid_std`` (output to the target look) and ``lpips`` (output to its own source)."""
    unavailable: dict[str, str]
    """The reason for each measure that is not in `values`."""
    protocol: dict[str, Any]
    """How they were measured, as JSON: an FID says nothing without it."""


def psnr(first: Image, second: Image) -> float:
    """Peak signal-to-noise ratio, 10 log₁₀(255² / MSE), in dB: the mean over pictures; inf if one is the same.

    Args:
        first: ``(N, H, W, 3)`` uint8.
        second: the same shape.
    """
    pictures = _tensor(first).float(), _tensor(second).float()
    return float(peak_signal_noise_ratio(*pictures, data_range=255.0, dim=(1, 2, 3)))


def ssim(first: Image, second: Image) -> float:
    """Structural similarity, Wang et al. 2004, eq. 13: the mean over pictures and channels, 1 if they are the same.

    Gaussian window of 11 pixels, σ = 1.5, K₁ = 0.01, K₂ = 0.03, mirrored at the border (the authors leave it out).

    Args:
        first: ``(N, H, W, 3)`` uint8, sides above 11.
        second: the same shape.
    """
    pictures = _tensor(first).float(), _tensor(second).float()
    value = structural_similarity_index_measure(*pictures, data_range=255.0)
    assert isinstance(value, Tensor)  # a tuple only where more is asked for
    return float(value)


def deep_metrics(
    real: Image, fake: Image, source: Image, *, download: bool = False, device: torch.device | str = "cpu"
) -> DeepMetrics:
    """FID and KID of translations to real frames of the target look, and LPIPS to their sources, where possible.

    Args:
        real: ``(M, H, W, 3)`` uint8, the target look.
        fake: ``(N, H, W, 3)`` uint8, the translations.
        source: ``(N, H, W, 3)`` uint8, what `fake` was made from.
        download: fetch weights that are not on this machine; else they are named in `DeepMetrics.unavailable`.
        device: where the networks run.
    """
    values: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    try:
        network = inception(download, device)
        values |= feature_distances(*(_features(network, frames, device) for frames in (real, fake)))
    except (UsageError, ModelError) as error:
        unavailable |= dict.fromkeys(("fid", "kid"), str(error))
    try:
        values["lpips"] = float(lpips(download, device)(source, fake).mean())
    except (UsageError, ModelError) as error:
        unavailable["lpips"] = str(error)
    return DeepMetrics(values, unavailable, _protocol(len(real), len(fake)))


def feature_distances(real: Tensor, fake: Tensor) -> dict[str, float]:
    """``fid``, ``kid`` and ``kid_std`` of features.

    FID is ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), Heusel et al. 2017, eq. 6, biased upwards for few frames; KID is the
    unbiased MMD² of the kernel (xᵀy/d + 1)³, Bińkowski et al. 2018, section 4. KID's subsets are the same each time.

    Args:
        real: ``(M, d)`` float.
        fake: ``(N, d)`` float.

    Raises:
        UsageError: if there are fewer than two of either.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    least = min(len(real), len(fake))
    if least < 2:
        raise UsageError(f"FID and KID need at least 2 frames of each kind, got {len(real)} real and {len(fake)} fake")
    given = _Given(real.shape[1])
    frechet = FrechetInceptionDistance(feature=given)
    with warnings.catch_warnings():  # it warns that features are kept in memory, which they are anyhow
        warnings.simplefilter("ignore", UserWarning)
        kernel = KernelInceptionDistance(feature=given, subsets=KID_SUBSETS, subset_size=min(KID_SUBSET_SIZE, least))
    for measure in (frechet, kernel):
        measure.update(real.cpu(), real=True)
        measure.update(fake.cpu(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kid, deviation = kernel.compute()
    return {"fid": float(frechet.compute()), "kid": float(kid), "kid_std": float(deviation)}


class _Given(nn.Identity):
    """Hands features through, which torchmetrics would otherwise compute once for each measure."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features


def inception(download: bool = False, device: torch.device | str = "cpu") -> nn.Module:
    """The network of FID and KID: ``(N, 3, H, W)`` uint8 to ``(N, 2048)``; resizes to 299 × 299, antialiased.

    Raises:
        UsageError: if torch-fidelity or the weights are missing.
        ModelError: if the weights are not those that their name says.
    """
    if util.find_spec("torch_fidelity") is None:
        raise UsageError("torch-fidelity is not installed; pip install 'streamgan-training[quality]'")
    find_weights(INCEPTION, download)
    from torchmetrics.image.fid import NoTrainInceptionV3

    network: nn.Module = NoTrainInceptionV3("inception-v3-compat", ["2048"], antialias=True)
    return network.to(device)


def lpips(download: bool = False, device: torch.device | str = "cpu") -> Distance:
    """LPIPS 0.1 with AlexNet, Zhang et al. 2018, eq. 1: 0 if two pictures are the same.

    Raises:
        UsageError: if the weights are missing, and from the distance, if pictures are too small for it.
        ModelError: if the weights are not those that their name says.
    """
    find_weights(ALEXNET, download)
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    measure = LearnedPerceptualImagePatchSimilarity("alex", reduction="none", normalize=True).to(device)

    def distance(first: Image, second: Image) -> Tensor:
        height, width = first.shape[1:3]
        if min(height, width) < LPIPS_LEAST_SIDE:
            raise UsageError(f"LPIPS needs sides of {LPIPS_LEAST_SIDE} pixels or more, got {width} x {height}")
        batches = zip(_batches(first, device), _batches(second, device), strict=True)
        with torch.no_grad():
            return torch.cat([measure(a / 255, b / 255).reshape(-1).cpu() for a, b in batches])

    return distance


def temporal_perception_difference(pairs: Iterable[tuple[Image, Image]], distance: Distance, skip: int = 2) -> float:
    """tLP: |LP(x_{t-1}, x_t) − LP(y_{t-1}, y_t)| × 100, Chu et al. 2020, section 5; x is the source here, as for tOF.

    Args:
        pairs: (source frame, output frame) in order, all of one size.
        distance: what LP is, that of `lpips`.
        skip: frames left out at the start and at the end; 2 in the paper's evaluation.

    Raises:
        ValueError: if fewer than two frames are left.
    """
    differences = []
    before: tuple[Image, Image] | None = None
    for now in inner(pairs, skip):
        if before is not None:
            x, y = (float(distance(a[None], b[None])) for a, b in zip(before, now, strict=True))
            differences.append(100 * abs(x - y))
        before = now
    if not differences:
        raise ValueError(f"tLP needs at least {2 * skip + 2} frames, of which {skip} at each end are left out")
    return sum(differences) / len(differences)


def find_weights(weights: Weights, download: bool = False) -> Path:
    """The file of pretrained weights, its digest checked before anything reads it.

    Raises:
        UsageError: if it is not on this machine, and was not to be downloaded or could not be.
        ModelError: if it is not the file that its name says.
    """
    path = weights.file
    if not path.is_file() and not download:
        raise UsageError(
            f"weights {weights.name} ({path.name}) not on this machine; put {weights.url} into {path.parent}"
        )
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(weights.url, str(path), weights.digest, progress=False)
        except (OSError, RuntimeError) as error:
            raise UsageError(f"weights {weights.name}: cannot download {weights.url} ({error})") from None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(weights.digest):
        raise ModelError(f"{path}: expected SHA-256 {weights.digest}…, found {found[:8]}…; delete it, or fetch it anew")
    return path


def _features(network: nn.Module, frames: Image, device: torch.device | str) -> Tensor:
    """The network's features of frames: ``(N, d)``."""
    with torch.no_grad():
        return torch.cat([network(batch).cpu() for batch in _batches(frames, device)])


def _batches(frames: Image, device: torch.device | str, size: int = 16) -> Iterator[Tensor]:
    """Frames in batches of ``(n, 3, H, W)`` uint8, on a device."""
    for start in range(0, len(frames), size):
        yield _tensor(frames[start : start + size]).to(device)


def _tensor(frames: Image) -> Tensor:
    """``(N, H, W, 3)`` as ``(N, 3, H, W)`` uint8."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def _protocol(real: int, fake: int) -> dict[str, Any]:
    """How `deep_metrics` measures, for the JSON beside the numbers."""
    installed = {name: _version(name) for name in ("torch", "torchvision", "torchmetrics", "torch-fidelity")}
    return {
        "frames": "uint8 RGB, no lossy coding in between (as PNG)",
        "real": real,
        "fake": fake,
        "fid": {
            "weights": INCEPTION.url.rsplit("/", 1)[1],
            "features": "InceptionV3, last pool, 2048",
            "resizer": "torch bilinear, antialias, to 299 x 299, in float (torchmetrics)",
            "reference": "held-out frames of the target look",
            "biased": min(real, fake) < 2048,  # fewer frames than features: compare only at the same counts
        },
        "kid": {"subsets": KID_SUBSETS, "subset_size": min(KID_SUBSET_SIZE, real, fake), "degree": 3, "seed": 0},
        "lpips": {"weights": ALEXNET.url.rsplit("/", 1)[1], "version": "0.1 (linear layers of torchmetrics)"},
        "versions": installed,
    }


def _version(name: str) -> str | None:
    """A distribution's version, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
