"""A task as data: what an environment shows, which actions it accepts, what its returns mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import numpy as np

from gato.array_spec import ArraySpec, Kind
from gato.statistics import Statistics

UNKNOWN_RETURN = 1e9
BELIEVABLE = 1000.0
OF_CATALOGUE = ("mujoco", "atari", "metaworld", "dm-control")
"""Families whose references are measured or published, never a user's guess."""
TEXT, CAPTIONS, VQA, LEROBOT = "text", "captions", "vqa", "lerobot"
RECORDED = (TEXT, CAPTIONS, VQA, LEROBOT)
"""Families without an environment: they are learnt from what was recorded, and evaluated on
records that were held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """Published or measured mean returns of one task, and their source."""

    random: float
    expert: float
    human: float | None = None
    source: str

    def __post_init__(self) -> None:
        if self.expert == self.random:
            raise ValueError(
                f"expert and random return are both {self.random}; a score cannot be normalised by"
                " them"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An environment as data: how it is built, what it shows, which actions it accepts and what its
    returns mean. A task whose action is text has no environment: what is to be written, alone or
    of an image and a question, is recorded."""

    name: str
    """`family/short`, such as `mujoco/hopper`."""
    env_id: str
    """Gymnasium id."""
    family: str
    """Which conventions `actors.envs.factory` follows to make it: `mujoco`, `atari`,
    `metaworld`, `dm-control`, or `gymnasium` for any other environment."""
    observations: Mapping[str, ArraySpec]
    action: ArraySpec
    max_steps: int
    """Steps after which an episode is cut (as the agent counts steps)."""
    references: References | None = None
    """None: there are none, so returns of this task are only shown raw."""
    weight: float = 1.0
    """Share of this task in the mixture, relative to the others."""
    aliases: tuple[str, ...] = ()
    max_abs_return: float | None = None
    """Largest return, of either sign, that an episode may have; beyond it the data is wrong. None:
    see `return_bound`."""
    env_kwargs: Mapping[str, str | int | float | bool] = field(
        default_factory=dict[str, str | int | float | bool]
    )

    def __post_init__(self) -> None:
        if not self.observations and not self.writes_text:
            raise ValueError(f"task {self.name} shows nothing; give it at least one observation")
        if self.action.kind is Kind.IMAGE:
            raise ValueError(
                f"task {self.name} has {self.action.kind} as action; actions are continuous or"
                " discrete, or text of a task without an environment"
            )
        if self.writes_text and self.has_environment:
            raise ValueError(
                f"task {self.name} has {self.action.kind} as action, which no environment takes;"
                f" its family {self.family!r} must be one of {', '.join(RECORDED)}"
            )
        if self.action.mean is not None:
            raise ValueError(
                f"task {self.name}: an action is scaled by its bounds; leave out its mean and std"
            )
        bounds = self.action.bounds
        if self.action.kind is Kind.CONTINUOUS and (
            bounds is None or not np.isfinite(bounds).all()
        ):
            raise ValueError(
                f"task {self.name}: a continuous action needs bounds (low, high) to be scaled to"
                " [-1, 1]"
            )

    @property
    def has_environment(self) -> bool:
        """Whether it can be played; else it is learnt and evaluated on records alone."""
        return self.family not in RECORDED

    @property
    def writes_text(self) -> bool:
        """Whether its action is text: an answer, a caption or a passage."""
        return self.action.kind is Kind.TEXT

    @property
    def return_bound(self) -> float:
        """Returns beyond this, in either direction, are taken for an error.

        1,000 times the largest of the reference returns (at least 10,000). A
        user's own references may be a guess, and without references nothing is known: then 1e9,
        above which a sum of float32 rewards is no longer exact. `max_abs_return` overrides it.
        """
        if self.max_abs_return is not None:
            return self.max_abs_return
        if self.references is None or self.family not in OF_CATALOGUE:
            return UNKNOWN_RETURN
        known = (self.references.random, self.references.expert, self.references.human or 0.0)
        return BELIEVABLE * max(10.0, *map(abs, known))

    @property
    def reward_bound(self) -> float:
        """A single reward beyond this is taken for an error: a tenth of `return_bound` if that
        comes from references."""
        is_known = self.max_abs_return is None and self.return_bound != UNKNOWN_RETURN
        return self.return_bound / 10 if is_known else self.return_bound

    def normalise(self, mean_return: float, *, one: float | None = None) -> float:
        """The return on a scale where 0 is a random policy and 1 is `one` (default: the expert
        reference).

        NaN if there are no references.
        """
        if self.references is None:
            return math.nan
        top = self.references.expert if one is None else one
        return (mean_return - self.references.random) / (top - self.references.random)


def normalised(task: Task, statistics: Mapping[str, Statistics]) -> Task:
    """The task with these statistics in its observations, by name. Raises ValueError if it shows no
    such array."""
    unknown = sorted(set(statistics) - set(task.observations))
    if unknown:
        raise ValueError(
            f"there are statistics of {unknown[0]!r}, which {task.name} does not show; it shows"
            f" {', '.join(sorted(task.observations))}"
        )
    shown = {
        name: (
            replace(spec, mean=statistics[name].mean, std=statistics[name].std)
            if name in statistics
            else spec
        )
        for name, spec in task.observations.items()
    }
    return replace(task, observations=shown)


class UnknownTaskError(ValueError):
    """A name that no task has; the message suggests the nearest."""


def find_task(name: str, tasks: Mapping[str, Task]) -> Task:
    """The task called `name`, by its name or an alias. Raises UnknownTaskError, which suggests the
    nearest name, if there is none."""
    by_alias = {
        alias.lower(): task for task in tasks.values() for alias in (task.name, *task.aliases)
    }
    found = by_alias.get(name.lower())
    if found is None:
        shorts = {task_name.split("/")[-1]: task_name for task_name in tasks}
        near = get_close_matches(name.lower(), [*by_alias, *shorts], n=1, cutoff=0.5)
        names = [by_alias[n].name if n in by_alias else shorts[n] for n in near]
        hint = (
            f"did you mean {names[0]!r}?"
            if names
            else f"known are {len(tasks)}, such as {', '.join(sorted(tasks)[:3])}"
        )
        raise UnknownTaskError(f"unknown task {name!r}; {hint}")
    return found
