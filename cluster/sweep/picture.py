"""The picture of a sweep as SVG: the scores of all trials over their updates, and the last scores
over each setting. Written by hand, so that no library for drawing is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from cluster.sweep.plan import SweepConfig
from cluster.sweep.space import Choice, Distribution, Value
from cluster.sweep.state import TrialState, best_of

WIDTH, HEIGHT = 330, 230
"""Of a panel, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 30, 44
"""Margins of a panel."""
COLUMNS = 3
TITLE_PX = 34
GREY, BEST = "#8aa0b4", "#d1495b"
STYLE = (
    "text{font:11px sans-serif;fill:#1f2933}.title{font-weight:bold;font-size:12px}"
    ".head{font-weight:bold;font-size:14px}.axis{stroke:#c3ccd5}.grid{stroke:#e8ecf0}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """From a value to a share of the axis, and the ticks on it."""

    place: Callable[[Value], float]
    ticks: Sequence[tuple[float, str]]
    """Share of the axis, and what is written there."""


def draw(sweep: SweepConfig, trials: Sequence[TrialState]) -> str:
    """The picture of what the trials reported so far."""
    space = sweep.space
    scores = [r.score for trial in trials for r in trial.reports if math.isfinite(r.score)]
    y = _linear(min(scores, default=0.0), max(scores, default=1.0))
    panels = [_curves(sweep, trials, y)]
    panels += [_over(path, of, trials, y) for path, of in space.items()]
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    width = columns * WIDTH
    height = TITLE_PX + math.ceil(len(panels) / columns) * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text class="head" x="{LEFT}" y="22">{escape(_head(sweep, trials))}</text>',
    ]
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        parts.append(f'<g transform="translate({column * WIDTH},{TITLE_PX + row * HEIGHT})">')
        parts += [*panel, "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _head(sweep: SweepConfig, trials: Sequence[TrialState]) -> str:
    best = best_of(trials)
    said = f", best score {best.score:.3g} (trial {best.number})" if best and best.score else ""
    return f"sweep {sweep.name}: {len(trials)} trials, {sweep.scheduler}{said}"


def _curves(sweep: SweepConfig, trials: Sequence[TrialState], y: _Axis) -> list[str]:
    x = _linear(0.0, float(sweep.updates))
    best = best_of(trials)
    parts = _frame("score over updates", x, y)
    for trial in sorted(trials, key=lambda t: t is best):  # the best one above the others
        points = [
            (_x(x.place(report.step)), _y(y.place(report.score)))
            for report in trial.reports
            if math.isfinite(report.score)
        ]
        color, wide = (BEST, 2.2) if trial is best else (GREY, 1.2)
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{wide}"/>'
        )
        if points:
            parts.append(_dot(*points[-1], trial, is_best=trial is best))
    return parts


def _over(path: str, of: Distribution, trials: Sequence[TrialState], y: _Axis) -> list[str]:
    x = _of_choice(of) if isinstance(of, Choice) else _of_range(of.low, of.high, of.is_log)
    best = best_of(trials)
    parts = _frame(path, x, y)
    for trial in sorted(trials, key=lambda t: t is best):
        if trial.score is not None and path in trial.settings:
            px, py = _x(x.place(trial.settings[path])), _y(y.place(trial.score))
            parts.append(_dot(px, py, trial, is_best=trial is best))
    return parts


def _frame(title: str, x: _Axis, y: _Axis) -> list[str]:
    left, bottom = _x(0.0), _y(0.0)
    parts = [f'<text class="title" x="{left}" y="18">{escape(title)}</text>']
    for share, text in y.ticks:
        py = _y(share)
        parts.append(f'<line class="grid" x1="{left}" x2="{_x(1.0)}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{py + 4:.1f}" text-anchor="end">{text}</text>')
    for share, text in x.ticks:
        px = _x(share)
        parts.append(
            f'<line class="axis" x1="{px:.1f}" x2="{px:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        )
        parts.append(
            f'<text x="{px:.1f}" y="{bottom + 17}" text-anchor="middle">{escape(text)}</text>'
        )
    parts.append(f'<line class="axis" x1="{left}" x2="{_x(1.0)}" y1="{bottom}" y2="{bottom}"/>')
    return parts


def _dot(px: float, py: float, trial: TrialState, *, is_best: bool) -> str:
    color = BEST if is_best else GREY
    fill = color if trial.word == "finished" else "#ffffff"
    said = f"trial {trial.number}: {trial.word}, score {trial.score:.3g}, update {trial.step}"
    return (
        f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{fill}" stroke="{color}"'
        f' stroke-width="1.6"><title>{escape(said)}</title></circle>'
    )


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return TOP + (1.0 - share) * (HEIGHT - TOP - BOTTOM)


# Axes


def _linear(low: float, high: float) -> _Axis:
    """From a round number below `low` to one above `high`."""
    span = (high - low) or abs(high) or 1.0
    size = 10.0 ** math.floor(math.log10(span))
    step = next(s * size for s in (0.2, 0.5, 1.0, 2.0, 5.0) if span / (s * size) <= 5.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = [first + i for i in range(last - first + 1)]

    def place(value: Value) -> float:
        return (_number(value) / step - first) / (last - first)

    return _Axis(
        place=place, ticks=[((t - first) / (last - first), _short(t * step)) for t in ticks]
    )


def _of_range(low: float, high: float, is_log: bool) -> _Axis:
    if not is_log:
        return _linear(low, high)
    begin, span = math.log10(low), math.log10(high / low)

    def place(value: Value) -> float:
        return (math.log10(max(_number(value), low)) - begin) / span

    whole = range(math.ceil(begin - 1e-9), math.floor(begin + span + 1e-9) + 1)
    marks: Iterable[float] = [10.0**power for power in whole]
    if len(whole) < 2:
        marks = (low, math.sqrt(low * high), high)
    return _Axis(place=place, ticks=[(place(mark), _short(mark)) for mark in marks])


def _of_choice(of: Choice) -> _Axis:
    count = len(of.values)
    shares = [(i + 0.5) / count for i in range(count)]

    def place(value: Value) -> float:
        return shares[of.values.index(value)] if value in of.values else 0.0

    names = [value if isinstance(value, str) else _short(value) for value in of.values]
    return _Axis(place=place, ticks=list(zip(shares, names, strict=True)))


def _number(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _short(value: Value) -> str:
    if value is None or isinstance(value, bool | str):
        return {None: "null", True: "true", False: "false"}.get(value, str(value))  # type: ignore[call-overload]
    return f"{value:.3g}"
