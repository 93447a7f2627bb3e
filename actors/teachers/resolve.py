"""Teachers: who makes a task's demonstrations, and says what it would have done where the agent
plays."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import parse_qsl, urlencode

import numpy as np
from jaxtyping import Shaped

from actors.rollout import Player
from actors.teachers.kinds import (
    ChoosingTeacher,
    FunctionTeacher,
    RuleTeacher,
    SpecialistTeacher,
    rule_name,
)
from actors.teachers.scripted import RULES
from actors.teachers.specialist import SHIPPED, file_stem, load_specialist
from gato.task import Kind, Task

MEASURE_SEED = 20_000
"""Teachers are measured on the seeds 20,000, 20,001, ..."""
SPECS = (
    "rule, specialist[:FOLDER],"
    " sb3:FILE.zip[?vecnormalize=FILE|none&activation=tanh|relu&allow=DIFFERENCE],"
    " python:PACKAGE.MODULE:FUNCTION"
)


@runtime_checkable
class Teacher(Player, Protocol):
    """Whoever knows what to do in N environments: it plays them, or is asked beside the agent who
    does.

    teacher = teacher_for(task, "sb3:hopper.zip", noise=0.0)
    teacher.reset_rows(np.ones(4, np.bool_), seeds)
    wanted = teacher.act(observations, extras, rewards)      # what it would have done, and nobody
    needs to do

    A teacher takes its actions from the observations alone, never from what was done: whoever asks
    it beside an agent tells it of every new episode by `reset_rows` and of every step by `act`, as
    if it played itself.
    """

    name: str
    """What its episodes are signed with."""
    record: Mapping[str, Any]
    """How it was made; `return_mean`, where it was measured."""
    needs_extras: bool
    """Whether it looks at what only teachers may see, such as a game's RAM."""

    @property
    def notes(self) -> Sequence[str]:
        """What a user must be told of it: what was converted, allowed, found or is not known, a
        line each."""
        ...

    def labels(self) -> Shaped[np.ndarray, "N ..."] | None:
        """What it wanted to do at the last `act`, where noise may have made it do otherwise; else
        None."""
        ...


def _is_babyai(task: Task) -> bool:
    """Whether it is a level of BabyAI, whose bot comes with it."""
    return task.name.startswith("minigrid:BabyAI-")


def _rule_or_specialist(task: Task, noise: float, folder: Path) -> Teacher:
    if task.family == "atari" or rule_name(task) in RULES:
        return RuleTeacher(task)
    if _is_babyai(task):
        return _function(task, "actors.envs.babyai:act")
    if task.family != "mujoco":
        raise ValueError(
            f"no teacher ships for {task.name}; name one of: {SPECS}, or bring recorded play by"
            " `gato import`"
        )
    return _specialist(task, noise, folder)


def _specialist(task: Task, noise: float, folder: Path) -> Teacher:
    specialist = load_specialist(task.name, folder).fitted(task)
    return SpecialistTeacher(task, noise=noise, specialist=specialist)


def _stable_baselines(task: Task, noise: float, where: str) -> Teacher:
    from actors.teachers.sb3.policy import load_sb3  # which needs torch

    network, name = load_sb3(where, task), f"sb3:{Path(where.partition('?')[0]).stem}"
    if task.action.kind is Kind.DISCRETE:
        return ChoosingTeacher(task, network=network, name=name)
    return SpecialistTeacher(task, noise=noise, specialist=network, name=name)


def _function(task: Task, where: str) -> Teacher:
    module_name, _, name = where.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # it may lie in the working folder, as with `python -m`
    try:
        found = getattr(importlib.import_module(module_name), name or "(no function is named)")
    except (Exception, SystemExit) as problem:  # whatever its author's code raises
        raise ValueError(
            f"teacher python:{where} of task {task.name} cannot be imported:"
            f" {type(problem).__name__}: {problem}; write it as python:PACKAGE.MODULE:FUNCTION, of"
            " a module that `python -c 'import MODULE'` finds"
        ) from problem
    if not callable(found):
        raise ValueError(f"teacher python:{where} of task {task.name} is no function but {found!r}")
    try:
        function = found(task) if isinstance(found, type) else found
    except (Exception, SystemExit) as problem:
        raise ValueError(
            f"teacher python:{where} of task {task.name} cannot be made: {type(problem).__name__}:"
            f" {problem}; a class is made with the task alone"
        ) from problem
    return FunctionTeacher(task, function, f"python:{where}")


def teacher_for(
    task: Task, spec: str | Callable[..., Any] = "", *, noise: float = 0.3, folder: Path = SHIPPED
) -> Teacher:
    """The task's teacher. ValueError where there is none, or where it does not fit the task.

    `spec`: "" takes what ships. `rule` and `specialist` name its kind, `specialist:FOLDER` one of
    one's own, `sb3:FILE.zip[?vecnormalize=FILE]` a policy of Stable-Baselines3
    (`actors.teachers.sb3.policy.load_sb3`), `python:PACKAGE.MODULE:FUNCTION` a function
    `(observations, extras) -> actions` (or a class that is made with the task and called); a
    function itself will do too. `noise`, in standard deviations of its own, perturbs half of the
    episodes of those that play continuous actions.
    """
    if not isinstance(spec, str):
        return FunctionTeacher(
            task, spec, f"python:{getattr(spec, '__qualname__', type(spec).__qualname__)}"
        )
    kind, _, where = spec.partition(":")
    if spec == "":
        return _rule_or_specialist(task, noise, folder)
    if spec == "rule":
        return RuleTeacher(task)
    if kind == "specialist":
        return _specialist(task, noise, Path(where).expanduser() if where else folder)
    if kind == "sb3" and where:
        return _stable_baselines(task, noise, where)
    if kind == "python" and where:
        return _function(task, where)
    raise ValueError(f"unknown teacher {spec!r} for task {task.name}; give one of: {SPECS}")


def absolute_spec(spec: str) -> str:
    """The same teacher, found from every folder."""
    kind, _, where = spec.partition(":")
    if kind not in ("sb3", "specialist") or not where:
        return spec
    file, question, query = where.partition("?") if kind == "sb3" else (where, "", "")
    options = [
        (name, _absolute(value) if name == "vecnormalize" and value not in ("", "none") else value)
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return f"{kind}:{_absolute(file)}{question}{urlencode(options, safe='/~:,')}"


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def has_teacher(task: Task, folder: Path = SHIPPED) -> bool:
    """Whether anyone who ships can demonstrate this task."""
    return (
        rule_name(task) in RULES
        or _is_babyai(task)
        or (folder / f"{file_stem(task.name)}.safetensors").is_file()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Teachers:
    """Makes a task's teacher for a role: with `noise` to teach, without it to relabel."""

    noise: float = 0.3
    specs: Mapping[str, str] = field(default_factory=dict[str, str])
    """Who teaches a task, as `teacher_for` reads it; who ships teaches the others."""

    def __call__(self, task: Task, role: str) -> Teacher:
        return teacher_for(
            task, self.specs.get(task.name, ""), noise=self.noise if role == "demonstrate" else 0.0
        )


def teacher_return(task: Task, spec: str = "", folder: Path = SHIPPED) -> float | None:
    """The mean return that the task's teacher was measured at without noise; None where there is
    none, or no measure."""
    if (not spec and not has_teacher(task, folder)) or task.env_kwargs.get("sticky"):
        return None  # rules were measured without sticky actions
    record = teacher_for(task, spec, folder=folder).record
    return float(record["return_mean"]) if "return_mean" in record else None


def measure(
    task: Task, *, episodes: int, seed: int = MEASURE_SEED, spec: str = "", noise: float = 0.3
) -> dict[str, Any]:
    """The record of a task's teacher: returns over fresh episodes, played as it demonstrates."""
    from actors.envs.provenance import versions_of
    from actors.teachers.demonstrate import demonstrate  # which needs this file first

    played = list(demonstrate(task, episodes=episodes, seed=seed, teacher_spec=spec, noise=noise))
    returns = np.array([episode.episode_return for episode in played])
    options = (f" --teacher {spec}" if spec else "") + (
        f" --noise {noise:g}" if noise != 0.3 else ""
    )
    return {
        "task": task.name,
        "command": (
            f"python -m actors.teachers.resolve measure {task.name} --episodes {episodes} --seed"
            f" {seed}{options}"
        ),
        "measured_seeds": [seed, seed + episodes],
        "return_mean": round(float(returns.mean()), 2),
        "return_std": round(float(returns.std()), 2),
        "return_min": float(returns.min()),
        "steps_mean": round(float(np.mean([episode.num_steps for episode in played])), 1),
        "versions": versions_of(task),
    }


def main() -> None:
    """Measure a teacher from the command line."""
    from actors.envs.factory import EnvFailedError
    from actors.tasks.resolve import resolve_task

    parser = argparse.ArgumentParser(description="Measure the teacher of a task.")
    parser.add_argument("word", choices=["measure"])
    parser.add_argument("task")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=MEASURE_SEED)
    parser.add_argument("--teacher", default="", help=f"The task's own, or one of {SPECS}.")
    parser.add_argument(
        "--noise", type=float, default=0.3, help="Of robots' teachers in half of the episodes."
    )
    arguments = parser.parse_args()
    if arguments.episodes < 1 or arguments.seed < 0:
        parser.error("--episodes must be at least 1 and --seed at least 0")
    try:
        task = resolve_task(arguments.task)
        for note in teacher_for(task, arguments.teacher).notes:
            print(f"note: {note.removeprefix('noted: ')}", file=sys.stderr)
        record = measure(
            task,
            episodes=arguments.episodes,
            seed=arguments.seed,
            spec=arguments.teacher,
            noise=arguments.noise,
        )
    except (ValueError, EnvFailedError) as problem:
        parser.error(str(problem))
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
