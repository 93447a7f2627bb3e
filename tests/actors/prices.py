"""An environment whose values are far beyond the mu-law's: `tests.actors.prices:Prices-v0`; prices
stay between 30,000 and 60,000."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class PricesEnv(gymnasium.Env):
    """Three prices, the last of which never moves. Right is 1 where the first is above 45,000, else
    0."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Discrete(2)

    def _shown(self) -> np.ndarray:
        return np.array([*self.np_random.uniform(30_000, 60_000, 2), 45_000.0], np.float32)

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.shown = 0, self._shown()
        return self.shown, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = float(action == (self.shown[0] > 45_000.0))
        self.count, self.shown = self.count + 1, self._shown()
        return self.shown, reward, self.count == 30, False, {}


gymnasium.register("Prices-v0", entry_point=PricesEnv, max_episode_steps=50)


def knows(observations: Mapping[str, np.ndarray], extras: object) -> np.ndarray:
    """A teacher that is always right."""
    return (observations["state"][:, 0] > 45_000.0).astype(np.int64)
