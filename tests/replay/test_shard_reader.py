"""The clients' choices, without Ray: which shard is asked, what happens when one is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from gato.sequence import Batch
from replay.ingest import Added
from replay.shard_reader import (
    ALIVE_S,
    CALL_WAIT_S,
    PAUSE_S,
    RETRY_S,
    TURN_S,
    Rotation,
    ShardGone,
    ShardReader,
    add_patiently,
    first_found,
)


def batch(number: int) -> Batch:
    """Its first id is its number."""
    column = np.full((1, 2), number, np.int32)
    return Batch(
        ids=column,
        place=column,
        segment=column,
        is_target=column > 0,
        task_index=np.zeros(1, np.int64),
        patches=np.zeros((0, 16, 16, 3), np.uint8),
        patch_at=np.zeros(0, np.int64),
        patch_intervals=np.zeros((0, 4), np.int32),
        patch_leaders=np.zeros((0, 2), np.int64),
    )


@dataclass
class FakeShards:
    """Shards in a clock of their own. `dead` ones die as they are asked, `silent` ones say nothing,
    `slow` ones draw for ever, `empty` ones have nothing to read."""

    now_s: float = 0.0
    dead: set[int] = field(default_factory=set[int])
    silent: set[int] = field(default_factory=set[int])
    slow: set[int] = field(default_factory=set[int])
    empty: set[int] = field(default_factory=set[int])
    asked: list[tuple[int, int, float]] = field(default_factory=list[tuple[int, int, float]])
    """(shard, number, how long it may wait)."""

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def ask(self, shard: int, number: int, wait_s: float) -> tuple[int, int]:
        self.asked.append((shard, number, wait_s))
        return shard, number

    def is_done(self, request: tuple[int, int], timeout_s: float) -> bool:
        if request[0] in self.silent | self.slow:
            self.now_s += timeout_s
            return False
        return True

    def answer(self, request: tuple[int, int]) -> Batch | None:
        shard, number = request
        if shard in self.dead:
            raise ShardGone("it died")
        self.now_s += 0.01
        return None if shard in self.empty else batch(number)

    def is_alive(self, shard: int, timeout_s: float) -> bool:
        if shard in self.silent:
            self.now_s += timeout_s
        return shard not in self.silent | self.dead


def reader(shards: FakeShards, num_shards: int, **settings: int) -> ShardReader[tuple[int, int]]:
    plain = {"prefetch": 1} | settings
    return ShardReader(
        shards, num_shards=num_shards, clock=shards.clock, sleep=shards.sleep, **plain
    )


def numbers(found: Sequence[Batch | None]) -> list[int]:
    return [int(one.ids[0, 0]) for one in found if one is not None]


def test_each_number_is_asked_of_its_home_and_the_next_ones_in_advance() -> None:
    shards = FakeShards()
    source = reader(shards, 2, prefetch=3)
    assert numbers([source.next_batch(index, 1.0) for index in range(3)]) == [0, 1, 2]
    assert [(shard, number) for shard, number, _ in shards.asked] == [
        (number % 2, number) for number in range(5)
    ]


def test_an_only_shard_waits_inside_replay_and_the_last_of_several_but_a_moment() -> None:
    one, two = FakeShards(), FakeShards(empty={0, 1})
    reader(one, 1).next_batch(0, 1.0)
    assert one.asked == [(0, 0, CALL_WAIT_S)]
    reader(two, 2).next_batch(0, 0.0)
    assert two.asked == [(0, 0, 0.0), (1, 0, TURN_S)]


def test_ranks_read_numbers_of_their_own() -> None:
    shards = FakeShards()
    sources = [reader(shards, 2, rank=rank, num_ranks=3) for rank in range(3)]
    found = [source.next_batch(index, 1.0) for index in range(2) for source in sources]
    assert numbers(found) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="count from 0"):
        reader(shards, 2, rank=3, num_ranks=3)


@pytest.mark.parametrize("trouble", ["dead", "silent", "empty"])
def test_another_shard_serves_the_batches_of_one_that_cannot(trouble: str) -> None:
    shards = FakeShards(**{trouble: {1}})
    source = reader(shards, 2)
    assert numbers([source.next_batch(index, 5.0) for index in range(6)]) == list(range(6))
    assert shards.now_s < 3 * (2 * ALIVE_S + 0.1)


def test_a_shard_that_died_is_not_asked_for_a_second() -> None:
    shards = FakeShards(dead={1})
    source = reader(shards, 2)
    source.next_batch(1, 5.0)
    shards.dead.clear()
    shards.asked.clear()
    source.next_batch(3, 5.0)
    shards.now_s += PAUSE_S
    source.next_batch(5, 5.0)
    assert [shard for shard, _, _ in shards.asked] == [0, 1]


def test_a_slow_shard_that_lives_is_waited_for_and_no_other_is_asked() -> None:
    shards = FakeShards(slow={0})
    assert reader(shards, 2).next_batch(0, 2.0) is None
    assert shards.asked == [(0, 0, 0.0)]
    assert shards.now_s == pytest.approx(2.0)


def test_where_no_shard_is_left_the_reader_pauses_and_gives_up_in_time() -> None:
    shards = FakeShards(dead={0, 1})
    assert reader(shards, 2).next_batch(0, 1.0) is None
    assert 1.0 <= shards.now_s <= 1.0 + RETRY_S
    assert len(shards.asked) < 20


def test_a_request_that_the_reader_passed_by_is_dropped() -> None:
    shards = FakeShards()
    source = reader(shards, 1, prefetch=2)
    assert numbers([source.next_batch(0, 1.0), source.next_batch(7, 1.0)]) == [0, 7]
    assert numbers([source.next_batch(0, 1.0)]) == [0]  # a learner that goes back asks again
    assert [number for _, number, _ in shards.asked] == [0, 1, 7, 8, 0, 1]


def test_a_rotation_begins_at_home_and_asks_those_that_failed_last() -> None:
    rotation = Rotation(3)
    assert rotation.order(4, 0.0) == [1, 2, 0]
    rotation.failed(1, 10.0)
    assert rotation.order(4, 10.0 + PAUSE_S / 2) == [2, 0, 1]
    assert rotation.order(4, 10.0 + PAUSE_S) == [1, 2, 0]


def test_an_episode_is_sent_again_until_replay_answers_or_patience_ends() -> None:
    shards = FakeShards()
    calls = 0

    def add() -> Added:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise ShardGone("it died")
        return Added(status="stored")

    added = add_patiently(add, patience_s=10.0, clock=shards.clock, sleep=shards.sleep)
    assert (added.status, calls) == ("stored", 4)
    assert shards.now_s == pytest.approx(3 * RETRY_S)
    calls = -(10**9)
    added = add_patiently(add, patience_s=2.0, clock=shards.clock, sleep=shards.sleep)
    assert added == Added(status="wait", reason="replay did not answer for 2 s")


def test_the_first_shard_with_an_answer_gives_it() -> None:
    def gone() -> int | None:
        raise ShardGone("it died")

    assert first_found([gone, lambda: None, lambda: 7, lambda: 8]) == 7
    assert first_found([gone, lambda: None]) is None
