"""Selectors: which episodes are drawn or evicted, as arithmetic on columns, without state.

Shape letters: N items, M of them that may be drawn, C draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

Unit = Literal["step", "episode"]
"""What is equally likely if nothing else distinguishes items: each stored step (so an episode
counts as often as it has steps), or each episode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Columns of N stored episodes, in order of insertion (oldest first)."""

    number: Int64[np.ndarray, " N"]
    """Order of insertion, increasing."""
    steps: Int64[np.ndarray, " N"]
    task: Int64[np.ndarray, " N"]
    """A code of the task."""
    score: Float64[np.ndarray, " N"]
    """Normalised return: 0 random policy, 1 expert."""
    priority: Float64[np.ndarray, " N"]
    age_versions: Int64[np.ndarray, " N"]
    """How many versions of the weights are newer than the episode's; 0 if it has none."""
    times_sampled: Int64[np.ndarray, " N"]

    def __post_init__(self) -> None:
        shapes = {field.name: getattr(self, field.name).shape for field in fields(self)}
        if set(shapes.values()) != {(len(self),)}:
            raise ValueError(f"columns of the shapes {shapes}; give each one entry an item")
        if not (self.number[1:] > self.number[:-1]).all():
            raise ValueError("number does not increase; give items in order of insertion")
        if not (np.isfinite(self.score).all() and np.isfinite(self.priority).all()):
            raise ValueError("a score or priority is not finite; give 0.0 where none is known")
        if (
            len(self)
            and min(self.steps.min() - 1, self.age_versions.min(), self.times_sampled.min()) < 0
        ):
            raise ValueError("steps must be at least 1, age_versions and times_sampled at least 0")

    def __len__(self) -> int:
        return len(self.number)

    def take(self, index_M: Int64[np.ndarray, " M"]) -> Items:
        """These items only; `index_M` increases."""
        return Items(**{field.name: getattr(self, field.name)[index_M] for field in fields(self)})


@runtime_checkable
class RandomSelector(Protocol):
    """Draws items in proportion to weights, which need not sum to 1. An item of weight 0 is never
    drawn."""

    @property
    def name(self) -> str: ...
    def weights(self, items: Items) -> Float64[np.ndarray, " N"]: ...


@runtime_checkable
class OrderedSelector(Protocol):
    """Takes items in an order: a permutation of their indices."""

    @property
    def name(self) -> str: ...
    def order(self, items: Items) -> Int64[np.ndarray, " N"]: ...


Selector = RandomSelector | OrderedSelector
"""Draws episodes (as a sampler) or evicts them (as a remover), as in Reverb.
`selector_from_name(selector.name) == selector`."""


def _units(items: Items, unit: Unit) -> Float64[np.ndarray, " N"]:
    return items.steps.astype(np.float64) if unit == "step" else np.ones(len(items))


def _check(unit: Unit, *, may_be_zero: bool = False, **settings: float) -> None:
    if unit not in get_args(Unit):
        raise ValueError(f"unit {unit!r} must be 'step' or 'episode'")
    for name, value in settings.items():
        if not (math.isfinite(value) and (value > 0 or (value == 0 and may_be_zero))):
            raise ValueError(
                f"{name} {value} must be finite and {'at least' if may_be_zero else 'above'} 0"
            )


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def _text(*words: str, unit: Unit) -> str:
    return ":".join(words if unit == "step" else (*words, unit))


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Each stored step (or episode) is equally likely."""

    unit: Unit = "step"

    def __post_init__(self) -> None:
        _check(self.unit)

    @property
    def name(self) -> str:
        return _text("uniform", unit=self.unit)

    def weights(self, items: Items) -> Float64[np.ndarray, " N"]:
        return _units(items, self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prioritized:
    """In proportion to priority^exponent (Schaul et al. 2016, "Prioritized experience replay",
    equation 1).

    As in Reverb, items of priority 0 are not drawn, whatever the exponent (0^0 counts as 0 here).
    If every priority is 0, all are drawn as by `Uniform`.
    """

    exponent: float
    unit: Unit = "step"

    def __post_init__(self) -> None:
        _check(self.unit, may_be_zero=True, exponent=self.exponent)

    @property
    def name(self) -> str:
        return _text("prioritized", _number(self.exponent), unit=self.unit)

    def weights(self, items: Items) -> Float64[np.ndarray, " N"]:
        if (items.priority < 0).any():
            raise ValueError(
                f"priority {items.priority.min()} is below 0; 'prioritized' needs all to be at"
                " least 0"
            )
        largest = items.priority.max(initial=0.0)
        if largest == 0:
            return _units(items, self.unit)
        # Relative to the largest, so that no exponent overflows.
        powers_N = np.where(items.priority > 0, (items.priority / largest) ** self.exponent, 0.0)
        return powers_N * _units(items, self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recency:
    """Half as likely for each `half_life_episodes` stored episodes that are newer; beyond some
    1,070 half-lives never."""

    half_life_episodes: float
    unit: Unit = "step"

    def __post_init__(self) -> None:
        _check(self.unit, half_life_episodes=self.half_life_episodes)

    @property
    def name(self) -> str:
        return _text("recency", _number(self.half_life_episodes), unit=self.unit)

    def weights(self, items: Items) -> Float64[np.ndarray, " N"]:
        with np.errstate(over="ignore", under="ignore"):
            half_lives_N = np.arange(len(items) - 1, -1, -1) / self.half_life_episodes
            return np.exp2(-half_lives_N) * _units(items, self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnWeighted:
    """In proportion to exp(score / temperature): a softmax of the scores, relative to the best so
    that none overflows."""

    temperature: float
    unit: Unit = "step"

    def __post_init__(self) -> None:
        _check(self.unit, temperature=self.temperature)

    @property
    def name(self) -> str:
        return _text("return", _number(self.temperature), unit=self.unit)

    def weights(self, items: Items) -> Float64[np.ndarray, " N"]:
        with np.errstate(over="ignore", under="ignore"):
            short_N = items.score - items.score.max(initial=-np.finfo(np.float64).max)
            return np.exp(short_N / self.temperature) * _units(items, self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratified:
    """Tasks get their shares first; within a task `inner` draws, given the items of that task
    alone.

    A task with nothing that `inner` would draw leaves its share to the others.
    """

    inner: RandomSelector
    task_weights: Mapping[int, float] | None = None
    """Code of a task to its share, relative to the others. Other tasks have 1.0. None: all are
    equal."""

    def __post_init__(self) -> None:
        if isinstance(self.inner, OrderedSelector):
            raise ValueError(
                f"inner {self.inner.name!r} takes items in an order; give a random one, such as"
                " 'uniform'"
            )
        if self.task_weights is not None and not self.task_weights:
            raise ValueError("task_weights is empty; None treats all tasks alike")
        for code, weight in (self.task_weights or {}).items():
            _check("step", may_be_zero=True, **{f"task_weights[{code}]": weight})

    @property
    def name(self) -> str:
        if self.task_weights is None:
            return f"stratified:{self.inner.name}"
        shares = ",".join(f"{code}={_number(weight)}" for code, weight in self.task_weights.items())
        return f"stratified({shares}):{self.inner.name}"

    def weights(self, items: Items) -> Float64[np.ndarray, " N"]:
        weights_N = np.zeros(len(items))
        if not len(items):
            return weights_N
        codes_N = items.task
        if int(codes_N.max()) - int(codes_N.min()) < 1 << 15:
            # numpy sorts 16 bits by radix: several times faster
            codes_N = (codes_N - codes_N.min()).astype(np.int16)
        by_task_N = np.argsort(codes_N, kind="stable")
        sorted_N = codes_N[by_task_N]
        starts = np.flatnonzero(sorted_N[1:] != sorted_N[:-1]) + 1
        for index in np.split(by_task_N, starts):
            within = self.inner.weights(items.take(index))
            if (total := within.sum()) > 0:
                share = (self.task_weights or {}).get(int(items.task[index[0]]), 1.0)
                weights_N[index] = within / total * share
        return weights_N
