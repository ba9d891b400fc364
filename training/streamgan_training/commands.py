"""The commands that training adds to the ``streamgan`` program: train, evaluate, interpolate, export, quantise …"""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from streamgan.api import UsageError, hookimpl

METHODS = {
    "cyclegan": "methods.cyclegan:CycleGan",
    "cycleganpp": "methods.cycleganpp:CycleGanPlusPlus",
    "unit": "methods.unit:Unit",
    "stargan": "methods.stargan:StarGan",
    "dualgan": "methods.dualgan:DualGan",
    "discogan": "methods.discogan:DiscoGan",
    "cut": "methods.cut:Cut",
    "fastcut": "methods.cut:FastCut",
    "local_tuning": "methods.local_tuning:LocalTuning",
    "distillation": "methods.distillation:Distillation",
    "imitation": "methods.imitation:Imitation",
}
"""The methods that come with this package: name and class."""
RUN = click.argument("run", type=click.Path(path_type=Path))


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Adds the commands; torch is imported only when one of them runs."""
    from streamgan_training.frames import data_commands
    from streamgan_training.quantising.quantise_command import quantise
    from streamgan_training.reporting import report_commands

    for command in (
        train, evaluate, interpolate, export, quantise,
        report_commands.report, data_commands.frames, data_commands.data,
    ):  # fmt: skip
        register(command)


@hookimpl
def register_methods(register: Callable[[str, str], None]) -> None:
    """Names the methods; each is imported only when a recipe asks for it."""
    for name, where in METHODS.items():
        register(name, f"streamgan_training.{where}")


def _changes(assignments: tuple[str, ...]) -> dict[str, Any]:
    """``key=value`` pairs, the values read as YAML."""
    import yaml

    changes: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator:
            raise UsageError(f"--set {assignment}: expected key=value, such as train.iterations=1000")
        try:
            changes[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--set {assignment}: the value is no YAML; put quotes around it if it is text") from None
    return changes


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Where runs go.")
@click.option("--resume", is_flag=True, help="RECIPE is a run folder: continue it as if it had not stopped.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Replace a value, e.g. train.batch=2.")
@click.option("--dry-run", is_flag=True, help="Print the resolved recipe and what the folders hold; train nothing.")
@click.pass_obj
def train(
    plugin_files: tuple[Path, ...], recipe: Path, runs: Path, resume: bool, assignments: tuple[str, ...], dry_run: bool
) -> None:
    """Train RECIPE (a YAML file) in a new numbered run folder."""
    from streamgan_training import checkpoint, loop
    from streamgan_training import recipe as recipes

    if resume and assignments:
        raise UsageError("--resume continues a run as it is; --set cannot change it")
    path = recipe / "recipe.yaml" if resume else recipe
    settings = recipes.load(path, _changes(assignments), plugin_files)
    if dry_run:
        _describe(settings)
        return
    fabric = loop.make_fabric(settings.train.precision)
    made = _run_folder(recipe, resume, runs, settings.name) if fabric.is_global_zero else recipe
    folder: Path = fabric.broadcast(made)
    if not fabric.is_global_zero:
        loop.train(settings, folder, fabric, resume=resume)
        return
    click.echo(f"run folder: {folder}   (pictures: {folder}/samples, curves: tensorboard --logdir {runs})")
    try:
        last = _train_with_progress(settings, folder, fabric, resume)
    except KeyboardInterrupt:
        if checkpoint.list_checkpoints(folder / "checkpoints"):
            click.echo(f"stopped; continue with: streamgan train {folder} --resume", err=True)
        raise
    finally:
        if not resume and not (folder / "stats.jsonl").exists() and not (folder / "checkpoints").exists():
            shutil.rmtree(folder, ignore_errors=True)  # it ended before there was anything to keep
    click.echo(
        f"done: {last}\nnext: streamgan evaluate {folder}; streamgan report {folder}; "
        f"streamgan export {folder} -o {settings.name}.onnx"
    )


def _run_folder(recipe: Path, resume: bool, root: Path, name: str) -> Path:
    """The run folder to continue, or the next numbered one, such as ``runs/003-day2night``.

    Raises:
        UsageError: if it cannot be made.
    """
    if resume:
        return recipe
    try:
        root.mkdir(parents=True, exist_ok=True)
        taken = [int(match[0]) for path in root.iterdir() if (match := re.match(r"\d+", path.name))]
        for number in itertools.count(max(taken, default=0) + 1):
            folder = root / f"{number:03d}-{name}"
            with contextlib.suppress(FileExistsError):  # another training has begun at the same moment
                folder.mkdir()
                break
    except OSError as error:
        raise UsageError(f"{root}: cannot make a run folder ({error.strerror}); choose another with --runs") from None
    return folder


def _describe(settings: Any) -> None:
    """Prints a recipe and the sizes of its folders."""
    from streamgan_training.frames import data

    click.echo(settings.to_yaml(), nl=False)
    for name, footages in settings.data.domains.items():
        for footage in footages:
            if data.is_film(footage):
                click.echo(f"# {name}: films in {footage.path}")
                continue
            kept, out = len(data.list_images(footage)), len(data.list_images(footage, held_out=True))
            click.echo(f"# {name}: {kept} images to train on, {out} held out in {footage.path}")


def _train_with_progress(settings: Any, folder: Path, fabric: Any, resume: bool) -> Path:
    """Trains with a bar that shows losses and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from streamgan_training import loop

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns) as progress:
        task = progress.add_task("reading images", total=settings.train.iterations)

        def on_step(step: int, values: dict[str, float]) -> None:
            text = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
            progress.update(task, completed=step, description=text)
            if not progress.console.is_terminal and step % settings.train.log_every == 0:
                progress.console.print(f"step {step}/{settings.train.iterations}  {text}", highlight=False)

        def warn(text: str) -> None:
            progress.console.print(f"warning: {text}", highlight=False, markup=False, soft_wrap=True)

        return loop.train(settings, folder, fabric, resume=resume, warn=warn, on_step=on_step)


@click.command()
@RUN
@click.argument("other", type=click.Path(path_type=Path))
@click.argument("weight", type=click.FloatRange(0, 1))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The run folder to make.")
def interpolate(run: Path, other: Path, weight: float, output: Path) -> None:
    """Mix the generators of RUN and OTHER, two stages of one training; WEIGHT is the share of OTHER."""
    from streamgan_training import checkpoint

    if output.exists():
        raise UsageError(f"{output}: exists already; give another name with -o")
    click.echo(f"{checkpoint.interpolate(run, other, weight, output)}: made; next: streamgan export {output} -o FILE")


@click.command()
@RUN
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The model file, NAME.onnx.")
@click.option("--direction", help="Which translation, such as ba; the method's first by default.")
@click.pass_obj
def export(plugin_files: tuple[Path, ...], run: Path, output: Path, direction: str | None) -> None:
    """Write the model file of RUN (a run folder or one checkpoint of it)."""
    from streamgan_training import export as exporting

    card, parity = exporting.export(run, output, direction, plugin_files)
    click.echo(
        f"{output}: {card.direction}, {card.parameters / 1e6:.2f} M parameters, {output.stat().st_size / 1e6:.1f} MB\n"
        f"ONNX Runtime differs from torch by at most {parity.max_difference}/255, in {parity.differing:.1e} of values"
    )


@click.command()
@RUN
@click.option("--clip", "clips", type=click.Path(path_type=Path), multiple=True, help="A film to measure flicker on.")
@click.option(
    "--pair", "pairs", type=(click.Path(path_type=Path), click.Path(path_type=Path)), multiple=True,
    metavar="SOURCE OUTPUT", help="A film and its translation, as 'streamgan run' made it.",
)  # fmt: skip
@click.option("--labels", type=click.Path(path_type=Path), help="Several domains: a CSV file that knows true pictures.")
@click.option(
    "--figure", "figures", multiple=True, metavar="COLUMN",
    help="A column of LABELS that says who is shown: pictures that agree in all of them are each other's truth.",
)  # fmt: skip
@click.pass_obj
def evaluate(
    plugin_files: tuple[Path, ...],
    run: Path,
    clips: tuple[Path, ...],
    pairs: tuple[tuple[Path, Path], ...],
    labels: Path | None,
    figures: tuple[str, ...],
) -> None:
    """Measure RUN on its held-out frames, and flicker on clips."""
    from streamgan_training.measuring import attributes
    from streamgan_training.measuring import evaluate as evaluating

    if (labels is None) != (not figures):
        raise UsageError("--labels and --figure go together: the file, and the columns that say who is shown")
    measured = evaluating.evaluate(run, clips, pairs, plugin_files)
    if labels is not None:
        truth = attributes.evaluate_attributes(run, labels, figures)
        evaluating.add_measures(run, truth)
        measured |= truth
    for name, value in measured.items():
        click.echo(f"{name:60s} {value:.5g}")
