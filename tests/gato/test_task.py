"""What a spec and a task reject, and that they say how to fix it; statistics in a task."""

from __future__ import annotations

import pytest

from gato.array_spec import ArraySpec, Kind
from gato.statistics import Statistics
from gato.task import Task, normalised

SPEC = ArraySpec(kind=Kind.CONTINUOUS, shape=(2,))
TASK = Task(
    name="my/task",
    env_id="My-v0",
    family="gymnasium",
    observations={"state": SPEC},
    action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=2),
    max_steps=10,
)


def test_bounds_that_are_the_wrong_way_round_are_refused_with_their_element():
    with pytest.raises(ValueError, match=r"element 1 of 2 has low 2.5 and high 1; .*swap"):
        ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=(0.0, 2.5), high=(0.0, 1.0))
    with pytest.raises(ValueError, match="element 0 of 2 has low nan"):
        ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=float("nan"), high=1.0)


def test_statistics_are_put_into_the_task_and_only_into_what_it_shows():
    with_statistics = normalised(TASK, {"state": Statistics(mean=(1.0, 2.0), std=(3.0, 4.0))})
    assert with_statistics.observations["state"].mean == (1.0, 2.0)
    assert {
        name: spec.raw for name, spec in with_statistics.observations.items()
    } == TASK.observations
    with pytest.raises(
        ValueError, match="statistics of 'image', which my/task does not show; it shows state"
    ):
        normalised(TASK, {"image": Statistics(mean=(1.0,), std=(3.0,))})
    with pytest.raises(ValueError, match="mean has 1 entries for the 2 elements"):
        normalised(TASK, {"state": Statistics(mean=(1.0,), std=(3.0,))})


@pytest.mark.parametrize("std", [0.0, -1.0, float("inf"), float("nan")])
def test_statistics_that_nothing_can_be_divided_by_are_refused(std: float):
    with pytest.raises(ValueError, match="std above 0"):
        Statistics(mean=(1.0,), std=(std,))


def test_a_mean_alone_and_one_of_what_is_not_continuous_are_refused():
    with pytest.raises(ValueError, match="both statistics or none"):
        ArraySpec(kind=Kind.CONTINUOUS, shape=(1,), mean=(1.0,))
    with pytest.raises(ValueError, match="only a continuous array"):
        ArraySpec(kind=Kind.DISCRETE, shape=(1,), num_values=3, mean=(1.0,), std=(1.0,))
