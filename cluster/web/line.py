"""A measured line of bounded length: when it is full, neighbours are merged into one point that
keeps their mean, lowest and highest value."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

MAX_POINTS = 1024
COLUMNS = ("step", "time_s", "tokens", "env_steps", "total", "count", "low", "high")


class At(NamedTuple):
    """Where a value is, on each of the axes that a curve can be drawn over."""

    step: float
    """Updates of the learner."""
    time_s: float
    """Wall-clock time."""
    tokens: float
    """That the learner has trained on."""
    env_steps: float
    """That workers have played, evaluations left out."""


@final
class Line:
    """Points in the order in which they came.

    line = Line()
    line.append(At(10, 1.7e9, 4e5, 2e3), 0.25)
    line.columns(200, since_s=1.7e9)["mean"]

    At least `MAX_POINTS / 2` points are kept of a longer line, each of as many values. No value is
    ever left out: a single peak of a week is in the `high` of its point.
    """

    def __init__(self) -> None:
        self._columns = {name: array("d") for name in COLUMNS}
        self._width = 1
        """Values of a full point."""

    def __len__(self) -> int:
        return len(self._columns["step"])

    def append(self, at: At, value: float) -> None:
        """Add a value; one that is not finite is left out."""
        if not math.isfinite(value):
            return
        columns = self._columns
        if len(self) and columns["count"][-1] < self._width:
            for name, place in zip(At._fields, at, strict=True):
                columns[name][-1] = place
            columns["total"][-1] += value
            columns["count"][-1] += 1
            columns["low"][-1] = min(columns["low"][-1], value)
            columns["high"][-1] = max(columns["high"][-1], value)
            return
        for name, number in zip(COLUMNS, (*at, value, 1, value, value), strict=True):
            columns[name].append(number)
        if len(self) > MAX_POINTS:
            self._columns = _merged(columns)
            self._width *= 2

    def columns(self, most: int, *, since_s: float) -> dict[str, list[float]]:
        """At most `most` points for a picture, with times in seconds after `since_s`."""
        columns = self._columns
        while len(columns["step"]) > most:
            columns = _merged(columns)
        return {
            "step": _short(columns["step"]),
            "time": [round(time_s - since_s, 2) for time_s in columns["time_s"]],
            "tokens": _short(columns["tokens"]),
            "env": _short(columns["env_steps"]),
            "mean": _short(
                [t / c for t, c in zip(columns["total"], columns["count"], strict=True)]
            ),
            "low": _short(columns["low"]),
            "high": _short(columns["high"]),
        }

    def state(self) -> dict[str, Any]:
        """What `load` takes back, as JSON has it."""
        return {"width": self._width, **{name: list(c) for name, c in self._columns.items()}}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Line:
        """A line from its `state`. Raises KeyError, TypeError or ValueError if it is none."""
        line = cls()
        line._width = int(state["width"])
        line._columns = {name: array("d", state[name]) for name in COLUMNS}
        if len({len(column) for column in line._columns.values()}) != 1:
            raise ValueError("columns of different lengths")
        return line


def _merged(columns: Mapping[str, array[float]]) -> dict[str, array[float]]:
    """Every two neighbours as one; an odd last point stays."""
    out = {name: array("d", columns[name][1::2]) for name in At._fields}
    pairs = len(out["step"])
    even, odd = slice(0, 2 * pairs, 2), slice(1, None, 2)
    for name, how in (("total", _sum), ("count", _sum), ("low", min), ("high", max)):
        column = columns[name]
        out[name] = array("d", map(how, column[even], column[odd]))
    if len(columns["step"]) % 2:
        for name in COLUMNS:
            out[name].append(columns[name][-1])
    return out


def _sum(one: float, other: float) -> float:
    return one + other


def _short(values: Sequence[float]) -> list[float]:
    """Six digits are more than a screen shows, and a third of the bytes."""
    return [float(f"{value:.6g}") for value in values]
