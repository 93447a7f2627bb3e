"""Selectors that take items in an order: oldest first, largest priority first, and so on.

Shape letter: N items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64, Shaped

from replay.sampling.selectors import Items


def _ascending(values_N: Shaped[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Indices of values from the least to the largest; of equal ones the oldest first.

    Two sorts that need not be stable, the second of (rank of the value, index) in one integer: half
    the time of a stable one.
    """
    order_N = np.argsort(values_N)
    sorted_N = values_N[order_N]
    rank_N = np.cumsum(
        np.concatenate([[0], sorted_N[1:] != sorted_N[:-1]])[: len(values_N)], dtype=np.int64
    )
    return np.sort(rank_N * len(values_N) + order_N) - rank_N * len(values_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fifo:
    """The oldest first. With `max_times_sampled=1` a queue."""

    name: Literal["fifo"] = "fifo"

    def order(self, items: Items) -> Int64[np.ndarray, " N"]:
        return np.arange(len(items))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifo:
    """The newest first. With `max_times_sampled=1` a stack."""

    name: Literal["lifo"] = "lifo"

    def order(self, items: Items) -> Int64[np.ndarray, " N"]:
        return np.arange(len(items) - 1, -1, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxHeap:
    """The largest priority first; of equal ones the oldest (in Reverb: the one whose priority was
    set first)."""

    name: Literal["max_heap"] = "max_heap"

    def order(self, items: Items) -> Int64[np.ndarray, " N"]:
        return _ascending(-items.priority)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinHeap:
    """The least priority first; of equal ones the oldest (in Reverb: the one whose priority was set
    first)."""

    name: Literal["min_heap"] = "min_heap"

    def order(self, items: Items) -> Int64[np.ndarray, " N"]:
        return _ascending(items.priority)


@dataclass(frozen=True, slots=True, kw_only=True)
class LowestReturn:
    """The worst score first; of equal ones the oldest."""

    name: Literal["lowest_return"] = "lowest_return"

    def order(self, items: Items) -> Int64[np.ndarray, " N"]:
        return _ascending(items.score)


@dataclass(frozen=True, slots=True, kw_only=True)
class OldestVersion:
    """Episodes of the oldest weights first; of one version the oldest episode. Episodes without a
    version count as of the newest."""

    name: Literal["oldest_version"] = "oldest_version"

    def order(self, items: Items) -> Int64[np.ndarray, " N"]:
        return _ascending(-items.age_versions)
