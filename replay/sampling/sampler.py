"""Drawing by a selector, many times fast, and naming what makes room.

Shape letters: N items, M of them that may be drawn, C draws, K of them that are kept, or K victims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

from replay.sampling.selectors import Items, OrderedSelector, Selector


@runtime_checkable
class Chooser(Protocol):
    """Draws many times fast from columns as they were when it was made: indices, and the
    probability of each draw.

    It never changes: after draws with a `max_times_sampled` count them in `times_sampled`, and make
    the next one.
    """

    @property
    def index(self) -> Int64[np.ndarray, " M"]:
        """The items that may be drawn."""
        ...

    def draw(
        self, rng: np.random.Generator, count: int
    ) -> tuple[Int64[np.ndarray, " C"], Float64[np.ndarray, " C"]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedChooser:
    """Draws the first again and again; with `left` as often as it may still be drawn, then the
    next. Probability 1, as in Reverb."""

    index: Int64[np.ndarray, " M"]
    """The items in their order."""
    left: Int64[np.ndarray, " M"] | None
    """How often each may still be drawn; above 0."""

    def draw(
        self, rng: np.random.Generator, count: int
    ) -> tuple[Int64[np.ndarray, " C"], Float64[np.ndarray, " C"]]:
        """`count` draws; fewer where the items have no more left."""
        if self.left is None:
            drawn = np.repeat(self.index[:1], count)
        else:  # Each has at least one left, so the first `count` items are enough.
            ends = np.cumsum(np.minimum(self.left[:count], count))
            place = np.searchsorted(ends, np.arange(count), side="right")
            drawn = self.index[place[place < len(ends)]]
        return drawn, np.ones(len(drawn))


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomChooser:
    """Draws in proportion to weights, by bisection of their cumulative sum.

    With `left` the draws are those of one after another, an item being gone once it has none left:
    a draw of an item that is gone by then is thrown away and made anew among the others, which
    leaves each its share. The probability of a draw is that among the items not gone by then.
    """

    index: Int64[np.ndarray, " M"]
    """The items that may be drawn at all."""
    weights: Float64[np.ndarray, " M"]
    """Above 0."""
    cumulative: Float64[np.ndarray, " M"]
    left: Int64[np.ndarray, " M"] | None
    """How often each may still be drawn; above 0."""

    def draw(
        self, rng: np.random.Generator, count: int
    ) -> tuple[Int64[np.ndarray, " C"], Float64[np.ndarray, " C"]]:
        """`count` draws; fewer where the items have no more left."""
        rounds = [(np.zeros(0, np.int64), np.zeros(0))]
        chooser = self
        while count and len(chooser.index):
            # With limits some are thrown away; a few more at once are cheaper than another round.
            num_points = count if chooser.left is None else count + count // 8 + 8
            points_C = rng.random(num_points) * chooser.cumulative[-1]
            # A sum's rounding may put the last points beyond its end.
            place_C = np.searchsorted(chooser.cumulative, points_C, side="right").clip(
                max=len(chooser.index) - 1
            )
            if chooser.left is None:
                return chooser.index[place_C], chooser.weights[place_C] / chooser.cumulative[-1]
            place_K, probability_K = chooser._within_limits(place_C, chooser.left)
            place_K = place_K[:count]
            rounds.append((chooser.index[place_K], probability_K[:count]))
            count -= len(place_K)
            if count:
                left = chooser.left - np.bincount(place_K, minlength=len(chooser.left))
                chooser = _random_chooser(chooser.index, chooser.weights * (left > 0), left)
        return np.concatenate([index for index, _ in rounds]), np.concatenate(
            [chance for _, chance in rounds]
        )

    def _within_limits(
        self, place_C: Int64[np.ndarray, " C"], left: Int64[np.ndarray, " M"]
    ) -> tuple[Int64[np.ndarray, " K"], Float64[np.ndarray, " K"]]:
        """The K draws of items that were not gone (the first always is one), and their
        probabilities."""
        order_C = np.argsort(place_C, kind="stable")
        sorted_C = place_C[order_C]
        earlier_C = np.empty_like(place_C)  # How often the item was drawn before, in this round.
        earlier_C[order_C] = np.arange(len(place_C)) - np.searchsorted(sorted_C, sorted_C)
        kept_C = earlier_C < left[place_C]
        place_K = place_C[kept_C]
        weights_K = self.weights[place_K]
        leaving_K = weights_K * (earlier_C[kept_C] + 1 == left[place_K])
        gone_K = np.cumsum(leaving_K) - leaving_K
        # What is drawn was there, whatever is rounded.
        there_K = np.maximum(self.cumulative[-1] - gone_K, weights_K)
        return place_K, weights_K / there_K


def _random_chooser(
    index: Int64[np.ndarray, " N"],
    weights: Float64[np.ndarray, " N"],
    left: Int64[np.ndarray, " N"] | None,
) -> RandomChooser:
    may = weights > 0
    cumulative = np.cumsum(weights[may])
    assert np.isfinite(cumulative[-1:]).all(), "a weight is not finite"
    return RandomChooser(
        index=index[may],
        weights=weights[may],
        cumulative=cumulative,
        left=None if left is None else left[may],
    )


def chooser(selector: Selector, items: Items, max_times_sampled: int | None) -> Chooser:
    """What draws from `items`; made anew whenever they change.

    With `max_times_sampled` an item that was drawn so often is gone, as in Reverb; None: there is
    no limit.
    """
    if max_times_sampled is not None and max_times_sampled < 1:
        raise ValueError(
            f"max_times_sampled {max_times_sampled} must be at least 1; None sets no limit"
        )
    index, left = np.arange(len(items)), None
    if max_times_sampled is not None:
        index = np.flatnonzero(items.times_sampled < max_times_sampled)
        left = max_times_sampled - items.times_sampled[index]
        items = items if len(index) == len(items) else items.take(index)
    if isinstance(selector, OrderedSelector):
        order = selector.order(items)
        return OrderedChooser(index=index[order], left=None if left is None else left[order])
    return _random_chooser(index, selector.weights(items), left)


def victims(
    selector: Selector,
    items: Items,
    excess_bytes: int,
    stored_bytes: Int64[np.ndarray, " N"],
    rng: np.random.Generator,
) -> Int64[np.ndarray, " K"]:
    """The fewest items, as the selector takes them, that free `excess_bytes`; all where that is not
    enough.

    A random selector takes them one after another, in proportion to its weights among those that
    are left: in the order of log(u) / weight, u uniform in (0, 1), the largest first (Efraimidis
    and Spirakis 2006, "Weighted random sampling with a reservoir", algorithm A). What has weight 0
    goes last, the oldest first: there must be room in the end.
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
