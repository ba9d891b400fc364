"""Small line charts as SVG text, for the report: no library, no script, readable by a screen reader.

They do not flatter. A linear axis always holds zero; where what is drawn spans more than two decades the axis is
logarithmic and says so; every record lies inside the frame, also where thousands of them share a pixel.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from html import escape

import numpy as np

from streamgan_training.reporting.history import Floats, Series

WIDTH, HEIGHT = 340, 194
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 22, 34
MOST_POINTS = 300
"""More records than this are drawn as the least and the most of each stretch."""
LEAST_TO_SMOOTH = 10
"""Fewer records than this are drawn as they are."""
MOST_MARKS = 60
"""A line of no more points than this has a mark on each, with its value."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One quantity in a chart."""

    name: str
    series: Series
    color: int = 0
    """Its number in the style sheet's list of colours."""
    dashed: bool = False
    """For a reference that the other lines are to be compared with."""
    smooth: bool = False
    """Draw a running mean, and the records faintly behind it."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """Lines over the steps of a training."""

    title: str
    unit: str
    """What the vertical axis counts, with its unit."""
    lines: tuple[Line, ...]
    last_step: int
    """Where the horizontal axis ends; it starts at 0."""
    marked_step: int | None = None
    """A step to mark, the best one for example."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """From values to units of the drawing."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def place(self, values: Floats, start: float, end: float) -> Floats:
        """Where values lie between the drawing's `start` (for `low`) and `end` (for `high`)."""
        bend = np.log10 if self.logarithmic else np.positive
        low, high = bend(self.low), bend(self.high)
        return np.asarray(start + (bend(values) - low) / (high - low) * (end - start), np.float64)


def running_mean(values: Floats, half: int) -> Floats:
    """The mean over each value and `half` neighbours on either side, fewer at the ends: no lag."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return np.asarray((total[last] - total[first]) / (last - first), np.float64)


def half_window(records: int) -> int:
    """How many neighbours the running mean takes on either side: a twentieth of all records, together."""
    return max(1, records // 40) if records >= LEAST_TO_SMOOTH else 0


def thin(series: Series, most: int = MOST_POINTS) -> Series:
    """At most `most` points, the least and the most of each stretch: a spike stays visible."""
    if len(series.steps) <= most:
        return series
    stretches = np.array_split(np.arange(len(series.steps)), most // 2)
    ends = [{part[series.values[part].argmin()], part[series.values[part].argmax()]} for part in stretches]
    kept = np.array(sorted(set().union(*ends)))
    return Series(series.steps[kept], series.values[kept], series.left_out)


def vertical_axis(lines: Sequence[Line]) -> Axis:
    """Logarithmic if all is positive and what the bold lines show spans over two decades; else linear, with zero."""
    everything = np.concatenate([line.series.values for line in lines])
    bold = np.concatenate([_mean(line).values for line in lines])
    if everything.min() > 0 and bold.max() > 100 * bold.min():
        low, high = math.floor(math.log10(everything.min())), math.ceil(math.log10(everything.max()))
        stride = 1 + (high - low - 1) // 5
        return Axis(10.0**low, 10.0**high, tuple(10.0**power for power in range(low, high + 1, stride)), True)
    return linear_axis(min(0.0, float(everything.min())), max(0.0, float(everything.max())))


def linear_axis(low: float, high: float) -> Axis:
    """An axis from `low` to `high` or a little beyond, with three to seven round numbers on it."""
    span = high - low if high > low else abs(high) or 1.0
    rough = span / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    stride = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
    first, last = math.floor(low / stride + 1e-9), math.ceil((low + span) / stride - 1e-9)
    ticks = tuple(round(index * stride, 12 - math.floor(math.log10(stride))) for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def number(value: float, digits: int = 3) -> str:
    """A number as a person writes it: 0.0123, 1.5, 250, 1.2e-5, 3.4e+6."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "no value"
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    whole = max(digits, len(str(int(abs(value)))))
    text = f"{value:.{whole}g}"
    return text.replace("-", "−")


def steps(value: float) -> str:
    """A count of steps, short: 500, 1.5k, 200k, 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:g}"


def svg(chart: Chart) -> str:
    """The drawing; its lines must hold one value at least. Colours come from the style sheet's ``c0`` to ``c5``."""
    axis = vertical_axis(chart.lines)
    across = linear_axis(0, max(chart.last_step, 1))
    across = dataclasses.replace(across, high=float(max(chart.last_step, 1)))
    parts = [*_frame(axis, across, chart.unit)]
    if chart.marked_step is not None:
        x = across.place(np.array([float(chart.marked_step)]), LEFT, WIDTH - RIGHT)[0]
        parts.append(f'<line class="marked" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for line in chart.lines:
        parts += _draw(line, axis, across)
    label = escape(describe(chart, axis), quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def describe(chart: Chart, axis: Axis) -> str:
    """The chart in words, for who cannot see it."""
    told = []
    for line in chart.lines:
        at, values = line.series.steps, line.series.values
        told.append(
            f"{line.name}: {number(values[0])} at step {at[0]:.0f}, {number(values[-1])} at step {at[-1]:.0f}, "
            f"between {number(values.min())} and {number(values.max())}"
        )
    kind = "logarithmic" if axis.logarithmic else "linear"
    return f"Line chart of {chart.title} ({chart.unit}, {kind} axis) over the training steps. {'; '.join(told)}."


def _mean(line: Line) -> Series:
    """What the bold line shows."""
    half = half_window(len(line.series.values)) if line.smooth else 0
    return dataclasses.replace(line.series, values=running_mean(line.series.values, half))


def _frame(axis: Axis, across: Axis, unit: str) -> list[str]:
    """Grid, ticks and the names of the axes."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    name = f"{unit}, log scale" if axis.logarithmic else unit
    parts = [f'<text class="name" x="4" y="10">{escape(name)}</text>']
    for tick, y in zip(axis.ticks, axis.place(np.array(axis.ticks), bottom, TOP), strict=True):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{number(tick)}</text>')
    inside = [tick for tick in across.ticks if tick <= across.high]
    for tick, x in zip(inside, across.place(np.array(inside), LEFT, right), strict=True):
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 3}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{steps(tick)}</text>')
    parts.append(f'<text class="name" x="{right}" y="{HEIGHT - 5}" text-anchor="end">training step</text>')
    return parts


def _draw(line: Line, axis: Axis, across: Axis) -> list[str]:
    """One line: its records, its running mean, its marks."""
    if not len(line.series.values):
        return []
    color = f"c{line.color % 6}"
    smoothed = line.smooth and len(line.series.values) >= LEAST_TO_SMOOTH
    parts = [f'<path class="raw {color}" d="{_path(thin(line.series), axis, across)}"/>'] if smoothed else []
    kind = "dashed" if line.dashed else "bold"
    parts.append(f'<path class="{kind} {color}" d="{_path(thin(_mean(line)), axis, across)}"/>')
    if len(line.series.values) <= MOST_MARKS and not smoothed and not line.dashed:
        places = zip(*_places(line.series, axis, across), line.series.steps, line.series.values, strict=True)
        parts += [
            f'<circle class="{color}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"><title>{escape(line.name)}, step {step:.0f}: '
            f"{number(value, 4)}</title></circle>"
            for x, y, step, value in places
        ]
    return parts


def _places(series: Series, axis: Axis, across: Axis) -> tuple[Floats, Floats]:
    """The drawing's x and y of each point."""
    x = across.place(series.steps, LEFT, WIDTH - RIGHT)
    return x, axis.place(series.values, HEIGHT - BOTTOM, TOP)


def _path(series: Series, axis: Axis, across: Axis) -> str:
    """The points of a series as an SVG path."""
    points = zip(*_places(series, axis, across), strict=True)
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
