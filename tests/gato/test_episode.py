"""Tasks and episodes: checked at ingest, found by any of their names."""

from dataclasses import replace

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from gato.array_spec import ArraySpec, Kind
from gato.episode import BadEpisode, Episode, check_episode
from gato.metrics import Mean
from gato.task import find_task
from gato.version import Version
from tests.gato.models import ROBOT


def episode(steps: int = 4) -> Episode:
    return Episode(
        key="k", task=ROBOT.name, source="agent", terminated=True, truncated=False, seed=0,
        observations={"state": np.zeros((steps, 5), np.float32)},
        actions=np.zeros((steps, 3), np.float32), rewards=np.ones(steps, np.float32),
    )  # fmt: skip


def test_a_good_episode_passes() -> None:
    check_episode(episode(), ROBOT)
    assert episode().episode_return == 4.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": {"state": np.full((4, 5), np.inf, np.float32)}}, "not finite at step 0"),
        ({"observations": {"state": np.zeros((4, 6), np.float32)}}, r"shape \(6,\)"),
        ({"observations": {"states": np.zeros((4, 5), np.float32)}}, "observes"),
        ({"actions": np.zeros((4, 3))}, "float64"),
        ({"rewards": np.full(4, np.nan, np.float32)}, "rewards are not finite"),
        ({"task": "other"}, "other"),
    ],
)
def test_a_bad_one_is_refused_with_its_reason(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadEpisode, match=message):
        check_episode(replace(episode(), **change), ROBOT)  # type: ignore[arg-type]


def test_a_value_that_its_own_element_may_not_take_is_named_with_its_step() -> None:
    spec = ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=(2, 5))
    assert spec.problem_with(np.array([[1, 4], [0, 0]]), "wheels") is None
    assert (
        spec.problem_with(np.array([[1, 4], [2, 0]]), "wheels")
        == "wheels has values outside 0..1: 2 at step 1"
    )
    assert "outside 0..4: -1 at step 0" in (spec.problem_with(np.array([[1, -1]]), "wheels") or "")


def test_a_continuous_action_needs_bounds_for_each_element() -> None:
    for low, high in [(None, None), ((-1.0, -np.inf, 0.0), (1.0, 1.0, 1.0))]:
        with pytest.raises(ValueError, match="needs bounds"):
            replace(ROBOT, action=ArraySpec(kind=Kind.CONTINUOUS, shape=(3,), low=low, high=high))


def test_columns_of_different_length_are_no_episode() -> None:
    # whichever check comes first
    with pytest.raises((BadEpisode, TypeCheckError), match="rewards"):
        replace(episode(), rewards=np.ones(3, np.float32))
    with pytest.raises(BadEpisode, match="0 steps"):
        episode(0)


def test_a_task_is_found_by_its_aliases_and_the_nearest_is_suggested() -> None:
    task = replace(ROBOT, aliases=("Robot-v5",))
    assert find_task("robot-V5", {task.name: task}) is task
    with pytest.raises(ValueError, match="did you mean 'test/robot'"):
        find_task("test/robt", {task.name: task})


@pytest.mark.parametrize(
    "make",
    [
        lambda: ArraySpec(kind=Kind.IMAGE, shape=(4, 4, 1)),
        lambda: ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=1025),
        lambda: ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=0.0),
        lambda: ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=1.0, high=0.5),
        lambda: ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=(0.0, 1.0), high=(1.0, 0.5)),
        lambda: ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=(0.0,), high=(1.0,)),
        lambda: ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=(3, 1025)),
        lambda: ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=(3, 0)),
        lambda: ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=(3, 4, 5)),
    ],
)
def test_a_spec_that_cannot_be_is_refused(make) -> None:
    with pytest.raises(ValueError, match=r"got|must"):
        make()


def test_means_merge_as_sums() -> None:
    assert (Mean(3.0, 3) + Mean(2.0, 1)).value == 1.25


def test_a_later_epoch_is_newer_whatever_its_number() -> None:
    assert Version(2, 1) > Version(1, 900)
    assert str(Version(2, 7)) == "2.7"
