"""Generators and discriminators. All take and give ``(N, C, H, W)`` float in [-1, 1]."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamgan.api import UsageError
from streamgan_training import recipe

Norm = Callable[[int], nn.Module]


def make_norm(name: recipe.NormName) -> Norm:
    """The normalisation layer of a name: InstanceNorm without affine, as in the paper, BatchNorm, or none."""
    makers: dict[recipe.NormName, Norm] = {
        "instance": nn.InstanceNorm2d,
        "batch": nn.BatchNorm2d,
        "none": lambda _: nn.Identity(),
    }
    return makers[name]


def initialise(network: nn.Module, std: float = 0.02) -> None:
    """Draws all convolutions from N(0, std²), as Zhu et al. 2017 do; layers marked ``zero_init`` begin at 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if getattr(module, "zero_init", False):
                nn.init.zeros_(module.weight)
            else:
                nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class ResnetBlock(nn.Module):
    """The residual block R*k* of Zhu et al. 2017, appendix 7.2: two 3×3 convolutions with reflection padding."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            norm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            norm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        y: Tensor = self.body(x)
        return x + y


class Blur(nn.Module):
    """A depthwise binomial filter [1 2 1] or [1 3 3 1], with reflected edges (Zhang 2019, section 3.2)."""

    kernel: Tensor

    def __init__(self, channels: int, size: Literal[3, 4] = 3, stride: int = 1) -> None:
        super().__init__()
        row = torch.tensor({3: [1.0, 2.0, 1.0], 4: [1.0, 3.0, 3.0, 1.0]}[size])
        kernel = row[:, None] * row[None, :] / row.sum() ** 2
        self.stride, self.channels = stride, channels
        self.padding = (1, size - 2) * 2
        self.register_buffer("kernel", kernel.expand(channels, 1, size, size).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H / stride, W / stride)."""
        padded = F.pad(x, self.padding, mode="reflect")
        return F.conv2d(padded, self.kernel.to(x.dtype), stride=self.stride, groups=self.channels)


class BlurUp(nn.Module):
    """Doubles the size by repeating pixels and blurs with [1 2 1]: bilinear, without its half-pixel shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blur = Blur(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, 2 H, 2 W)."""
        y: Tensor = self.blur(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y


def make_down(channels: int, kind: recipe.Upsampling) -> list[nn.Module]:
    """Halves the size and doubles the channels: d*k* of Zhu et al. 2017; `antialiased`: convolve, then blur."""
    if kind == "antialiased":
        return [nn.Conv2d(channels, 2 * channels, 3, 1, 1, padding_mode="reflect"), Blur(2 * channels, 3, 2)]
    return [nn.Conv2d(channels, 2 * channels, 3, 2, 1)]


def make_up(channels: int, kind: recipe.Upsampling) -> list[nn.Module]:
    """Doubles the size and halves the channels: u*k* of Zhu et al. 2017, or a kind without its checkerboard."""
    if kind == "transpose":
        return [nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, output_padding=1)]
    larger = BlurUp(channels) if kind == "antialiased" else nn.Upsample(scale_factor=2.0, mode="nearest")
    return [larger, nn.Conv2d(channels, channels // 2, 3, 1, 1, padding_mode="reflect")]


class ResnetGenerator(nn.Module):
    """The generator of Zhu et al. 2017: c7s1-64, d128, d256, R256 × `blocks`, u128, u64, c7s1-3."""

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = nn.InstanceNorm2d,
        upsampling: recipe.Upsampling = "transpose",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 7, padding=3, padding_mode="reflect"), norm(width), nn.ReLU(inplace=True),
        ]  # fmt: skip
        for channels in (width, 2 * width):
            layers += [*make_down(channels, upsampling), norm(2 * channels), nn.ReLU(inplace=True)]
        layers += [ResnetBlock(4 * width, norm) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            layers += [*make_up(channels, upsampling), norm(channels // 2), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(width, 3, 7, padding=3, padding_mode="reflect"), nn.Tanh()]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → the same; H and W are multiples of 4."""
        y: Tensor = self.body(x)
        return y


class UnetLevel(nn.Module):
    """One level of the U-Net of Isola et al. 2017: down, what lies below, up, beside a skip connection."""

    def __init__(self, outer: int, inner: int, below: nn.Module | None, norm: Norm, dropout: float = 0.0) -> None:
        super().__init__()
        down: list[nn.Module] = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1)]
        up: list[nn.Module] = [nn.ReLU(), nn.ConvTranspose2d(inner if below is None else 2 * inner, outer, 4, 2, 1)]
        middle = [] if below is None else [norm(inner), below]
        self.body = nn.Sequential(*down, *middle, *up, norm(outer), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(N, outer, H, W) → (N, 2 * outer, H, W): the input and what this level makes of it."""
        return torch.cat((x, self.body(x)), 1)


class UnetGenerator(nn.Module):
    """The U-Net of Isola et al. 2017, appendix 6.1: `levels` strided levels, 8 for pictures of 256² and more."""

    def __init__(self, width: int = 64, levels: int = 8, norm: Norm = nn.InstanceNorm2d, dropout: float = 0.0) -> None:
        super().__init__()
        level = UnetLevel(8 * width, 8 * width, None, norm)
        for _ in range(levels - 5):
            level = UnetLevel(8 * width, 8 * width, level, norm, dropout)
        for outer in (4 * width, 2 * width, width):
            level = UnetLevel(outer, 2 * outer, level, norm)
        first, last = nn.Conv2d(3, width, 4, 2, 1), nn.ConvTranspose2d(2 * width, 3, 4, 2, 1)
        self.body = nn.Sequential(first, level, nn.ReLU(), last, nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → the same; H and W are multiples of 2 ** levels, and at least twice that."""
        y: Tensor = self.body(x)
        return y


Padding = Literal["replicate", "zeros"]


class ConvNormRelu(nn.Sequential):
    """A 3×3 convolution with edge padding (zeros leave a frame round the picture), a norm and a ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: Norm, stride: int = 1, padding: Padding = "replicate") -> None:
        conv = nn.Conv2d(inputs, outputs, 3, stride, 1, padding_mode=padding)
        super().__init__(conv, norm(outputs), nn.ReLU(inplace=True))


class CompactBlock(nn.Module):
    """A residual block whose second convolution begins small, so that depth does not delay learning."""

    def __init__(self, channels: int, norm: Norm, padding: Padding = "replicate") -> None:
        super().__init__()
        self.first = ConvNormRelu(channels, channels, norm, padding=padding)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, padding_mode=padding)
        self.norm = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        y: Tensor = self.norm(self.second(self.first(x)))
        return x + y


class GlobalModulation(nn.Module):
    """Scales and shifts every channel by what the whole frame holds, so that a wide sky is one thing.

    A FiLM layer (Perez et al. 2018) conditioned on the frame's own mean features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 2, 1)
        self.expand = nn.Conv2d(channels // 2, 2 * channels, 1)
        self.expand.zero_init = True  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        scale, shift = self.expand(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).chunk(2, 1)
        y: Tensor = x * (1 + scale) + shift
        return y


class Up(nn.Module):
    """Narrows to the channels of the next finer level, doubles the size, adds that level's features."""

    def __init__(self, inputs: int, outputs: int, norm: Norm, padding: Padding = "replicate") -> None:
        super().__init__()
        self.narrow = nn.Conv2d(inputs, outputs, 1)
        self.fuse = ConvNormRelu(outputs, outputs, norm, padding=padding)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(N, inputs, H/2, W/2) and (N, outputs, H, W) → (N, outputs, H, W)."""
        up = F.interpolate(self.narrow(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        y: Tensor = self.fuse(up + skip)
        return y


class CompactGenerator(nn.Module):
    """A generator for real time: about 1.4 GMAC at 256², 1.9 M weights at the default width of 24.

    It works at half resolution and below (pixel-unshuffle ×2, then three strided levels), sees the whole frame (the
    global modulation at the coarsest level) and changes the picture by a residual: ``tanh(x + residual)``. The residual
    is drawn at full resolution beside the picture itself, so that it ends where the picture's edges are; pixel-shuffle
    in that place left a checkerboard in plain skies. Only plain convolutions, bilinear resizing and a mean: what
    TensorRT and OpenVINO run well. With BatchNorm the norms fold into the convolutions at export.
    """

    def __init__(self, width: int = 24, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        half, quarter, eighth, coarse = width, 2 * width, 4 * width, 16 * width // 3
        self.stem = ConvNormRelu(12, half, norm)
        self.down_quarter = nn.Sequential(ConvNormRelu(half, quarter, norm, 2), CompactBlock(quarter, norm))
        self.down_eighth = nn.Sequential(ConvNormRelu(quarter, eighth, norm, 2), CompactBlock(eighth, norm))
        self.down_coarse = ConvNormRelu(eighth, coarse, norm, 2)
        self.coarse = nn.Sequential(
            CompactBlock(coarse, norm), GlobalModulation(coarse), CompactBlock(coarse, norm),
            CompactBlock(coarse, norm), GlobalModulation(coarse), CompactBlock(coarse, norm),
        )  # fmt: skip
        self.up_eighth = Up(coarse, eighth, norm)
        self.block_eighth = CompactBlock(eighth, norm)
        self.up_quarter = Up(eighth, quarter, norm)
        self.up_half = Up(quarter, half, norm)
        self.narrow = nn.Conv2d(half, 12, 1)
        self.fuse = ConvNormRelu(12 + 3, 16, norm)
        self.head = nn.Conv2d(16, 3, 3, 1, 1, padding_mode="replicate")
        self.head.zero_init = True  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → the same; H and W are multiples of 16."""
        return self.decode(x, self.stem(F.pixel_unshuffle(x, 2)))

    def decode(self, x: Tensor, half: Tensor) -> Tensor:
        """The result, of the picture and its features at half the size."""
        quarter = self.down_quarter(half)
        eighth = self.down_eighth(quarter)
        y = self.coarse(self.down_coarse(eighth))
        y = self.block_eighth(self.up_eighth(y, eighth))
        y = self.up_half(self.up_quarter(y, quarter), half)
        full = F.interpolate(self.narrow(y), scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.tanh(x + self.head(self.fuse(torch.cat((full, x), 1))))


class SwiftGenerator(nn.Module):
    """A generator for milliseconds rather than multiplications: 0.51 GMAC at 256², 0.59 M weights at a width of 16.

    Measured on a CPU, what `CompactGenerator` spends besides arithmetic is memory traffic at full resolution: pixel
    unshuffling, padding by repetition as an operation of its own, and convolutions of 15 and 16 channels there, which
    fill half a vector. Here nothing is convolved at full resolution but the picture itself, by a strided stem; levels
    of 1/2 to 1/16 have channels in multiples of 16; padding is by zeros, inside the convolution, and its traces fall
    into a margin: the picture is continued by its edge, once, and cut at the end. The last step is a gain and an offset
    of every pixel, ``tanh(x (1 + gain) + offset)``, drawn at half resolution and enlarged: what day and night differ by
    is light, and a gain keeps the picture's own edges and texture.
    """

    margin = 8
    """Pixels on each side."""

    def __init__(self, width: int = 16, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        half, quarter, eighth, coarse = width, 2 * width, 4 * width, 6 * width
        zeros: Padding = "zeros"
        self.stem = nn.Sequential(nn.Conv2d(3, half, 6, 2, 2), norm(half), nn.ReLU(inplace=True))
        self.down_quarter = nn.Sequential(
            ConvNormRelu(half, quarter, norm, 2, zeros), CompactBlock(quarter, norm, zeros)
        )
        self.down_eighth = nn.Sequential(
            ConvNormRelu(quarter, eighth, norm, 2, zeros), CompactBlock(eighth, norm, zeros)
        )
        self.coarse = nn.Sequential(
            ConvNormRelu(eighth, coarse, norm, 2, zeros), CompactBlock(coarse, norm, zeros), GlobalModulation(coarse),
            CompactBlock(coarse, norm, zeros), GlobalModulation(coarse),
        )  # fmt: skip
        self.up_eighth = Up(coarse, eighth, norm, zeros)
        self.up_quarter = Up(eighth, quarter, norm, zeros)
        self.up_half = Up(quarter, half, norm, zeros)
        self.gain, self.offset = (nn.Conv2d(half, 3, 3, 1, 1) for _ in range(2))
        for head in (self.gain, self.offset):
            head.zero_init = True  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → the same; H and W are multiples of 16."""
        half = self.stem(F.pad(x, (self.margin,) * 4, mode="replicate"))
        quarter = self.down_quarter(half)
        eighth = self.down_eighth(quarter)
        y = self.up_quarter(self.up_eighth(self.coarse(eighth), eighth), quarter)
        return self.relit(x, self.up_half(y, half))

    def relit(self, x: Tensor, features: Tensor) -> Tensor:
        """The picture with the gain and the offset that its features, at half the size and with the margin, ask for.

        Both are drawn by one convolution, cut, enlarged by one interpolation, and applied with the channels of a pixel
        side by side: three planes of their own are what OpenVINO's element-wise code is slow at. Against that order,
        two convolutions and a cut at the end, it takes half the time in int8 and 0.65 in fp32; ONNX Runtime 0.9.
        """
        heads = (self.gain, self.offset)
        weight, bias = (torch.cat([getattr(head, name) for head in heads]) for name in ("weight", "bias"))
        needed = self.margin // 2 - 1  # one more than is shown, for the interpolation
        light = F.conv2d(features, weight, bias, padding=1)[..., needed:-needed, needed:-needed]
        light = F.interpolate(light, scale_factor=2.0, mode="bilinear", align_corners=False)[..., 2:-2, 2:-2]
        gain, offset = torch.split(light.permute(0, 2, 3, 1), 3, dim=-1)
        return torch.tanh(x.permute(0, 2, 3, 1) * (1 + gain) + offset).permute(0, 3, 1, 2)


class PatchDiscriminator(nn.Module):
    """The PatchGAN of Isola et al. 2017: C64-C128-C256-C512 at 3 layers, receptive field 70²."""

    def __init__(self, width: int = 64, layers: int = 3, norm: Norm = nn.InstanceNorm2d, scale: int = 1) -> None:
        super().__init__()
        self.scale = scale
        self.smallest = 3 * 2**layers * scale
        body: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        channels = width
        for level in range(1, layers + 1):
            following = width * min(2**level, 8)
            stride = 2 if level < layers else 1
            body += [
                nn.Conv2d(channels, following, 4, stride, 1), norm(following), nn.LeakyReLU(0.2, inplace=True),
            ]  # fmt: skip
            channels = following
        self.body = nn.Sequential(*body, nn.Conv2d(channels, 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → (N, 1, h, w), one verdict a patch: 1 is real, 0 is translated.

        Raises:
            UsageError: if the picture is too small for so many layers.
        """
        if min(x.shape[-2:]) < self.smallest:
            raise UsageError(
                f"discriminators: a picture of {x.shape[-1]}x{x.shape[-2]} given, expected sides of at least "
                f"{self.smallest} pixels; lower 'layers' or 'scale', or raise data.size and data.small_size"
            )
        if self.scale > 1:
            x = F.avg_pool2d(x, self.scale)
        y: Tensor = self.body(x)
        return y


MULTIPLE_OF: dict[recipe.GeneratorName, int] = {
    "resnet9": 4, "resnet6": 4, "unet256": 256, "unet128": 128, "unet64": 64, "compact": 16, "swift": 16,
}  # fmt: skip
"""The sides of a picture must be multiples of this, in pixels."""


def make_generator(settings: recipe.Generator) -> nn.Module:
    """The generator that a recipe names, initialised."""
    norm, width = make_norm(settings.norm), settings.width
    makers: dict[recipe.GeneratorName, Callable[[], nn.Module]] = {
        "resnet9": functools.partial(ResnetGenerator, width, 9, norm, settings.upsampling),
        "resnet6": functools.partial(ResnetGenerator, width, 6, norm, settings.upsampling),
        "unet256": functools.partial(UnetGenerator, width, 8, norm, settings.dropout),
        "unet128": functools.partial(UnetGenerator, width, 7, norm, settings.dropout),
        "unet64": functools.partial(UnetGenerator, width, 6, norm, settings.dropout),
        "compact": functools.partial(CompactGenerator, width, norm),
        "swift": functools.partial(SwiftGenerator, width, norm),
    }
    network = makers[settings.name]()
    initialise(network)
    return network
