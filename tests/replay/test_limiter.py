"""The limiter's laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.config import LimiterConfig
from replay.limiter import Limiter

CONFIGS = st.builds(
    LimiterConfig,
    warmup_tokens=st.integers(0, 500),
    reads_per_inserted_token=st.floats(0.1, 50),
    slack_tokens=st.integers(1, 5000),
)


@given(CONFIGS, st.lists(st.tuples(st.booleans(), st.integers(1, 300)), max_size=200))
def test_one_of_two_sides_can_always_move_and_the_error_stays_within_the_slack(
    config: LimiterConfig, wishes: list[tuple[bool, int]]
) -> None:
    limiter = Limiter(config)
    ratio = config.reads_per_inserted_token or 0.0
    largest = 300
    for wants_insert, tokens in wishes:
        assert limiter.may_insert() or limiter.may_read()
        if wants_insert and limiter.may_insert():
            limiter.inserted(tokens)
        elif not wants_insert and limiter.may_read():
            limiter.read(tokens)
        # One operation may overshoot by its own size; before the warm-up is over writers are free.
        assert limiter.owed_tokens >= -config.slack_tokens - largest
        ceiling = max(config.slack_tokens, config.warmup_tokens * ratio) + largest * ratio
        assert limiter.owed_tokens <= ceiling


def test_nothing_is_read_before_the_warm_up() -> None:
    limiter = Limiter(LimiterConfig(warmup_tokens=10))
    assert not limiter.may_read()
    limiter.inserted(10)
    assert limiter.may_read()


def test_without_a_ratio_nobody_waits_for_the_other() -> None:
    limiter = Limiter(LimiterConfig(warmup_tokens=1))
    limiter.inserted(1)
    limiter.read(10**9)
    assert limiter.may_insert()
    assert limiter.may_read()


def test_a_limiter_goes_on_from_saved_counts() -> None:
    config = LimiterConfig(warmup_tokens=0, reads_per_inserted_token=2.0, slack_tokens=10)
    assert not Limiter(config, inserted_tokens=100, read_tokens=215).may_read()
    assert not Limiter(config, inserted_tokens=100, read_tokens=185).may_insert()


def test_a_ratio_that_reads_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        LimiterConfig(warmup_tokens=0, reads_per_inserted_token=0.0)
