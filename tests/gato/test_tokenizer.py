"""Tokens of values: laws of the round trip. The paper's own vectors are in
tests/paper/test_tokens.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gato.array_spec import ArraySpec, Kind
from gato.scaling import bin_centres, bins, mu_law, scale, unscale
from gato.tokenizer import TokenLayout, decode, encode

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


WHEELS = ArraySpec(kind=Kind.DISCRETE, shape=(2, 2), num_values=(2, 5, 3, 1024))
BODY = ArraySpec(
    kind=Kind.CONTINUOUS, shape=(3,), low=(-1.0, -np.inf, 0.0), high=(1.0, np.inf, 8.0)
)


def test_elements_of_an_array_have_their_own_bounds_and_the_mu_law_if_they_have_none() -> None:
    values = np.array([[0.5, 0.5, 6.0], [-1.0, 1000.0, 8.0]], np.float32)
    assert encode(values, BODY, LAYOUT).tolist() == [[32768, 32710, 32768], [32000, 33023, 33023]]


@given(st.floats(-1, 1, width=32), st.floats(-200, 200, width=32), st.floats(0, 8, width=32))
def test_each_element_decodes_by_its_own_scale(a: float, b: float, c: float) -> None:
    back = decode(encode(np.array([[a, b, c]], np.float32), BODY, LAYOUT), BODY, LAYOUT)[0]
    assert back[0] == pytest.approx(a, abs=1 / 1024 + 1e-6)
    assert mu_law(back[1:2]) == pytest.approx(mu_law(np.array([b])), abs=1 / 1024 + 1e-6)
    assert back[2] == pytest.approx(c, abs=4 / 1024 + 1e-5)


def test_one_bound_for_all_and_the_same_for_each_give_the_same_bits() -> None:
    values = np.random.default_rng(0).uniform(-4, 4, (1000, 3)).astype(np.float32)
    shared = ArraySpec(kind=Kind.CONTINUOUS, shape=(3,), low=-3.0, high=3.0)
    each = ArraySpec(kind=Kind.CONTINUOUS, shape=(3,), low=(-3.0,) * 3, high=(3.0,) * 3)
    np.testing.assert_array_equal(scale(values, shared), scale(values, each))
    np.testing.assert_array_equal(unscale(values, shared), unscale(values, each))


@given(st.tuples(*(st.integers(0, count - 1) for count in (2, 5, 3, 1024))))
def test_each_element_of_a_multidiscrete_is_its_own_token_and_comes_back(
    values: tuple[int, ...],
) -> None:
    array = np.array(values).reshape(1, 2, 2)
    ids = encode(array, WHEELS, LAYOUT)
    assert ids.tolist() == [list(values)]
    np.testing.assert_array_equal(decode(ids, WHEELS, LAYOUT), array)
    assert [LAYOUT.ids_of(WHEELS, i) for i in range(4)] == [(0, 2), (0, 5), (0, 3), (0, 1024)]


def test_an_id_that_one_element_may_take_and_another_may_not_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        decode(np.array([[2, 0, 0, 0]]), WHEELS, LAYOUT)
    with pytest.raises(ValueError, match="has 4 a step"):
        decode(np.array([[0, 0, 0]]), WHEELS, LAYOUT)
    with pytest.raises(ValueError, match="image are not decoded"):
        decode(np.array([[0]]), ArraySpec(kind=Kind.IMAGE, shape=(16, 16, 3)), LAYOUT)


def test_the_default_layout_is_the_papers() -> None:
    assert (LAYOUT.first_bin, LAYOUT.separator, LAYOUT.vocab_size) == (32_000, 33_024, 33_025)
    with pytest.raises(ValueError, match="at least 1024"):
        TokenLayout(num_text_ids=100)


@pytest.mark.parametrize("value", [-1, 18, 40_000])
def test_a_discrete_value_outside_its_spec_becomes_no_token(value: int) -> None:
    with pytest.raises(ValueError, match=r"expected them in \[0, 18\)"):
        encode(np.array([3, value]), BUTTON, LAYOUT)


def test_statistics_take_the_place_of_the_bounds_and_unscale_is_their_inverse():
    spec = ArraySpec(
        kind=Kind.CONTINUOUS,
        shape=(2,),
        low=-1.0,
        high=1.0,
        mean=(45_000.0, 0.0),
        std=(9_000.0, 1e-4),
    )
    x = np.random.default_rng(0).normal(spec.mean, spec.std, (300, 2))
    assert np.allclose(unscale(scale(x, spec), spec), x, rtol=1e-9)
    ids = encode(x.astype(np.float32), spec, TokenLayout())
    assert min(len(np.unique(column)) for column in ids.T) > 150
    assert spec.raw == ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=-1.0, high=1.0)


def test_an_element_of_equal_bounds_is_a_constant_that_decodes_to_itself():
    spec = ArraySpec(kind=Kind.CONTINUOUS, shape=(3,), low=(0.0, 0.5, -1.0), high=(0.0, 0.5, 1.0))
    values = np.array([[0.0, 0.5, -1.0], [0.0, 0.5, 0.9]], np.float32)
    ids = encode(values, spec, TokenLayout())
    assert (ids[:, :2] == TokenLayout().first_bin).all()
    again = decode(
        np.full((1, 3), TokenLayout().first_bin + 700), spec, TokenLayout(), is_action=True
    )
    assert again[0, :2].tolist() == [0.0, 0.5]
