"""The kind, shape and values of one array that a task shows or takes.

Shape letters: T steps, n elements of an array.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from gato.statistics import Statistics
from gato.text import text_problem

MAX_VALUES = 1024
"""Discrete values are the ids [0, 1024) (paper section 2.1)."""


class Kind(StrEnum):
    """How the values of an array become tokens (paper section 2.1)."""

    IMAGE = "image"
    CONTINUOUS = "continuous"
    DISCRETE = "discrete"
    TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """One array of an observation or an action: its kind, its shape in one step, and the values it
    may have.

    ArraySpec(kind=Kind.IMAGE, shape=(64, 80, 3))
    # Unbounded: companded by the mu-law. Bounded: scaled to [-1, 1]. Mixed: the second companded.
    ArraySpec(kind=Kind.CONTINUOUS, shape=(11,))
    ArraySpec(kind=Kind.CONTINUOUS, shape=(1,), low=-3.0, high=3.0)
    ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=(-1.0, -math.inf), high=(1.0, math.inf))
    # Normalised by statistics of recorded data.
    ArraySpec(kind=Kind.CONTINUOUS, shape=(1,), mean=(45e3,), std=(8e3,))
    ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=18)
    ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=(5, 3))   # MultiDiscrete
    ArraySpec(kind=Kind.TEXT, shape=(64,), max_tokens=16)          # UTF-8 bytes, zeros after them
    """

    kind: Kind
    shape: tuple[int, ...]
    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None
    """Bounds of a continuous array, one for all elements or one for each (row-major). An element
    whose bounds are both finite is scaled by them; any other one is companded by the mu-law. An
    element whose bounds are equal is a constant. None: no element has bounds."""
    num_values: int | tuple[int, ...] | None = None
    """How many values (0 to num_values - 1) an element of a discrete array has: one number for all
    elements, or one for each (row-major)."""
    max_tokens: int | None = None
    """Tokens of a text in every step: a longer text is cut, a shorter one padded."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Statistics of recorded observations, one number for each element (row-major). Given them, a
    continuous observation is (x - mean) / std, companded by the mu-law, and its bounds do not
    count."""

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.shape):
            raise ValueError(
                f"shape {self.shape} has an empty dimension; every size must be at least 1"
            )
        if self.kind is Kind.IMAGE and (len(self.shape) != 3 or self.shape[2] != 3):
            raise ValueError(
                f"an image has shape (height, width, 3), got {self.shape}; convert it to RGB first"
            )
        if self.kind is Kind.TEXT and (len(self.shape) != 1 or (self.max_tokens or 0) < 1):
            raise ValueError(
                f"a text has shape (max_bytes,) and max_tokens of 1 or more, got {self.shape} and"
                f" {self.max_tokens}"
            )
        for name in ("low", "high", "num_values", "mean", "std"):
            each = getattr(self, name)
            if isinstance(each, tuple) and len(each) != self.size:
                raise ValueError(
                    f"{name} has {len(each)} entries for the {self.size} elements of shape"
                    f" {self.shape}; got {each}, expected one for each, row-major, or a single"
                    " number for all"
                )
        if (
            self.kind is Kind.DISCRETE
            and not 1 <= self.counts.min() <= self.counts.max() <= MAX_VALUES
        ):
            raise ValueError(
                f"a discrete array takes 1 to {MAX_VALUES} values, got"
                f" num_values={self.num_values}; split larger ones into digits, or give them as"
                " continuous"
            )
        if (self.low is None) != (self.high is None):
            raise ValueError(f"give both bounds or none, got low={self.low} high={self.high}")
        if self.bounds is not None:
            low, high = (np.broadcast_to(bound, (self.size,)) for bound in self.bounds)
            wrong = np.flatnonzero(~(low <= high))
            if wrong.size:
                at = int(wrong[0])
                raise ValueError(
                    f"element {at} of {self.size} has low {low[at]:.12g} and high {high[at]:.12g};"
                    " low must not be above high: fix the space's bounds, or swap them"
                )
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"give both statistics or none, got mean={self.mean} std={self.std}")
        if self.mean is not None and self.std is not None:
            if self.kind is not Kind.CONTINUOUS:
                raise ValueError(
                    "only a continuous array has a mean and std to be normalised by, this is"
                    f" {self.kind}"
                )
            Statistics(mean=self.mean, std=self.std)

    @property
    def raw(self) -> ArraySpec:
        """The spec without statistics: what the environment itself shows."""
        return self if self.mean is None else replace(self, mean=None, std=None)

    @property
    def dtype(self) -> np.dtype:
        """The dtype in which episodes store this array."""
        dtypes = {
            Kind.IMAGE: np.uint8,
            Kind.CONTINUOUS: np.float32,
            Kind.DISCRETE: np.int64,
            Kind.TEXT: np.uint8,
        }
        return np.dtype(dtypes[self.kind])

    @property
    def size(self) -> int:
        """Number of elements in one step."""
        return math.prod(self.shape)

    @property
    def num_tokens(self) -> int:
        """Tokens of one step, for any kind but images, whose patches `gato.sequence` counts."""
        return self.max_tokens or 0 if self.kind is Kind.TEXT else self.size

    @property
    def counts(self) -> Integer[np.ndarray, " n"]:
        """How many values each element of a discrete array has."""
        return np.broadcast_to(np.asarray(self.num_values or 0), (self.size,))

    @property
    def bounds(self) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]] | None:
        """Low and high of a continuous array's elements: [1] if all share them, else [n]. None:
        unbounded."""
        if self.low is None or self.high is None:
            return None
        return np.array(self.low, np.float64, ndmin=1), np.array(self.high, np.float64, ndmin=1)

    @property
    def bounded(self) -> Bool[np.ndarray, " n"]:
        """Which elements of a continuous array are scaled by their bounds; the others are
        companded."""
        if self.bounds is None or self.mean is not None:
            return np.zeros(self.size, np.bool_)
        return np.broadcast_to(
            np.isfinite(self.bounds[0]) & np.isfinite(self.bounds[1]), (self.size,)
        )

    def problem_with(self, values: Shaped[np.ndarray, "T ..."], name: str) -> str | None:
        """Why `values` [T, *shape] do not fit this spec, in one line; None if they do."""
        if values.dtype != self.dtype:
            return f"{name} has dtype {values.dtype}, expected {self.dtype}"
        if values.shape[1:] != self.shape:
            return f"{name} has shape {values.shape[1:]} in each step, expected {self.shape}"
        if self.kind is Kind.CONTINUOUS and not np.isfinite(values).all():
            step = int(np.argwhere(~np.isfinite(values))[0][0])
            return f"{name} is not finite at step {step}"
        if self.kind is Kind.TEXT:
            return next(
                (f"{name} {problem}" for row in values if (problem := text_problem(row))), None
            )
        if self.kind is Kind.DISCRETE and values.size:
            outside = (values < 0) | (values >= self.counts.reshape(self.shape))
            if outside.any():
                step, *element = np.argwhere(outside)[0].tolist()
                most = int(self.counts.reshape(self.shape)[tuple(element)]) - 1
                got = values[(step, *element)]
                return f"{name} has values outside 0..{most}: {got} at step {step}"
        return None
