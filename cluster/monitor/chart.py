"""Charts of curves with bands as SVG, written by hand, so that no library for drawing is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from cluster.monitor.format import count_text, number_text, printable

WIDTH, HEIGHT = 360, 240
"""Of a panel, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 52, 26, 30, 40
"""Margins of a panel."""
LINE_PX = 18
COLOURS = (
    "#2563a8", "#d1495b", "#2e8b57", "#b7791f", "#7b4ea3", "#0f8b8d", "#c05621", "#6b7280",
)  # fmt: skip
STYLE = (
    ".chart text{font:11px system-ui,sans-serif;fill:#1f2933}"
    ".chart .title{font-weight:600;font-size:12px}.chart .axis{stroke:#9aa5b1}"
    ".chart .grid{stroke:#e4e7eb}.chart .reference{stroke:#9aa5b1;stroke-dasharray:4 3}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve; `lows` and `highs` draw a band around it."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()
    colour: int = 0
    """Place in the list of colours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A chart of some curves."""

    title: str
    x_label: str
    lines: Sequence[Line]
    references: Sequence[tuple[str, float]] = ()
    """Levels with their names, drawn if they are near the curves."""


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    begin_px: float
    end_px: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.begin_px + share * (self.end_px - self.begin_px)


def draw(panels: Sequence[Panel], legend: Sequence[tuple[str, int]] = (), columns: int = 3) -> str:
    """All panels in one picture, above them a legend of names and their colours."""
    columns = max(1, min(columns, len(panels)))
    width = columns * WIDTH
    top = LINE_PX * len(legend) + (8 if legend else 0)
    height = top + math.ceil(len(panels) / columns) * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for place, (name, colour) in enumerate(legend):
        y = LINE_PX * place + 14
        parts.append(
            f'<rect x="{LEFT}" y="{y - 5}" width="18" height="3" fill="{_colour(colour)}"/>'
            f'<text x="{LEFT + 26}" y="{y}">{_safe(name)}</text>'
        )
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        parts.append(f'<g transform="translate({column * WIDTH},{top + row * HEIGHT})">')
        parts += [*_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> list[str]:
    xs = [x for line in panel.lines for x in line.xs]
    ys = [y for line in panel.lines for y in (*line.ys, *line.lows, *line.highs)]
    parts = [f'<text class="title" x="{LEFT}" y="18">{_safe(panel.title, 48)}</text>']
    if not xs:
        return [*parts, f'<text x="{LEFT}" y="{HEIGHT / 2}">nothing evaluated yet</text>']
    shown = [(name, y) for name, y in panel.references if _is_near(y, ys)]
    x = _axis(xs, LEFT, WIDTH - RIGHT)
    y = _axis([*ys, *(level for _, level in shown)], HEIGHT - BOTTOM, TOP)
    bottom = HEIGHT - BOTTOM
    for tick in ticks(y.low, y.high):
        at = y.at(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
        )
    parts += [
        f'<text x="{x.at(tick):.1f}" y="{bottom + 15}" text-anchor="middle">'
        f"{count_text(tick) if tick >= 10 else _number(tick)}</text>"
        for tick in ticks(x.low, x.high, most=4)
    ]
    parts.append(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{_safe(panel.x_label)}</text>"
    )
    for name, level in shown:
        at = y.at(level)
        parts.append(
            f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}"'
            f' y2="{at:.1f}"/><text x="{WIDTH - RIGHT}" y="{at - 3:.1f}" text-anchor="end">'
            f"{_safe(name)}</text>"
        )
    for line in panel.lines:
        parts += _line(line, x, y)
    return parts


def _line(line: Line, x: _Axis, y: _Axis) -> list[str]:
    colour, parts = _colour(line.colour), list[str]()
    if line.lows and any(a != b for a, b in zip(line.lows, line.highs, strict=True)):
        there = [f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in zip(line.xs, line.highs, strict=True)]
        back = [f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in zip(line.xs, line.lows, strict=True)]
        points = " ".join([*there, *reversed(back)])
        parts.append(f'<polygon points="{points}" fill="{colour}" opacity="0.18"/>')
    points = [f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in zip(line.xs, line.ys, strict=True)]
    title = f"<title>{_safe(line.name)}</title>"
    if len(points) > 1:
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}"'
            f' stroke-width="1.6">{title}</polyline>'
        )
    if len(points) <= 30:
        dots = (point.split(",") for point in points)
        parts += [f'<circle cx="{a}" cy="{b}" r="2" fill="{colour}"/>' for a, b in dots]
    return parts


def _axis(values: Sequence[float], begin_px: float, end_px: float) -> _Axis:
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return _Axis(low, high, begin_px, end_px)


def ticks(low: float, high: float, *, most: int = 5) -> list[float]:
    """Round values from `low` to `high`, at most about so many."""
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * times for times in (1, 2, 5, 10) if size * times >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [place * step for place in range(first, last + 1)]


def _is_near(level: float, ys: Sequence[float]) -> bool:
    """Whether a level can be shown without pressing the curves flat."""
    low, high = min(ys), max(ys)
    span = max(high - low, 1e-9 + 0.1 * abs(high))
    return math.isfinite(level) and low - 2 * span <= level <= high + 2 * span


def _number(value: float) -> str:
    return "0" if abs(value) < 1e-12 else number_text(value)


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _safe(text: str, columns: int | None = None) -> str:
    said = printable(text)
    return escape(said if columns is None or len(said) <= columns else f"{said[: columns - 1]}…")
