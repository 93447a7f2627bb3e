"""The one check that importers, workers and replay share: what contradicts the task does not
pass."""

from dataclasses import replace

import numpy as np
import pytest

from gato.array_spec import ArraySpec, Kind
from gato.episode import BadEpisode, Episode, check_episode
from gato.task import References, Task

TASK = Task(
    name="mujoco/arm",
    env_id="Arm-v5",
    family="mujoco",
    observations={"state": ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=-1.0, high=1.0)},
    action=ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=(-1.0, 0.0), high=(1.0, 4.0)),
    references=References(random=-5.0, expert=40.0, source="made"),
    max_steps=10,
)


def episode(
    steps: int = 10, *, reward: float = 1.0, action: tuple[float, float] = (0.5, 2.0)
) -> Episode:
    return Episode(
        key="k.1",
        task=TASK.name,
        source="teacher:t",
        # beyond its bounds, as environments show it
        observations={"state": np.full((steps, 2), 7.0, np.float32)},
        actions=np.tile(np.float32(action), (steps, 1)),
        rewards=np.full(steps, reward, np.float32),
        terminated=False,
        truncated=True,
        seed=0,
    )


def test_what_fits_passes_up_to_the_limit() -> None:
    check_episode(episode(), TASK)
    check_episode(episode(action=(-1.0, 4.0)), TASK)
    check_episode(episode(action=(1.0 + 1e-7, 4.0)), TASK)  # 32 bits round


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (episode(11), r"11 steps, longer than the task's limit of 10"),
        (episode(action=(1.5, 2.0)), r"action 1\.5 at step 0 is outside of its bounds \[-1, 1\]"),
        (episode(action=(0.0, -0.5)), r"action -0\.5 at step 0 is outside of its bounds \[0, 4\]"),
        (
            episode(reward=1e38),
            r"reward 1e\+38 at step 0 cannot be believed, expected at most 4000",
        ),
        (episode(reward=-4100.0), "cannot be believed"),
        (episode(reward=3999.9), None),
        (
            replace(episode(), labels=np.full((10, 2), 9.0, np.float32)),
            "label 9 at step 0 is outside",
        ),
    ],
)
def test_what_contradicts_the_task_is_named(bad: Episode, message: str | None) -> None:
    if message is None:
        check_episode(bad, TASK)
        return
    with pytest.raises(BadEpisode, match=message) as error:
        check_episode(bad, TASK)
    assert "\n" not in str(error.value)


def test_the_bound_of_rewards_is_the_tasks_own() -> None:
    assert (TASK.return_bound, TASK.reward_bound) == (40_000.0, 4_000.0)
    own = replace(TASK, max_abs_return=25.0)
    check_episode(episode(reward=2.5), own)
    with pytest.raises(BadEpisode, match="return 26 cannot be believed, expected at most 25"):
        check_episode(episode(reward=2.6), own)
    for unknown in (replace(TASK, references=None), replace(TASK, family="gymnasium")):
        check_episode(episode(reward=1e7), unknown)
        with pytest.raises(BadEpisode, match="cannot be believed"):
            check_episode(episode(reward=1e30), unknown)


def test_every_task_of_the_table_believes_its_own_references() -> None:
    from actors.tasks.catalog import TASKS

    for task in TASKS.values():
        if task.references is not None:
            known = (task.references.random, task.references.expert, task.references.human or 0.0)
            assert max(map(abs, known)) * 100 < task.return_bound
