"""What an environment is to us: its interface, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped, UInt8

Outcome = tuple[dict[str, np.ndarray], float, bool, bool]
"""Observation, reward, terminated, truncated."""
DEFAULT_STEPS_PER_S = 15.0
Observations = Mapping[str, Shaped[np.ndarray, "N ..."]]
Backend = Literal["loop", "process", "envpool"]


class EnvFailedError(RuntimeError):
    """An environment broke; the message names the task, the step and the reason."""


class NoPictureError(RuntimeError):
    """An environment cannot be drawn here; the message says why, and how to mend it."""


@runtime_checkable
class Env(Protocol):
    """One environment as `VectorEnv` needs it."""

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        """Begin an episode; the same seed begins the same one."""
        ...

    def step(self, action: Shaped[np.ndarray, ...]) -> Outcome: ...

    def extras(self) -> dict[str, np.ndarray]:
        """What only a teacher may look at."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Pictured(Protocol):
    """An environment that can be drawn."""

    @property
    def steps_per_s(self) -> float:
        """In the world that it shows."""
        ...

    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """What it looks like now. It changes nothing."""
        ...
