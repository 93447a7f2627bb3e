"""Who acts: the interface of a player, and that of a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Shaped


@runtime_checkable
class Player(Protocol):
    """Whoever chooses actions for N rows."""

    def reset_rows(self, rows: Bool[np.ndarray, " N"], seeds: Shaped[np.ndarray, " N"]) -> None:
        """These rows begin a new episode, of these seeds."""
        ...

    def act(
        self,
        observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
        extras: Mapping[str, Shaped[np.ndarray, "N ..."]],
        rewards: Float[np.ndarray, " N"],
    ) -> Shaped[np.ndarray, "N ..."]:
        """An action for each row; those of rows that do not play are not used. `rewards`: what the
        last ones were paid."""
        ...


@runtime_checkable
class Teacher(Player, Protocol):
    """Whoever knows what to do in N environments: it plays them, or is asked beside the agent who
    does.

    teacher = teacher_for(task, "sb3:hopper.zip", noise=0.0)
    teacher.reset_rows(np.ones(4, np.bool_), seeds)
    wanted = teacher.act(observations, extras, rewards)      # what it would have done, and nobody
    needs to do

    A teacher takes its actions from the observations alone, never from what was done: whoever asks
    it beside an agent tells it of every new episode by `reset_rows` and of every step by `act`, as
    if it played itself.
    """

    name: str
    """What its episodes are signed with."""
    record: Mapping[str, Any]
    """How it was made; `return_mean`, where it was measured."""
    needs_extras: bool
    """Whether it looks at what only teachers may see, such as a game's RAM."""

    @property
    def notes(self) -> Sequence[str]:
        """What a user must be told of it: what was converted, allowed, found or is not known, a
        line each."""
        ...

    def labels(self) -> Shaped[np.ndarray, "N ..."] | None:
        """What it wanted to do at the last `act`, where noise may have made it do otherwise; else
        None."""
        ...
