"""Samplers: draw many times, fast, as a selector says.

Shape letters: N items, M of them that may be drawn, C draws, K of these within their limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

from replay.sampling.selectors import Items, OrderedSelector, Selector


@runtime_checkable
class Sampler(Protocol):
    """Draws indices of items, with the probability of each draw, from columns at one moment.

    It has no state. With a `max_times_sampled` the caller counts the draws in `times_sampled` and
    builds the next sampler.
    """

    @property
    def index(self) -> Int64[np.ndarray, " M"]:
        """The items that may be drawn."""
        ...

    def draw(
        self, rng: np.random.Generator, count: int
    ) -> tuple[Int64[np.ndarray, " C"], Float64[np.ndarray, " C"]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedSampler:
    """Draws the first item every time; with `left` as often as it may still be drawn, then the
    next. Probability 1, as in Reverb."""

    index: Int64[np.ndarray, " M"]
    """The items in their order."""
    left: Int64[np.ndarray, " M"] | None
    """How often each may still be drawn; above 0."""

    def draw(
        self, rng: np.random.Generator, count: int
    ) -> tuple[Int64[np.ndarray, " C"], Float64[np.ndarray, " C"]]:
        """`count` draws; fewer if the items have no more left."""
        if self.left is None:
            drawn = np.repeat(self.index[:1], count)
        else:  # Each has at least one left, so the first `count` items are enough.
            ends = np.cumsum(np.minimum(self.left[:count], count))
            place = np.searchsorted(ends, np.arange(count), side="right")
            drawn = self.index[place[place < len(ends)]]
        return drawn, np.ones(len(drawn))


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSampler:
    """Draws in proportion to weights, by bisection of their cumulative sum.

    With `left` an item is gone once it has no draws left. A draw of an item that is gone is thrown
    away and repeated among the others, which leaves each its share: the result is that of one draw
    after another. The probability of a draw is that among the items not gone by then.
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
        sampler = self
        while count and len(sampler.index):
            # With limits some draws are thrown away; a few more at once are cheaper than another
            # round.
            num_points = count if sampler.left is None else count + count // 8 + 8
            points_C = rng.random(num_points) * sampler.cumulative[-1]
            # Rounding of the sum may put the last points beyond its end.
            place_C = np.searchsorted(sampler.cumulative, points_C, side="right").clip(
                max=len(sampler.index) - 1
            )
            if sampler.left is None:
                return sampler.index[place_C], sampler.weights[place_C] / sampler.cumulative[-1]
            place_K, probability_K = sampler._within_limits(place_C, sampler.left)
            place_K = place_K[:count]
            rounds.append((sampler.index[place_K], probability_K[:count]))
            count -= len(place_K)
            if count:
                left = sampler.left - np.bincount(place_K, minlength=len(sampler.left))
                sampler = _random_sampler(sampler.index, sampler.weights * (left > 0), left)
        return np.concatenate([index for index, _ in rounds]), np.concatenate(
            [chance for _, chance in rounds]
        )

    def _within_limits(
        self, place_C: Int64[np.ndarray, " C"], left: Int64[np.ndarray, " M"]
    ) -> tuple[Int64[np.ndarray, " K"], Float64[np.ndarray, " K"]]:
        """The K draws of items that were not gone, in order, and their probabilities. The first
        draw is always among them."""
        # How often each draw's item was drawn earlier in this round: its rank among equal places.
        order_C = np.argsort(place_C, kind="stable")
        sorted_C = place_C[order_C]
        earlier_C = np.empty_like(place_C)
        earlier_C[order_C] = np.arange(len(place_C)) - np.searchsorted(sorted_C, sorted_C)
        kept_C = earlier_C < left[place_C]
        place_K = place_C[kept_C]
        weights_K = self.weights[place_K]
        # The weight of an item is gone after its last draw: what remains before each draw is the
        # total less those that left earlier.
        leaving_K = weights_K * (earlier_C[kept_C] + 1 == left[place_K])
        gone_K = np.cumsum(leaving_K) - leaving_K
        # An item that was drawn was there, whatever the rounding says.
        there_K = np.maximum(self.cumulative[-1] - gone_K, weights_K)
        return place_K, weights_K / there_K


def _random_sampler(
    index: Int64[np.ndarray, " N"],
    weights: Float64[np.ndarray, " N"],
    left: Int64[np.ndarray, " N"] | None,
) -> RandomSampler:
    may = weights > 0
    cumulative = np.cumsum(weights[may])
    assert np.isfinite(cumulative[-1:]).all(), "a weight is not finite"
    return RandomSampler(
        index=index[may],
        weights=weights[may],
        cumulative=cumulative,
        left=None if left is None else left[may],
    )


def build_sampler(selector: Selector, items: Items, max_times_sampled: int | None) -> Sampler:
    """The sampler of `items`; build it again whenever they change.

    With `max_times_sampled` an item that was drawn so often is gone, as in Reverb; None: no limit.
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
        return OrderedSampler(index=index[order], left=None if left is None else left[order])
    return _random_sampler(index, selector.weights(items), left)
