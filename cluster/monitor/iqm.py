"""One number over many tasks: the interquartile mean of normalised returns, with its confidence
interval.

As Agarwal et al. 2021 ("Deep Reinforcement Learning at the Edge of the Statistical Precipice")
propose it. Where a quarter of all scores is no whole number, those on the border count in part;
their rliable drops them. Here episodes of one agent are in the place of runs: so the interval says
what other episodes of these weights would show, not what another training would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """An interquartile mean and its confidence interval of 95 %."""

    iqm: float
    low: float | None
    """None if a task has a single episode, which says nothing of others."""
    high: float | None
    num_tasks: int

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval, if it is known."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def text(self) -> str:
        """0.38 [0.25, 0.50], or 0.38 if the interval is not known."""
        bounds = self.bounds
        return f"{self.iqm:.2f}" + (f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else "")


def aggregate(scores_of_tasks: Sequence[Sequence[float]], *, seed: int = 0) -> Aggregate | None:
    """Over tasks, each with the normalised returns of its episodes; None where there are none.

    Tasks count alike, however many episodes they have: an episode weighs as much as its share of
    its task's. The interval is the percentile bootstrap's, stratified: episodes are drawn again
    within each task.
    """
    kept = _finite(scores_of_tasks)
    if not kept:
        return None
    iqm = _interquartile_mean(kept)
    if min(map(len, kept)) < 2:
        return Aggregate(iqm=iqm, low=None, high=None, num_tasks=len(kept))
    # Imported where there is something to resample: `gato runs` and a young run's status start
    # without numpy.
    from cluster.monitor.bootstrap import interval

    low, high = interval(kept, seed=seed)
    return Aggregate(iqm=iqm, low=low, high=high, num_tasks=len(kept))


def interquartile_mean_of(scores_of_tasks: Sequence[Sequence[float]]) -> float | None:
    """The `iqm` of `aggregate` alone, which takes a thousandth of the time."""
    kept = _finite(scores_of_tasks)
    return _interquartile_mean(kept) if kept else None


def _interquartile_mean(scores_of_tasks: Sequence[Sequence[float]]) -> float:
    """The mean of the middle half of the weight, which all tasks have alike."""
    most = max(map(len, scores_of_tasks))
    # In units of an episode of the task with the most: whole numbers where tasks have equally many.
    ordered = sorted((score, most / len(of)) for of in scores_of_tasks for score in of)
    total = most * len(scores_of_tasks)
    low, high = 0.25 * total, 0.75 * total
    begin = shares = weighted = 0.0
    for score, weight in ordered:
        share = max(min(begin + weight, high) - max(begin, low), 0.0)
        begin, shares, weighted = begin + weight, shares + share, weighted + score * share
    return weighted / shares


def _finite(scores_of_tasks: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """The scores of tasks that have a finite one for each episode."""
    return [scores for scores in scores_of_tasks if len(scores) and all(map(math.isfinite, scores))]
