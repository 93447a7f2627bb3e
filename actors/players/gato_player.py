"""Gato as a player: acts in N environments of one task, with the weights that were loaded last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from actors.players.player import TimeStep
from gato.acting.config import ActingConfig
from gato.acting.likelihood import measured_bytes, text_bits
from gato.acting.policy import Policy
from gato.acting.state import ActingState
from gato.config import ModelConfig
from gato.network.model import Gato
from gato.sequence import Window
from gato.task import Task
from gato.text import TextEncoder
from gato.tokenizer import TokenLayout
from gato.weights import Weights, acting_config, load, snapshot

DEFAULT_ACTING = ActingConfig()


@runtime_checkable
class PromptSource(Protocol):
    """Source of the demonstrations that an agent is prompted with."""

    def demonstration(self, task_name: str, num_steps: int) -> Window | None:
        """The first steps of a successful episode, or None if there is none (yet)."""
        ...


class GatoPlayer:
    """Plays N environments of one task as one batch.

    player = GatoPlayer.from_model(model, task, num_envs=4)
    for episode in play(make_envs(task, 4), player, range(10)):
        print(episode.episode_return)

    Players of `GatoPlayers` share one model: `load` the weights again if another player of the
    same model was given others since, and only between episodes.
    """

    def __init__(
        self,
        model: Gato,
        task: Task,
        config: ActingConfig = DEFAULT_ACTING,
        *,
        num_envs: int,
        seed: int = 0,
        find_prompt: Callable[[], Window | None] | None = None,
        text: TextEncoder | None = None,
    ) -> None:
        """Play `model` itself, which must have the shape of `gato.weights.acting_config`.

        Args:
            config: How actions are decoded.
            num_envs: Rows of each `TimeStep`.
            seed: Of the generator that actions are sampled with.
            find_prompt: Called when weights are loaded, until it returns a window: all later
                episodes begin with that demonstration.
            text: Encodes the text that the task shows.

        Raises:
            ValueError: if a step of the task does not fit the model.
        """
        self._model = model
        self._task = task
        self._config = config
        self._text = text
        self._generator = torch.Generator().manual_seed(seed)
        self._policy: Policy | None = self._new_policy()
        self._num_envs = num_envs
        self._find_prompt = find_prompt
        self._prompt: Window | None = None
        self._state: ActingState | None = None

    @classmethod
    def from_model(
        cls,
        model: Gato,
        task: Task,
        config: ActingConfig = DEFAULT_ACTING,
        *,
        num_envs: int,
        seed: int = 0,
        text: TextEncoder | None = None,
    ) -> GatoPlayer:
        """A player of a copy of `model`, such as one that a checkpoint was loaded into.

        It acts as the workers of a run do: in the shape of a model that acts, on weights that are
        rounded to bfloat16. The arguments are those of the constructor.
        """
        copy = Gato(acting_config(model.config)).eval().requires_grad_(False)
        load(copy, snapshot(model))
        return cls(copy, task, config, num_envs=num_envs, seed=seed, text=text)

    def _ready(self) -> Policy:
        """The policy; after a rest it may have to be made."""
        if self._policy is None:
            self._policy = self._new_policy()
        return self._policy

    def _new_policy(self) -> Policy:
        return Policy(
            self._model, self._task, self._config, generator=self._generator, text=self._text
        )

    def load(self, weights: Weights) -> None:
        """Use new weights. Contexts are emptied, because their keys and values were computed with
        the old weights."""
        load(self._model, weights.arrays)
        if self._config.int8:
            self._policy = None  # it is to quantise the new weights
        if self._prompt is None and self._find_prompt is not None:
            self._prompt = self._find_prompt()
        self._state = None

    def rest(self) -> None:
        """Drop the contexts and what they keep of the weights: a worker has a player for each task
        and role, most of them idle."""
        self._state = None
        if self._config.int8:
            self._policy = None  # it has quantised weights of its own

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        """Extend each row's context by its observation, and decode an action [N, *shape]."""
        # Seeds are not used: sampling has a generator of its own.
        if self._state is None:
            self._state = self._ready().start(self._num_envs, self._prompt)
        elif step.is_first.any():
            self._state.reset(step.is_first)
        return self._ready().act(self._state, step.observations, step.rewards)

    def text_bits(
        self,
        observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
        texts: Shaped[np.ndarray, "N b"],
    ) -> Float[np.ndarray, " N"]:
        """See `gato.acting.likelihood.text_bits`."""
        policy = self._ready()
        return text_bits(policy.model, policy.steps, observations, texts)

    def measured_bytes(self, texts: Shaped[np.ndarray, "N b"]) -> Int[np.ndarray, " N"]:
        """See `gato.acting.likelihood.measured_bytes`."""
        return measured_bytes(self._ready().steps, texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatoPlayers:
    """Makes a `GatoPlayer` for each task and role of a worker, all with one copy of the weights."""

    model: ModelConfig
    evaluate: Mapping[str, ActingConfig]
    """How actions are decoded in evaluations, by task."""
    generate: Mapping[str, ActingConfig]
    """How actions are decoded in every other role, by task."""
    seed: int
    text: TextEncoder | None = None
    """Encodes text into ids; needed if a task shows text."""
    prompts: PromptSource | None = None
    """Asked for a demonstration if an acting config has `prompt_steps`."""
    _shared: list[Gato] = field(default_factory=list[Gato], init=False, repr=False, compare=False)
    """The one model of all these players: the worker loads the newest weights before each plays."""

    def acting_of(self, task: Task, role: str) -> ActingConfig:
        return self.evaluate[task.name] if role == "evaluate" else self.generate[task.name]

    @property
    def layout(self) -> TokenLayout:
        """The token layout of the model, with the encoder of text."""
        return replace(self.model.layout, text=self.text)

    def new_model(self) -> Gato:
        """A model of the shape that acts, into which a snapshot can be loaded."""
        return Gato(acting_config(self.model)).eval().requires_grad_(False)

    def prompt_finder(self, task: Task, role: str) -> Callable[[], Window | None] | None:
        """The function that finds a demonstration to prompt this task with; None if the role uses
        no prompt."""
        num_steps = self.acting_of(task, role).prompt_steps
        return (
            partial(self.prompts.demonstration, task.name, num_steps)
            if num_steps and self.prompts
            else None
        )

    def __call__(self, task: Task, num_envs: int, role: str) -> GatoPlayer:
        if not self._shared:
            self._shared.append(self.new_model())
        return GatoPlayer(
            self._shared[0],
            task,
            self.acting_of(task, role),
            num_envs=num_envs,
            seed=self.seed,
            find_prompt=self.prompt_finder(task, role),
            text=self.text,
        )
