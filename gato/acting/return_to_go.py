"""Return-to-go of N episodes: the target return less the rewards received (Chen et al. 2021,
section 3).

Shape letters: N environments, M of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int64

from gato.task import References

FLOAT32_MAX = float(np.finfo(np.float32).max)
"""No reward is further from 0."""


class ReturnToGo:
    """The return-to-go that each row's next step is conditioned on.

    returns_to_go = ReturnToGo(num_envs, target_return, task.references)
    returns_to_go.subtract(rewards)   # the last step's
    returns_to_go.values              # [N], in the environment's own units; NaN without a target
    returns_to_go.reset(rows)         # these rows begin a new episode
    """

    def __init__(
        self, num_envs: int, target_return: float | None, references: References | None
    ) -> None:
        """Begin N episodes.

        Args:
            num_envs: Rows.
            target_return: Normalised: 0 is what a random policy returns, 1 the expert. None: the
                model is told no return.
            references: By which the target is scaled. Without them there is no target, and
                `StepLayout` accepts no task without references for a return-conditioned model.
        """
        self._target = np.nan
        if target_return is not None and references is not None:
            self._target = references.random + target_return * (
                references.expert - references.random
            )
        self.values: Float[np.ndarray, " N"] = np.full(num_envs, self._target)
        self._fresh: Bool[np.ndarray, " N"] = np.ones(num_envs, np.bool_)
        """Rows that have not acted in their present episode yet, so that no reward is theirs."""

    def reset(self, rows: Bool[np.ndarray, " N"]) -> None:
        """Begin a new episode in `rows`, with the whole target."""
        self.values[rows] = self._target
        self._fresh[rows] = True

    def gather(self, rows: Int64[np.ndarray, " M"]) -> ReturnToGo:
        """The returns-to-go of these rows, in this order."""
        gathered = copy.copy(self)
        gathered.values, gathered._fresh = self.values[rows], self._fresh[rows]
        return gathered

    def joined(self, others: Sequence[ReturnToGo]) -> ReturnToGo:
        """The rows of all, which have the same target."""
        together = copy.copy(self)
        together.values = np.concatenate([self.values, *(other.values for other in others)])
        together._fresh = np.concatenate([self._fresh, *(other._fresh for other in others)])
        return together

    def subtract(self, rewards: Float[np.ndarray, " N"] | None) -> None:
        """Subtract the rewards of the last step.

        Raises:
            ValueError: If a target needs rewards and they are None, or if there is not one reward
                for each row.
        """
        if rewards is not None and rewards.shape != self.values.shape:
            raise ValueError(
                f"rewards have shape {rewards.shape}, expected {self.values.shape}: one for each"
                " environment"
            )
        if rewards is None and not np.isnan(self._target) and not self._fresh.all():
            raise ValueError(
                "rewards are None, but a target return is set; give act the rewards of the last"
                " step, or set target_return=None"
            )
        if rewards is not None:
            # A reward that arrives with a fresh row belongs to the episode before.
            self.values -= np.where(self._fresh, 0.0, rewards)
        self._fresh[:] = False
