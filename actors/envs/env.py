"""The interface of one environment, and the errors that it fails with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped, UInt8

Outcome = tuple[dict[str, np.ndarray], float, bool, bool]
"""Observation, reward, terminated, truncated."""
DEFAULT_STEPS_PER_S = 15.0
"""Steps per second of the world, for an environment that does not state it."""
ACTION_BOUND = 10.0
"""How far an action without bounds is taken to reach, unless the task says otherwise."""
ENV_PYTHON = "GATO_ENV_PYTHON"
"""The variable that names the interpreter of environments elsewhere."""
Observations = Mapping[str, Shaped[np.ndarray, "N ..."]]
"""By name, a row for each of N environments."""
Backend = Literal["loop", "process", "envpool"]
"""Where environments run: in this process one after another, in a process each, or in EnvPool's
threads."""


class EnvFailedError(RuntimeError):
    """An environment broke; the message names the task, the step and the reason."""


class NoPictureError(RuntimeError):
    """An environment cannot be drawn here; the message says why, and how to fix it."""


@runtime_checkable
class Env(Protocol):
    """One environment, as `VectorEnv` needs it."""

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        """Begin an episode; the same seed begins the same one.

        Returns:
            The first observation: arrays [*shape] by name, in the dtypes of the task's specs.
        """
        ...

    def step(self, action: Shaped[np.ndarray, ...]) -> Outcome:
        """Take an action [*shape] of the task's spec. Returns the observation as `reset` does, the
        reward, terminated and truncated. May raise anything, which breaks the environment."""
        ...

    def extras(self) -> dict[str, np.ndarray]:
        """What only a teacher may look at, of the same names and shapes at every step."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Succeeding(Protocol):
    """An environment that may say whether its task is solved, which its return does not tell."""

    @property
    def success(self) -> bool | None:
        """Whether the present episode was solved at any of its steps so far; None if the
        environment does not say."""
        ...


@runtime_checkable
class Pictured(Protocol):
    """An environment that can be drawn."""

    @property
    def steps_per_s(self) -> float:
        """Steps per second of the world that it shows."""
        ...

    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """Draw the present state, without changing it."""
        ...
