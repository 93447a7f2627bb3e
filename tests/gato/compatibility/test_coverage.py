"""Coverage: what is clipped and what looks the same is counted, named and merged; what is well is
not warned of."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gato.array_spec import ArraySpec, Kind
from gato.compatibility.coverage import Coverage
from gato.compatibility.entry import MANY_VALUES
from gato.text import ByteEncoder, text_to_bytes
from gato.tokenizer import TokenLayout, encode

LAYOUT = TokenLayout(num_text_ids=1024)
RNG = np.random.default_rng(3)


def covered(spec: ArraySpec, *parts: np.ndarray, layout: TokenLayout = LAYOUT) -> Coverage:
    coverage = Coverage({"state": spec}, layout)
    for part in parts:
        coverage.observe({"state": part.astype(spec.dtype)})
    return coverage


Bound = float | tuple[float, ...] | None


def vector(size: int = 3, *, low: Bound = None, high: Bound = None) -> ArraySpec:
    return ArraySpec(kind=Kind.CONTINUOUS, shape=(size,), low=low, high=high)


@pytest.mark.report("openai/baselines#1030")
def test_values_far_beyond_the_mu_law_are_saturated_with_their_entries_numbers_and_ways_to_fix_it():
    (line,) = covered(vector(), RNG.uniform(30_000, 60_000, (200, 3))).warnings("my:Prices-v0")
    assert line.startswith("state[0..2]: 100 % of the values are clipped (beyond +-256")
    assert "1 distinct token;" in line
    assert "Box(30000, 60000)" in line
    assert "NormalizeObservation" in line
    assert "--normalise my:Prices-v0" in line


@pytest.mark.report("openvla/openvla#76")
def test_values_outside_of_the_bounds_are_saturated():
    values = np.stack([RNG.normal(size=300) * 50, RNG.uniform(-1, 1, 300)], axis=1)
    (line,) = covered(vector(2, low=-1.0, high=1.0), values).warnings()
    assert line.startswith("state[0]: ")
    assert "outside of the space's bounds" in line


def test_values_that_differ_in_a_range_that_is_far_too_wide_are_blind():
    (line,) = covered(vector(low=-1e5, high=1e5), RNG.uniform(-1, 1, (200, 3))).warnings()
    assert line.startswith("state[0..2]: the agent can hardly tell the values apart")
    assert "Box(-1, 1)" in line


@pytest.mark.parametrize(
    "values",
    [
        np.full((500, 3), 70_000.0),
        np.repeat(np.arange(5.0), 300).reshape(500, 3),
        1.25 + 1e-7 * RNG.normal(size=(500, 3)),
        RNG.normal(size=(500, 3)),
        RNG.uniform(1.13, 1.25, (500, 3)),
        RNG.uniform(0.99, 1.0, (500, 3)),
        10.0 ** RNG.uniform(-1.0, 3.0, (500, 3)),
    ],
    ids=["constant", "five values", "rounding errors", "normal", "height", "cosine", "forces"],
)
def test_what_the_tokens_tell_apart_is_not_warned_of(values: np.ndarray):
    assert covered(vector(), values).warnings() == []


def test_bounds_that_rounding_passed_are_not_clipped():
    assert (
        covered(vector(1, low=-1.0, high=1.0), np.full((100, 1), 1.0000001))
        .entries()[0]
        .num_clipped
        == 0
    )


def test_the_counted_tokens_are_those_of_the_tokeniser():
    spec, values = (
        vector(2, low=(-1.0, -np.inf), high=(1.0, np.inf)),
        RNG.normal(size=(400, 2)).astype(np.float32),
    )
    ids = encode(values, spec, LAYOUT)
    entries = covered(spec, values).entries()
    assert [entry.distinct_tokens for entry in entries] == [
        len(np.unique(column)) for column in ids.T
    ]
    assert [entry.distinct_values for entry in entries] == [MANY_VALUES, MANY_VALUES]
    assert entries[1].least == values[:, 1].min()
    assert entries[1].most == values[:, 1].max()


def test_entries_with_the_same_fault_are_named_as_ranges_and_those_of_matrices_by_row_and_column():
    values = RNG.uniform(-1, 1, (200, 2, 3))
    values[:, 0, 1:] *= 1e5
    values[:, 1, 1] *= 1e5
    spec = ArraySpec(kind=Kind.CONTINUOUS, shape=(2, 3))
    (line,) = covered(spec, values).warnings()
    assert line.startswith("state[0,1]..state[0,2], state[1,1]: ")


def test_parts_merge_to_what_the_whole_gives_and_survive_json():
    spec, values = vector(), RNG.normal(size=(100, 3)) * 200
    whole = covered(spec, values)
    first, second = covered(spec, values[:30]), covered(spec, values[30:])
    again = Coverage.from_json({"state": spec}, LAYOUT, json.loads(json.dumps(first.to_json())))
    assert again.merged(second).entries() == whole.entries()
    assert covered(spec).entries() == [] == covered(spec).warnings()
    assert covered(spec).merged(whole).entries() == whole.entries()
    with pytest.raises(ValueError, match="cannot be merged"):
        whole.merged(covered(vector(2), values[:, :2]))


def test_a_stored_coverage_of_other_arrays_is_refused():
    plain = covered(vector(), RNG.normal(size=(9, 3))).to_json()
    with pytest.raises(ValueError, match="3 elements"):
        Coverage.from_json({"state": vector(2)}, LAYOUT, plain)
    with pytest.raises(ValueError, match="stored coverage is of"):
        Coverage.from_json({"other": vector(3)}, LAYOUT, plain)


def test_texts_that_are_cut_are_named_with_the_length_that_would_hold_them():
    spec = ArraySpec(kind=Kind.TEXT, shape=(40,), max_tokens=8)
    rows = text_to_bytes(["short"] * 10 + ["a text of many more than eight bytes"] * 10, 40)
    layout = TokenLayout(num_text_ids=1024, text=ByteEncoder())
    (line,) = covered(spec, rows, layout=layout).warnings()
    assert "50 % of the texts are cut" in line
    assert "text_tokens=36" in line
    # without an encoder nothing is known of their tokens
    assert covered(spec, rows).warnings() == []


def test_images_and_discrete_values_are_not_counted():
    specs = {
        "image": ArraySpec(kind=Kind.IMAGE, shape=(4, 4, 3)),
        "number": ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=9),
    }
    coverage = Coverage(specs, LAYOUT)
    coverage.observe({"image": np.zeros((5, 4, 4, 3), np.uint8), "number": np.zeros(5, np.int64)})
    assert coverage.entries() == []
    assert coverage.warnings() == []
    assert coverage.to_json() == {}


def test_actions_beyond_their_bounds_are_told_as_actions():
    spec = vector(2, low=-1.0, high=1.0)
    coverage = Coverage({"action": spec}, LAYOUT, of="actions")
    coverage.observe({"action": np.linspace(1.5, 2.0, 40, dtype=np.float32).reshape(20, 2)})
    (line,) = coverage.warnings()
    assert line.startswith("action[0..1]: 100 % of the values are clipped")
    assert "rescale the data's actions" in line


def test_a_large_array_is_measured_at_some_of_its_elements():
    spec = ArraySpec(kind=Kind.CONTINUOUS, shape=(60, 60, 3), low=0.0, high=1.0)
    coverage = covered(spec, RNG.random((3, 60, 60, 3)))
    assert len(coverage.entries()) == 4096
    assert coverage.entries()[-1].name == "state[59,59,2]"
