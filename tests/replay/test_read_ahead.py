"""How far a reader asks ahead: laws of the arithmetic, without clocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.read_ahead import MAX_AHEAD_BYTES, MAX_GROUP, ReadAhead

SMALL = 1 << 20


def answer(
    ahead: ReadAhead, *, waited: bool = True, whole: bool = True, size: int = SMALL
) -> tuple[int, int]:
    ahead.answered(was_waited_for=waited, is_whole=whole, batch_bytes=size)
    return ahead.num_batches, ahead.group


@pytest.mark.parametrize("num_shards", [1, 2, 5])
def test_it_grows_while_the_reader_waits_until_each_shard_has_two_calls_of_the_most(
    num_shards: int,
) -> None:
    ahead = ReadAhead(prefetch=2, num_shards=num_shards)
    assert (ahead.num_batches, ahead.group) == (2, 1)
    assert answer(ahead)[0] == 4
    for _ in range(10):
        answer(ahead, size=1)
    assert (ahead.num_batches, ahead.group) == (2 * num_shards * MAX_GROUP, MAX_GROUP)


def test_it_shrinks_by_one_a_call_while_nobody_waits_down_to_what_was_told() -> None:
    ahead = ReadAhead(prefetch=3, num_shards=1)
    assert answer(ahead, waited=False) == (3, 1)
    for _ in range(2):
        answer(ahead)
    assert ahead.num_batches == 12
    assert [answer(ahead, waited=False)[0] for _ in range(10)] == [11, 10, 9, 8, 7, 6, 5, 4, 3, 3]


def test_waiting_for_what_replay_does_not_have_is_no_reason_to_ask_for_more() -> None:
    ahead = ReadAhead(prefetch=2, num_shards=1)
    assert answer(ahead) == (4, 2)
    assert answer(ahead, whole=False) == (3, 1)


def test_large_batches_are_read_as_they_were_told_to_be() -> None:
    ahead = ReadAhead(prefetch=2, num_shards=1)
    for _ in range(5):
        assert answer(ahead, size=33 << 20) == (2, 1)
    assert answer(ahead, size=MAX_AHEAD_BYTES // 3) == (3, 1)
    assert answer(ahead, size=MAX_AHEAD_BYTES) == (2, 1)


@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 2 * MAX_AHEAD_BYTES))),
)
def test_it_never_falls_below_what_was_told_nor_grows_beyond_its_bounds(
    prefetch: int, num_shards: int, answers: list[tuple[bool, bool, int]]
) -> None:
    ahead = ReadAhead(prefetch=prefetch, num_shards=num_shards)
    for waited, whole, size in answers:
        before = ahead.num_batches
        after, group = answer(ahead, waited=waited, whole=whole, size=size)
        assert after >= max(prefetch, before - 1)
        assert group <= MAX_GROUP
        if after > before:
            assert after * size <= MAX_AHEAD_BYTES
