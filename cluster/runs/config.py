"""A run as a value: frozen dataclasses, the named runs, overrides from the command line, and JSON
to keep with the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from actors.assignment import Role
from gato.config import ActingConfig, ModelConfig
from gato.files import damaged, read_json
from gato.serialization import from_plain, to_plain
from learner.config import LearnerConfig
from replay.config import ReplayConfig
from replay.sampling.config import TableConfig

PLAYING: tuple[Role, ...] = ("generate", "relabel", "demonstrate")
"""Roles that fill replay, each with a share of the workers' time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorsConfig:
    """Who plays, how much, and how."""

    num_workers: int = 1
    num_envs: int = 4
    """Environments that one worker steps together."""
    evaluation_episodes: int | None = None
    """Whole episodes of a task in each of its evaluations, on the same seeds every time. None:
    `num_envs`."""
    evaluate: ActingConfig = ActingConfig()
    generate: ActingConfig = ActingConfig(continuous="sample", discrete="sample")
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
    pass the mix's filter by return)."""
    relabel_share: float = 0.0
    """The share in which the agent plays and the task's teacher says what it would have done
    (DAgger: Ross et al. 2011)."""
    demonstrate_share: float = 0.0
    """The share in which teachers go on to play after `demonstration_steps`."""
    play_from: int = 0
    """Updates that the learner makes before the agent plays to learn from it (generate, relabel).
    Where a novice's episodes are as long as an expert's, they hold it back: docs/actors.md."""
    first_demonstration_steps: int = 4_000
    """Environment steps of its teacher's play that each task has before anything else (unless the
    run brings data of it)."""
    demonstration_steps: int = 20_000
    """Environment steps of its teacher's play that each task gets in all, made when no evaluation
    waits."""
    demonstration_steps_of: Mapping[str, int] = field(default_factory=dict[str, int])
    """The same for single tasks."""
    teacher_of: Mapping[str, str] = field(default_factory=dict[str, str])
    """Who teaches single tasks, as `actors.teachers.resolve.teacher_for` reads it: rule,
    specialist:FOLDER, sb3:FILE.zip or python:PACKAGE.MODULE:FUNCTION. The others have the teacher
    that ships, where one does."""
    demonstration_noise: float = 0.3
    """Specialists perturb every second demonstration by so many of their own standard deviations;
    its labels are what they meant to do (Laskey et al. 2017, DART)."""
    env_backend: Literal["auto", "loop", "process", "envpool"] = "auto"
    """How a worker makes its environments. auto: ours in the worker itself, users' own in processes
    (docs/environments.md)."""
    step_timeout_s: float = 60.0
    """An environment in a process that does not answer for so long is killed; its episode is
    dropped."""
    hung_after_s: float = 150.0
    """A worker that has made no step for so long is killed and started again; its assignment counts
    as failed."""
    clip_every_s: float = 300.0
    """Seconds from one filmed evaluation of a task to its next, in the run's folder under clips; 0:
    none is filmed. Filming costs 1 to 4 s of a core. What is evaluated after the training is filmed
    in any case."""
    inference: Literal["worker", "node"] = "worker"
    """Where decisions are made: each worker holds the weights itself, or one process a node holds
    them for all its workers, which takes less memory; workers that play the same task then decide
    together, and the last bits of a decision depend on who else is asking."""
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
        if self.evaluation_episodes is not None and self.evaluation_episodes < 1:
            raise ValueError(f"evaluation_episodes {self.evaluation_episodes} must be at least 1")
        # Written so that nan, which no comparison holds for, is refused too.
        if not (
            self.demonstration_noise >= 0.0
            and self.step_timeout_s > 0.0
            and self.hung_after_s > 2 * self.step_timeout_s
        ):
            raise ValueError(
                f"demonstration_noise {self.demonstration_noise} must not be negative, step_timeout_s"
                f" {self.step_timeout_s} must be above 0 and hung_after_s {self.hung_after_s} more"
                " than twice that: a reset may hang after a step that did"
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

    def share(self, role: str) -> float:
        """Of a role."""
        return getattr(self, f"{role}_share")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that makes one run.

    RunConfig(name="debug", tasks=("mujoco/inverted-pendulum",), model=PRESETS["tiny"],
    learner=LearnerConfig(num_updates=20), ...)
    """

    name: str
    about: str
    """One line for `gato start --help`."""
    tasks: tuple[str, ...]
    model: ModelConfig
    learner: LearnerConfig
    replay: ReplayConfig
    actors: ActorsConfig = ActorsConfig()
    seed: int = 0
    data: tuple[str, ...] = ()
    """Imported data sets (`gato import`) to train on, by name."""
    text: str = "bytes"
    """What turns text into tokens, for tasks that show some: bytes, or a SentencePiece model's file
    (in the run's folder)."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError(
                f"run {self.name} has no tasks; name at least one, such as mujoco/hopper"
            )
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} must not be negative")
        of_tasks = {
            name: getattr(self.actors, name)
            for name in ("evaluate_of", "generate_of", "teacher_of", "demonstration_steps_of")
        }
        for setting, by_task in of_tasks.items():
            for task in by_task:
                if task not in self.tasks:
                    raise ValueError(
                        f"actors.{setting} names task {task!r}, run {self.name} has"
                        f" {', '.join(self.tasks)}; name one of these"
                    )
        if self.replay.mix.row_tokens > self.model.context_tokens:
            raise ValueError(
                f"rows of {self.replay.mix.row_tokens} tokens are longer than the model's context"
                f" of {self.model.context_tokens}; lower replay.mix.row_tokens or raise"
                " model.context_tokens"
            )
        limiter, mix = self.replay.limiter, self.replay.mix
        read_tokens = (
            min(self.actors.play_from, self.learner.num_updates) * mix.rows * mix.row_tokens
        )
        allowed_tokens = limiter.slack_tokens + limiter.warmup_tokens * (
            limiter.reads_per_inserted_token or 0.0
        )
        if limiter.reads_per_inserted_token is not None and read_tokens > allowed_tokens:
            raise ValueError(
                f"until actors.play_from, {self.actors.play_from}, the learner reads"
                f" {read_tokens:,} tokens and replay may let it read no more than"
                f" {allowed_tokens:,.0f} before somebody plays: it could wait for ever; add --set"
                f" replay.limiter.slack_tokens={read_tokens} or --set"
                " replay.limiter.reads_per_inserted_token=null"
            )


GENERAL_OF = {"evaluate_of": "evaluate", "generate_of": "generate"}
"""Settings of single tasks, and the setting of all tasks that each of them stands for."""


def config_from_json(text: str) -> RunConfig:
    return from_plain(RunConfig, json.loads(text))


def read_config(file: Path, entry: str | None = None) -> RunConfig:
    """The config in a JSON file, under the key `entry` where there is one. ValueError names the
    file where it is damaged."""
    fix = "put the file of a backup there, or start another run"
    plain = read_json(file, fix=fix)
    try:
        return from_plain(RunConfig, plain[entry] if entry is not None else plain)
    except (KeyError, TypeError, ValueError) as problem:
        raise damaged(file, problem, fix=fix) from problem


def config_to_json(config: RunConfig) -> str:
    return json.dumps(to_plain(config), indent=1)


def override(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """The config with `path=value` settings applied, such as `learner.num_updates=500`. ValueError
    names what is wrong."""
    plain = to_plain(config)
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator:
            raise ValueError(f"setting {setting!r} has no '='; write it as learner.num_updates=500")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if "?" in path:
            raise ValueError(
                f"setting {setting!r} names a task with sticky actions, which a path cannot; set it"
                " for all tasks, without _of"
            )
        *parents, last = path.split(".")
        place = plain
        for above, name in zip(["", *parents], parents, strict=False):
            if isinstance(place, dict) and above in GENERAL_OF:
                # A task of its own begins as all others are.
                place.setdefault(name, dict(plain["actors"][GENERAL_OF[above]]))
            if isinstance(place, dict) and above == "tables":
                place.setdefault(name, to_plain(TableConfig()))
            place = place.get(name) if isinstance(place, dict) else None
        if not isinstance(place, dict) or (
            last not in place
            and not {"tasks", "demonstration_steps_of", "teacher_of", *GENERAL_OF} & set(parents)
        ):
            known = _paths(to_plain(config))
            near = get_close_matches(path, known, n=1, cutoff=0.4)
            raise ValueError(
                f"unknown setting {path!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
        old = place.get(last)
        if old is not None and value is not None and not isinstance(value, type(old)) and not (
            isinstance(old, float) and isinstance(value, int)
        ):  # fmt: skip
            raise ValueError(f"setting {path} is {old!r}; {text!r} is of another kind")
        place[last] = value
    return from_plain(RunConfig, plain)


def _paths(plain: Mapping[str, Any], prefix: str = "") -> list[str]:
    out: list[str] = []
    for name, value in plain.items():
        out.extend(
            _paths(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
        )
    return out


def with_tasks(config: RunConfig, tasks: Sequence[str]) -> RunConfig:
    """The run on other tasks; settings of single tasks stay with the tasks that stay."""
    kept = {task: mix for task, mix in config.replay.mix.tasks.items() if task in tasks}
    mix = replace(config.replay.mix, tasks=kept)
    actors = replace(
        config.actors,
        evaluate_of={
            task: acting for task, acting in config.actors.evaluate_of.items() if task in tasks
        },
        generate_of={
            task: acting for task, acting in config.actors.generate_of.items() if task in tasks
        },
        teacher_of={task: spec for task, spec in config.actors.teacher_of.items() if task in tasks},
        demonstration_steps_of={
            task: steps
            for task, steps in config.actors.demonstration_steps_of.items()
            if task in tasks
        },
    )
    return replace(
        config, tasks=tuple(tasks), actors=actors, replay=replace(config.replay, mix=mix)
    )
