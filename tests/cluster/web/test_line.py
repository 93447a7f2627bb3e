"""A line is bounded, and no peak is ever lost."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.web.line import MAX_POINTS, At, Line


def line_of(values: list[float]) -> Line:
    line = Line()
    for number, value in enumerate(values):
        line.append(At(number, 1000.0 + number, 10 * number, 2 * number), value)
    return line


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=6 * MAX_POINTS))
def test_a_line_of_any_length_keeps_its_mean_its_extremes_and_its_end(values: list[int]) -> None:
    line = line_of([float(value) for value in values])
    assert len(line) <= MAX_POINTS
    shown = line.columns(MAX_POINTS, since_s=1000.0)
    assert min(shown["low"]) == min(values)
    assert max(shown["high"]) == max(values)
    assert shown["step"][-1] == shown["time"][-1] == len(values) - 1
    assert all(low <= mean <= high for low, mean, high in
               zip(shown["low"], shown["mean"], shown["high"], strict=True))  # fmt: skip
    kept = line.state()
    assert sum(kept["total"]) == pytest.approx(sum(values))
    assert sum(kept["count"]) == len(values)


def test_a_picture_has_as_many_points_as_asked_for_and_one_peak_of_a_week_is_in_it() -> None:
    values = [1.0] * 300_000
    values[123_456] = 77.0
    shown = line_of(values).columns(200, since_s=0.0)
    assert len(shown["step"]) <= 200
    assert max(shown["high"]) == 77.0


def test_a_line_goes_on_from_its_state_as_if_it_had_never_stopped() -> None:
    values = list(np.random.default_rng(0).normal(size=3000))
    whole, half = line_of(values), line_of(values[:1500])
    half = Line.load(json.loads(json.dumps(half.state())))
    for number in range(1500, 3000):
        half.append(At(number, 1000.0 + number, 10 * number, 2 * number), values[number])
    assert half.state() == whole.state()


def test_values_that_are_not_finite_are_left_out() -> None:
    assert len(line_of([float("nan"), float("inf"), 1.0])) == 1


def test_a_damaged_state_is_refused() -> None:
    state = line_of([1.0, 2.0]).state()
    with pytest.raises(ValueError, match="different lengths"):
        Line.load({**state, "low": [1.0]})
