"""The two training loops that `train.py` compares: the published one, stated anew, and the parts of ours.

The published loop is that of Zhu et al. 2017 (section 4, appendix 7.1), plainly: fp32, contiguous memory, Adam; the
generators' step, then that of the discriminators, with one pass each for real and for fake frames; a pool of 50.
"""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms

from streamgan_training import loop, networks, terms
from streamgan_training import recipe as recipes
from streamgan_training.frames import batches, data
from streamgan_training.method import Batch
from streamgan_training.methods.cyclegan import CycleGan
from streamgan_training.stability.consistency import Consistency


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all rows have in common."""

    size: int = 256
    """Side of the crops, in pixels."""
    batch: int = 1
    generator: recipes.GeneratorName = "resnet9"
    width: int = 64
    norm: recipes.NormName = "instance"
    discriminator_width: int = 64
    precision: str = "auto"
    """Of ours."""
    steps: int = 10
    """Measured steps of one process."""
    warm_up: int = 3
    """Steps before those."""
    threads: int = 1
    a: str = ""
    """Folder of images of domain A."""
    b: str = ""


class FramePool:
    """The last translated frames; half of the time an older one is given for a new one (Shrivastava et al. 2017)."""

    def __init__(self, size: int = 50) -> None:
        self.size = size
        self.frames: list[Tensor] = []

    def exchange(self, images: Tensor) -> Tensor:
        """``(N, 3, H, W)`` → the same shape."""
        given = []
        for image in images.detach():
            if len(self.frames) < self.size:
                self.frames.append(image)
            elif random.random() < 0.5:
                place = random.randrange(self.size)
                image, self.frames[place] = self.frames[place], image
            given.append(image)
        return torch.stack(given)


class Published:
    """The training of Zhu et al. 2017, plainly: λ = 10, identity 0.5 λ, Adam 2e-4 with β = (0.5, 0.999)."""

    def __init__(self, recipe: recipes.Recipe, device: torch.device) -> None:
        judge = recipe.discriminators[0]
        self.g, self.f = (networks.make_generator(recipe.generator).to(device) for _ in "gf")
        self.d_x, self.d_y = (
            networks.PatchDiscriminator(judge.width, judge.layers, networks.make_norm(judge.norm)).to(device)
            for _ in "xy"
        )
        self.judges = nn.ModuleList([self.d_x, self.d_y])
        networks.initialise(self.judges)
        self.generator_adam = torch.optim.Adam([*self.g.parameters(), *self.f.parameters()], 2e-4, (0.5, 0.999))
        self.judge_adam = torch.optim.Adam(self.judges.parameters(), 2e-4, (0.5, 0.999))
        self.pool_x, self.pool_y = FramePool(), FramePool()

    def step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """One iteration on ``(N, 3, H, W)`` of each domain; the losses by the names that ours has."""
        fake_y, fake_x = self.g(x), self.f(y)
        self.judges.requires_grad_(False)
        verdict_y, verdict_x = self.d_y(fake_y), self.d_x(fake_x)
        losses = {
            "adversarial_ab": F.mse_loss(verdict_y, torch.ones_like(verdict_y)),
            "adversarial_ba": F.mse_loss(verdict_x, torch.ones_like(verdict_x)),
            "cycle_a": 10.0 * F.l1_loss(self.f(fake_y), x),
            "cycle_b": 10.0 * F.l1_loss(self.g(fake_x), y),
            "identity": 5.0 * (F.l1_loss(self.g(y), y) + F.l1_loss(self.f(x), x)),
        }
        self.generator_adam.zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        self.generator_adam.step()

        self.judges.requires_grad_(True)
        self.judge_adam.zero_grad()
        losses["discriminator_a"] = self._judge(self.d_x, x, self.pool_x.exchange(fake_x))
        losses["discriminator_b"] = self._judge(self.d_y, y, self.pool_y.exchange(fake_y))
        self.judge_adam.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def _judge(self, judge: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Differentiates ½ (E[(D(y) − 1)²] + E[D(G(x))²])."""
        on_real, on_fake = judge(real), judge(fake)
        loss = 0.5 * (F.mse_loss(on_real, torch.ones_like(on_real)) + F.mse_loss(on_fake, torch.zeros_like(on_fake)))
        torch.autograd.backward(loss)
        return loss


def plain_pictures(setting: Setting) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches as published: every picture is read, resized to 286/256 of the crop, cropped and flipped when needed."""
    enlarged = round(setting.size * 286 / 256)
    prepare = transforms.Compose([
        transforms.Resize([enlarged, enlarged], transforms.InterpolationMode.BICUBIC),
        transforms.RandomCrop(setting.size), transforms.RandomHorizontalFlip(),
        transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3),
    ])  # fmt: skip
    files = [data.list_images(recipes.Footage(folder)) for folder in (setting.a, setting.b)]

    def one(paths: Sequence[Path]) -> Tensor:
        with Image.open(random.choice(paths)) as file:
            picture: Tensor = prepare(file.convert("RGB"))
        return picture

    while True:
        a, b = (torch.stack([one(paths) for _ in range(setting.batch)]) for paths in files)
        yield a, b


class Ours:
    """The parts of `streamgan_training.loop.train`, in its order; records and checkpoints are left out."""

    def __init__(self, recipe: recipes.Recipe, means: frozenset[str], fabric: Any) -> None:
        self.layout = torch.contiguous_format if "contiguous" in means else torch.channels_last
        self.recipe, self.fabric = recipe, fabric
        self.method = CycleGan(recipe).to(fabric.device).to(memory_format=self.layout)
        self.consistency = Consistency(recipe.temporal, recipe.train.iterations)
        self.judges = terms.load_networks(recipe.terms, fabric.device)
        self.players = self.method.players()
        self.learning = {name: [*module.parameters()] for name, module in self.players.items()}
        self.optimizers = {name: self._optimizer(name, means) for name in self.players}
        self.steppers = {name: fabric.setup_optimizers(one) for name, one in self.optimizers.items()}
        self.average = copy.deepcopy(self.method.generators).eval().requires_grad_(False)
        if "compile" in means:
            for network in self.method.generators.children():
                network.compile()

    def _optimizer(self, player: str, means: frozenset[str]) -> torch.optim.Optimizer:
        """The method's own, or another kind of the same Adam."""
        weights = self.learning[player]
        kinds = {kind: True for kind in ("foreach", "fused") if kind in means}
        if not kinds:
            return self.method.optimizer(player, weights)
        published = self.method.published
        return torch.optim.Adam(weights, published.learning_rate, published.betas, **kinds)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One iteration; the losses by name."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.method.learning_rate(name, batch.step)
        batch = batches.moved_to(batch, self.fabric.device)
        if self.layout == torch.contiguous_format:
            batch = dataclasses.replace(batch, images=tuple(images.contiguous() for images in batch.images))
        parts = batches.parts_of(batch, len(batch.slots))
        plays = [loop.play(self.method, self.consistency, self.judges, self.recipe, part) for part in parts]
        losses: dict[str, Tensor] = {}
        while name := loop.play_turn(plays, parts, self.steppers, losses, self.fabric):
            loop.average_gradients(self.learning[name], self.fabric)
            loop.check_losses(losses, batch.step + 1)
            self.steppers[name].step()
            loop.after_step(self.method, self.players[name], name)
        loop.update_average(self.average, self.method.generators, self.recipe.train.ema_decay, batch.step)
        return losses


def make_recipe(setting: Setting, cache_gigabytes: float = 4.0) -> recipes.Recipe:
    """The published training as a recipe of ours."""
    footage: dict[str, tuple[recipes.Footage, ...]] = {
        "a": (recipes.Footage(setting.a),),
        "b": (recipes.Footage(setting.b),),
    }
    size = (setting.size, setting.size)
    judge = recipes.Discriminator(width=setting.discriminator_width)
    return recipes.Recipe(
        "benchmark",
        recipes.Data(footage, size=size, crop_area=(0.8, 0.8), cache_gigabytes=cache_gigabytes),
        CycleGan.Options("cyclegan"),
        recipes.Generator(setting.generator, setting.width, setting.norm),
        (judge,),
        train=recipes.Train(batch=setting.batch),
        method_class=CycleGan,
    )


def make_batches(recipe: recipes.Recipe, workers: int = 0) -> Iterator[Batch]:
    """The batches of our loop."""
    sets = [data.load_domain(one, recipe.data, click.echo, clip_length=0) for one in recipe.data.domains.values()]
    steps = batches.Steps(recipe, batches.drawings(recipe, sets), range(recipe.train.batch))
    return batches.batches_from(steps, 0, workers)
