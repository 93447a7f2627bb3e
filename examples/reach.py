"""An environment of one's own: a point moves to a target on a line. Importing this module registers
it with Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from actors.envs.gymnasium_env import task_of
from gato.task import References


class Reach(gymnasium.Env[np.ndarray, np.ndarray]):
    """Shows how far the target is, takes a velocity, pays 1 minus the distance that is left."""

    observation_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
    action_space = spaces.Box(-0.2, 0.2, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.target = self.np_random.uniform(-1.0, 1.0, 2)
        return self._shown(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.position = float(np.clip(self.position + action[0], -1.0, 1.0))
        return self._shown(), 1.0 - abs(self.target - self.position), False, False, {}

    def _shown(self) -> np.ndarray:
        return np.array([self.target - self.position], np.float32)


def act(observations: Mapping[str, np.ndarray], extras: Mapping[str, np.ndarray]) -> np.ndarray:
    """A teacher: for N rows of observations, N actions."""
    return np.clip(observations["state"], -0.2, 0.2)


gymnasium.register("Reach-v0", entry_point="reach:Reach", max_episode_steps=20)
TASK = task_of(
    "Reach-v0",
    references=References(
        random=6.8, expert=18.8, source="100 episodes of random actions, 100 of act"
    ),
)
