"""Tokens of values: laws of the round trip. The paper's own vectors are in
tests/paper/test_tokens.py."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gato.array_spec import ArraySpec, Kind
from gato.scaling import bin_centres, bins, mu_law, scale, unscale
from gato.text import ByteEncoder, encode_texts, text_to_bytes
from gato.tokenizer import TokenLayout, action_centres, bin_actions, decode, encode

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


def test_a_layouts_ranges_follow_each_other() -> None:
    layout = TokenLayout(num_text_ids=5000, num_bins=100, discrete="own", actions="own")
    assert (layout.first_bin, layout.num_bin_ranges) == (5000, 2)
    assert (layout.first_action_bin, layout.end_of_bins) == (5100, 5200)
    assert (layout.first_discrete, layout.separator, layout.vocab_size) == (5200, 6224, 6225)
    shared = TokenLayout(num_text_ids=5000, num_bins=100, separator_id=7)
    assert (shared.first_action_bin, shared.end_of_bins) == (5000, 5100)
    assert (shared.first_discrete, shared.separator, shared.vocab_size) == (0, 7, 5100)


def test_the_least_layouts_are_accepted_and_smaller_ones_rejected() -> None:
    assert TokenLayout(num_text_ids=0, discrete="own").first_bin == 0
    assert TokenLayout(num_text_ids=1024).first_bin == 1024
    assert TokenLayout(num_bins=2).num_bins == 2
    text = ByteEncoder()
    assert TokenLayout(num_text_ids=256, discrete="own", text=text).encoder is text
    assert TokenLayout(separator_id=0).separator == 0
    assert TokenLayout(separator_id=31_999).separator == 31_999
    for wrong in (
        {"num_text_ids": -1, "discrete": "own"},
        {"num_text_ids": 1023},
        {"num_bins": 1},
        {"num_text_ids": 255, "discrete": "own", "text": text},
        {"separator_id": -1},
        {"separator_id": 32_000},
    ):
        with pytest.raises(ValueError):
            TokenLayout(**wrong)
    with pytest.raises(ValueError, match="no encoder"):
        _ = TokenLayout().encoder


def test_ids_of_one_element_and_of_all() -> None:
    layout = TokenLayout(num_text_ids=5000, num_bins=100, actions="own")
    buttons = ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=(5, 3))
    assert layout.ids_of(buttons) == (0, 5)
    assert layout.ids_of(buttons, 0) == (0, 5)
    assert layout.ids_of(buttons, 1) == (0, 3)
    assert layout.ids_of(OBSERVATION) == (5000, 5100)
    assert layout.ids_of(ACTION, is_action=True) == (5100, 5200)
    text = ArraySpec(kind=Kind.TEXT, shape=(8,), max_tokens=4)
    assert layout.ids_of(text) == (0, 5000)


def test_companded_actions_have_the_bins_of_the_mu_law_of_one_and_decode_to_their_inverse() -> None:
    layout = TokenLayout(compand_actions=True)
    low, high = layout.action_bins
    ends = np.array([-1.0, 1.0])
    assert [low, high - 1] == bins(mu_law(ends), 1024).tolist()
    assert bin_actions(ends, layout).tolist() == [0, high - low - 1]
    assert bin_actions(np.array([-7.0, 7.0]), layout).tolist() == [0, high - low - 1]
    centres = action_centres(layout)
    assert len(centres) == high - low
    assert mu_law(centres) == pytest.approx(bin_centres(1024)[low:high], abs=1e-6)
    assert bin_actions(centres, layout).tolist() == list(range(high - low))
    plain = TokenLayout()
    assert bin_actions(np.array([-7.0, 0.0, 7.0]), plain).tolist() == [0, 512, 1023]


@pytest.mark.parametrize("actions", ["shared", "own"])
def test_companded_actions_have_the_ids_from_the_lowest_to_the_highest(
    actions: Literal["shared", "own"],
) -> None:
    layout = TokenLayout(
        num_text_ids=5000, num_bins=100, discrete="own", actions=actions, compand_actions=True
    )
    low, high = layout.ids_of(ACTION, is_action=True)
    first = 5100 if actions == "own" else 5000
    assert (low, high) == (first + layout.action_bins[0], first + layout.action_bins[1])
    assert 5000 < low < high < layout.end_of_bins
    size = ACTION.size
    ends = np.stack([np.full(size, -9.0), np.full(size, 9.0)]).astype(np.float32)
    ids = encode(ends.reshape(2, *ACTION.shape), ACTION, layout, is_action=True)
    assert ids.tolist() == [[low] * size, [high - 1] * size]
    decoded = decode(ids, ACTION, layout, is_action=True)
    assert decoded.ravel() == pytest.approx(action_centres(layout)[[0, -1]])


def test_values_are_observations_unless_they_are_said_to_be_actions() -> None:
    layout = TokenLayout(num_bins=100, actions="own", compand_actions=True)
    spec = ArraySpec(kind=Kind.CONTINUOUS, shape=(), low=-1.0, high=1.0)
    ids = encode(np.array([-1.0, 0.4, 1.0]), spec, layout)
    assert ids.ravel().tolist() == [32_000, 32_070, 32_099]
    assert decode(ids, spec, layout).tolist() == pytest.approx([-0.99, 0.41, 0.99])


def test_text_is_encoded_by_the_encoder_of_the_layout() -> None:
    layout = TokenLayout(num_text_ids=5000, text=ByteEncoder())
    spec = ArraySpec(kind=Kind.TEXT, shape=(8,), max_tokens=4)
    texts = text_to_bytes(["ab", "abcdef"], 8)
    assert np.array_equal(
        encode(texts, spec, layout), encode_texts(texts, layout.encoder, spec.num_tokens)
    )
    assert encode(texts, spec, layout).shape == (2, spec.num_tokens)


def test_an_element_with_one_bound_is_companded() -> None:
    infinite = float("inf")
    spec = ArraySpec(
        kind=Kind.CONTINUOUS, shape=(3,), low=(0.0, -infinite, -2.0), high=(infinite, 5.0, 2.0)
    )
    x = np.array([[3.0, 3.0, 1.0]], np.float32)
    expected = [*mu_law(x[0, :2]), 0.5]
    assert scale(x, spec)[0] == pytest.approx(expected)
    assert unscale(scale(x, spec), spec)[0] == pytest.approx(x[0])


def test_equal_bounds_are_scaled_as_if_they_were_one_apart() -> None:
    spec = ArraySpec(kind=Kind.CONTINUOUS, shape=(1,), low=2.0, high=2.0)
    assert scale(np.array([[2.0], [2.25], [3.0]]), spec).ravel().tolist() == [-1.0, -0.5, 1.0]


def test_the_scale_of_bounds_and_of_statistics_by_numbers() -> None:
    bounded = ArraySpec(kind=Kind.CONTINUOUS, shape=(1,), low=-2.0, high=6.0)
    assert scale(np.array([[-2.0], [0.0], [6.0]]), bounded).ravel().tolist() == [-1.0, -0.5, 1.0]
    assert unscale(np.array([[-1.0], [-0.5], [1.0]]), bounded).ravel().tolist() == [-2.0, 0.0, 6.0]
    normalised = ArraySpec(kind=Kind.CONTINUOUS, shape=(1,), mean=(5.0,), std=(4.0,))
    assert scale(np.array([[13.0]]), normalised).item() == pytest.approx(mu_law(np.array(2.0)))
    assert unscale(scale(np.array([[13.0]]), normalised), normalised).item() == pytest.approx(13.0)


def test_bins_by_numbers() -> None:
    assert bins(np.array([-9.0, -1.0, -0.5, 0.0, 0.49, 0.5, 1.0, 9.0]), 4).tolist() == [
        0, 0, 1, 2, 2, 3, 3, 3,
    ]  # fmt: skip
    assert bin_centres(4).tolist() == [-0.75, -0.25, 0.25, 0.75]


def test_decoding_rejects_other_shapes_and_kinds() -> None:
    with pytest.raises(ValueError, match="has 1 a step"):
        decode(np.zeros((2, 3), np.int32), BUTTON, LAYOUT)
    text = ArraySpec(kind=Kind.TEXT, shape=(8,), max_tokens=4)
    with pytest.raises(ValueError, match="are not decoded"):
        decode(np.zeros((2, 4), np.int32), text, LAYOUT)
    image = ArraySpec(kind=Kind.IMAGE, shape=(16, 16, 3))
    with pytest.raises(ValueError, match="patches"):
        encode(np.zeros((1, 16, 16, 3), np.uint8), image, LAYOUT)
    assert decode(np.zeros((0, 1), np.int32), BUTTON, LAYOUT).shape == (0,)


def test_discrete_values_of_an_own_range_come_back() -> None:
    layout = TokenLayout(discrete="own")
    values = np.array([0, 17])
    ids = encode(values, BUTTON, layout)
    assert ids.ravel().tolist() == [layout.end_of_bins, layout.end_of_bins + 17]
    assert decode(ids, BUTTON, layout).tolist() == [0, 17]
