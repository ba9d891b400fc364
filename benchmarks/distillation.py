"""Quality against cost: the student of a distillation beside its teacher, on the same held-out frames.

Cost is counted (multiply-accumulates at 256x256) and timed (ONNX Runtime, one thread of this CPU); quality is the
sliced Wasserstein distance of held-out frames to the target look, and how the two differ from one another.

    python benchmarks/distillation.py RUN
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from streamgan_training import checkpoint
from streamgan_training.measuring import metrics, quality
from streamgan_training.measuring.evaluate import Evaluation
from streamgan_training.methods.distillation import Distillation, write_comparison
from streamgan_training.trained import FrameModel, load_trained, translate


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--size", type=(int, int), default=(256, 256), show_default=True, metavar="WIDTH HEIGHT")
def main(run: Path, size: tuple[int, int]) -> None:
    """Prints the table of RUN in Markdown, and writes it to compare.json in the run folder."""
    trained = load_trained(run)
    method = trained.method
    if not isinstance(method, Distillation):
        raise click.UsageError(f"{run}: the method is {trained.recipe.method.name}, expected distillation")
    checkpoint.load_module(method.teacher.generators, "teacher", checkpoint.newest(run))
    source, target = Evaluation(trained.recipe).frames.values()
    models = {"student": trained.model(), "teacher": FrameModel(method.teacher.eval().generators.ab)}
    made = {name: translate(model, source) for name, model in models.items()}
    found: dict[str, dict[str, float]] = write_comparison(method, size, run / "compare.json")
    for name, frames in made.items():
        found[name]["swd"] = metrics.sliced_wasserstein(frames, target)
    found["input"] = {"swd": metrics.sliced_wasserstein(source, target)}
    found["student"]["psnr_to_teacher"] = quality.psnr(made["student"], made["teacher"])
    found["student"]["ssim_to_teacher"] = quality.ssim(made["student"], made["teacher"])
    (run / "compare.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    columns = ("parameters", "macs", "milliseconds", "swd", "psnr_to_teacher", "ssim_to_teacher")
    click.echo(f"| | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|")
    for name, row in found.items():
        click.echo(f"| {name} | {' | '.join(f'{row[key]:.4g}' if key in row else '' for key in columns)} |")


if __name__ == "__main__":
    main()
