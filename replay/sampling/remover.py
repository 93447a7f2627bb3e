"""The remover: a selector names the episodes that make room.

Shape letters: N items, K victims.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64

from gato.task import Task
from replay.sampling.candidates import items_of, scores
from replay.sampling.selector_names import selector_from_name
from replay.sampling.selectors import Items, OrderedSelector, Selector
from replay.storage.index import Index

REMOVER_ROLE = 5
"""Distinguishes the remover's generator from those of other parts of a run."""
ROOM_FRACTION = 1 / 256
"""Share of the capacity that is freed at once, so that not every insert looks at all episodes."""


class SelectorRemover:
    """Names the episodes to evict, by a selector; `EpisodeStore.remover` accepts it.

    remover = SelectorRemover("fifo", store.index, tasks, capacity_bytes=1 << 30,
                              takes_demonstrations=False, seed=0)
    numbers = remover(excess_bytes)
    """

    def __init__(
        self,
        selector: str,
        index: Index,
        tasks: Mapping[str, Task],
        *,
        capacity_bytes: int,
        takes_demonstrations: bool,
        seed: int,
    ) -> None:
        self._selector = selector_from_name(selector)
        self._index = index
        self._tasks = tasks
        self._capacity_bytes = capacity_bytes
        self._takes_demonstrations = takes_demonstrations
        self._seed = seed

    def __call__(self, excess_bytes: int) -> list[int]:
        """Numbers of the episodes to evict, in order, to free at least `excess_bytes`."""
        index = self._index
        snapshot = index.snapshot(fresh=True)
        may_go = np.flatnonzero(snapshot.by_agent | self._takes_demonstrations)
        items = items_of(
            snapshot, may_go, scores(snapshot, index.tasks, self._tasks), index.newest_version
        )
        # Addressed by the state of the index, so that the same state evicts the same episodes.
        rng = np.random.default_rng([self._seed, REMOVER_ROLE, index.change])
        wanted_bytes = max(excess_bytes, int(self._capacity_bytes * ROOM_FRACTION))
        stored_bytes = snapshot.stored_bytes[may_go]
        chosen = victims(self._selector, items, wanted_bytes, stored_bytes, rng)
        return items.number[chosen].tolist()


def victims(
    selector: Selector,
    items: Items,
    excess_bytes: int,
    stored_bytes: Int64[np.ndarray, " N"],
    rng: np.random.Generator,
) -> Int64[np.ndarray, " K"]:
    """Indices of the fewest items, in the selector's order, that free `excess_bytes`; all items if
    that is not enough.

    A random selector takes them one after another, in proportion to its weights among those that
    are left: in the order of log(u) / weight, u uniform in (0, 1), the largest first (Efraimidis
    and Spirakis 2006, "Weighted random sampling with a reservoir", algorithm A). Items of weight 0
    go last, the oldest first: there must be room in the end.
    """
    if isinstance(selector, OrderedSelector):
        order_N = selector.order(items)
    else:
        weights_N = selector.weights(items)
        key_N = np.full(len(items), np.inf)
        has_N = weights_N > 0
        # log(-log(u) / weight), the least first: the same order, and no weight is too small for it.
        key_N[has_N] = np.log(rng.exponential(size=int(has_N.sum()))) - np.log(weights_N[has_N])
        order_N = np.argsort(key_N, kind="stable")
    freed_N = np.cumsum(stored_bytes[order_N])
    num_enough = int(np.searchsorted(freed_N, excess_bytes)) + 1 if excess_bytes > 0 else 0
    return order_N[:num_enough]
