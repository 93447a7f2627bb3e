"""The interface of a player, of a teacher, and the time step that both act on.

Shape letters: N rows, one environment each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

Arrays = Mapping[str, Shaped[np.ndarray, "N ..."]]
"""Arrays by name, a row for each environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeStep:
    """What N environments of one task show at one moment. A player answers with N actions.

    step = TimeStep.first({"state": states}, seeds=[7, 8])
    actions = player.act(step)
    step = TimeStep(observations=observations, rewards=rewards, active=step.active,
                    is_first=np.zeros(2, np.bool_), seeds=step.seeds)
    """

    observations: Mapping[str, Shaped[np.ndarray, "N ..."]]
    """By name, as the task's specs say."""
    rewards: Float[np.ndarray, " N"]
    """Reward of each row's last action, 0 before the first. In a row that begins an episode it is
    the last reward of the episode before."""
    active: Bool[np.ndarray, " N"]
    """Rows that play. The other rows show their last observation, and their actions are not
    used."""
    is_first: Bool[np.ndarray, " N"]
    """Rows whose episode before is over: a player forgets it. True once, also in a row that has no
    further episode to play."""
    seeds: Int64[np.ndarray, " N"]
    """The seed that each row's episode began with."""
    extras: Mapping[str, Shaped[np.ndarray, "N ..."]] = field(default_factory=dict[str, np.ndarray])
    """What only a teacher may look at, such as a game's RAM; empty if the player does not need
    it."""

    @classmethod
    def first(
        cls, observations: Arrays, *, seeds: Sequence[int], extras: Arrays | None = None
    ) -> TimeStep:
        """The first step of episodes with these seeds, one for each row."""
        num_rows = len(seeds)
        return cls(
            observations=observations,
            rewards=np.zeros(num_rows, np.float32),
            active=np.ones(num_rows, np.bool_),
            is_first=np.ones(num_rows, np.bool_),
            seeds=np.asarray(seeds, np.int64),
            extras=extras or {},
        )

    @property
    def num_rows(self) -> int:
        return len(self.active)


@runtime_checkable
class Player(Protocol):
    """Chooses actions for N environments of one task."""

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        """Choose an action for each row.

        Returns:
            Actions [N, *shape] in the dtype and bounds of the task's action spec. The caller may
            keep them: they are not changed later.
        """
        ...


@runtime_checkable
class Teacher(Player, Protocol):
    """A player that knows what to do: it plays itself, or says what the agent should have done.

    teacher = teacher_for(task, "sb3:hopper.zip", noise=0.0)
    advice = teacher.act(step)      # the action need not be taken

    A teacher decides from the time steps alone, never from the actions that were taken. So it can
    advise another player: it is given each step of that player's episodes as if it played itself.
    """

    name: str
    """The source that its episodes are recorded with."""
    record: Mapping[str, Any]
    """How it was made; has `return_mean` if it was measured."""
    needs_extras: bool
    """Whether it reads `TimeStep.extras`."""

    @property
    def notes(self) -> Sequence[str]:
        """What a user must know of it (what was converted, allowed, found or is unknown), a line
        each."""
        ...

    def labels(self) -> Shaped[np.ndarray, "N ..."] | None:
        """Return the actions [N, *shape] it wanted at the last `act`, if noise may have changed
        them; else None."""
        ...
