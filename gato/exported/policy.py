"""Acting with a policy file, one step of one environment at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Shaped

from gato.acting.policy import Policy
from gato.acting.return_to_go import FLOAT32_MAX
from gato.acting.state import ActingState
from gato.exported.observation import one_row
from gato.exported.policy_file import PolicyFile, read_policy
from gato.network.model import Gato
from gato.sequence import Window
from gato.task import Task, find_task
from gato.text import ByteEncoder, TextEncoder
from gato.weights import load

MakeEncoder = Callable[[bytes], TextEncoder]
"""Makes the encoder of a SentencePiece model's bytes, such as
`actors.tasks.text_encoder.SentencePieceEncoder`."""


def encoder_of(policy: PolicyFile, text: MakeEncoder | None = None) -> TextEncoder | None:
    """What encodes the texts of a policy's tasks; None if they show none.

    Args:
        policy: The policy.
        text: Makes the encoder of a SentencePiece model.

    Raises:
        ValueError: If the policy has a SentencePiece model, and `text` is None.
    """
    if not policy.shows_text:
        return None
    if policy.text_model is None:
        return ByteEncoder()
    if text is None:
        raise ValueError(
            "this policy encodes text with a SentencePiece model; give"
            " text=SentencePieceEncoder, from actors.tasks.text_encoder, which needs the package"
            " sentencepiece"
        )
    return text(policy.text_model)


class LoadedPolicy:
    """Acts in one environment with the weights of a policy file.

    policy = load_policy("policy.safetensors")
    policy.reset("mujoco/hopper")               # at the beginning of each episode
    action = policy.act(observation)            # [*shape], in the environment's units
    policy.observe(reward)                      # what the action paid
    """

    def __init__(
        self, file: PolicyFile, *, seed: int | None = None, text: MakeEncoder | None = None
    ) -> None:
        """Build the model. `load_policy` reads a file and does this.

        Args:
            file: What a policy file holds.
            seed: Of the generators that actions are sampled with. Default: the file's.
            text: Makes the encoder of a SentencePiece model.

        Raises:
            ValueError: If the weights are of another model than the file says.
        """
        self.file = file
        self._text = encoder_of(file, text)
        self._seed = file.seed if seed is None else seed
        self._model = Gato(file.model).eval().requires_grad_(False)
        load(self._model, file.weights.arrays)
        self._generators: dict[str, torch.Generator] = {}
        self._policy: Policy | None = None
        self._state: ActingState | None = None
        self._reward: float | None = None

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks that it can act in, by name."""
        return {name: each.task for name, each in self.file.tasks.items()}

    def policy_of(self, task: str, *, target_return: float | None = None) -> Policy:
        """The batched policy of a task, for N environments at once.

        Args:
            task: Its name, or an alias.
            target_return: As for `reset`.

        Raises:
            ValueError: If there is no such task here, or the model takes no target return.
        """
        name = find_task(task, self.tasks).name
        each = self.file.tasks[name]
        acting = each.acting
        if target_return is not None:
            if not self.file.model.return_conditioned:
                raise ValueError(
                    f"target_return {target_return:g} is given, but this model is not"
                    " return-conditioned; leave it out, or train with"
                    " model.return_conditioned=true"
                )
            if not math.isfinite(target_return):
                raise ValueError(f"target_return {target_return} must be finite")
            acting = replace(acting, target_return=target_return)
        generator = self._generators.setdefault(name, torch.Generator().manual_seed(self._seed))
        return Policy(self._model, each.task, acting, generator=generator, text=self._text)

    def reset(
        self,
        task: str | None = None,
        *,
        prompt: Window | Literal["stored"] | None = "stored",
        target_return: float | None = None,
    ) -> None:
        """Begin an episode: everything before it is forgotten.

        Args:
            task: Its name, or an alias. May be left out if the file has one task.
            prompt: Steps of a good episode that it begins with. Default: those in the file, if it
                has some for the task. None: no prompt.
            target_return: What a return-conditioned model aims for: 0 is a random policy's return,
                1 the expert's. Default: the file's.

        Raises:
            ValueError: If there is no such task here, or prompt or target do not fit.
        """
        if task is None:
            if len(self.tasks) > 1:
                raise ValueError(f"this policy has {', '.join(self.tasks)}; name one of them")
            task = next(iter(self.tasks))
        policy = self.policy_of(task, target_return=target_return)
        shown = self.file.tasks[policy.task.name].prompt if prompt == "stored" else prompt
        self._policy, self._state, self._reward = policy, policy.start(1, shown), None

    def act(self, observation: Any) -> Shaped[np.ndarray, ...]:
        """Choose an action.

        Args:
            observation: Arrays by name, each of its spec's shape. A task that shows one array takes
                it without its name too; a text may be a `str`.

        Returns:
            The action, of the shape, dtype and bounds of the task's action spec.

        Raises:
            ValueError: If no episode was begun, the observation does not fit the task, or a reward
                is missing that the model needs.
        """
        if self._policy is None or self._state is None:
            raise ValueError("no episode is going on; call reset(TASK) first")
        needs_reward = (
            self._policy.steps.num_return_tokens
            and self._policy.config.target_return is not None
            and self._state.step > 0
        )
        if needs_reward and self._reward is None:
            raise ValueError(
                "this model is return-conditioned: call observe(reward) after each action"
            )
        row = one_row(self._policy.task, observation)
        rewards = np.array([self._reward or 0.0], np.float32)
        action = self._policy.act(self._state, row, rewards)[0]
        self._reward = None
        return action

    def observe(self, reward: float) -> None:
        """Tell what the last action paid. Several rewards of one action are added.

        Raises:
            ValueError: If it, or the sum, is not a finite number of 32 bits.
        """
        total = (self._reward or 0.0) + float(reward)
        if not abs(total) <= FLOAT32_MAX:
            raise ValueError(f"the reward is {reward}, expected a number within ±{FLOAT32_MAX:.2g}")
        self._reward = total


def load_policy(
    file: str | Path, *, seed: int | None = None, text: MakeEncoder | None = None
) -> LoadedPolicy:
    """The policy in a file that `gato export` wrote. It acts on the CPU.

    Args:
        file: The file.
        seed: Of the generators that actions are sampled with. Default: the run's.
        text: Makes the text encoder of a file that has a SentencePiece model.

    Raises:
        ValueError: If it is no policy file, damaged, or of a newer version.
        OSError: If it cannot be read.
    """
    return LoadedPolicy(read_policy(Path(file)), seed=seed, text=text)
