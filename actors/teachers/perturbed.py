"""A teacher with discrete actions whose demonstrations show how to recover from mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from actors.players.player import Teacher, TimeStep
from gato.array_spec import ArraySpec

HELD_STEPS = 6.0
"""Mean steps that a random action is held, geometrically distributed: one step alone moves nothing
far, as a paddle of Pong crosses its field in about ten."""


class PerturbedTeacher:
    """Plays a teacher's actions, with random ones in between in episodes of odd seeds.

    A rule never errs, so a student of its episodes never sees how to recover (Laskey et al. 2017,
    DART, whose noise is Gaussian). A random action is held for `HELD_STEPS` on average. Labels are
    the teacher's actions.
    """

    def __init__(self, teacher: Teacher, action: ArraySpec, *, random_share: float) -> None:
        """`action`: discrete. `random_share`: of the steps of perturbed episodes, from 0 to 0.8."""
        self._teacher, self._action = teacher, action
        # A held action ends with probability 1 / HELD_STEPS a step; so often one has to begin.
        self._begin_rate = random_share / (1.0 - random_share) / HELD_STEPS
        self._rngs: list[np.random.Generator | None] = []
        self._held: list[Shaped[np.ndarray, ...] | None] = []
        self._labels: Shaped[np.ndarray, "N ..."] | None = None
        self.name = teacher.name
        self.record: Mapping[str, Any] = teacher.record
        self.needs_extras = teacher.needs_extras
        self.notes: Sequence[str] = teacher.notes

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        if len(self._rngs) != step.num_rows:
            self._rngs, self._held = [None] * step.num_rows, [None] * step.num_rows
        for row in np.flatnonzero(step.is_first).tolist():
            seed = int(step.seeds[row])
            self._rngs[row] = np.random.default_rng([seed, 2]) if seed % 2 else None
            self._held[row] = None
        self._labels = self._teacher.act(step)
        actions = np.array(self._labels)
        for row, rng in enumerate(self._rngs):
            if rng is not None and (held := self._next(row, rng)) is not None:
                actions[row] = held
        return actions

    def _next(self, row: int, rng: np.random.Generator) -> Shaped[np.ndarray, ...] | None:
        """The random action of a row's next step; None: the teacher's is taken."""
        if self._held[row] is None:
            if rng.random() < self._begin_rate:
                self._held[row] = rng.integers(self._action.counts).reshape(self._action.shape)
        elif rng.random() < 1.0 / HELD_STEPS:
            self._held[row] = None
        return self._held[row]

    def labels(self) -> Shaped[np.ndarray, "N ..."] | None:
        """The actions [N, *shape] of the last `act` that the teacher wanted."""
        return self._labels
