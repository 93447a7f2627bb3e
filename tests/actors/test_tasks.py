"""The table of tasks agrees with the environments that are installed, and finds a task by any of its names."""

from __future__ import annotations

from collections import Counter

import gymnasium
import numpy as np
import pytest

from actors.envs import make_envs
from actors.gymnasium_env import make_gymnasium
from actors.tasks import TASKS
from gato.task import Kind, find_task

ROBOTS = [name for name, task in TASKS.items() if task.family == "mujoco"]


@pytest.mark.parametrize("name", ROBOTS)
def test_a_robots_spec_is_that_of_its_environment(name: str) -> None:
    task = TASKS[name]
    env = make_gymnasium(task)
    seen, done = env.observation_space, env.action_space
    assert isinstance(seen, gymnasium.spaces.Box)
    assert isinstance(done, gymnasium.spaces.Box)
    assert task.observations["state"].shape == seen.shape
    assert task.observations["state"].low is None
    assert np.isinf(seen.low).all()
    assert task.action.shape == done.shape
    assert (done.low == task.action.low).all()
    assert (done.high == task.action.high).all()
    assert env.spec is not None
    assert env.spec.max_episode_steps == task.max_steps
    env.close()


@pytest.mark.parametrize("name", list(TASKS))
def test_what_a_task_shows_fits_its_spec(name: str) -> None:
    task = TASKS[name]
    envs = make_envs(task, 2)
    envs.reset_row(0, 1)
    envs.reset_row(1, 2)
    actions = np.zeros((2, *task.action.shape), task.action.dtype)
    envs.step(actions, np.ones(2, np.bool_))
    for key, spec in task.observations.items():
        assert spec.problem_with(envs.observations[key], key) is None
    assert ("ram" in envs.extras()) == (task.family == "atari")
    envs.close()


@pytest.mark.parametrize("name", list(TASKS))
def test_an_atari_task_takes_all_eighteen_buttons(name: str) -> None:
    task = TASKS[name]
    if task.family == "atari":
        assert task.action.num_values == 18
        assert task.action.kind is Kind.DISCRETE


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("Hopper-v5", "mujoco/hopper"),
        ("Hopper-v4", "mujoco/hopper"),
        ("hopper-medium-v2", "mujoco/hopper"),
        ("halfcheetah-medium-expert-v2", "mujoco/halfcheetah"),
        ("mujoco/hopper/expert-v0", "mujoco/hopper"),
        ("mujoco-walker2d", "mujoco/walker2d"),
        ("mujoco-pendulum", "mujoco/inverted-pendulum"),
        ("ANT", "mujoco/ant"),
        ("ALE/Pong-v5", "atari/pong"),
        ("PongNoFrameskip-v4", "atari/pong"),
        ("atari-pong", "atari/pong"),
        ("atari/pong/expert-v0", "atari/pong"),
        ("SpaceInvadersNoFrameskip-v4", "atari/space-invaders"),
        ("atari-spaceinvaders", "atari/space-invaders"),
        ("freeway", "atari/freeway"),
    ],
)
def test_a_task_is_found_by_the_names_people_use(alias: str, name: str) -> None:
    assert find_task(alias, TASKS).name == name


def test_no_two_tasks_share_a_name() -> None:
    counts = Counter(alias.lower() for task in TASKS.values() for alias in {task.name, *task.aliases})
    assert [alias for alias, count in counts.items() if count > 1] == []


def test_an_unknown_task_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'mujoco/hopper'"):
        find_task("hoper", TASKS)


def test_every_reference_says_where_it_was_read() -> None:
    for task in TASKS.values():
        assert len(task.references.source) > 10
        assert task.normalise(task.references.expert) == pytest.approx(1.0)
        assert task.normalise(task.references.random) == pytest.approx(0.0)
