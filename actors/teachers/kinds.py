"""The kinds of teachers: a specialist's network, a network over discrete actions, a rule, a
function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from actors.players.player import TimeStep
from actors.teachers.action_noise import ActionNoise
from actors.teachers.control_records import CONTROL_RECORDS
from actors.teachers.control_rules import CONTROL_RULES
from actors.teachers.metaworld_experts import EXPERT_RECORDS, expert
from actors.teachers.scripted import RULES
from actors.teachers.scripted_records import RECORDS
from actors.teachers.specialist import Specialist
from gato.array_spec import ArraySpec, Kind
from gato.task import Task

ROUNDING = 1e-5
"""How far outside of its bounds an action may be by rounding, as a share of the bounds' size."""


CONTROL_STD = 0.5
"""Taken for the standard deviation of a rule's action, of half of its bounds' distance."""


class SpecialistTeacher:
    """Plays the greedy actions of a specialist, with noise in half of the episodes.

    In episodes of odd seeds, Gaussian noise of `noise` times the specialist's own standard
    deviation is added to each action, so that a student sees how to recover (Laskey et al. 2017,
    DART). Labels are the actions without noise.
    """

    needs_extras = False

    def __init__(
        self,
        task: Task,
        *,
        noise: float,
        specialist: Specialist,
        perturb_all: bool = False,
        name: str | None = None,
    ) -> None:
        self._specialist = specialist
        self._shown = sorted(task.observations)
        self._shape = task.action.shape
        self._noise = ActionNoise(noise, in_all=perturb_all)
        self._labels: Shaped[np.ndarray, "N ..."] | None = None
        self.name = name or f"specialist:{task.name}"
        self.record: Mapping[str, Any] = self._specialist.record
        self.notes: Sequence[str] = specialist.notes

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        # Several arrays become one, in the order of their names, as Gymnasium flattens a Dict.
        rows = step.num_rows
        parts = [step.observations[name].reshape(rows, -1) for name in self._shown]
        mean = self._specialist.mean(np.concatenate(parts, axis=1))
        self._labels = mean.reshape(-1, *self._shape)
        noise = self._noise.draw(step, mean.shape[1])
        actions = self._specialist.clip(mean + self._specialist.action_std * noise)
        return actions.reshape(-1, *self._shape)

    def labels(self) -> Shaped[np.ndarray, "N ..."] | None:
        """The actions [N, *shape] of the last `act` without noise, which a student is to learn."""
        return self._labels


class ChoosingTeacher:
    """Plays the action with the largest output of a network."""

    needs_extras = False

    def __init__(self, task: Task, *, network: Specialist, name: str) -> None:
        self._network = network
        self._shown = next(iter(task.observations))
        self.name = name
        self.record: Mapping[str, Any] = network.record
        self.notes: Sequence[str] = network.notes

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        shown = step.observations[self._shown]
        return self._network.outputs(shown.reshape(len(shown), -1).astype(np.float32)).argmax(
            axis=1
        )

    def labels(self) -> None:
        """None: its actions have no noise."""


def rule_name(task: Task) -> str:
    """The name that `RULES` has of a game: in another size, or with sticky actions, its RAM is the
    same."""
    return task.name.replace("atari84/", "atari/").partition("?")[0]


class RuleTeacher:
    """Plays a scripted rule, which reads the game's RAM. Raises ValueError if there is none."""

    needs_extras = True

    def __init__(self, task: Task) -> None:
        name = rule_name(task)
        if name not in RULES:
            raise ValueError(
                f"no teacher for {task.name}; there are rules for {', '.join(RULES)}, and recorded"
                " episodes are imported by `gato import`"
            )
        self._rule = RULES[name]
        self.name = f"rule:{task.name}"
        self.record: Mapping[str, Any] = RECORDS[name]
        self.notes: Sequence[str] = ()

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        return self._rule(step.extras["ram"])

    def labels(self) -> None:
        """None: its actions have no noise."""


def control_record(task: Task) -> Mapping[str, Any]:
    """What the rule or script of a task was measured at."""
    return {**EXPERT_RECORDS, **CONTROL_RECORDS}[task.name.partition("?")[0]]


class ControlTeacher:
    """Plays a rule or a script that reads what the task shows, with noise in half of the episodes
    (`ActionNoise`). Raises ValueError if its package is missing."""

    needs_extras = False

    def __init__(self, task: Task, *, noise: float = 0.0) -> None:
        name = task.name.partition("?")[0]
        if task.family == "metaworld":
            self._rule, self.name = expert(task), f"expert:{task.name}"
        else:
            self._rule, self.name = CONTROL_RULES[name], f"rule:{task.name}"
        self.record: Mapping[str, Any] = control_record(task)
        self.notes: Sequence[str] = ()
        assert task.action.bounds is not None
        self._low, self._high = task.action.bounds
        self._noise = ActionNoise(noise * CONTROL_STD)
        self._labels: Shaped[np.ndarray, "N ..."] | None = None

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        wanted = self._rule(step.observations)
        if not self._noise.scale:
            return wanted
        self._labels = wanted
        noise = self._noise.draw(step, wanted[0].size).reshape(wanted.shape)
        noisy = wanted + 0.5 * (self._high - self._low) * noise
        return np.clip(noisy, self._low, self._high).astype(wanted.dtype)

    def labels(self) -> Shaped[np.ndarray, "N ..."] | None:
        """The actions [N, *shape] of the last `act` without noise; None if it has none."""
        return self._labels


def is_controlled(task: Task) -> bool:
    """Whether a rule or a script for this task reads what it shows."""
    name = task.name.partition("?")[0]
    return (name in CONTROL_RULES or name in EXPERT_RECORDS) and "image" not in task.observations


def _inside(
    actions: Shaped[np.ndarray, "N ..."], spec: ArraySpec
) -> tuple[Shaped[np.ndarray, "N ..."], str | None]:
    """Clip continuous actions [N, *shape] that are outside of the bounds by rounding. Returns them,
    and the problem if they are outside by more."""
    assert spec.bounds is not None
    low, high = (np.broadcast_to(bound, (spec.size,)).reshape(spec.shape) for bound in spec.bounds)
    slack = ROUNDING * np.maximum(high - low, np.maximum(np.abs(low), np.abs(high)))
    outside = (actions < low - slack) | (actions > high + slack)
    if outside.any():
        row, *element = np.argwhere(outside)[0].tolist()
        place = tuple(element)
        where = f" in element {element}" if element else ""
        return (
            actions,
            (
                f"{actions[(row, *place)]:g}{where} is outside of the bounds [{low[place]:g},"
                f" {high[place]:g}]; clip or scale them in your function"
            ),
        )
    return np.clip(actions, low, high).astype(actions.dtype), None


class FunctionTeacher:
    """Plays a user's function `(observations, extras) -> actions`, all with N rows.

    If it has an attribute `reset`, that is called as `reset(rows, seeds)` when episodes begin, both
    [N]: `rows` is True in the rows whose memory ends.
    """

    needs_extras = True

    def __init__(self, task: Task, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._reset: Callable[..., Any] | None = getattr(function, "reset", None)
        self._action, self._task_name = task.action, task.name
        self.name = name
        self.record: Mapping[str, Any] = {"task": task.name}
        self.notes: Sequence[str] = ()

    def _called(self, function: Callable[..., Any], *arguments: object) -> Any:
        """The function's result. Raises ValueError for whatever its author's code raises."""
        try:
            return function(*arguments)
        except Exception as problem:
            raise ValueError(
                f"teacher {self.name} of task {self._task_name} raised {type(problem).__name__}:"
                f" {problem}"
            ) from problem

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        if self._reset is not None and step.is_first.any():
            self._called(self._reset, step.is_first, step.seeds)
        actions = self._called(lambda: np.asarray(self._function(step.observations, step.extras)))
        rows = step.num_rows
        wanted = np.floating if self._action.kind is Kind.CONTINUOUS else np.integer
        problem = None
        if not np.issubdtype(actions.dtype, wanted):
            problem = f"dtype {actions.dtype}, expected {self._action.dtype}"
        elif actions.shape != (rows, *self._action.shape):
            problem = (
                f"shape {actions.shape}, expected {(rows, *self._action.shape)}: a row for each"
                " environment"
            )
        else:
            actions = actions.astype(self._action.dtype)
            problem = self._action.problem_with(actions, "the result")
        if not problem and self._action.bounds is not None:
            actions, problem = _inside(actions, self._action)
        if problem:
            raise ValueError(
                f"teacher {self.name} of task {self._task_name} returned wrong actions: {problem}"
            )
        return actions

    def labels(self) -> None:
        """None: its actions have no noise."""
