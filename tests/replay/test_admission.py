"""Admission: who may go ahead, told without clocks."""

from replay.admission import Admission
from replay.rate_limiter import Limiter, LimiterConfig


def admission(**settings: float) -> Admission:
    plain = {"warmup_tokens": 10, "reads_per_inserted_token": 2.0, "slack_tokens": 100}
    return Admission(Limiter(LimiterConfig(**(plain | settings))), batch_tokens=50)  # type: ignore[arg-type]


def test_writers_do_not_wait_for_readers_who_have_nothing_to_read() -> None:
    gate = admission()
    gate.insert(200)
    assert not gate.may_insert(lambda: True)
    assert gate.may_insert(lambda: False)


def test_readers_do_not_wait_for_writers_who_find_no_room_once_anything_is_in() -> None:
    gate = admission(warmup_tokens=1000)
    gate.is_full = True
    assert not gate.may_read()
    gate.insert(10)
    assert gate.may_read()


def test_a_reserved_read_counts_until_it_is_settled_and_the_last_size_is_reserved_next() -> None:
    gate = admission()
    gate.insert(10)
    reserved = gate.reserve_read()
    assert gate.limiter.read_tokens == 50
    gate.settle_read(reserved, 30)
    assert gate.limiter.read_tokens == 30
    assert gate.reserve_read().tokens == 30


def test_a_draw_that_failed_leaves_no_trace() -> None:
    gate = admission()
    gate.insert(10)
    before = gate.limiter.state()
    gate.settle_read(gate.reserve_read(), 0)
    assert gate.limiter.state() == before


def test_what_is_read_while_there_is_no_room_counts_in_the_total_alone() -> None:
    gate = admission()
    gate.insert(10)
    gate.is_full = True
    owed = gate.limiter.owed_tokens
    gate.settle_read(gate.reserve_read(), 70)
    assert gate.limiter.owed_tokens == owed
    assert gate.limiter.read_tokens == 70
    gate.limiter.pause()
    gate.settle_read(gate.reserve_read(), 70)
    assert gate.limiter.paused
