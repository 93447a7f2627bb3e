"""Resolves teachers: the one that ships with a task, or one that a spec names."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from actors.envs.former_modules import current
from actors.players.player import Teacher
from actors.tasks.options import split_name
from actors.teachers.kinds import (
    ChoosingTeacher,
    ControlTeacher,
    FunctionTeacher,
    RuleTeacher,
    SpecialistTeacher,
    control_record,
    is_controlled,
    rule_name,
)
from actors.teachers.perturbed import PerturbedTeacher
from actors.teachers.scripted import RULES
from actors.teachers.scripted_records import RECORDS
from actors.teachers.specialist import SHIPPED, file_stem, load_specialist
from gato.array_spec import Kind
from gato.files import read_json
from gato.task import Task

SPECS = (
    "rule, specialist[:FOLDER],"
    " sb3:FILE.zip[?vecnormalize=FILE|none&activation=tanh|relu&allow=DIFFERENCE],"
    " python:PACKAGE.MODULE:FUNCTION"
)


TAUGHT = ("mujoco", "dm-control")
"""Families whose specialists `gato teach` trains."""


def _is_babyai(task: Task) -> bool:
    """Whether it is a level of BabyAI, whose bot is the teacher."""
    return task.name.startswith("minigrid:BabyAI-")


def _rule_or_specialist(task: Task, noise: float, folder: Path) -> Teacher:
    if task.family == "atari" or rule_name(task) in RULES:
        return RuleTeacher(task)
    if is_controlled(task):
        return ControlTeacher(task, noise=noise)
    if _is_babyai(task):
        return _function(task, "actors.envs.babyai:act")
    if task.family not in TAUGHT:
        raise ValueError(
            f"no teacher ships for {task.name}; name one of: {SPECS}, or import recorded episodes"
            " by `gato import`"
        )
    return _specialist(task, noise, folder)


def _specialist(task: Task, noise: float, folder: Path) -> Teacher:
    specialist = load_specialist(task.name, folder).fitted(task)
    return SpecialistTeacher(task, noise=noise, specialist=specialist)


def _stable_baselines(task: Task, noise: float, where: str) -> Teacher:
    from actors.teachers.sb3.policy import load_sb3  # imports torch

    network, name = load_sb3(where, task), f"sb3:{Path(where.partition('?')[0]).stem}"
    if task.action.kind is Kind.DISCRETE:
        return ChoosingTeacher(task, network=network, name=name)
    return SpecialistTeacher(task, noise=noise, specialist=network, name=name)


def _function(task: Task, where: str) -> Teacher:
    module_name, _, name = current(where).partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # it may lie in the working folder, as with `python -m`
    try:
        found = getattr(importlib.import_module(module_name), name or "(no function is named)")
    except (Exception, SystemExit) as problem:  # the author's code may raise anything
        raise ValueError(
            f"teacher python:{where} of task {task.name} cannot be imported:"
            f" {type(problem).__name__}: {problem}; write it as python:PACKAGE.MODULE:FUNCTION, of"
            " a module that `python -c 'import MODULE'` finds"
        ) from problem
    if not callable(found):
        raise ValueError(
            f"teacher python:{where} of task {task.name} is not a function but {found!r}"
        )
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
    """The task's teacher.

    teacher = teacher_for(task, "sb3:hopper.zip?vecnormalize=hopper.pkl")

    Args:
        spec: "" for the teacher that ships. `rule` and `specialist` name its kind;
            `specialist:FOLDER` a specialist in a folder; `sb3:FILE.zip[?vecnormalize=FILE]` a
            policy of Stable-Baselines3 (`actors.teachers.sb3.policy.load_sb3`);
            `python:PACKAGE.MODULE:FUNCTION` a function `(observations, extras) -> actions`, or a
            class that is made with the task and called. Or such a function itself.
        noise: Noise in half of the episodes of a specialist, a rule or an expert with continuous
            actions, in its own standard deviations.
        folder: Where specialists are looked for.

    Raises:
        ValueError: if there is no such teacher, or it does not fit the task.
    """
    if not isinstance(spec, str):
        return FunctionTeacher(
            task, spec, f"python:{getattr(spec, '__qualname__', type(spec).__qualname__)}"
        )
    kind, _, where = spec.partition(":")
    if spec == "":
        return _rule_or_specialist(task, noise, folder)
    if spec == "rule":
        return ControlTeacher(task, noise=noise) if is_controlled(task) else RuleTeacher(task)
    if kind == "specialist":
        return _specialist(task, noise, Path(where).expanduser() if where else folder)
    if kind == "sb3" and where:
        return _stable_baselines(task, noise, where)
    if kind == "python" and where:
        return _function(task, where)
    raise ValueError(f"unknown teacher {spec!r} for task {task.name}; give one of: {SPECS}")


def absolute_spec(spec: str) -> str:
    """The spec with absolute paths, so that it names the same teacher in every working folder."""
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
    """Whether a teacher of this task ships."""
    return (
        rule_name(task) in RULES
        or is_controlled(task)
        or _is_babyai(task)
        or (folder / f"{file_stem(task.name)}.safetensors").is_file()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """The teacher that ships with a task, without making it: its package may be missing."""

    kind: str
    """rule, expert or specialist."""
    record: Mapping[str, Any]


def teacher_of(task: Task, folder: Path = SHIPPED) -> Shipped | None:
    """What ships to teach a task of the catalogue; None if nothing does."""
    if rule_name(task) in RULES:
        return Shipped(kind="rule", record=RECORDS[rule_name(task)])
    if is_controlled(task):
        kind = "expert" if task.family == "metaworld" else "rule"
        return Shipped(kind=kind, record=control_record(task))
    file = folder / f"{file_stem(task.name)}.json"
    if file.is_file():
        return Shipped(kind="specialist", record=read_json(file, fix="install gato-ray again"))
    return None


LONGEST = 3.0
"""How much longer than the teacher's mean episode the agent may play on."""


def longest_play(task: Task) -> int | None:
    """The steps after which an agent's episode is cut off that nobody needs to its end: one that
    is relabelled, or evaluated while the agent still learns. None if no teacher ships, or the
    lengths of its episodes were not measured."""
    shipped = teacher_of(task)
    steps = shipped.record.get("steps_mean") if shipped is not None else None
    return None if steps is None else int(LONGEST * float(steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Teachers:
    """Makes a task's teacher for a role: perturbed to demonstrate, as it is to relabel."""

    noise: float = 0.3
    """`ActorsConfig.demonstration_noise`."""
    random_share: float = 0.0
    """`ActorsConfig.demonstration_random_share`."""
    specs: Mapping[str, str] = field(default_factory=dict[str, str])
    """Specs of teachers by task, as in `teacher_for`; other tasks have the teacher that ships."""

    def __call__(self, task: Task, role: str) -> Teacher:
        demonstrates = role == "demonstrate"
        teacher = teacher_for(
            task, self.specs.get(task.name, ""), noise=self.noise if demonstrates else 0.0
        )
        if not (demonstrates and self.random_share > 0.0 and task.action.kind is Kind.DISCRETE):
            return teacher
        return PerturbedTeacher(teacher, task.action, random_share=self.random_share)


def teacher_return(task: Task, spec: str = "", folder: Path = SHIPPED) -> float | None:
    """The mean return that the task's teacher was measured at without noise; None if there is no
    teacher, no measurement, or one below random play."""
    record = _measured(task, spec, folder)
    known = float(record["return_mean"]) if "return_mean" in record else None
    # A teacher may solve a task that pays it less than random play: its return is no measure then.
    is_below = known is not None and task.references and known <= task.references.random
    return None if is_below else known


def teacher_spread(task: Task, spec: str = "", folder: Path = SHIPPED) -> float | None:
    """The standard deviation of the teacher's returns, by its mean above random play; None if it
    was not measured, does not play better than that, or the task has no references."""
    # What ships is known without making it.
    shipped = None if spec or _is_other_form(task) else teacher_of(task, folder)
    record = shipped.record if shipped is not None else _measured(task, spec, folder)
    if "return_mean" not in record or "return_std" not in record or task.references is None:
        return None
    above = float(record["return_mean"]) - task.references.random
    return float(record["return_std"]) / above if above > 0.0 else None


def _measured(task: Task, spec: str, folder: Path) -> Mapping[str, Any]:
    """The record of a teacher's returns; empty if there is none of this form of the task."""
    if _is_other_form(task) or (not spec and not has_teacher(task, folder)):
        return {}
    shipped = control_record(task) if not spec and is_controlled(task) else None
    return shipped or teacher_for(task, spec, folder=folder).record


def _is_other_form(task: Task) -> bool:
    """Whether teachers were not measured on it: they were without sticky actions, over whole
    episodes."""
    return any(option in split_name(task.name)[1] for option in ("sticky", "max_steps"))
