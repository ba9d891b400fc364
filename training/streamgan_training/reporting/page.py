"""The parts a report's page is built of: sections, pictures, charts with their captions."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from streamgan_training.reporting import charts, pictures


def section(title: str, body: str) -> str:
    """A part of the page."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}</section>\n"


def missing(why: str) -> str:
    """A line where there is nothing to show."""
    return f'<p class="sub">{escape(why)}</p>\n'


def figures(found: Sequence[pictures.Picture], words: str) -> str:
    """Pictures with captions; wide ones scroll on a narrow screen."""
    figures = []
    for one in found:
        step = f"step {one.step}" if one.step is not None else ""
        caption = escape(", ".join(part for part in (one.name, step) if part))
        figures.append(
            f'<figure class="wide"><div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
            f'<img src="{one.data}" width="{one.width}" height="{one.height}" alt="{caption}: {words}"></div>'
            f"<figcaption>{caption}</figcaption></figure>\n"
        )
    return "".join(figures)


def grid(drawn: Sequence[charts.Chart]) -> str:
    """Charts side by side, as many as fit."""
    return f'<div class="charts">\n{"".join(_chart(one) for one in drawn)}</div>\n'


def _chart(chart: charts.Chart) -> str:
    """A chart with its title, its last value or its legend, and what was done to the numbers."""
    first = chart.lines[0]
    if len(chart.lines) > 1:
        swatches = (
            f'<span class="key {"dash" if line.dashed else ""} c{line.color % 6}">{escape(line.name)}</span>'
            for line in chart.lines
        )
        under = "".join(swatches)
    else:
        under = f"last {charts.number(float(first.series.values[-1]), 4)}"
        if first.smooth and (half := charts.half_window(len(first.series.values))):
            under += f" · bold: mean of {2 * half + 1} records"
    left_out = sum(line.series.left_out for line in chart.lines)
    if left_out:
        under += f' · <b class="bad">{left_out} not finite, left out</b>'
    heading = f"<figcaption><b>{escape(chart.title)}</b><span>{under}</span></figcaption>"
    return f"<figure>{heading}{charts.svg(chart)}</figure>\n"
