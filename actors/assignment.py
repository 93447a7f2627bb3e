"""Assignments: what a worker is asked to do, and its progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gato.version import Version

Role = Literal["evaluate", "generate", "demonstrate", "relabel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Play these seeds of a task, in this role."""

    role: Role
    task: str
    seeds: tuple[int, ...]
    """One for each episode, all different."""
    num_envs: int | None = None
    """Environments stepped together. None: one for each seed."""
    max_steps: int | None = None
    """Where episodes are cut off, as truncated ones: a novice may never serve the ball of Breakout,
    and stand there for 27,000 steps. None: they are played to their end."""
    film: bool = False
    """Whether the first seed's episode is filmed: `Worker.take_clip` returns the clip then."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"an assignment needs one or more different seeds, got {self.seeds}")

    @property
    def rows(self) -> int:
        """Number of environments that it needs."""
        return min(len(self.seeds), self.num_envs or len(self.seeds))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProgress:
    """A worker's progress, which can be asked for while it plays."""

    assignment: Assignment | None
    """The present or the last one; None before the first."""
    episodes: int
    """Episodes that ended in this assignment."""
    steps: int
    """Steps of the player in this assignment, each for all of its rows."""
    last_step_age_s: float
    """Seconds since the last of these steps, or since the assignment began."""
    env_steps: int = 0
    """Steps of environments in this assignment, those of episodes that go on included; of a task
    without an environment the records that were answered."""
    version: Version | None = None
    """Of the weights that play in this assignment, if any do."""
