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
        for earlier, (its_width, its_count) in enumerate(sizes[: key + 1]):
            place = arena.place(earlier)
            if place != ABSENT:
                assert (arena.rows(its_width)[place : place + its_count] == earlier).all()
