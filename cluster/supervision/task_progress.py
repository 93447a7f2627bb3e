"""How far each task of a run is: demonstrations, evaluations, failures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from actors.assignment import Role
from actors.config import PLAYING, ActorsConfig
from gato.version import Version

BREAKS_AFTER = 8
"""Failures in a row, without one success in between, after which a task is not tried again in that
role."""


@dataclass(slots=True)
class TaskProgress:
    """What the scheduler knows of one task."""

    demonstration_steps: int = 0
    wanted_steps: int = 0
    teachable: bool = False
    longest: int | None = None
    """Steps after which the agent's episodes are cut off that nobody needs to their end."""
    evaluated: Version | None = None
    evaluated_last: Version | None = None
    """The newest version with as many episodes as evaluations after the training have, played to
    their ends."""
    evaluation_in_flight: bool = False
    evaluation_ended_s: float = float("-inf")
    filmed_s: float = float("-inf")
    teaching_in_flight: int = 0
    next_seed: int = 0
    asked: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(PLAYING, 0))
    """Episodes asked for, by role."""
    not_before_s: dict[Role, float] = field(default_factory=dict[Role, float])
    """Until then it is not tried in a role, in which it failed."""
    failures: dict[Role, int] = field(default_factory=dict[Role, int])
    """Since its last success, in each role that was tried."""
    failed_s: dict[Role, float] = field(default_factory=dict[Role, float])
    """When the last of them was counted: what was given out before it tells nothing new."""

    def is_broken(self, role: Role) -> bool:
        return self.failures.get(role, 0) >= BREAKS_AFTER

    def wants_evaluation(self, newest: Version | None, *, last: bool) -> bool:
        """Whether the newest version is still to be evaluated; `last`: with all episodes."""
        done = self.evaluated_last if last else self.evaluated
        is_open = not self.evaluation_in_flight and not self.is_broken("evaluate")
        return newest is not None and is_open and (done is None or done < newest)

    def was_evaluated(self, version: Version | None, *, with_all: bool) -> None:
        """An evaluation of a version ended; `with_all`: it had all episodes to their ends, or
        failed."""
        self.evaluated = _newer(self.evaluated, version)
        if with_all:
            self.evaluated_last = _newer(self.evaluated_last, version)

    def may_try(self, role: Role, now_s: float) -> bool:
        return not self.is_broken(role) and now_s >= self.not_before_s.get(role, now_s)


def first_progress(
    config: ActorsConfig,
    tasks: Sequence[str],
    *,
    demonstration_steps: Mapping[str, int],
    teachable: Collection[str],
    has_data: Collection[str],
    longest: Mapping[str, int],
    seed: int,
    used_seeds: int = 0,
) -> dict[str, TaskProgress]:
    """Where each task stands as a run begins or goes on; see `Scheduler`."""
    return {
        task: TaskProgress(
            demonstration_steps=demonstration_steps.get(task, 0),
            wanted_steps=wanted_steps(config, task, teachable, has_data),
            teachable=task in teachable,
            longest=longest.get(task),
            # Seeds of demonstrations and play begin where no evaluation and no other run's seed
            # looks, and after what an earlier process of this run may have played.
            next_seed=1_000_000 * (1 + seed) + demonstration_steps.get(task, 0) + used_seeds,
        )
        for task in tasks
    }


def wanted_steps(
    config: ActorsConfig, task: str, teachable: Collection[str], has_data: Collection[str]
) -> int:
    """Steps of demonstrations that a task is to have."""
    if task not in teachable or task in has_data:
        return 0
    return config.demonstration_steps_of.get(task, config.demonstration_steps)


def _newer(one: Version | None, other: Version | None) -> Version | None:
    return max((version for version in (one, other) if version is not None), default=None)


def is_hopeless(states: Sequence[TaskProgress], *, has_data: bool) -> bool:
    """Whether every task failed repeatedly in each role that was tried, or all teachers did and
    there is nothing else to learn from."""
    untaught = [state for state in states if state.wanted_steps]
    nothing_shown = all(
        not state.demonstration_steps and state.is_broken("demonstrate") for state in untaught
    )
    if untaught and nothing_shown and not has_data and len(untaught) == len(states):
        return True
    return all(state.failures and all(map(state.is_broken, state.failures)) for state in states)
