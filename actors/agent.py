"""Gato as a player: a policy for one task and number of environments, with whatever weights it was given last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped

from gato.acting import ActingConfig, ActingState, Policy
from gato.model import Gato, ModelConfig
from gato.sequence import Window
from gato.task import Task
from gato.text import TextEncoder
from gato.weights import Weights, acting_config, load


class GatoPlayer:
    """Plays N environments of one task in lockstep. `load` weights before the first `act`, and only between episodes."""

    def __init__(
        self,
        model: Gato,
        task: Task,
        config: ActingConfig,
        *,
        num_envs: int,
        seed: int,
        prompt: Window | None = None,
        text: TextEncoder | None = None,
    ) -> None:
        self._model = model
        self._task = task
        self._config = config
        self._text = text
        self._generator = torch.Generator().manual_seed(seed)
        self._policy = self._new_policy()
        self._num_envs = num_envs
        self._prompt = prompt
        self._state: ActingState | None = None

    def _new_policy(self) -> Policy:
        return Policy(self._model, self._task, self._config, generator=self._generator, text=self._text)

    def load(self, weights: Weights) -> None:
        """Take new weights; contexts begin anew, because what is cached was computed with the old ones."""
        load(self._model, weights.arrays)
        if self._config.int8:
            self._policy = self._new_policy()  # which quantises them
        self._state = None

    def reset_rows(self, rows: Bool[np.ndarray, " N"], seeds: Shaped[np.ndarray, " N"]) -> None:
        del seeds  # sampling has a generator of its own
        if self._state is None:
            self._state = self._policy.start(self._num_envs, self._prompt)
        else:
            self._state.reset(rows)

    def act(
        self,
        observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
        extras: Mapping[str, Shaped[np.ndarray, "N ..."]],
        rewards: Float[np.ndarray, " N"],
    ) -> Shaped[np.ndarray, "N ..."]:
        del extras  # what only teachers may look at
        if self._state is None:
            self._state = self._policy.start(self._num_envs, self._prompt)
        return self._policy.act(self._state, observations, rewards)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatoPlayers:
    """Makes a `GatoPlayer` for each task and role that a worker is asked to play."""

    model: ModelConfig
    evaluate: Mapping[str, ActingConfig]
    """How each task is played in evaluation."""
    generate: Mapping[str, ActingConfig]
    seed: int
    text: TextEncoder | None = None
    """What turns text into ids, where tasks show text."""

    def __call__(self, task: Task, num_envs: int, role: str) -> GatoPlayer:
        config = self.evaluate[task.name] if role == "evaluate" else self.generate[task.name]
        model = Gato(acting_config(self.model)).eval().requires_grad_(False)
        return GatoPlayer(model, task, config, num_envs=num_envs, seed=self.seed, text=self.text)
