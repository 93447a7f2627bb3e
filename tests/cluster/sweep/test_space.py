"""Distributions: what is written, what is drawn, and each mistake."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.sweep.space import Choice, Range, fitted, parse, parse_entry


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("learner.max_rate", "names no setting and what it is drawn from"),
        ("=log:1:2", "names no setting"),
        ("a.b=lgo:1:2", "did you mean 'log'?"),
        ("a.b=normal:0:1", "unknown distribution 'normal'"),
        ("a.b=log:1e-4", "does not have two numbers"),
        ("a.b=log", "does not have two numbers"),
        ("a.b=log:1:2:3", "does not have two numbers"),
        ("a.b=uniform:low:high", "does not have two numbers"),
        ("a.b=uniform:2:1", "LOW must be below HIGH"),
        ("a.b=uniform:1:1", "LOW must be below HIGH"),
        ("a.b=uniform:nan:1", "LOW must be below HIGH"),
        ("a.b=uniform:0:inf", "LOW must be below HIGH"),
        ("a.b=log:0:1", "a logarithm at above 0"),
        ("a.b=int:1:2.5", "does not go from one whole number to another"),
        ("a.b=choice:", "needs two values or more"),
        ("a.b=choice", "needs two values or more"),
        ("a.b=choice:1", "needs two values or more"),
        ("a.b=choice:1,2,1", "1 is given twice"),
        ("a.b=choice:[1],[2]", "is not one value"),
    ],
)
def test_a_wrong_entry_is_one_clear_error(entry: str, message: str) -> None:
    with pytest.raises(ValueError) as problem:
        parse_entry(entry)
    assert message in str(problem.value)


@pytest.mark.parametrize(
    "text", ["log:0.0001:0.003", "uniform:0:0.5", "int:1:8", "choice:64,128", "choice:true,x,null"]
)
def test_a_distribution_is_written_as_it_was_read(text: str) -> None:
    assert parse("a", text).text == text


def test_values_of_a_choice_are_json_and_other_words_are_text() -> None:
    assert parse("a", "choice:64,0.5,true,null,mean") == Choice(
        values=(64, 0.5, True, None, "mean")
    )


@given(
    low=st.floats(1e-6, 1e3),
    factor=st.floats(1.01, 1e4),
    is_log=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_number_is_drawn_from_its_range_and_can_be_typed(
    low: float, factor: float, is_log: bool, seed: int
) -> None:
    of = Range(low=low, high=low * factor, is_log=is_log)
    drawn = of.draw(np.random.default_rng(seed))
    assert isinstance(drawn, float)
    assert of.low <= drawn <= of.high
    assert drawn in (float(f"{drawn:.4g}"), of.low, of.high)


def test_a_setting_that_is_a_whole_number_gets_whole_numbers() -> None:
    of = fitted(parse("model.width", "log:64:512"), now=128)
    drawn = [of.draw(np.random.default_rng(seed)) for seed in range(200)]
    assert all(isinstance(value, int) and 64 <= value <= 512 for value in drawn)
    assert len(set(drawn)) > 50
    assert np.median(np.array(drawn, float)) < 250  # the logarithm is uniform


def test_both_ends_of_int_are_drawn() -> None:
    of = parse("a", "int:1:3")
    assert {of.draw(np.random.default_rng(seed)) for seed in range(50)} == {1, 2, 3}


@given(value=st.floats(-1e6, 1e6))
def test_a_changed_value_is_brought_back_into_its_range(value: float) -> None:
    inside = Range(low=0.25, high=4.0).nearest(value)
    assert isinstance(inside, float)
    assert 0.25 <= inside <= 4.0


@pytest.mark.parametrize(
    "text",
    ["int:1:12345678", "int:2000000:2000010", "uniform:0.12345678:0.12345679", "log:0.0001:0.003"],
)
def test_bounds_are_written_as_they_are(text: str) -> None:
    assert parse("seed", text).text == text


def test_a_range_of_whole_numbers_stays_within_its_bounds() -> None:
    whole = fitted(parse("a", "uniform:0.5:3.5"), 2)
    assert isinstance(whole, Range)
    assert {whole.draw(np.random.default_rng(seed)) for seed in range(50)} == {1, 2, 3}
    assert (whole.nearest(0.1), whole.nearest(9.0)) == (1, 3)
    with pytest.raises(ValueError, match="holds no whole number"):
        fitted(parse("a", "uniform:0.2:0.9"), 2)
