"""Tokens of values: laws of the round trip. The paper's own vectors are in tests/paper/test_tokens.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gato.task import ArraySpec, Kind
from gato.tokenizer import TokenLayout, bin_centres, bins, decode, encode, scale, unscale

LAYOUT = TokenLayout()
OBSERVATION = ArraySpec(kind=Kind.CONTINUOUS, shape=())
ACTION = ArraySpec(kind=Kind.CONTINUOUS, shape=(), low=-1.0, high=1.0)
BUTTON = ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=18)


@given(st.integers(0, 1023))
def test_the_centre_of_a_bin_lies_in_it(index: int) -> None:
    assert bins(bin_centres(1024)[index : index + 1], 1024).item() == index


@given(st.floats(-200, 200, width=32), st.floats(-200, 200, width=32))
def test_binning_never_turns_the_order_around(a: float, b: float) -> None:
    low, high = encode(np.array(sorted([a, b]), np.float32), OBSERVATION, LAYOUT).ravel()
    assert low <= high


@given(st.floats(-3, 3, width=32))
def test_unscale_is_the_inverse_of_scale(value: float) -> None:
    for spec in (OBSERVATION, ArraySpec(kind=Kind.CONTINUOUS, shape=(), low=-3.0, high=3.0)):
        x = np.array([value])
        assert unscale(scale(x, spec), spec) == pytest.approx(x, abs=1e-5)


def test_ids_outside_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        decode(np.array([[18]]), BUTTON, LAYOUT)
    with pytest.raises(ValueError, match="outside"):
        decode(np.array([[31999]]), ACTION, LAYOUT)


def test_the_default_layout_is_the_papers() -> None:
    assert (LAYOUT.first_bin, LAYOUT.separator, LAYOUT.vocab_size) == (32_000, 33_024, 33_025)
    with pytest.raises(ValueError, match="at least 1024"):
        TokenLayout(num_text_ids=100)
