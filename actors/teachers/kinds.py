"""How each kind of teacher plays: a specialist's network, a network that names one of several
actions, a rule, a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from actors.players.player import TimeStep
from actors.teachers.scripted import RULES
from actors.teachers.scripted_records import RECORDS
from actors.teachers.specialist import Specialist
from gato.array_spec import ArraySpec, Kind
from gato.task import Task

ROUNDING = 1e-5
"""How far outside of its bounds an action may be by rounding, in parts of the bounds' size."""


class SpecialistTeacher:
    """A specialist's play. Half of the episodes (odd seeds) are perturbed, so that a student sees
    how to come back.

    In those, noise of `noise` times the specialist's own standard deviation is added to each
    action.
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
        self._shown = next(iter(task.observations))
        self._shape = task.action.shape
        self._noise = noise
        self._perturb_all = perturb_all
        self._scale = np.zeros(0, np.float32)
        self._labels: Shaped[np.ndarray, "N ..."] | None = None
        self._rngs: list[np.random.Generator] = []
        self.name = name or f"specialist:{task.name}"
        self.record: Mapping[str, Any] = self._specialist.record
        self.notes: Sequence[str] = specialist.notes

    def _begin(self, step: TimeStep) -> None:
        """Scale and generator of the noise, in the rows that begin."""
        if len(self._scale) != step.num_rows:
            self._scale = np.zeros(step.num_rows, np.float32)
            self._rngs = [np.random.default_rng(0) for _ in range(step.num_rows)]
        for row in np.flatnonzero(step.is_first).tolist():
            seed = int(step.seeds[row])
            self._scale[row] = self._noise if self._perturb_all else self._noise * (seed % 2)
            self._rngs[row] = np.random.default_rng([seed, 1])

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        if step.is_first.any():
            self._begin(step)
        shown = step.observations[self._shown]
        mean = self._specialist.mean(shown.reshape(len(shown), -1))
        self._labels = mean.reshape(-1, *self._shape)
        noise = np.stack([rng.standard_normal(mean.shape[1]) for rng in self._rngs])
        actions = self._specialist.clip(
            mean + self._scale[:, None] * self._specialist.action_std * noise
        )
        return actions.reshape(-1, *self._shape)

    def labels(self) -> Shaped[np.ndarray, "N ..."] | None:
        """What it would have done at the last observations without noise: what a student is to
        learn."""
        return self._labels


class ChoosingTeacher:
    """A network that gives a number for each action, of which the greatest is taken."""

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
        """It does what it wants to do."""


def rule_name(task: Task) -> str:
    """The rules' name of a game: shown in another size, or with sticky actions, it has the same
    RAM."""
    return task.name.replace("atari84/", "atari/").partition("?")[0]


class RuleTeacher:
    """A scripted rule that reads the game's RAM."""

    needs_extras = True

    def __init__(self, task: Task) -> None:
        name = rule_name(task)
        if name not in RULES:
            raise ValueError(
                f"no teacher for {task.name}; there are rules for {', '.join(RULES)}, and recorded"
                " play comes in by `gato import`"
            )
        self._rule = RULES[name]
        self.name = f"rule:{task.name}"
        self.record: Mapping[str, Any] = RECORDS[name]
        self.notes: Sequence[str] = ()

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        return self._rule(step.extras["ram"])

    def labels(self) -> None:
        """A rule does what it wants to do."""


def _inside(
    actions: Shaped[np.ndarray, "N ..."], spec: ArraySpec
) -> tuple[Shaped[np.ndarray, "N ..."], str | None]:
    """Continuous actions inside the bounds, and what is wrong with them if they are outside by more
    than rounding."""
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
    """A Python function of the user's: `(observations, extras) -> actions`, all with a row for each
    environment.

    Where it has an attribute `reset`, that is called with `(rows, seeds)` as episodes begin: those
    rows' memory ends.
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
        """What it gives. ValueError for whatever its author's code raises."""
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
            problem = self._action.problem_with(actions, "what it gave")
        if not problem and self._action.bounds is not None:
            actions, problem = _inside(actions, self._action)
        if problem:
            raise ValueError(
                f"teacher {self.name} of task {self._task_name} gave wrong actions: {problem}"
            )
        return actions

    def labels(self) -> None:
        """What it gives is what it wants."""
