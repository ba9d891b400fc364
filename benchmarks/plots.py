"""Line plots as SVG, small enough to read in a diff: both axes from zero, and words for who cannot see them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN = 640, 300, 60, 40, 24
"""Of a plot, in its own units."""
_COLORS = ("#1f5fa8", "#c2571a", "#2f7d3b", "#7a4aa0", "#555555")
_PARTS = 5


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str, title: str, dots: bool = True
) -> str:
    """Lines over common axes.

    Args:
        series: the points of each line, by its name; a single line is not named in the plot.
        across: what the horizontal axis shows, with its unit.
        up: what the vertical axis shows.
        title: what the plot shows, with its numbers.
        dots: whether each point is marked.
    """
    points = list(itertools.chain.from_iterable(series.values()))
    right, top = max(x for x, _ in points) or 1, _above(max(y for _, y in points))
    wide, high = WIDTH - LEFT - MARGIN, HEIGHT - BOTTOM - MARGIN
    parts = [_text(4, 14, "start", up), _text(WIDTH - MARGIN, HEIGHT - 4, "end", across)]
    for part in range(_PARTS + 1):
        y, x = HEIGHT - BOTTOM - high * part / _PARTS, LEFT + wide * part / _PARTS
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - MARGIN}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, "end", f"{top * part / _PARTS:g}"))
        parts.append(_text(x, HEIGHT - BOTTOM + 16, "middle", _number(right * part / _PARTS, right)))
    for number, (name, given) in enumerate(series.items()):
        color = _COLORS[number % len(_COLORS)]
        places = [(LEFT + wide * x / right, HEIGHT - BOTTOM - high * y / top) for x, y in given]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in places if dots]
        if len(series) > 1:
            parts.append(_text(LEFT + 8, MARGIN + 14 * (number + 1), "start", name, color))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11" role="img"><title>{escape(title)}</title>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, anchor: str, words: str, color: str = "") -> str:
    """Words at a place."""
    fill = f' fill="{color}"' if color else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{fill}>{escape(words)}</text>'


def _number(value: float, most: float) -> str:
    """A number at the horizontal axis: whole if it goes far enough."""
    return f"{int(value):,}" if most >= 10 * _PARTS else f"{value:g}"


def _above(most: float) -> float:
    """The end of the vertical axis: five round steps."""
    return next(step for step in _round_numbers() if step * _PARTS >= most) * _PARTS


def _round_numbers() -> Iterator[float]:
    """0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, …"""
    return (factor * 10**power / 100 for power in itertools.count() for factor in (1, 2, 5))
