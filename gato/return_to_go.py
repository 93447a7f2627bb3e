"""What is still wished of N episodes: the wished return less the rewards received (Chen et al.
2021, section 3).

Shape letters: N environments, M of them.
"""

from __future__ import annotations

import copy

import numpy as np
from jaxtyping import Bool, Float, Int64

from gato.task import References


class RemainingReturn:
    """The return-to-go that each row's next step is conditioned on.

    remaining = RemainingReturn(num_envs, target_return, task.references)
    remaining.pay(rewards)         # of the last step
    remaining.left                 # [N], in the environment's own units; NaN where nothing is
    wished
    remaining.reset(rows)          # these rows begin a new episode
    """

    def __init__(
        self, num_envs: int, target_return: float | None, references: References | None
    ) -> None:
        """`target_return` is normalised: 0 is what a random policy gets, 1 the expert. None:
        nothing is wished.

        Without references nothing can be: `StepLayout` refuses to tell a model the returns of such
        a task.
        """
        self._wished = np.nan
        if target_return is not None and references is not None:
            self._wished = references.random + target_return * (
                references.expert - references.random
            )
        self.left: Float[np.ndarray, " N"] = np.full(num_envs, self._wished)
        self._fresh: Bool[np.ndarray, " N"] = np.ones(num_envs, np.bool_)
        """Rows that have acted in no step of their present episode, so that no reward is theirs
        yet."""

    def reset(self, rows: Bool[np.ndarray, " N"]) -> None:
        self.left[rows] = self._wished
        self._fresh[rows] = True

    def gather(self, rows: Int64[np.ndarray, " M"]) -> RemainingReturn:
        """What is left of these rows, in this order."""
        gathered = copy.copy(self)
        gathered.left, gathered._fresh = self.left[rows], self._fresh[rows]
        return gathered

    def pay(self, rewards: Float[np.ndarray, " N"] | None) -> None:
        """Take the last step's rewards off. ValueError where they are needed and not given, or not
        one for each row."""
        if rewards is not None and rewards.shape != self.left.shape:
            raise ValueError(
                f"rewards have shape {rewards.shape}, expected {self.left.shape}: one for each"
                " environment"
            )
        if rewards is None and not np.isnan(self._wished) and not self._fresh.all():
            raise ValueError(
                "rewards are None, but a return is wished; give act the rewards of the last step,"
                " or set target_return=None"
            )
        if rewards is not None:
            self.left -= np.where(self._fresh, 0.0, rewards)
        self._fresh[:] = False
