"""Every generator that training exports runs as ONNX Runtime runs it. Each export takes seconds: pytest -m smoke."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from streamgan import testing
from streamgan_torch import backends

pytest.importorskip("streamgan_training")

from streamgan_training import export, networks, recipe
from streamgan_training.methods import cycleganpp, discogan, local_tuning, stargan, unit
from streamgan_training.trained import FrameModel

CODES = torch.eye(3)


def named(name: recipe.GeneratorName, **settings: object) -> Callable[[], nn.Module]:
    """A generator that a recipe can name."""
    return lambda: networks.make_generator(recipe.Generator(name=name, width=4, **settings))  # type: ignore[arg-type]


def make_unit() -> nn.Module:
    """UNIT's encoder and decoder, as its translator puts them together."""
    both = unit.Generators(4, 1)
    return nn.Sequential(both.encoder_a, both.shared_encoder, both.shared_decoder, both.decoder_b)


GENERATORS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet9": (named("resnet9"), 4),
    "resnet6 resize, batch norm": (named("resnet6", upsampling="resize", norm="batch"), 4),
    "resnet6 antialiased, no norm": (named("resnet6", upsampling="antialiased", norm="none"), 4),
    "unet64": (named("unet64", dropout=0.5), 64),
    "unet128": (named("unet128"), 128),
    "unet256": (named("unet256"), 256),
    "compact": (named("compact", norm="batch"), 16),
    "compact, instance norm": (named("compact", norm="instance"), 16),
    "swift": (named("swift", norm="batch"), 16),
    "multi-scale": (lambda: cycleganpp.MultiScaleGenerator(4, 2), 8),
    "encoder-decoder 4": (lambda: discogan.EncoderDecoder(4, 4), 16),
    "encoder-decoder 5": (lambda: discogan.EncoderDecoder(4, 5), 64),
    "unit": (make_unit, 4),
    "tuned": (lambda: local_tuning.TunedTranslator(networks.CompactGenerator(4), local_tuning.Tuner(4, 1)), 16),
    "star": (lambda: stargan.StarGenerator(CODES, 4, 2), 4),
    "star, compact": (lambda: stargan.CompactStarGenerator(CODES, 4), 16),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", GENERATORS)
def test_it_gives_what_onnx_runtime_gives(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, multiple_of = GENERATORS[name]
    network, mixed, path = make(), name.startswith("star"), tmp_path / "model.onnx"
    enliven(network)
    rule = export.SizeRule(multiple_of, (64, 64))
    export.write_graph(FrameModel(network).eval(), path, rule, len(CODES) if mixed else 0)
    side = max(2 * multiple_of, 64)
    session = backends.TorchCpu().load(path, threads=1)
    for shape in ((1, side, side), (2, side, side + multiple_of)):
        images = testing.make_images(*shape)
        inputs = {"domain": np.arange(len(images), dtype=np.int64) + 1} if mixed else {}
        (expected,) = onnxruntime.InferenceSession(path).run(None, {"frames": images, **inputs})
        worst = np.abs(session.run(images, inputs).astype(int) - expected).max()
        assert worst <= 1, shape
        assert expected.std() > 2, "too plain a picture to tell"


def enliven(network: nn.Module) -> None:
    """Weights with which every layer matters, and which saturate nothing."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, module.weight[0].numel() ** -0.5)
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 2 * module.weight[:, 0].numel() ** -0.5)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, 0.0, 0.1)
            nn.init.uniform_(module.running_var, 0.7, 1.5)
