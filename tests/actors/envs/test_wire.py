"""Messages between our processes: plain values and arrays, nothing that runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actors.envs.wire import decode, encode
from actors.tasks.catalog import TASKS
from gato.array_spec import ArraySpec, Kind
from gato.serialization import from_plain, to_plain
from gato.task import Task

DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, ">f4"])


@given(DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))))
def test_arrays_of_numbers_come_as_they_were_sent(sent: np.ndarray) -> None:
    got = decode(encode({"state": sent, "reward": -np.inf}))
    assert got["state"].dtype == sent.dtype
    np.testing.assert_array_equal(got["state"], sent)
    assert got["reward"] == -np.inf


@pytest.mark.parametrize(
    "value", [object(), np.array([object()]), np.array(["a"]), {1, 2}, lambda: 0]
)
def test_what_is_neither_plain_nor_numbers_is_not_sent(value: object) -> None:
    with pytest.raises(TypeError):
        encode([value])


@pytest.mark.parametrize(
    "task", [TASKS["mujoco/hopper"], TASKS["atari/pong"], TASKS["atari/adventure"]]
)
def test_a_task_comes_as_it_was_sent(task: Task) -> None:
    assert from_plain(Task, decode(encode(to_plain(task)))) == task


def test_bounds_and_counts_of_single_elements_come_as_they_were_sent() -> None:
    specs = [
        ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=(-1.0, -np.inf), high=(1.0, np.inf)),
        ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=(5, 3)),
        ArraySpec(kind=Kind.TEXT, shape=(64,), max_tokens=16),
    ]
    for spec in specs:
        assert from_plain(ArraySpec, decode(encode(to_plain(spec)))) == spec
