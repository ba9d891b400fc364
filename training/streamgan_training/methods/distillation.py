"""Distillation: a compact generator learns from a CycleGAN that learns beside it.

Ren et al. 2021, "Online Multi-Granularity Distillation for GAN Compression" (OMGD), in the form that the paper uses for
CycleGAN: one teacher, whose A→B generator G_T is imitated. The student G_S has no discriminator and never sees a
picture of domain B: it minimises

  λ_SSIM L_SSIM + λ_style L_style + λ_feature L_feature + λ_TV L_TV + λ_CD L_CD

between its picture p_S = G_S(a) and the teacher's p_T = G_T(a) of the same step: the paper's output distillation (the
first four) and its channel distillation of intermediate layers (CD). Chosen here, where the paper and its published
code differ or need what a machine may lack:

- φ, whose features L_style and L_feature compare, is VGG in the paper. By default it is the teacher's discriminator
  D_B, which needs no download and knows the target look; ``features: vgg`` takes VGG-16 as the paper does.
- Channel attention: w_c, the mean over the picture of the rectified feature map of channel c. Rectified, because behind
  a normalisation without bias the plain mean is 0 whatever the picture: all blocks would teach the same vector. The
  student's maps pass a 1×1 convolution first (a batch norm follows in the published code; it would tie pictures
  together).
- L_CD sums over the layers as the published code does, to which the weight of 500 belongs; the paper averages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.functional.image import structural_similarity_index_measure

from streamgan import api
from streamgan.model import INPUT, SizeRule
from streamgan_training import checkpoint, export, networks, terms
from streamgan_training.batchnorm import steady_statistics
from streamgan_training.discriminators import Discriminators
from streamgan_training.method import Batch, Direction, Method, Turn, frozen
from streamgan_training.methods.cyclegan import CycleGan
from streamgan_training.networks import CompactBlock, ResnetBlock, UnetLevel
from streamgan_training.recipe import Generator, Recipe
from streamgan_training.trained import FrameModel

BLOCKS = (ResnetBlock, CompactBlock, UnetLevel)
"""The parts of a generator whose outputs can be distilled."""
VGG_LAYERS: tuple[terms.Layer, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


class Student(nn.Module):
    """The compact generator, and the adapters that only its training needs.

    Args:
        generator: the student's settings.
        channels: by distilled layer, how many the student and the teacher have there.
    """

    def __init__(self, generator: nn.Module, channels: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.ab = generator
        self.adapters = nn.ModuleList(nn.Conv2d(student, teacher, 1, bias=False) for student, teacher in channels)
        for adapter in self.adapters:
            assert isinstance(adapter, nn.Conv2d)
            nn.init.kaiming_normal_(adapter.weight, nonlinearity="relu")


class Distillation(Method):
    """The method ``distillation``: the recipe's ``generator`` is the student, ``method.teacher`` the teacher.

    ``train.start_from`` may name a CycleGAN run of the teacher's networks.
    """

    @dataclasses.dataclass(frozen=True)
    class Options(CycleGan.Options):
        """The student's weights as published; the teacher's objective is CycleGAN's."""

        teacher: Generator = dataclasses.field(default_factory=Generator)
        """The teacher's architecture; 64 channels and 9 blocks in the paper."""
        teacher_learns: bool = True
        """Whether the teacher trains along, as in the paper; false needs ``train.start_from``."""
        features: Literal["discriminator", "vgg"] = "discriminator"
        """φ of L_style and L_feature."""
        layers: int = api.option(4, minimum=1)
        """Intermediate layers that are distilled, spread evenly over the blocks of both generators."""
        lambda_ssim: float = api.option(1e1, minimum=0)
        """λ_SSIM"""
        lambda_style: float = api.option(1e4, minimum=0)
        """λ_style"""
        lambda_feature: float = api.option(1e1, minimum=0)
        """λ_feature"""
        lambda_total_variation: float = api.option(1e-5, minimum=0)
        """λ_TV, of a sum over pixels: it means more in larger crops."""
        lambda_channel: float = api.option(5e2, minimum=0)
        """λ_CD"""

    published = CycleGan.published
    options: Options

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        if not self.options.teacher_learns and recipe.train.start_from is None:
            raise api.PresetError("train.start_from: nothing given, a teacher that does not learn needs a CycleGAN run")
        self.teacher = CycleGan(dataclasses.replace(recipe, generator=self.options.teacher))
        self.multiple_of = math.lcm(self.teacher.multiple_of, networks.MULTIPLE_OF[recipe.generator.name])
        student = networks.make_generator(recipe.generator)
        both = [
            channels_of(one, self.options.layers, self.multiple_of) for one in (student, self.teacher.generators.ab)
        ]
        self.generators: Student = Student(student, [*zip(*both, strict=True)])
        self.pools = self.teacher.pools
        self._vgg: list[terms.PerceptualNetwork] = []  # no module of this one: fixed, and in no checkpoint

    def players(self) -> Mapping[str, nn.Module]:
        """The student, and the teacher against its discriminators."""
        return {
            "generators": self.generators,
            "teacher": self.teacher.generators,
            "discriminators": self.teacher.discriminators,
        }

    @property
    def directions(self) -> tuple[str, ...]:
        """The student translates A→B alone."""
        return ("ab",)

    def translator(self, generators: nn.Module, direction: str) -> nn.Module:
        """The student."""
        return generators.get_submodule(direction)

    def begin_from(self, run: Path) -> None:
        """Takes the teacher from a CycleGAN run: its weights if it learns on, else their moving average.

        Raises:
            ModelError: if the run has no checkpoint, or its networks are not the teacher's.
        """
        newest = checkpoint.newest(run)
        name = "generators" if self.options.teacher_learns else "ema"
        checkpoint.load_module(self.teacher.generators, name, newest)
        checkpoint.load_module(self.teacher.discriminators, "discriminators", newest)

    def turns(self, batch: Batch) -> Iterator[Turn]:
        """The teacher's turns, where it learns, then the student's."""
        if self.options.teacher_learns:
            for turn in self.teacher.turns(batch):
                player = "teacher" if turn.player == "generators" else turn.player
                yield Turn(player, turn.terms)
        a = batch.images[0]
        student = self.generators.ab
        wanted, taught = self.lesson(a)
        with outputs_of(distilled_blocks(student, self.options.layers)) as learned:
            given = student(a)
        with frozen(self.teacher.discriminators):
            losses = self.output_terms(given, wanted)
        if self.options.lambda_channel:
            pairs = zip(self.generators.adapters, learned, taught, strict=True)
            distances = [channel_distance(adapter(one), other) for adapter, one, other in pairs]
            losses["channel"] = self.options.lambda_channel * torch.stack(distances).sum()
        yield Turn("generators", losses, (Direction("ab", 0, 1, a, given, student),))

    def lesson(self, a: Tensor) -> tuple[Tensor, list[Tensor]]:
        """p_T = G_T(a), and the teacher's features in the distilled layers, all without a graph."""
        teacher, options = self.teacher.generators.ab, self.options
        blocks = distilled_blocks(teacher, options.layers)
        steady = steady_statistics(teacher), eval_unless(teacher, options.teacher_learns)
        with torch.no_grad(), steady[0], steady[1], outputs_of(blocks) as taught:
            wanted: Tensor = teacher(a)
        return wanted, taught

    def output_terms(self, given: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Output distillation, term by term, weighted.

        Args:
            given: p_S, ``(N, 3, H, W)`` in [-1, 1].
            wanted: p_T, the same shape, without a graph.
        """
        options = self.options
        ours = self.features(given)
        with torch.no_grad():
            theirs = self.features(wanted)
        # The second layer, relu2_2 of VGG, is compared place by place.
        styles = [F.l1_loss(gram(one), gram(other)) for one, other in zip(ours, theirs, strict=True)]
        return {
            "ssim": options.lambda_ssim * (1 - ssim(given, wanted)),
            "style": options.lambda_style * torch.stack(styles).sum(),
            "feature": options.lambda_feature * F.l1_loss(ours[1].float(), theirs[1].float()),
            "total_variation": options.lambda_total_variation * total_variation(given),
        }

    def features(self, images: Tensor) -> list[Tensor]:
        """φ: the rectified features of D_B (all scales, one after the other) or of VGG-16, finest first.

        Raises:
            UsageError: if VGG's weights are asked for and not there.
        """
        if self.options.features == "vgg":
            if not self._vgg:
                self._vgg.append(terms.load_perceptual(VGG_LAYERS).to(images.device))
            found: list[Tensor] = self._vgg[0](images)
            return found
        return judged_features(self.teacher.judge("b"), images)


def judged_features(judges: Discriminators, images: Tensor) -> list[Tensor]:
    """What the rectifiers of the discriminators give, scale by scale, for pictures as they are (not augmented)."""
    with outputs_of([module for module in judges.judges.modules() if isinstance(module, nn.LeakyReLU)]) as found:
        for judge in judges.judges:
            judge(images)
    return found


@contextlib.contextmanager
def outputs_of(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that fills with the outputs of these modules, in the order of `modules`, when their network runs once."""
    kept: dict[int, Tensor] = {}
    found: list[Tensor] = []

    def keep(index: int, output: Tensor) -> None:
        kept[index] = output
        if len(kept) == len(modules):
            found[:] = [kept[number] for number in range(len(modules))]

    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, index=index: keep(index, output))
        for index, module in enumerate(modules)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def eval_unless(network: nn.Module, learns: bool) -> Iterator[None]:
    """A teacher that does not learn normalises as exported."""
    before = network.training
    network.train(before and learns)
    try:
        yield
    finally:
        network.train(before)


def distilled_blocks(generator: nn.Module, layers: int) -> list[nn.Module]:
    """So many of the generator's blocks, spread evenly from the first to the last.

    Raises:
        PresetError: if it has fewer.
    """
    blocks = [module for module in generator.modules() if isinstance(module, BLOCKS)]
    if len(blocks) < layers:
        raise api.PresetError(f"method.layers: {layers} given, {type(generator).__name__} has {len(blocks)} blocks")
    return [blocks[round(index * (len(blocks) - 1) / max(1, layers - 1))] for index in range(layers)]


def channels_of(generator: nn.Module, layers: int, multiple_of: int) -> list[int]:
    """How many channels the outputs of `distilled_blocks` have."""
    picture, before = torch.zeros(1, 3, 2 * multiple_of, 2 * multiple_of), generator.training
    with torch.no_grad(), outputs_of(distilled_blocks(generator, layers)) as found:
        generator.eval()(picture)
    generator.train(before)
    return [output.shape[1] for output in found]


def channel_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """L_CD of one layer: Σ_c (w_c^T − w_c^S)² / C, w_c the mean of a rectified map; the mean over pictures.

    Args:
        student: its features behind the adapter, ``(N, C, h, w)``.
        teacher: ``(N, C, H, W)``; the sizes may differ.
    """
    return F.mse_loss(F.relu(student.float()).mean((2, 3)), F.relu(teacher.float()).mean((2, 3)))


def gram(features: Tensor) -> Tensor:
    """G = F Fᵀ / (C H W), F the features as ``(C, H W)``: Johnson et al. 2016, section 3.2. ``(N, C, C)``."""
    with torch.autocast(features.device.type, enabled=False):
        flat = features.float().flatten(2)
        return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def ssim(given: Tensor, wanted: Tensor) -> Tensor:
    """Structural similarity, Wang et al. 2004, eq. 13, of ``(N, 3, H, W)`` in [-1, 1]; sides of at least 11 pixels."""
    with torch.autocast(given.device.type, enabled=False):  # differences of squares
        value = structural_similarity_index_measure((given.float() + 1) / 2, (wanted.float() + 1) / 2, data_range=1.0)
    assert isinstance(value, Tensor)  # a tuple only where more is asked for
    return value


def total_variation(images: Tensor) -> Tensor:
    """Σ |x_{i,j+1} − x_{i,j}| + |x_{i+1,j} − x_{i,j}|: the sum over a picture, the mean over pictures."""
    across, down = images.float().diff(dim=3).abs(), images.float().diff(dim=2).abs()
    return (across.sum() + down.sum()) / len(images)


def measure_cost(
    translator: nn.Module, size: tuple[int, int], multiple_of: int = 16, repeats: int = 5
) -> dict[str, float]:
    """What a translator costs: arithmetic counted in torch, time measured in ONNX Runtime on one thread of this CPU.

    Args:
        translator: from ``(N, 3, H, W)`` to the same.
        size: (width, height) of the frames, in pixels.
        multiple_of: as the method's.
        repeats: timed runs, after one that is not.

    Returns:
        ``parameters``, ``macs`` (multiply-accumulates of convolutions and matrix products of one frame) and
        ``milliseconds`` (the median).
    """
    width, height = size
    weight = next(translator.parameters())
    model = FrameModel(translator).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        translator(torch.zeros(1, 3, height, width, device=weight.device))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export.write_graph(model, file, SizeRule(multiple_of, size))
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    frame = torch.randint(0, 256, (1, height, width, 3), generator=torch.Generator().manual_seed(0)).byte().numpy()
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        session.run(None, {INPUT: frame})
        times.append(1e3 * (time.perf_counter() - began))
    return {
        "parameters": sum(each.numel() for each in translator.parameters()),
        "macs": counter.get_total_flops() / 2,
        "milliseconds": statistics.median(times[1:]),
    }


def write_comparison(method: Distillation, size: tuple[int, int], file: Path) -> dict[str, dict[str, float]]:
    """Measures student and teacher at a size (width, height) and writes both to a file such as ``compare.json``.

    Returns:
        `measure_cost` of ``student`` and ``teacher``, and ``ratio``, how many times less the student costs.
    """
    student, teacher = (
        measure_cost(network, size, method.multiple_of)
        for network in (method.generators.ab, method.teacher.generators.ab)
    )
    ratio = {key: teacher[key] / student[key] for key in student}
    result = {"student": student, "teacher": teacher, "ratio": ratio}
    written = {"width": size[0], "height": size[1]} | result
    file.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return result
