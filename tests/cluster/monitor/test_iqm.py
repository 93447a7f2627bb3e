"""The interquartile mean over tasks and its interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import trim_mean

from cluster.monitor.bootstrap import interquartile_mean, weighted_interquartile_mean
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
    values = np.array([[score for scores in tasks for score in scores]])
    weights = np.concatenate([np.full(len(scores), 1 / len(scores)) for scores in tasks])
    (mean,) = weighted_interquartile_mean(values, weights)
    assert interquartile_mean_of(tasks) == pytest.approx(mean)


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_of_equally_many_episodes_the_weighted_mean_is_the_plain_one(
    tasks: int, episodes: int, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(tasks, episodes))
    assert interquartile_mean_of(values.tolist()) == pytest.approx(
        float(interquartile_mean(values))
    )


@settings(deadline=None)
@given(st.lists(scores, min_size=1, max_size=5))
def test_the_interval_lies_within_what_was_scored_and_around_its_middle(
    of_tasks: list[list[float]],
) -> None:
    over = aggregate(of_tasks)
    assert over is not None
    everything = [score for of_task in of_tasks for score in of_task]
    if min(map(len, of_tasks)) < 2:
        assert (over.low, over.high) == (None, None)
    else:
        assert over.low is not None
        assert over.high is not None
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
        low, high = over.bounds or (0.0, 0.0)
        held += low <= 0.5 <= high
    assert held >= 50


def test_the_interval_leaves_out_a_fortieth_of_the_resamples_at_each_end() -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(size=40)
    over = [aggregate([scores.tolist()], seed=seed) for seed in range(8)]
    again = interquartile_mean(rng.choice(scores, size=(20_000, 1, 40)))
    bounds = [each.bounds for each in over if each is not None and each.bounds is not None]
    assert len(bounds) == 8
    below = [np.mean(again < low) for low, _ in bounds]
    above = [np.mean(again > high) for _, high in bounds]
    assert np.mean(below) == pytest.approx(0.025, abs=0.004)
    assert np.mean(above) == pytest.approx(0.025, abs=0.004)


def test_tasks_count_alike_however_many_episodes_they_have() -> None:
    # The first task weighs 1 in 4 parts, the second 1 in 2: half of the weight lies in between.
    over = aggregate([[1.0, 1.0, 9.0, 9.0], [3.0, 3.0]])
    assert over is not None
    assert over.iqm == pytest.approx(3.0)
    often = aggregate([[1.0, 5.0], [2.0, 4.0, 6.0] * 20])
    once = aggregate([[1.0, 5.0], [2.0, 4.0, 6.0]])
    assert often is not None
    assert once is not None
    assert often.iqm == pytest.approx(once.iqm)


def test_the_interval_of_unequal_tasks_holds_the_truth_as_well() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(60):
        tasks = [rng.uniform(size=number).tolist() for number in (20, 30, 45)]
        over = aggregate(tasks, seed=trial)
        assert over is not None
        low, high = over.bounds or (0.0, 0.0)
        held += low <= 0.5 <= high
    assert held >= 50


def test_one_episode_of_a_task_says_nothing_of_others() -> None:
    over = aggregate([[0.5], [0.2, 0.4]])
    assert over is not None
    assert over.bounds is None
    assert over.text() == f"{over.iqm:.2f}"


def test_a_task_without_a_score_is_left_out_and_nothing_is_no_number() -> None:
    over = aggregate([[1.0, 1.0], [], [float("nan")]])
    assert over is not None
    assert (over.iqm, over.low, over.high, over.num_tasks) == (1.0, 1.0, 1.0, 1)
    assert aggregate([[]]) is None
