"""Warm memory never says that it has what was written over."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.sampling.arena import ABSENT, Arena


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=2, max_size=60))
def test_whatever_is_in_warm_memory_is_what_was_put_there(sizes: list[tuple[int, int]]) -> None:
    arena = Arena(256)
    for key, (width, count) in enumerate(sizes):
        arena.put(key, np.full((count, width), key, np.uint8))
        here = [earlier for earlier in range(key + 1) if arena.place(earlier) != ABSENT]
        for earlier in here:
            its_width, its_count = sizes[earlier]
            place = arena.place(earlier)
            rows = arena.rows(its_width)[place : place + its_count]
            assert rows.shape == (its_count, its_width)
            assert (rows == earlier).all()
        # What fits is here at once, and the oldest fell out first.
        fit = [each for each in range(key + 1) if 2 * sizes[each][0] * sizes[each][1] <= 256]
        assert here == fit[len(fit) - len(here) :]
        assert not fit or fit[-1] in here
        assert list(arena.places(range(key + 1))) == [arena.place(each) for each in range(key + 1)]


@settings(deadline=None)
@given(st.lists(st.integers(1, 64), min_size=3, max_size=40))
def test_the_newest_half_of_warm_memory_is_always_there(sizes: list[int]) -> None:
    # Three arrays of at most a quarter each, one of them perhaps lost to the gap before the end.
    arena = Arena(256)
    for key, count in enumerate(sizes):
        arena.put(key, np.full((count, 1), key, np.uint8))
        kept = sum(sizes[each] for each in range(key + 1) if arena.place(each) != ABSENT)
        assert kept >= min(sum(sizes[: key + 1]), 128)
