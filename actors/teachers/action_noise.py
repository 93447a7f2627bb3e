"""Noise in a teacher's actions: a student sees how to recover (DART: Laskey et al. 2017)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from actors.players.player import TimeStep


class ActionNoise:
    """Gaussian noise in the episodes of odd seeds, which follows from the seed.

    noise = ActionNoise(0.3)
    action = wanted + noise.draw(step, 4) * action_std
    """

    def __init__(self, scale: float, *, in_all: bool = False) -> None:
        """`in_all`: in the episodes of even seeds as well."""
        self.scale = scale
        self._in_all = in_all
        self._scale = np.zeros(0, np.float32)
        self._rngs: list[np.random.Generator] = []

    def draw(self, step: TimeStep, size: int) -> Float[np.ndarray, "N size"]:
        """Noise of standard deviation `scale`, or zeros, for `size` values of each of N rows."""
        if step.is_first.any():
            self._begin(step)
        drawn = np.stack([rng.standard_normal(size) for rng in self._rngs])
        return self._scale[:, None] * drawn

    def _begin(self, step: TimeStep) -> None:
        """Set scale and generator of the rows that begin."""
        if len(self._scale) != step.num_rows:
            self._scale = np.zeros(step.num_rows, np.float32)
            self._rngs = [np.random.default_rng(0) for _ in range(step.num_rows)]
        for row in np.flatnonzero(step.is_first).tolist():
            seed = int(step.seeds[row])
            self._scale[row] = self.scale if self._in_all else self.scale * (seed % 2)
            self._rngs[row] = np.random.default_rng([seed, 1])
