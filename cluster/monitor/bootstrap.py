"""The arithmetic of `cluster.monitor.iqm` on arrays: the interquartile mean of many resamples at
once. It needs numpy, which takes a tenth of a second to import.

Shape letters: R resamples, K tasks, E episodes of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # it takes half as long again as numpy, and `gato status` waits for it
    from jaxtyping import Float

RESAMPLES = 2000
LEVEL = 0.95


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


def interval(scores_KE: Float[np.ndarray, "K E"], *, seed: int) -> tuple[float, float]:
    """The percentile bootstrap's interval of the interquartile mean, stratified: episodes are drawn
    again within each task."""
    num_episodes = scores_KE.shape[1]
    drawn_RKE = np.random.default_rng(seed).integers(
        num_episodes, size=(RESAMPLES, *scores_KE.shape)
    )
    again_RKE = np.take_along_axis(scores_KE[None], drawn_RKE, axis=2)
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(interquartile_mean(again_RKE), [tail, 1.0 - tail])
    return float(low), float(high)
