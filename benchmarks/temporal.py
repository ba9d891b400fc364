"""How much steadier a translation gets with each kind of ``temporal:``, and what it costs in likeness to the target.

The same method, data and number of steps, from the same networks, with and without. For each run: the warping error of
Lai et al. 2018 on a film that was not trained on, divided by the source's own and by the squared contrast ratio (a
flatter film flickers less for free), and the sliced Wasserstein distance of held-out frames to the target look.

    python benchmarks/temporal.py training/recipes/temporal-day-ukiyoe.yaml FILM --start-from RUN
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

from streamgan_training import loop
from streamgan_training import recipe as recipes
from streamgan_training.measuring import evaluate

KINDS = ("none", "synthetic", "flow", "recycle", "temporal_d")
SWD, OUTPUT, SOURCE = "swd_output/ab", "warping_error_output", "warping_error_source"
FAIR = evaluate.FAIR_RATIO.rstrip("/")


def measure(recipe: Path, film: Path, runs: Path, changes: dict[str, object]) -> dict[str, float]:
    """Trains once, or takes what an earlier call has trained, and measures."""
    settings = recipes.load(recipe, changes)
    folder = runs / f"{settings.name}-{changes['temporal.kind']}-{changes['train.seed']}"
    if not (folder / "metrics.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        loop.train(settings, folder, loop.make_fabric(settings.train.precision), warn=click.echo)
        evaluate.evaluate(folder, [film])
    measured: dict[str, float] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return measured


def row(kind: str, found: list[dict[str, float]], base: list[dict[str, float]], film: str) -> str:
    """One line of the table: means over the seeds, and changes seed by seed."""
    cells = [f"{np.mean([one[f'{name}/{film}'] for one in found]):.3g}" for name in (OUTPUT, SOURCE, FAIR)]
    distance = [one[SWD] for one in found]
    steadier = [1 - one[f"{FAIR}/{film}"] / other[f"{FAIR}/{film}"] for one, other in zip(found, base, strict=False)]
    plain = [1 - one[f"{OUTPUT}/{film}"] / other[f"{OUTPUT}/{film}"] for one, other in zip(found, base, strict=False)]
    farther = [one[SWD] / other[SWD] - 1 for one, other in zip(found, base, strict=False)]
    changes = [f"{100 * np.mean(one):+.0f}% ± {100 * np.std(one):.0f}" for one in (plain, steadier, farther)]
    return f"| {kind} | {len(found)} | {' | '.join(cells)} | {np.mean(distance):.1f} | {' | '.join(changes)} |"


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("film", type=click.Path(path_type=Path))
@click.option(
    "--start-from", type=click.Path(path_type=Path), help="Run folder to begin with, instead of the recipe's."
)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--kinds", default=",".join(KINDS), show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True)
def main(recipe: Path, film: Path, start_from: Path | None, runs: Path, kinds: str, seeds: str) -> None:
    """Prints the table in Markdown; the first of KINDS is what the others are compared with."""
    found: dict[str, list[dict[str, float]]] = {}
    for seed in seeds.split(","):
        for kind in kinds.split(","):
            changes: dict[str, object] = {"temporal.kind": kind, "train.seed": int(seed)}
            if start_from is not None:
                changes["train.start_from"] = str(start_from.resolve())
            found.setdefault(kind, []).append(measure(recipe, film, runs, changes))
    click.echo(
        "| kind | seeds | warping error | its floor | ratio ÷ contrast² | SWD | less error | less ratio | SWD more |"
    )
    click.echo("|---|---|---|---|---|---|---|---|---|")
    for kind, measured in found.items():
        click.echo(row(kind, measured, found[kinds.split(",")[0]], film.stem))


if __name__ == "__main__":
    main()
