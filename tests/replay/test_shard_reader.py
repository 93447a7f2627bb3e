"""The clients' choices, without Ray: which shard is asked, what happens when one is gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from gato.sequence import Batch
from replay.ingest import Added
from replay.read_ahead import MAX_AHEAD_BYTES, MAX_GROUP
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


def batch(number: int, num_patches: int = 0) -> Batch:
    """Its first id is its number; its patches take no memory."""
    column = np.full((1, 2), number, np.int32)
    return Batch(
        ids=column,
        place=column,
        segment=column,
        is_target=column > 0,
        task_index=np.zeros(1, np.int64),
        patches=np.broadcast_to(np.uint8(0), (num_patches, 16, 16, 3)),
        patch_at=np.zeros(num_patches, np.int64),
        patch_intervals=np.zeros((num_patches, 4), np.int32),
        patch_leaders=np.zeros((num_patches, 2), np.int64),
    )


@dataclass(frozen=True)
class Call:
    shard: int
    numbers: tuple[int, ...]
    wait_s: float
    """How long it may wait."""
    done_s: float
    """When its batches are drawn."""


@dataclass
class FakeShards:
    """Shards in a clock of their own. `dead` ones die as they are asked, `silent` ones say nothing,
    `slow` ones never finish a batch, `empty` ones have nothing to read. The others draw a batch in
    `draw_s`, and have `at_once` of them at once."""

    now_s: float = 0.0
    draw_s: float = 0.0
    at_once: int = 100
    num_patches: int = 0
    dead: set[int] = field(default_factory=set[int])
    silent: set[int] = field(default_factory=set[int])
    slow: set[int] = field(default_factory=set[int])
    empty: set[int] = field(default_factory=set[int])
    calls: list[Call] = field(default_factory=list[Call])

    @property
    def asked(self) -> list[tuple[int, int, float]]:
        """(shard, number, how long it may wait)."""
        return [(call.shard, number, call.wait_s) for call in self.calls for number in call.numbers]

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def ask(self, shard: int, numbers: Sequence[int], wait_s: float) -> Call:
        free_s = max([self.now_s, *(call.done_s for call in self.calls if call.shard == shard)])
        call = Call(shard, tuple(numbers), wait_s, free_s + self.draw_s * len(numbers))
        self.calls.append(call)
        return call

    def is_done(self, call: Call, timeout_s: float) -> bool:
        is_stuck = call.shard in self.silent | self.slow
        left_s = float("inf") if is_stuck else max(0.0, call.done_s - self.now_s)
        self.now_s += min(left_s, timeout_s)
        return left_s <= timeout_s

    def answer(self, call: Call) -> list[Batch]:
        if call.shard in self.dead:
            raise ShardGone("it died")
        self.now_s += 0.01
        most = 0 if call.shard in self.empty else self.at_once
        return [batch(number, self.num_patches) for number in call.numbers[:most]]

    def is_alive(self, shard: int, timeout_s: float) -> bool:
        if shard in self.silent:
            self.now_s += timeout_s
        return shard not in self.silent | self.dead


def reader(shards: FakeShards, num_shards: int, **settings: int) -> ShardReader[Call]:
    plain = {"prefetch": 1} | settings
    return ShardReader(
        shards, num_shards=num_shards, clock=shards.clock, sleep=shards.sleep, **plain
    )


def read(
    source: ShardReader[Call], shards: FakeShards, indices: Iterable[int], *, learn_s: float = 0.0
) -> list[int]:
    """The numbers of batches that a learner reads which takes `learn_s` for each."""
    found: list[Batch | None] = []
    for index in indices:
        found.append(source.next_batch(index, 5.0))
        shards.now_s += learn_s
    return numbers(found)


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
    shards.calls.clear()
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


# Several batches with one call.


@pytest.mark.parametrize(("num_shards", "rank", "num_ranks"), [(1, 0, 1), (2, 0, 1), (3, 1, 2)])
def test_a_reader_that_has_to_wait_asks_a_home_for_several_batches_with_one_call(
    num_shards: int, rank: int, num_ranks: int
) -> None:
    shards = FakeShards(draw_s=0.1)
    source = reader(shards, num_shards, prefetch=2, rank=rank, num_ranks=num_ranks)
    expected = [index * num_ranks + rank for index in range(300)]
    assert read(source, shards, range(300)) == expected
    assert all(number % num_shards == shard for shard, number, _ in shards.asked)
    assert set(Counter(number for _, number, _ in shards.asked).values()) == {1}
    assert {len(call.numbers) for call in shards.calls[:2]} == {1}
    assert min(len(call.numbers) for call in shards.calls[-num_shards:]) >= MAX_GROUP - 1


def test_a_shard_has_its_next_call_before_the_reader_waits_for_the_last() -> None:
    shards = FakeShards(draw_s=0.1)
    source = reader(shards, 1, prefetch=2)
    read(source, shards, range(200))
    begun_s = shards.now_s
    read(source, shards, range(200, 400))
    # It draws without a pause, but for those that were ready at the beginning or are at the end.
    assert shards.now_s - begun_s <= (200 + 2 * MAX_GROUP) * 0.1


def test_for_a_slow_reader_no_batch_is_drawn_earlier_than_it_was_told() -> None:
    shards = FakeShards(draw_s=0.1)
    source = reader(shards, 1, prefetch=2)
    for index in range(50):
        assert read(source, shards, [index], learn_s=1.0) == [index]
        assert max(number for _, number, _ in shards.asked) == index + 1
    assert {len(call.numbers) for call in shards.calls} == {1}


def test_a_reader_that_becomes_slow_drops_nothing_that_was_drawn_and_asks_as_it_was_told() -> None:
    shards = FakeShards(draw_s=0.1)
    source = reader(shards, 2, prefetch=2)
    read(source, shards, range(100))
    assert read(source, shards, range(100, 400), learn_s=1.0) == list(range(100, 400))
    assert set(Counter(number for _, number, _ in shards.asked).values()) == {1}
    assert max(number for _, number, _ in shards.asked) <= 400
    assert len(shards.calls[-1].numbers) == 1


@pytest.mark.parametrize("num_shards", [1, 2])
def test_what_a_shard_did_not_have_at_once_is_asked_of_its_home_again(num_shards: int) -> None:
    shards = FakeShards(draw_s=0.1)
    source = reader(shards, num_shards, prefetch=2)
    read(source, shards, range(200))
    shards.at_once = 1  # the limiter lets no more in
    assert read(source, shards, range(200, 400)) == list(range(200, 400))
    assert all(number % num_shards == shard for shard, number, _ in shards.asked)
    # Asking for several does not help, so they are few: their answers come one by one.
    assert sum(len(call.numbers) for call in shards.calls[-50:]) < 50 * 3


@pytest.mark.parametrize("trouble", ["dead", "silent", "empty"])
def test_another_shard_serves_the_batches_of_a_call_that_failed(trouble: str) -> None:
    shards = FakeShards(draw_s=0.1)
    source = reader(shards, 2, prefetch=2)
    read(source, shards, range(201))
    assert len(shards.calls[-1].numbers) == MAX_GROUP
    getattr(shards, trouble).add(1)
    begun_s = shards.now_s
    assert read(source, shards, range(201, 231)) == list(range(201, 231))
    assert shards.now_s - begun_s < 30 * 0.1 + 15 * 2 * (ALIVE_S + 0.1)


def test_batches_asked_in_advance_are_bounded_by_their_bytes() -> None:
    shards = FakeShards(draw_s=0.1, num_patches=MAX_AHEAD_BYTES // 768)
    source = reader(shards, 1, prefetch=2)
    assert read(source, shards, range(20)) == list(range(20))
    assert {len(call.numbers) for call in shards.calls} == {1}
    assert max(number for _, number, _ in shards.asked) == 19 + 1


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
