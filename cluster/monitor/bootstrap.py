"""The arithmetic of `cluster.monitor.iqm` on arrays: the interquartile mean of many resamples at
once. It needs numpy, which takes a tenth of a second to import.

Shape letters: R resamples, K tasks, E episodes of each, N episodes of all tasks together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # it takes half as long again as numpy, and `gato status` waits for it
    from jaxtyping import Float

RESAMPLES = 2000
LEVEL = 0.95
MOST_SCORES = 1 << 20
"""Of resamples that are sorted at once, to bound the memory."""


def interquartile_mean(scores_KE: Float[np.ndarray, "*batch K E"]) -> Float[np.ndarray, "*batch"]:
    """The mean of the middle half of all scores, E of each of K tasks; scores on its border count
    in part."""
    flat = np.sort(scores_KE.reshape(*scores_KE.shape[:-2], -1), axis=-1)
    count = flat.shape[-1]
    place = np.arange(count)
    weights = np.clip(
        np.minimum(place + 1, 0.75 * count) - np.maximum(place, 0.25 * count), 0.0, 1.0
    )
    return np.asarray(flat @ weights / weights.sum())


def weighted_interquartile_mean(
    scores_RN: Float[np.ndarray, "R N"], weights_N: Float[np.ndarray, " N"]
) -> Float[np.ndarray, " R"]:
    """The mean of the middle half of the weight; scores on its border count in part."""
    order_RN = np.argsort(scores_RN, axis=-1)
    scores_RN = np.take_along_axis(scores_RN, order_RN, axis=-1)
    ends_RN = np.cumsum(weights_N[order_RN], axis=-1)
    begins_RN = np.concatenate([np.zeros((len(ends_RN), 1)), ends_RN[:, :-1]], axis=-1)
    total = weights_N.sum()
    shares_RN = np.minimum(ends_RN, 0.75 * total) - np.maximum(begins_RN, 0.25 * total)
    shares_RN = np.maximum(shares_RN, 0.0)
    return np.asarray((scores_RN * shares_RN).sum(-1) / shares_RN.sum(-1))


def interval(scores_of_tasks: Sequence[Sequence[float]], *, seed: int) -> tuple[float, float]:
    """The percentile bootstrap's interval of the interquartile mean, stratified: episodes are drawn
    again within each task."""
    rng = np.random.default_rng(seed)
    if len({len(scores) for scores in scores_of_tasks}) == 1:
        scores_KE = np.array(scores_of_tasks, np.float64)
        drawn_RKE = rng.integers(scores_KE.shape[1], size=(RESAMPLES, *scores_KE.shape))
        again_RKE = np.take_along_axis(scores_KE[None], drawn_RKE, axis=2)
        means_R = interquartile_mean(again_RKE)
    else:
        means_R = _unequal(scores_of_tasks, rng)
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(means_R, [tail, 1.0 - tail])
    return float(low), float(high)


def _unequal(
    scores_of_tasks: Sequence[Sequence[float]], rng: np.random.Generator
) -> Float[np.ndarray, " R"]:
    """The means of all resamples, of tasks with different numbers of episodes."""
    of_tasks = [np.array(scores, np.float64) for scores in scores_of_tasks]
    weights_N = np.concatenate([np.full(len(scores), 1 / len(scores)) for scores in of_tasks])
    at_once = max(1, MOST_SCORES // len(weights_N))
    means: list[Float[np.ndarray, " R"]] = []
    for begin in range(0, RESAMPLES, at_once):
        number = min(at_once, RESAMPLES - begin)
        again_RN = np.concatenate(
            [scores[rng.integers(len(scores), size=(number, len(scores)))] for scores in of_tasks],
            axis=-1,
        )
        means.append(weighted_interquartile_mean(again_RN, weights_N))
    return np.concatenate(means)
