"""The settings of the actors: how many, what they do with their time, and how they act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal

from actors.assignment import Role
from gato.acting.config import ActingConfig
from gato.bounds import require_at_least

PLAYING: tuple[Role, ...] = ("generate", "relabel", "demonstrate")
"""Roles that fill replay, each with a share of the workers' time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorsConfig:
    """How many workers there are, how their time is shared, and how they act."""

    num_workers: int = 1
    num_envs: int = 4
    """Environments that one worker steps together."""
    evaluation_episodes: int | None = None
    """Episodes of a task in each of its evaluations, on the same seeds every time. None:
    `num_envs`. They are whole after the training; before, games are cut off at three times the
    mean length of the rule's."""
    evaluation_records: int = 256
    """Held-out records of a task without an environment in each of its evaluations."""
    final_evaluation_episodes: int | None = None
    """The same of the evaluations after the training: of the last version, more of the same seeds.
    None: as many as in the others."""
    evaluate: ActingConfig = ActingConfig()
    """How actions are chosen in evaluations."""
    generate: ActingConfig = ActingConfig(continuous="sample", discrete="sample")
    """How actions are chosen when the agent plays to learn: generate and relabel."""
    evaluate_of: Mapping[str, ActingConfig] = field(default_factory=dict[str, ActingConfig])
    """In place of `evaluate`, for single tasks."""
    generate_of: Mapping[str, ActingConfig] = field(default_factory=dict[str, ActingConfig])
    """In place of `generate`, for single tasks."""
    evaluate_every_s: float = 0.0
    """Seconds from the end of a task's evaluation to the beginning of its next; 0: as soon as there
    is a newer version."""
    evaluate_share: float = 1.0
    """Of the workers' time once demonstrations were made, the most that is spent evaluating. Every
    task is evaluated once at the beginning and once at the end, whatever the share; what no role
    claims is idle time, which a learner on the same cores uses."""
    generate_share: float = 0.2
    """The share of that time in which the agent plays to learn from its own episodes (those that
    pass the return filter of `replay.mix`)."""
    relabel_share: float = 0.0
    """The share in which the agent plays and the task's teacher labels each step with its own
    action (DAgger: Ross et al. 2011)."""
    demonstrate_share: float = 0.0
    """The share in which teachers demonstrate further, after `demonstration_steps`."""
    play_from: int = 0
    """Updates that the learner makes before the agent plays to learn from it (generate, relabel).
    If a novice's episodes are as long as an expert's, they slow down learning: docs/actors.md."""
    first_demonstration_steps: int = 4_000
    """Environment steps of demonstrations that each task gets before anything else (unless the run
    has data of it)."""
    demonstration_steps: int = 20_000
    """Environment steps of demonstrations that each task gets in all, made when no evaluation is
    due."""
    demonstration_steps_of: Mapping[str, int] = field(default_factory=dict[str, int])
    """The same for single tasks."""
    teacher_of: Mapping[str, str] = field(default_factory=dict[str, str])
    """Teachers of single tasks, as in `actors.teachers.resolve.teacher_for`: rule,
    specialist:FOLDER, sb3:FILE.zip or python:PACKAGE.MODULE:FUNCTION. Other tasks have the teacher
    that ships, if there is one."""
    demonstration_noise: float = 0.3
    """Noise in every second demonstration of a teacher with continuous actions, in its own standard
    deviations (a rule's: half of the action's range to either side); labels are its actions without
    noise (Laskey et al. 2017, DART)."""
    demonstration_random_share: float = 0.0
    """The share of steps with a random action in every second demonstration of a teacher with
    discrete actions, each held for some steps; labels are the teacher's actions."""
    env_backend: Literal["auto", "loop", "process", "envpool"] = "auto"
    """How a worker makes its environments. auto: those of this package in the worker itself, users'
    own in processes (docs/environments.md)."""
    env_python: str = ""
    """The Python interpreter that environments named `outside:ID` live in, such as
    /opt/old/bin/python; on each machine that plays (docs/environments.md). Empty: that of the
    variable GATO_ENV_PYTHON."""
    step_timeout_s: float = 60.0
    """An environment in a process that does not answer for so long is killed; its episode is
    dropped."""
    hung_after_s: float = 150.0
    """A worker without a step for so long is killed and restarted; its assignment counts as
    failed."""
    clip_every_s: float = 300.0
    """Seconds from one filmed evaluation of a task to its next, in the run's folder under clips; 0:
    none is filmed. Filming costs 1 to 4 s of a core. Evaluations after the training are filmed in
    any case."""
    inference: Literal["worker", "node"] = "worker"
    """Where actions are computed. worker: each worker has the weights. node: one process of each
    node has them for all its workers, which takes less memory; workers of the same task are
    batched, and the last bits of an action depend on the other workers in the batch."""
    niceness: int = 0
    """Added to the workers' niceness, so that a learner on the same cores goes first."""

    def __post_init__(self) -> None:
        if self.num_workers < 0 or self.num_envs < 1:
            raise ValueError(
                f"num_workers {self.num_workers} must be at least 0 and num_envs {self.num_envs} at"
                " least 1"
            )
        if self.env_backend not in ("auto", "loop", "process", "envpool"):
            raise ValueError(
                f"actors.env_backend is {self.env_backend!r}; say auto, loop, process or envpool"
            )
        if self.env_backend == "envpool" and find_spec("envpool") is None:
            raise ValueError(
                "actors.env_backend is envpool, which is not installed; pip install -e '.[envpool]'"
                " in the project's folder"
            )
        if self.inference not in ("worker", "node"):
            raise ValueError(f"actors.inference is {self.inference!r}; say worker or node")
        require_at_least(
            1, self, "evaluation_episodes", "final_evaluation_episodes", "evaluation_records"
        )
        # Written so that nan, for which every comparison is false, is rejected too.
        if not (
            self.demonstration_noise >= 0.0
            and self.step_timeout_s > 0.0
            and self.hung_after_s > 2 * self.step_timeout_s
        ):
            raise ValueError(
                f"demonstration_noise {self.demonstration_noise} must not be negative,"
                f" step_timeout_s {self.step_timeout_s} must be above 0 and hung_after_s"
                f" {self.hung_after_s} more than twice that: a reset may hang after a step that did"
            )
        require_at_least(0, self, "evaluate_every_s", "clip_every_s")
        if not 0 <= self.niceness <= 19:
            raise ValueError(f"niceness {self.niceness} must be between 0 and 19")
        if not 0.0 <= self.demonstration_random_share <= 0.8:
            raise ValueError(
                f"demonstration_random_share {self.demonstration_random_share} must be between 0"
                " and 0.8"
            )
        if self.play_from < 0:
            raise ValueError(
                f"play_from {self.play_from} must not be negative; 0 lets the agent play at once"
            )
        steps = (
            self.first_demonstration_steps,
            self.demonstration_steps,
            *self.demonstration_steps_of.values(),
        )
        if min(steps) < 0:
            raise ValueError(f"steps of demonstrations must not be negative, got {min(steps)}")
        for name in ("evaluate", *PLAYING):
            share = self.share(name)
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name}_share {share} must be between 0 and 1")
        if (total := sum(self.share(role) for role in PLAYING)) > 1.0 + 1e-9:
            named = ", ".join(f"{role}_share {self.share(role)}" for role in PLAYING)
            raise ValueError(
                f"{named} come to {total:g} of the workers' time; lower one, they may come to 1"
            )

    def episodes(self, *, last: bool) -> int:
        """Of an evaluation; `last`: of one after the training."""
        usual = self.evaluation_episodes or self.num_envs
        return max(usual, self.final_evaluation_episodes or usual) if last else usual

    def share(self, role: str) -> float:
        """The share of a role in the workers' time."""
        return getattr(self, f"{role}_share")
