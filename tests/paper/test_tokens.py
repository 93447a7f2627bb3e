"""Section 2.1 and appendix B: values to tokens, with the vectors computed by hand from the
formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gato.array_spec import ArraySpec, Kind
from gato.scaling import mu_law
from gato.tokenizer import TokenLayout, decode, encode
from tests.paper.tasks import BUTTON, model_of

LAYOUT = TokenLayout()
OBSERVATION = ArraySpec(kind=Kind.CONTINUOUS, shape=())
ACTION = ArraySpec(kind=Kind.CONTINUOUS, shape=(), low=-1.0, high=1.0)


def token(value: float, spec: ArraySpec, *, is_action: bool = False) -> int:
    return encode(np.array([value], spec.dtype), spec, LAYOUT, is_action=is_action).item()


def test_text_has_the_ids_below_32000_and_continuous_values_those_below_33024() -> None:
    """Section 2.1: 32,000 subwords in [0, 32000); values are shifted to [32000, 33024)."""
    assert LAYOUT.num_text_ids == 32_000
    assert LAYOUT.ids_of(OBSERVATION) == (32_000, 33_024)
    assert LAYOUT.ids_of(ACTION, is_action=True) == (32_000, 33_024)


def test_a_discrete_value_is_an_integer_below_1024() -> None:
    """Section 2.1: discrete values, such as Atari buttons, are integers in [0, 1024)."""
    assert [token(button, BUTTON) for button in (0, 3, 17)] == [0, 3, 17]
    assert LAYOUT.ids_of(ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=1024)) == (0, 1024)
    with pytest.raises(ValueError, match="1 to 1024 values"):
        ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=1025)


def test_tensors_are_flattened_in_row_major_order() -> None:
    """Section 2.1: both kinds of values are sequences in row-major order."""
    grid = np.array([[[1, 2, 3], [4, 5, 6]]])
    assert encode(
        grid, ArraySpec(kind=Kind.DISCRETE, shape=(2, 3), num_values=9), LAYOUT
    ).tolist() == [[1, 2, 3, 4, 5, 6]]
    ids = encode(grid.astype(np.float32), ArraySpec(kind=Kind.CONTINUOUS, shape=(2, 3)), LAYOUT)[0]
    assert (np.diff(ids) > 0).all()


def test_the_mu_law_is_that_of_appendix_b() -> None:
    """Appendix B: F(x) = sgn(x) log(|x| mu + 1) / log(M mu + 1) with mu = 100, M = 256, whose
    denominator is ln 25601."""
    x = np.array([-256.0, -2.0, 0.0, 0.5, 256.0])
    expected = np.sign(x) * np.log(100 * np.abs(x) + 1) / 10.150387
    assert mu_law(x) == pytest.approx(expected, rel=1e-6)
    assert mu_law(np.array([256.0])).item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 32512),
        (0.001, 32516),
        (0.01, 32546),
        (0.1, 32632),
        (0.25, 32676),
        (0.5, 32710),
        (1, 32744),
        (2, 32779),
        (5, 32825),
        (10, 32860),
        (25, 32906),
        (50, 32941),
        (100, 32976),
        (128, 32989),
        (256, 33023),
        (1000, 33023),
        (-0.001, 32507),
        (-0.1, 32391),
        (-0.5, 32313),
        (-1, 32279),
        (-10, 32163),
        (-100, 32047),
        (-256, 32000),
    ],
)
def test_observations_are_companded_clipped_and_binned(value: float, expected: int) -> None:
    """Section 2.1, appendix B: mu-law, clip to [-1, 1], 1,024 bins of equal width, shift by
    32,000."""
    assert token(value, OBSERVATION) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-1, 32000),
        (-0.5, 32256),
        (-0.001, 32511),
        (0, 32512),
        (0.5, 32768),
        (0.999, 33023),
        (1, 33023),
    ],
)
def test_actions_are_binned_without_companding(value: float, expected: int) -> None:
    """Appendix B: actions are in [-1, 1] already and are not companded."""
    assert token(value, ACTION, is_action=True) == expected


def test_plus_one_belongs_to_the_last_bin() -> None:
    """Section 2.1: the bins cover [-1, 1]; index 1,024 does not exist, so +1 and whatever is above
    it is in bin 1,023."""
    assert [token(value, ACTION, is_action=True) for value in (1.0, 1.5, 1e9)] == [33_023] * 3
    assert [token(value, ACTION, is_action=True) for value in (-1.0, -1.5, -1e9)] == [32_000] * 3
    assert LAYOUT.separator > 33_023


def test_an_action_is_the_centre_of_its_bin() -> None:
    """Appendix B says nothing of decoding; ours is the bin's centre, which is unbiased: bin 512 is
    +1/1024."""
    assert decode(np.array([[32_512]]), ACTION, LAYOUT, is_action=True).item() == pytest.approx(
        0.00097656, abs=1e-8
    )
    assert decode(np.array([[33_023]]), ACTION, LAYOUT, is_action=True).item() == pytest.approx(
        1 - 1 / 1024
    )


@given(arrays(np.float32, (7, 1), elements=st.floats(-1, 1, width=32)))
def test_a_decoded_action_errs_by_at_most_half_a_bin(values: np.ndarray) -> None:
    """Section 2.1: 1,024 bins over [-1, 1] are 1/512 wide."""
    back = decode(encode(values, ACTION, LAYOUT, is_action=True), ACTION, LAYOUT, is_action=True)
    assert np.abs(back - values.reshape(back.shape)).max() <= 1 / 1024 + 1e-6


def test_a_discrete_value_survives_the_round_trip() -> None:
    """Section 2.1: a discrete token is its value."""
    spec = ArraySpec(kind=Kind.DISCRETE, shape=(4, 2), num_values=1024)
    values = np.random.default_rng(0).integers(0, 1024, (50, 4, 2))
    np.testing.assert_array_equal(decode(encode(values, spec, LAYOUT), spec, LAYOUT), values)


def test_the_table_has_a_row_for_each_id_and_one_for_the_separator() -> None:
    """Section 2.1: 33,024 ids; the separator is one more, of which the paper gives no id."""
    assert LAYOUT.separator == 33_024
    assert model_of().embedding.table.weight.shape[0] == LAYOUT.vocab_size == 33_025
