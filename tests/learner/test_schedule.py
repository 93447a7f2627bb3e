"""The schedule of the learning rate: linear warm-up, then half a cosine to a tenth."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.schedule import Schedule


def test_the_warm_up_is_a_line_from_the_first_rate_to_the_largest() -> None:
    schedule = Schedule(max_rate=1.0, num_updates=1000, warmup_updates=100, first_rate=0.2)
    assert schedule.at(0) == 0.2
    assert schedule.at(25) == pytest.approx(0.4)
    assert schedule.at(99) == pytest.approx(0.992)
    assert schedule.at(100) == 1.0


def test_the_decay_is_half_a_cosine_to_a_tenth_and_stays_there() -> None:
    schedule = Schedule(max_rate=2.0, num_updates=1100, warmup_updates=100)
    assert schedule.at(600) == pytest.approx(2.0 * 0.55)
    at_a_quarter = 0.1 + 0.45 * (1.0 + math.cos(math.pi / 4))
    assert schedule.at(350) == pytest.approx(2.0 * at_a_quarter)
    assert schedule.at(1100) == pytest.approx(0.2)
    assert schedule.at(10**9) == schedule.at(1100)


def test_another_final_fraction_is_reached() -> None:
    schedule = Schedule(max_rate=1.0, num_updates=10, warmup_updates=0, final_fraction=0.25)
    assert schedule.at(0) == 1.0
    assert schedule.at(10) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("num_updates", "warmup"), [(1_000_000, 15_000), (1000, 15), (100, 2), (20, 1), (1, 1)]
)
def test_the_warm_up_is_the_papers_share_and_at_least_one_update(
    num_updates: int, warmup: int
) -> None:
    assert Schedule(max_rate=1.0, num_updates=num_updates).warmup == warmup


def test_a_warm_up_that_is_given_counts() -> None:
    assert Schedule(max_rate=1.0, num_updates=100, warmup_updates=0).warmup == 0
    assert Schedule(max_rate=1.0, num_updates=100, warmup_updates=7).warmup == 7


def test_a_run_that_is_all_warm_up_ends_at_its_last_rate() -> None:
    schedule = Schedule(max_rate=1.0, num_updates=5, warmup_updates=5)
    assert schedule.at(5) == 1.0
    assert schedule.at(6) == pytest.approx(0.1)


def test_the_defaults_are_the_papers() -> None:
    schedule = Schedule(max_rate=1e-4, num_updates=1_000_000)
    assert schedule.at(0) == 1e-7
    assert schedule.at(15_000) == 1e-4
    assert schedule.at(1_000_000) == pytest.approx(1e-5)


@given(st.integers(1, 10_000), st.integers(0, 20_000))
def test_the_rate_is_never_above_the_largest_or_below_the_least(
    num_updates: int, step: int
) -> None:
    rate = Schedule(max_rate=1e-3, num_updates=num_updates).at(step)
    assert 1e-7 <= rate <= 1e-3


@pytest.mark.parametrize(("num_updates", "max_rate"), [(0, 1.0), (1, 0.0), (1, -1.0)])
def test_a_schedule_of_nothing_is_rejected(num_updates: int, max_rate: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Schedule(max_rate=max_rate, num_updates=num_updates)
    assert Schedule(max_rate=1e-9, num_updates=1).warmup == 1
