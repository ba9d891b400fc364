"""The training loop, readable from top to bottom: data, networks, steps, samples, checkpoints."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.seed import seed_everything
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid, save_image

from streamgan.api import StreamganError, UsageError
from streamgan_training import checkpoint, cyclegan, data
from streamgan_training.recipe import Recipe, Train

SAMPLE_ROWS = 6


def new_run_folder(root: Path, name: str) -> Path:
    """Makes the next numbered run folder, such as ``runs/003-day2night``.

    Raises:
        UsageError: if it cannot be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        taken = [int(match[0]) for path in root.iterdir() if (match := re.match(r"\d+", path.name))]
        folder = root / f"{max(taken, default=0) + 1:03d}-{name}"
        folder.mkdir()
    except OSError as error:
        raise UsageError(f"{root}: cannot make a run folder ({error.strerror}); choose another with --runs") from None
    return folder


def choose_precision(precision: str) -> str:
    """Resolves ``auto``: bf16 where the device computes in it, else fp32."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return "bf16-mixed" if "avx512_bf16" in flags or "amx_bf16" in flags else "32-true"


def learning_rate(train: Train, step: int) -> float:
    """Constant, then linear to 0 (Zhu et al. 2017, section 4): a function of the step alone."""
    start = train.decay_start * train.iterations
    return train.learning_rate * min(1.0, (train.iterations - step) / max(1.0, train.iterations - start))


def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """One step of the exponential moving average, over weights and buffers alike; the decay ramps up at the start."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(new.to(kept), 1 - decay)
            else:
                kept.copy_(new)


def sample_grid(generator: nn.Module, frames: Tensor) -> Tensor:
    """Sources above their translations: ``(3, H, W)`` in [0, 1]."""
    with torch.no_grad():
        translated = torch.cat([generator(frame[None]) for frame in frames])
    grid: Tensor = make_grid((torch.cat((frames, translated)) + 1) / 2, nrow=len(frames), padding=2)
    return grid.clamp(0, 1)


def fixed_samples(sets: list[data.FrameSet], recipe: Recipe) -> Tensor:
    """The frames of the sample grid, the same throughout a run: ``(SAMPLE_ROWS, 3, H, W)``."""
    transform = data.crop_transform(recipe.data, recipe.data.size)
    return data.draw(sets, transform, SAMPLE_ROWS, (recipe.train.seed, "samples"))


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    warn: Callable[[str], None],
    on_step: Callable[[int, dict[str, float]], None],
) -> Path:
    """Trains a recipe in a run folder.

    Args:
        recipe: what to train; saved as ``recipe.yaml`` in the folder.
        folder: an existing run folder.
        resume: continue from the folder's newest checkpoint, as if the run had not stopped.
        warn: is told of images that are skipped and the like.
        on_step: is called after each step with the number of steps done and the losses so far.

    Returns:
        The last checkpoint.

    Raises:
        UsageError: if the data or the checkpoint do not fit.
        OSError: if a checkpoint cannot be written.
    """
    settings = recipe.train
    fabric = Fabric(accelerator="auto", devices=1, precision=choose_precision(settings.precision))  # type: ignore[arg-type]
    seed_everything(settings.seed, verbose=False)
    sets_a, sets_b = (data.load_domain(domain, recipe.data, warn) for domain in (recipe.data.a, recipe.data.b))
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    batches = data.Batches(recipe.data, settings.batch, settings.seed, settings.iterations, sets_a, sets_b)

    generators = cyclegan.Generators(recipe).to(memory_format=torch.channels_last)
    discriminators = cyclegan.Discriminators(recipe).to(memory_format=torch.channels_last)
    average = copy.deepcopy(generators.ab).eval().requires_grad_(False).to(fabric.device)
    adam_g = torch.optim.Adam(generators.parameters(), settings.learning_rate, settings.betas)
    adam_d = torch.optim.Adam(discriminators.parameters(), settings.learning_rate, settings.betas)
    randomness = torch.Generator().manual_seed(settings.seed)
    pool_a, pool_b = (cyclegan.ReplayPool(recipe.method.pool, randomness) for _ in range(2))
    state = checkpoint.State(
        modules={"generators": generators, "discriminators": discriminators, "ema": average},
        optimizers={"generators": adam_g, "discriminators": adam_d},
        generators={"pools": randomness},
        pools={"a": pool_a.frames, "b": pool_b.frames},
    )
    generator_pass, step_g = fabric.setup(generators, adam_g)
    judge_a, judge_b = discriminators.a.to(fabric.device), discriminators.b.to(fabric.device)
    step_d = fabric.setup_optimizers(adam_d)
    assert not isinstance(step_d, tuple)  # one in, one out
    saved = checkpoint.list_checkpoints(folder / "checkpoints")
    if resume and not saved:
        raise UsageError(f"{folder}: has no checkpoint to resume from")
    if resume:
        checkpoint.load(state, saved[-1], recipe.digest)
    elif settings.start_from is not None:
        checkpoint.load_modules(state, Path(settings.start_from))

    samples = fixed_samples(sets_a, recipe).to(fabric.device)
    board = SummaryWriter(str(folder), purge_step=state.step or None)
    history = (folder / "losses.jsonl").open("a", encoding="utf-8")
    if state.step == 0:
        write_samples(average, samples, folder, 0, board)

    for step, (a, b) in enumerate(batches.from_step(state.step), state.step):
        a, b = (fabric.to_device(x.contiguous(memory_format=torch.channels_last)) for x in (a, b))
        for group in (*adam_g.param_groups, *adam_d.param_groups):
            group["lr"] = learning_rate(settings, step)

        # Generators: the discriminators judge, but do not learn.
        discriminators.requires_grad_(False)
        warming = step < recipe.method.warm_up_iterations
        with fabric.autocast():
            if warming:
                terms = cyclegan.warm_up_loss(generators, a, b)
            else:
                out = generator_pass(a, b)
                terms = cyclegan.generator_loss(generators, discriminators, a, b, out, recipe)
                if recipe.temporal.kind == "synthetic" and temporal_is_due(recipe, step):
                    terms["temporal"] = cyclegan.temporal_loss(generators, a, out.fake_b, recipe, randomness)
        step_g.zero_grad()
        fabric.backward(torch.stack(list(terms.values())).sum())
        step_g.step()
        update_average(average, generators.ab, settings.ema_decay, step)

        # Discriminators: real frames against translated ones, half of them from the pools.
        discriminators.requires_grad_(True)
        if not warming:
            fake_a, fake_b = pool_a.exchange(out.fake_a), pool_b.exchange(out.fake_b)
            with fabric.autocast():
                terms["discriminator_a"] = cyclegan.discriminator_loss(judge_a, a, fake_a)
                terms["discriminator_b"] = cyclegan.discriminator_loss(judge_b, b, fake_b)
            step_d.zero_grad()
            fabric.backward(terms["discriminator_a"] + terms["discriminator_b"])
            step_d.step()

        state.step = step + 1
        values = {name: float(value.detach()) for name, value in terms.items()}
        check_finite(values, state.step)
        on_step(state.step, values)
        if state.step % settings.log_every == 0:
            history.write(json.dumps({"step": state.step} | values) + "\n")
            history.flush()
            for name, value in values.items():
                board.add_scalar(f"loss/{name}", value, state.step)
        last = state.step == settings.iterations
        if last or state.step % settings.sample_every == 0:
            write_samples(average, samples, folder, state.step, board)
        if last or state.step % settings.checkpoint_every == 0:
            checkpoint.save(state, folder / "checkpoints", recipe.digest, settings.keep_checkpoints)
    history.close()
    board.close()
    return checkpoint.list_checkpoints(folder / "checkpoints")[-1]


def temporal_is_due(recipe: Recipe, step: int) -> bool:
    """Whether the consistency in time counts at this step."""
    begun = step >= recipe.temporal.start * recipe.train.iterations
    return begun and step % recipe.temporal.every == 0


def check_finite(values: dict[str, float], step: int) -> None:
    """Stops a training that has diverged, before it overwrites a good checkpoint.

    Raises:
        StreamganError: naming the loss and the step.
    """
    for name, value in values.items():
        if not abs(value) < float("inf"):
            raise StreamganError(
                f"step {step}: the loss '{name}' is {value}; lower train.learning_rate, or use 32-true"
            )


def write_samples(generator: nn.Module, frames: Tensor, folder: Path, step: int, board: SummaryWriter) -> None:
    """Saves the sample grid as a picture and to TensorBoard."""
    grid = sample_grid(generator, frames)
    (folder / "samples").mkdir(exist_ok=True)
    save_image(grid, folder / "samples" / f"{step:08d}.png")
    board.add_image("samples", grid, step)
