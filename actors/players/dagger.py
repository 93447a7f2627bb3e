"""Relabelling: the agent plays, and a teacher says at each step what it would have done there (Ross
et al. 2011, DAgger)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Shaped

from actors.rollout import Player
from actors.teachers.resolve import Teacher


class Relabelled:
    """A player who plays as the agent does, and remembers the teacher's advice: the labels of what
    was just played."""

    def __init__(self, player: Player, teacher: Teacher) -> None:
        self._player = player
        self._teacher = teacher
        self._labels: Shaped[np.ndarray, "N ..."] | None = None

    def reset_rows(self, rows: Bool[np.ndarray, " N"], seeds: Shaped[np.ndarray, " N"]) -> None:
        self._player.reset_rows(rows, seeds)
        self._teacher.reset_rows(rows, seeds)

    def act(
        self,
        observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
        extras: Mapping[str, Shaped[np.ndarray, "N ..."]],
        rewards: Float[np.ndarray, " N"],
    ) -> Shaped[np.ndarray, "N ..."]:
        advice = self._teacher.act(observations, extras, rewards)
        meant = self._teacher.labels()
        self._labels = advice if meant is None else meant
        return self._player.act(observations, extras, rewards)

    def labels(self) -> Shaped[np.ndarray, "N ..."] | None:
        return self._labels
