"""A task's curve has a point of each version, in the order of the learner's steps."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from cluster.monitor.scores import TaskState
from cluster.web.curve import MAX_POINTS, Curve
from cluster.web.line import At
from gato.metrics import Evaluation
from gato.version import Version


def evaluation(step: int, *returns: float, version: tuple[int, int] = (1, 0)) -> Evaluation:
    return Evaluation(
        task="t", version=Version(*version), learner_step=step, returns=tuple(returns)
    )


def add(curve: Curve, record: Evaluation) -> None:
    curve.add(record, At(record.learner_step, 1000.0 + record.learner_step, 0.0, 0.0))


def test_of_evaluations_of_one_version_the_one_with_most_episodes_counts() -> None:
    curve = Curve()
    add(curve, evaluation(10, 7.0, version=(1, 1)))
    add(curve, evaluation(10, 1.0, 3.0, version=(1, 1)))
    add(curve, evaluation(20, 10.0, version=(1, 2)))
    add(curve, evaluation(10, 5.0, version=(1, 1)))
    first, second = curve.rows(100, since_s=1000.0)
    assert first[0] == first[1] == 10
    assert (first[4], first[6], first[7], first[8]) == (2.0, 2.0, 2.0, 2)
    assert math.isclose(first[5], 1.0, rel_tol=1e-5)
    assert (second[0], second[4]) == (20, 10.0)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30), st.integers(1, 3), st.lists(st.integers(-50, 50), min_size=1)
        ),
        max_size=80,
    )
)
def test_it_says_what_the_summary_of_the_run_says(
    played: list[tuple[int, int, list[int]]],
) -> None:
    curve, state = Curve(), TaskState()
    for number, epoch, values in played:
        record = evaluation(10 * number, *map(float, values), version=(epoch, number))
        add(curve, record)
        state = state.after(record)
    said = [(row[0], row[4], row[8]) for row in curve.rows(MAX_POINTS, since_s=0.0)]
    assert said == [
        (score.learner_step, float(f"{score.returns.mean:.6g}"), score.returns.count)
        for score in state.by_step
    ]


def test_rows_that_were_asked_for_before_have_what_came_since() -> None:
    curve = Curve()
    add(curve, evaluation(10, 1.0, version=(1, 1)))
    assert curve.rows(100, since_s=0.0) == curve.rows(100, since_s=0.0)
    add(curve, evaluation(10, 3.0, version=(1, 1)))
    add(curve, evaluation(20, 5.0, version=(1, 2)))
    assert [row[4] for row in curve.rows(100, since_s=0.0)] == [3.0, 5.0]
    assert len(curve.rows(1, since_s=0.0)) == 1
    assert curve.rows(100, since_s=1000.0)[0][1] == 10.0


def test_a_curve_of_a_week_is_bounded_and_keeps_every_episode() -> None:
    curve = Curve()
    for number in range(10_000):
        value = -99.0 if number == 4321 else 1.0
        add(curve, evaluation(number, value, value, version=(1, number)))
    assert len(curve) <= MAX_POINTS
    rows = curve.rows(150, since_s=0.0)
    assert len(rows) <= 150
    assert sum(row[8] for row in rows) == 20_000
    assert min(row[6] for row in rows) == -99.0
    again = Curve.load(json.loads(json.dumps(curve.state())))
    assert again.rows(150, since_s=0.0) == rows


def test_no_returns_and_returns_that_are_not_finite_change_nothing() -> None:
    curve = Curve()
    add(curve, evaluation(1))
    add(curve, evaluation(2, math.nan))
    add(curve, evaluation(3, math.inf, -math.inf))
    assert len(curve) == 0
