"""One self-contained page about a run: pictures over time, measures beside the input's own, curves, cost, recipe.

Nothing on the page comes from a network and nothing on it runs; it opens from a disk, in a mail, on a phone.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from html import escape
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from streamgan.api import SinkError, UsageError
from streamgan_training.reporting import charts, history, measures, page, pictures
from streamgan_training.reporting.history import Evaluation, History, Series

COLUMNS = 6
"""Evaluations that the table shows, at most."""
GIBIBYTE = 2**30


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder, read."""

    folder: Path
    history: History
    recipe: dict[str, Any]
    recipe_text: str
    samples: tuple[pictures.Picture, ...]
    strips: tuple[pictures.Picture, ...]
    notes: tuple[str, ...]

    @property
    def step(self) -> int:
        """The newest step that anything tells of."""
        pictured = [one.step for one in self.samples if one.step is not None]
        return max([self.history.last_step, *pictured])

    @property
    def best(self) -> Evaluation | None:
        """The evaluation that was the best one, the last of those that were at their time."""
        return next((one for one in reversed(self.history.evaluations) if one.best), None)


def make(run: Path, output: Path | None = None) -> Path:
    """Writes the page about a run.

    Args:
        run: a run folder, finished or not.
        output: the file to write, ``report.html`` in the run folder by default.

    Returns:
        The file.

    Raises:
        UsageError: if it is no run folder.
        SinkError: if the page cannot be written.
    """
    if not run.is_dir():
        raise UsageError(
            f"{run}: no such run folder; give the folder that 'streamgan train' made, such as runs/001-name"
        )
    known = ("recipe.yaml", "stats.jsonl", "losses.jsonl", "evaluations.jsonl", "metrics.json", "samples")
    if not any((run / name).exists() for name in known):
        raise UsageError(f"{run}: is no run folder; expected one of {', '.join(known)} in it")
    path = run / "report.html" if output is None else output
    text = as_html(read(run))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise SinkError(f"{path}: cannot write the report ({error.strerror}); choose another file with -o") from None
    return path


def read(run: Path) -> Run:
    """Reads a run folder; what is missing or broken is left out and noted."""
    recorded = history.read(run)
    notes = list(recorded.notes)
    file = run / "recipe.yaml"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError:
        notes.append("recipe.yaml: does not read as YAML")
        recipe = None
    samples = pictures.read(pictures.spread(pictures.find(run / "samples"), pictures.MOST_SAMPLES), notes)
    strips = pictures.read(pictures.ends(pictures.find(run / "strips")), notes)
    recipe = recipe if isinstance(recipe, dict) else {}
    return Run(run, recorded, recipe, text, samples, strips, tuple(notes))


def as_html(run: Run) -> str:
    """The whole page as HTML."""
    title = str(run.recipe.get("name") or run.folder.resolve().name)
    style = resources.files("streamgan_training.reporting").joinpath("report.css").read_text(encoding="utf-8")
    parts = (_strips, _samples, _measures, _losses, _other_curves, _cost, _recipe, _versions)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)} · streamgan report</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"{_header(run, title)}\n{''.join(part(run) for part in parts)}</main>\n</body>\n</html>\n"
    )


def _header(run: Run, title: str) -> str:
    """The name, what it is, and the figures that people ask for first."""
    method = _at(run.recipe, "method", "name")
    iterations = _at(run.recipe, "train", "iterations")
    step = f"{run.step} of {iterations} steps" if isinstance(iterations, int) else f"{run.step} steps"
    direction = _at(run.recipe, "card", "direction")
    line = " · ".join(escape(str(part)) for part in (method, direction, run.folder.resolve().name) if part)
    facts = [
        ("Trained", step),
        ("Best checkpoint", f"step {run.best.step}" if run.best else "not evaluated"),
        *_cost_facts(run),
    ]
    tiles = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f'<header>\n<h1>{escape(title)}</h1>\n<p class="sub">{line}</p>\n<dl class="tiles">{tiles}</dl>\n</header>'


def _cost_facts(run: Run) -> list[tuple[str, str]]:
    """Time and memory in three figures."""
    seconds, memory = run.history.seconds, run.history.memory
    pace = per_thousand(seconds) if seconds else None
    spent = duration(float(seconds.values[-1])) if seconds and _holds(seconds) else "not recorded"
    typical = duration(float(np.median(pace.values))) if pace and _holds(pace) else "not recorded"
    peak = f"{memory.values.max() / GIBIBYTE:.2f} GiB" if memory and _holds(memory) else "not recorded"
    return [("Training time", spent), ("Per 1000 steps", typical), ("Peak memory", peak)]


def _strips(run: Run) -> str:
    """Before and after, on clips."""
    words = "frames of a clip in order; the input and its translation"
    return page.section("Clips, before and after", page.figures(run.strips, words)) if run.strips else ""


def _samples(run: Run) -> str:
    """The same frames as the training went on."""
    intro = '<p class="sub">The same frames throughout, the sources with their translations.</p>'
    words = "grid of fixed frames, the sources and their translations"
    body = intro + page.figures(run.samples, words) if run.samples else page.missing("no sample pictures yet")
    return page.section("Samples over time", body)


def _measures(run: Run) -> str:
    """The table, and the measures over time."""
    rows = _rows(run.history)
    if not rows:
        return page.section("Measures", page.missing("none yet; run streamgan evaluate, or evaluate while training"))
    return page.section("Measures", _table(run, rows) + _meanings(rows) + _unavailable(run) + _measure_charts(run))


def _rows(recorded: History) -> list[str]:
    """The measures that have a row of their own, in the order of the glossary, unknown ones last."""
    sources = [one.metrics for one in recorded.evaluations] + [recorded.final]
    names = {name: None for source in sources for name in source if name != "step"}
    order = list(measures.MEASURES)
    known = [name for name in names if name not in measures.floors(set(names))]
    return sorted(
        known, key=lambda name: order.index(base) if (base := measures.split(name)[0]) in order else len(order)
    )


def _table(run: Run, rows: Sequence[str]) -> str:
    """Measures down, steps across, the input's own beside them."""
    chosen = _columns(run.history.evaluations, run.best)
    heads = "".join(
        f'<th scope="col">step {one.step}{" <span class=best>best</span>" if one is run.best else ""}</th>'
        for one in chosen
    )
    final = run.history.final
    last = f'<th scope="col">evaluate, step {final.get("step", float("nan")):.0f}</th>' if final else ""
    columns = [one.metrics for one in chosen] + ([final] if final else [])
    body = "".join(_row(name, columns) for name in rows)
    legend = (
        '<p class="sub">↓ lower is better, ↑ higher is better. Input: the same measure of the untranslated input.</p>'
    )
    return (
        f'{legend}<div class="scroll" tabindex="0" role="region" aria-label="Table of measures"><table>'
        f'<thead><tr><th scope="col">measure</th><th scope="col">input</th>{heads}{last}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def _columns(evaluations: Sequence[Evaluation], best: Evaluation | None) -> list[Evaluation]:
    """At most `COLUMNS` evaluations: the first, the best, the last, and some between."""
    chosen = pictures.spread(evaluations, COLUMNS)
    if best is not None and best not in chosen:
        chosen[len(chosen) // 2] = best
    return sorted(chosen, key=lambda one: one.step)


def _row(name: str, columns: Sequence[dict[str, float]]) -> str:
    """One measure of the table."""
    measure = measures.look_up(name)
    clip = measures.split(name)[1]
    arrow = {"lower": " ↓", "higher": " ↑", "neither": ""}[measure.better]
    floor = measures.floor_name(name)
    floors = [column[floor] for column in columns if floor in column] if floor else []
    unit = f'<span class="unit">{escape(", ".join(part for part in (clip, measure.unit) if part))}</span>'
    cells = [floors[-1] if floors else None, *(column.get(name) for column in columns)]
    shown = "".join(f"<td>{'' if value is None else charts.number(value, 4)}</td>" for value in cells)
    return (
        f'<tr><th scope="row" title="{escape(measure.meaning)}">{escape(measure.title)}{arrow}{unit}</th>{shown}</tr>\n'
    )


def _unavailable(run: Run) -> str:
    """The measures that could not be made, with their reasons, each reason once."""
    reasons = dict(_reasons(run.history.protocol))
    if not reasons:
        return ""
    items = "".join(f"<li><b>{escape(name)}</b>: {escape(why)}</li>" for name, why in reasons.items())
    return f"<h3>Not measured</h3>\n<ul>{items}</ul>\n"


def _reasons(protocol: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(measure, reason) of every ``unavailable`` in a protocol, of whichever translation."""
    for key, value in protocol.items():
        if key == "unavailable" and isinstance(value, dict):
            yield from ((str(name), str(why)) for name, why in value.items())
        elif isinstance(value, dict):
            yield from _reasons(value)


def _meanings(rows: Sequence[str]) -> str:
    """What each measure means, once."""
    known = {one.title: one.meaning for one in map(measures.look_up, rows) if one.meaning}
    items = "".join(f"<dt>{escape(title)}</dt><dd>{escape(meaning)}</dd>" for title, meaning in known.items())
    return f"<details><summary>What they mean</summary><dl>{items}</dl></details>\n" if known else ""


def _measure_charts(run: Run) -> str:
    """One chart a measure, a line for each clip, the input's own dashed."""
    over_time = history.collect((one.step, one.metrics) for one in run.history.evaluations)
    if len(run.history.evaluations) < 2:
        return ""
    groups: dict[str, list[str]] = {}
    for name in _rows(run.history):
        if name in over_time and len(over_time[name].values):
            groups.setdefault(measures.split(name)[0], []).append(name)
    drawn = []
    for base, names in groups.items():
        lines = []
        for color, name in enumerate(names):
            label = measures.split(name)[1] or "output"
            lines.append(charts.Line(label, over_time[name], color))
            floor = over_time.get(measures.floor_name(name) or "")
            if floor is not None and len(floor.values):
                lines.append(
                    charts.Line(f"{label}, input" if label != "output" else "input", floor, color, dashed=True)
                )
        measure = measures.look_up(base)
        marked = run.best.step if run.best else None
        drawn.append(charts.Chart(measure.title, measure.unit or "value", tuple(lines), run.step, marked))
    marker = "; the dotted line marks the best checkpoint" if run.best else ""
    return f'<h3>Over time</h3>\n<p class="sub">Dashed: the input{marker}.</p>\n{page.grid(drawn)}'


def _losses(run: Run) -> str:
    """Every term of the objective, grouped by whose it is."""
    groups: tuple[tuple[str, Callable[[str], bool]], ...] = (
        (
            "Losses of the discriminators",
            lambda name: name.startswith(
                ("discriminator", "clip_discriminator", "critic", "gradient_penalty", "penalty")
            ),
        ),
        (
            "Losses for stability in time",
            lambda name: name.startswith(("temporal", "synthetic", "flow", "recycle", "recurrent")),
        ),
        ("Losses of the generators", lambda name: True),
    )
    left = {name: series for name, series in run.history.losses.items() if _holds(series)}
    bodies = []
    for title, belongs in groups:
        names = [name for name in left if belongs(name)]
        drawn = [_curve(name, left.pop(name), "loss, weighted", run.step) for name in names]
        if drawn:
            bodies.append(f"<h3>{title}</h3>\n{page.grid(drawn)}")
    return page.section("Losses", "".join(reversed(bodies)) or page.missing("none recorded yet"))


def _other_curves(run: Run) -> str:
    """What else the method and the loop recorded."""
    parts = (("Learning rate", run.history.learning_rate, "rate"), ("Observed", run.history.observed, "value"))
    bodies = []
    for title, found, unit in parts:
        smooth = title == "Observed"
        drawn = [_curve(name, one, unit, run.step, smooth) for name, one in found.items() if _holds(one)]
        if drawn:
            bodies.append(f"<h3>{title}</h3>\n{page.grid(drawn)}")
    return page.section("Learning rate and more", "".join(bodies)) if bodies else ""


def _cost(run: Run) -> str:
    """Time and memory over the training."""
    drawn = []
    pace = per_thousand(run.history.seconds) if run.history.seconds else None
    if pace and _holds(pace):
        drawn.append(_curve("Time per 1000 steps", pace, "seconds", run.step))
    memory = run.history.memory
    if memory and _holds(memory):
        scaled = dataclasses.replace(memory, values=memory.values / GIBIBYTE)
        drawn.append(_curve("Peak memory", scaled, "GiB", run.step, smooth=False))
    return page.section("Time and memory", page.grid(drawn) if drawn else page.missing("not recorded by this run"))


def _recipe(run: Run) -> str:
    """The resolved recipe, as the run keeps it."""
    if not run.recipe_text:
        return page.section("Recipe", page.missing("recipe.yaml is not in the run folder"))
    shown = f'<pre tabindex="0">{escape(run.recipe_text)}</pre>'
    return page.section("Recipe", f"<details><summary>recipe.yaml, every value resolved</summary>{shown}</details>")


def _versions(run: Run) -> str:
    """How the numbers came about, with what, and what could not be read."""
    body = ""
    if run.history.protocol:
        text = escape(yaml.safe_dump(run.history.protocol, sort_keys=False, allow_unicode=True))
        body += f'<details><summary>Protocol of the measures</summary><pre tabindex="0">{text}</pre></details>'
    if run.notes:
        body += f"<h3>Left out</h3><ul>{''.join(f'<li>{escape(note)}</li>' for note in run.notes)}</ul>"
    made = f"streamgan-training {_version('streamgan-training')}, Python {platform.python_version()}"
    installed = ", ".join(f"{name} {_version(name)}" for name in ("torch", "torchvision", "torchmetrics", "lightning"))
    return page.section(
        "Protocol and versions", f"{body}<p>This page: {made}. On the machine that made it: {installed}.</p>"
    )


def per_thousand(seconds: Series) -> Series:
    """Seconds per 1000 steps between neighbouring records, from the time since the start, where step 0 was."""
    steps, spent = np.diff(seconds.steps, prepend=0), np.diff(seconds.values, prepend=0)
    kept = (steps > 0) & (spent >= 0)
    return Series(seconds.steps[kept], spent[kept] / steps[kept] * 1000)


def duration(seconds: float) -> str:
    """A time as a person says it: 41 s, 3 min 20 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    if seconds < 600:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _curve(name: str, series: Series, unit: str, last_step: int, smooth: bool = True) -> charts.Chart:
    """A chart of one quantity."""
    return charts.Chart(name, unit, (charts.Line(name, series, smooth=smooth),), last_step)


def _holds(series: Series | None) -> bool:
    """Whether there is a value to draw."""
    return series is not None and len(series.values) > 0


def _at(values: Any, *keys: str) -> Any:
    """A value deep inside a recipe, None if the way there is missing."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _version(name: str) -> str:
    """A distribution's version."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
