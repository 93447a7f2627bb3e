"""The returns of one task over the run: a point for each evaluated version, merged with its
neighbours when there are many."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, final

from cluster.monitor.curves import Point
from cluster.monitor.epochs import Epochs
from cluster.monitor.scores import Scale, Spread, failure_of, finite
from cluster.web.line import At
from gato.metrics import Evaluation

MAX_POINTS = 1024
NEWEST_KEPT = 32
"""Points that are never merged: their versions may still be under evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """The episodes of one version, or of some versions next to each other."""

    at: At
    """`at.step` is the learner's when it published the version, the last of them."""
    version: tuple[int, int]
    """Epoch and number, of the last of them."""
    returns: Spread
    low: float
    """The lowest mean return of one version among them."""
    high: float

    def row(self, since_s: float) -> list[float]:
        """What the page draws: places on the four axes, mean, deviation, lowest and highest mean,
        episodes."""
        step, time_s, tokens, env_steps = self.at
        numbers = (tokens, env_steps, self.returns.mean, self.returns.std, self.low, self.high)
        return [
            step,
            round(time_s - since_s, 2),
            *(float(f"{number:.6g}") for number in numbers),
            self.returns.count,
        ]

    def compared(self, since_s: float, scale: Scale | None) -> Point:
        """The point as runs are compared by it."""
        normalised = math.nan if scale is None else scale.normalise(self.returns.mean)
        return Point(
            updates=self.at.step,
            hours=(self.at.time_s - since_s) / 3600,
            tokens=self.at.tokens,
            env_steps=self.at.env_steps,
            returns=self.returns,
            normalised=finite(normalised),
        )


@final
class Curve:
    """Points in the order of the learner's steps. Of two versions of one step, after a resume, the
    newer counts, as in `TaskState.by_step`."""

    def __init__(self) -> None:
        self._points: list[CurvePoint] = []
        self._drawn: tuple[tuple[int, float], list[list[float]]] | None = None
        """The rows that were asked for last, as long as nothing is added."""

    def __len__(self) -> int:
        return len(self._points)

    def add(self, evaluation: Evaluation, at: At) -> CurvePoint | None:
        """Add an evaluation, unless one of its version with more episodes is there; the point that
        changed, if any did."""
        if failure_of(evaluation) is not None:
            return None
        self._drawn, returns = None, Spread.of(evaluation.returns)
        version = (evaluation.version.epoch, evaluation.version.number)
        point = CurvePoint(
            at=at, version=version, returns=returns, low=returns.mean, high=returns.mean
        )
        place = bisect_left(self._points, at.step, key=attrgetter("at.step"))
        known = self._points[place] if place < len(self._points) else None
        if known is None or known.at.step != at.step:
            self._points.insert(place, point)
            if len(self._points) > MAX_POINTS:
                self._points = _merged(self._points, keep=NEWEST_KEPT)
            return point
        if known.version > version:
            return None
        if known.version == version and returns.count < known.returns.count:
            return None
        self._points[place] = point
        return point

    def cut(self, epochs: Epochs) -> None:
        """Take out the points of weights that were lost."""
        self._drawn = None
        self._points = [p for p in self._points if not epochs.has_lost(p.version, p.at.step)]

    def points(self, most: int) -> list[CurvePoint]:
        """At most `most` points for a picture: neighbours are drawn as one."""
        size = -(-len(self._points) // most) or 1
        groups = (self._points[at : at + size] for at in range(0, len(self._points), size))
        return [_together(group) for group in groups]

    def rows(self, most: int, *, since_s: float) -> list[list[float]]:
        """The rows of at most `most` points."""
        key = (most, since_s)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = key, [point.row(since_s) for point in self.points(most)]
        return self._drawn[1]

    def state(self) -> list[list[float]]:
        """What `load` takes back, as JSON has it."""
        return [
            [*p.at, *p.version, p.returns.total, p.returns.squares, p.returns.count, p.low, p.high]
            for p in self._points
        ]

    @classmethod
    def load(cls, state: Sequence[Sequence[Any]]) -> Curve:
        """A curve from its `state`. Raises TypeError or ValueError if it is none."""
        curve = cls()
        for (
            step,
            time_s,
            tokens,
            env_steps,
            epoch,
            number,
            total,
            squares,
            count,
            low,
            high,
        ) in state:
            curve._points.append(
                CurvePoint(
                    at=At(float(step), float(time_s), float(tokens), float(env_steps)),
                    version=(int(epoch), int(number)),
                    returns=Spread(total=float(total), squares=float(squares), count=int(count)),
                    low=float(low),
                    high=float(high),
                )
            )
        return curve


def _merged(points: Sequence[CurvePoint], *, keep: int) -> list[CurvePoint]:
    """Every two neighbours as one, but for the newest `keep`."""
    num_old = (len(points) - keep) // 2 * 2
    merged = [_together(points[at : at + 2]) for at in range(0, num_old, 2)]
    return [*merged, *points[num_old:]]


def _together(group: Sequence[CurvePoint]) -> CurvePoint:
    """Neighbours as one point, at the place of the last."""
    if len(group) == 1:
        return group[0]
    return replace(
        group[-1],
        returns=sum((point.returns for point in group), Spread()),
        low=min(point.low for point in group),
        high=max(point.high for point in group),
    )


def load_curves(state: Mapping[str, Any]) -> dict[str, Curve]:
    """Curves by task. Raises TypeError or ValueError if `state` holds none."""
    return {task: Curve.load(points) for task, points in state.items()}
