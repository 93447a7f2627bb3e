"""DAgger (Ross et al. 2011): the agent plays, a teacher labels each step with its own action."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

from actors.players.player import Player, Teacher, TimeStep


class RelabelledPlayer:
    """Plays as `player` does, and keeps the teacher's action for the same step as the label."""

    def __init__(self, player: Player, teacher: Teacher) -> None:
        self._player = player
        self._teacher = teacher
        self._labels: Shaped[np.ndarray, "N ..."] | None = None

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        advice = self._teacher.act(step)
        wanted = self._teacher.labels()
        self._labels = advice if wanted is None else wanted
        return self._player.act(step)

    def labels(self) -> Shaped[np.ndarray, "N ..."] | None:
        """Return the teacher's actions at the last `act`; None before the first."""
        return self._labels
