"""Runs compared: those of equal settings are a group, whose seeds are averaged by the interquartile
mean, with a band of what other seeds would show.

Shape letters: K tasks, S seeds, X points on the axis, R resamples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from cluster.monitor.bootstrap import LEVEL, interquartile_mean
from cluster.monitor.curves import OVERALL, Axis, Curves, Point

IDENTITY = ("name", "about", "seed")
"""Settings in which runs of one group may differ."""
RESAMPLES = 1000
MOST_POINTS = 200
MISSING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """A run with its settings, as plain values."""

    curves: Curves
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.curves.run


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A curve over seeds. With one seed the band is the curve itself."""

    xs: tuple[float, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    """95 % percentile bootstrap over seeds."""
    num_seeds: int
    num_tasks: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Runs of equal settings."""

    label: str
    """A, B, C..."""
    runs: tuple[ComparedRun, ...]
    settings: Mapping[str, str]
    """Those in which groups differ, as text."""
    bands: Mapping[str, Band]
    """By task, and `OVERALL` over those with a scale."""


def compare(
    runs: Sequence[ComparedRun],
    *,
    axis: Axis = "updates",
    seed: int = 0,
    most_points: int = MOST_POINTS,
) -> list[Group]:
    """The groups, in the order in which their first runs are given.

    Args:
        runs: At least one.
        axis: What curves are over.
        seed: Of the bootstrap.
        most_points: Of a band.
    """
    flat = [flattened(run.settings) for run in runs]
    grouped: dict[str, list[int]] = {}
    for place, settings in enumerate(flat):
        shared = {path: value for path, value in settings.items() if path not in IDENTITY}
        grouped.setdefault(json.dumps(shared, sort_keys=True, default=str), []).append(place)
    firsts = [flat[places[0]] for places in grouped.values()]
    differing = differences(firsts)
    groups: list[Group] = []
    for number, places in enumerate(grouped.values()):
        members = tuple(runs[place] for place in places)
        first = flat[places[0]]
        groups.append(
            Group(
                label=_label(number),
                runs=members,
                settings={path: _text(first.get(path, MISSING)) for path in differing},
                bands=_bands([run.curves for run in members], axis, seed, most_points),
            )
        )
    return groups


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by path, such as `learner.max_rate`; lists are values."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{path}.")
        else:
            flat[path] = value
    return flat


def differences(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths whose values are not all the same, without those that name a run."""
    paths = dict.fromkeys(path for each in settings for path in each)
    return [
        path
        for path in paths
        if path not in IDENTITY and len({_text(each.get(path, MISSING)) for each in settings}) > 1
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _label(number: int) -> str:
    letters = ""
    while number >= 0:
        letters = chr(ord("A") + number % 26) + letters
        number = number // 26 - 1
    return letters


def _bands(curves: Sequence[Curves], axis: Axis, seed: int, most_points: int) -> dict[str, Band]:
    names = dict.fromkeys(name for each in curves for name in each.tasks)
    bands: dict[str, Band] = {}
    of_tasks = {name: [c.tasks[name] for c in curves if c.tasks.get(name)] for name in names}
    scaled = {
        name: seeds
        for name, seeds in of_tasks.items()
        if len(seeds) == len(curves) and all(p.normalised is not None for s in seeds for p in s)
    }
    if (
        len(scaled) > 1
        and (over := _band(list(scaled.values()), axis, seed, most_points)) is not None
    ):
        bands[OVERALL] = over
    for name, seeds in of_tasks.items():
        if (band := _band([seeds], axis, seed, most_points)) is not None:
            bands[name] = band
    return bands


def _band(
    tasks: Sequence[Sequence[Sequence[Point]]], axis: Axis, seed: int, most_points: int
) -> Band | None:
    """Over the stretch of the axis that all curves have; None where there is none."""
    every = [curve for seeds in tasks for curve in seeds]
    # By the axis, not by updates: a clock can be set back.
    low = max(min(p.at(axis) for p in curve) for curve in every)
    high = min(max(p.at(axis) for p in curve) for curve in every)
    xs = sorted({p.at(axis) for curve in every for p in curve if low <= p.at(axis) <= high})
    if not xs:
        return None
    if len(xs) > most_points:
        xs = [xs[round(place)] for place in np.linspace(0, len(xs) - 1, most_points)]
    grid_X = np.array(xs, np.float64)
    scores_XKS = np.stack(
        [np.stack([_at(curve, grid_X, axis) for curve in seeds], -1) for seeds in tasks], 1
    )
    values_X, lows_X, highs_X = seed_band(scores_XKS, seed=seed)
    return Band(
        xs=tuple(xs),
        values=tuple(values_X.tolist()),
        lows=tuple(lows_X.tolist()),
        highs=tuple(highs_X.tolist()),
        num_seeds=scores_XKS.shape[-1],
        num_tasks=len(tasks),
    )


def _at(curve: Sequence[Point], grid_X: Float[np.ndarray, " X"], axis: Axis) -> Any:
    """Between two evaluations a curve is a straight line."""
    places = sorted((p.at(axis), p.updates, p.value) for p in curve)
    return np.interp(grid_X, [at for at, _, _ in places], [value for _, _, value in places])


def seed_band(
    scores_XKS: Float[np.ndarray, "X K S"], *, seed: int = 0
) -> tuple[Float[np.ndarray, " X"], Float[np.ndarray, " X"], Float[np.ndarray, " X"]]:
    """Interquartile mean over tasks and seeds at each point, and its interval of 95 %: seeds are
    drawn again, the same ones for all tasks and at all points, as each is one network that plays
    them all."""
    values_X = interquartile_mean(scores_XKS)
    num_seeds = scores_XKS.shape[-1]
    if num_seeds < 2:
        return values_X, values_X, values_X
    rng = np.random.default_rng(seed)
    drawn_R1S = rng.integers(num_seeds, size=(RESAMPLES, 1, num_seeds))
    tail = (1.0 - LEVEL) / 2.0
    bounds: list[Any] = []
    for scores_KS in scores_XKS:  # one point at a time, to bound the memory
        again_RKS = np.take_along_axis(scores_KS[None], drawn_R1S, axis=2)
        bounds.append(np.quantile(interquartile_mean(again_RKS), [tail, 1.0 - tail]))
    lows_highs_X2 = np.array(bounds)
    return values_X, lows_highs_X2[:, 0], lows_highs_X2[:, 1]
