"""What a worker is asked to do, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["evaluate", "generate", "demonstrate", "relabel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One thing to do: play these seeds of a task, in this role."""

    role: Role
    task: str
    seeds: tuple[int, ...]
    """One for each episode."""
    num_envs: int | None = None
    """Environments stepped together. None: one for each seed."""
    film: bool = False
    """Whether the first seed's episode is filmed, where it is an evaluation: `Worker.take_clip` has
    it then."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"an assignment needs one or more different seeds, got {self.seeds}")

    @property
    def rows(self) -> int:
        """Environments that it takes."""
        return min(len(self.seeds), self.num_envs or len(self.seeds))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProgress:
    """How far a worker is, to be asked while it plays."""

    assignment: Assignment | None
    """What it is at; None before the first."""
    episodes: int
    """Ended in this assignment."""
    steps: int
    """Rounds of decisions made in this assignment, each for all of its rows."""
    last_step_age_s: float
    """Time since the last of them, or since it was given the assignment."""
