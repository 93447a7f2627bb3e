"""The interquartile mean over tasks and its interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import trim_mean

from cluster.monitor.bootstrap import interquartile_mean
from cluster.monitor.iqm import aggregate, interquartile_mean_of

scores = st.lists(st.floats(-2, 2), min_size=1, max_size=12)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 99))
def test_where_a_quarter_is_a_whole_number_it_is_scipys_trimmed_mean(
    tasks: int, quarter: int, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(tasks, 4 * quarter))
    assert float(interquartile_mean(values)) == pytest.approx(trim_mean(values.ravel(), 0.25))


def test_a_batch_of_resamples_has_the_mean_of_each() -> None:
    scores = np.random.default_rng(1).normal(size=(5, 3, 7))
    each = [float(interquartile_mean(resample)) for resample in scores]
    assert interquartile_mean(scores).tolist() == pytest.approx(each)


def test_scores_on_the_border_count_in_part() -> None:
    # Of 6 the middle half is 3: the third and fourth whole, the second and fifth by half.
    values = np.array([[0.0, 1.0, 2.0, 4.0, 8.0, 100.0]])
    assert float(interquartile_mean(values)) == pytest.approx((0.5 * 1 + 2 + 4 + 0.5 * 8) / 3)


@settings(deadline=None)
@given(st.lists(scores, min_size=1, max_size=5))
def test_one_mean_is_that_of_many(tasks: list[list[float]]) -> None:
    fewest = min(map(len, tasks))
    values = np.array([scores[:fewest] for scores in tasks])
    assert interquartile_mean_of(tasks) == pytest.approx(float(interquartile_mean(values)))


@settings(deadline=None)
@given(st.lists(scores, min_size=1, max_size=5))
def test_the_interval_lies_within_what_was_scored_and_around_its_middle(
    of_tasks: list[list[float]],
) -> None:
    over = aggregate(of_tasks)
    assert over is not None
    everything = [score for of_task in of_tasks for score in of_task]
    assert min(everything) - 1e-9 <= over.low <= over.high <= max(everything) + 1e-9
    assert over.num_tasks == len(of_tasks)
    assert aggregate(of_tasks) == over  # the same draws every time


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    # Uniform scores of 3 tasks: the middle half of all lies around 1/2.
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(60):
        over = aggregate(rng.uniform(size=(3, 20)).tolist(), seed=trial)
        assert over is not None
        held += over.low <= 0.5 <= over.high
    assert held >= 50


def test_the_interval_leaves_out_a_fortieth_of_the_resamples_at_each_end() -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(size=40)
    over = [aggregate([scores.tolist()], seed=seed) for seed in range(8)]
    again = interquartile_mean(rng.choice(scores, size=(20_000, 1, 40)))
    below = [np.mean(again < each.low) for each in over if each is not None]
    above = [np.mean(again > each.high) for each in over if each is not None]
    assert np.mean(below) == pytest.approx(0.025, abs=0.004)
    assert np.mean(above) == pytest.approx(0.025, abs=0.004)


def test_of_each_task_as_many_episodes_count_as_the_task_with_the_fewest_has() -> None:
    over = aggregate([[1.0, 1.0, 9.0, 9.0, 9.0], [3.0, 3.0]])
    assert over is not None
    assert over.iqm == 2.0


def test_a_task_without_a_score_is_left_out_and_nothing_is_no_number() -> None:
    over = aggregate([[1.0, 1.0], [], [float("nan")]])
    assert over is not None
    assert (over.iqm, over.low, over.high, over.num_tasks) == (1.0, 1.0, 1.0, 1)
    assert aggregate([[]]) is None
