"""The contract of environments, for a fake and for real ones: seeds decide, rows are apart, what
breaks is named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.envs.env import EnvFailedError
from actors.envs.factory import make_envs
from actors.envs.packages import PACKAGES
from actors.envs.vector import VectorEnv
from actors.players.player import TimeStep
from actors.tasks.catalog import TASKS
from gato.task import Task
from tests.actors.fakes import COUNTING, CountingEnv, RandomPlayer, counting_envs

REAL = ["mujoco/hopper", "mujoco/ant", "atari/pong", "atari/freeway"]
EVERY = ["fake/counting", *REAL]


def make(name: str, num_envs: int) -> VectorEnv:
    return counting_envs(num_envs) if name == COUNTING.name else make_envs(TASKS[name], num_envs)


def some_play(envs: VectorEnv, seeds: list[int], steps: int) -> list[np.ndarray]:
    """What each row shows and receives in `steps` steps of random play, which its seed decides."""
    task, rows = envs.task, np.ones(len(envs), np.bool_)
    player = RandomPlayer(task)
    for row, seed in enumerate(seeds):
        envs.reset_row(row, seed)
    key = next(iter(task.observations))
    seen: list[np.ndarray] = []
    step = TimeStep.first(envs.observations, seeds=seeds)
    for _ in range(steps):
        rewards, _, _ = envs.step(player.act(step), rows)
        step = replace(step, is_first=~rows)
        seen.append(np.column_stack([envs.observations[key].reshape(len(envs), -1), rewards]))
    return [np.stack([step[row] for step in seen]) for row in range(len(envs))]


@pytest.mark.parametrize("name", EVERY)
def test_a_seed_begins_the_same_episode_whatever_was_played_before_or_in_other_rows(
    name: str,
) -> None:
    envs, other = make(name, 2), make(name, 1)
    some_play(envs, [5, 6], 3)
    first = some_play(envs, [7, 8], 4)
    alone = some_play(other, [8], 4)
    np.testing.assert_array_equal(first[1], alone[0])
    envs.close()
    other.close()


@pytest.mark.parametrize("name", ["fake/counting", "mujoco/hopper", "atari/pong"])
def test_other_seeds_begin_other_episodes(name: str) -> None:
    envs = make(name, 4)
    played = some_play(envs, [1, 2, 3, 4], 3)
    assert len({rows.tobytes() for rows in played}) == 4
    envs.close()


@pytest.mark.parametrize("name", EVERY)
def test_a_row_that_does_not_play_keeps_what_it_shows(name: str) -> None:
    envs = make(name, 2)
    for row in range(2):
        envs.reset_row(row, row)
    key = next(iter(envs.task.observations))
    before = envs.observations[key].copy()
    actions = np.zeros((2, *envs.task.action.shape), envs.task.action.dtype)
    for _ in range(3):
        rewards, terminated, truncated = envs.step(actions, np.array([True, False]))
    np.testing.assert_array_equal(envs.observations[key][1], before[1])
    assert rewards[1] == 0
    assert not terminated[1]
    assert not truncated[1]
    envs.close()


def test_a_broken_environment_names_task_and_step() -> None:
    envs = counting_envs(1, breaks_at_seed=9)
    envs.reset_row(0, 9)
    actions, rows = np.zeros((1, 1), np.float32), np.ones(1, np.bool_)
    for _ in range(2):
        envs.step(actions, rows)
    with pytest.raises(EnvFailedError, match=r"fake/counting broke at step 2.*the wheels came off"):
        envs.step(actions, rows)


def test_an_unknown_family_or_environment_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="known families: mujoco, atari"):
        make_envs(replace(COUNTING, family="board"), 1)
    with pytest.raises(ValueError, match="cannot make Hoper-v5"):
        make_envs(replace(TASKS["mujoco/hopper"], env_id="Hoper-v5"), 1)
    with pytest.raises(ValueError, match="no ROM 'pung'"):
        make_envs(with_options(TASKS["atari/pong"], rom="pung"), 1)


def with_options(task: Task, **options: str | int | float) -> Task:
    return replace(task, env_kwargs={**task.env_kwargs, **options})


PLAYS_EACH = """
import numpy as np
from actors.envs.conformance_checks import random_action
from actors.envs.factory import make_envs
from actors.tasks.catalog import TASKS

rng = np.random.default_rng(0)
always = [name for name, task in TASKS.items() if task.family in ("mujoco", "atari")]
for name, backend in (*((name, "loop") for name in always), ("mujoco/halfcheetah", "process")):
    envs = make_envs(TASKS[name], 1, backend=backend)
    for seed in (0, 1):
        envs.reset_row(0, seed)
        for _ in range(3):
            envs.step(random_action(envs.task, rng)[None], np.ones(1, np.bool_))
    envs.close()
print("played")
"""


def test_playing_prints_nothing_and_leaves_no_file_in_the_working_folder(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[3])
    ran = subprocess.run(
        [sys.executable, "-c", PLAYS_EACH],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stderr, ran.stdout) == ("", "played\n")
    assert list(tmp_path.iterdir()) == []


def test_a_game_is_cut_after_its_limit_of_frames() -> None:
    envs = make_envs(replace(TASKS["atari/pong"], max_steps=20), 1)
    envs.reset_row(0, 3)
    actions, rows = np.zeros(1, np.int64), np.ones(1, np.bool_)
    cut: list[bool] = []
    while not any(cut):
        cut.append(bool(envs.step(actions, rows)[2][0]))
    assert 20 - 30 // 4 - 1 <= len(cut) <= 20


def test_sticky_actions_are_a_setting_and_follow_the_seed() -> None:
    task = with_options(TASKS["atari/breakout"], sticky=0.25)
    first, again = make_envs(task, 1), make_envs(task, 1)
    plain = make_envs(TASKS["atari/breakout"], 1)
    played = [some_play(envs, [4], 60)[0] for envs in (first, again, plain)]
    np.testing.assert_array_equal(played[0], played[1])
    assert not np.array_equal(played[0], played[2])


def replayed(
    envs: VectorEnv, seed: int, actions: np.ndarray, row: Callable[[], np.ndarray]
) -> list[np.ndarray]:
    envs.reset_row(0, seed)
    seen: list[np.ndarray] = []
    for action in actions:
        seen.append(row())
        envs.step(action[None], np.ones(1, np.bool_))
    return seen


@pytest.mark.parametrize(
    ("name", "data_set"),
    [("atari/pong", "pong/random-v0"), ("atari/breakout", "breakout/random-v0")],
)
def test_recorded_games_are_replayed_pixel_for_pixel(
    name: str, data_set: str, shared_data: Path
) -> None:
    h5py = pytest.importorskip("h5py")
    envs = make_envs(TASKS[name], 1)
    with h5py.File(shared_data / "minari" / "atari" / data_set / "data" / "main_data.hdf5") as file:
        recorded = file["episode_1"]
        actions, frames = recorded["actions"][:200], recorded["observations"][:-1][:200]
        seen = replayed(
            envs, int(recorded.attrs["seed"]), actions, lambda: envs.observations["image"][0].copy()
        )
    np.testing.assert_array_equal(np.stack(seen), frames)


def test_an_observation_outside_its_spec_is_a_broken_environment() -> None:
    class Blind(CountingEnv):
        def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
            super().step(action)
            return {"state": np.array([np.nan, 0], np.float32)}, 0.0, False, False

    envs = VectorEnv(COUNTING, [Blind()])
    envs.reset_row(0, 7)
    with pytest.raises(EnvFailedError, match=r"fake/counting broke at step 0.*state is not finite"):
        envs.step(np.zeros((1, 1), np.float32), np.array([True]))


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(PACKAGES, "mujoco", "no_such_package")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"needs the package no_such_package.*pip install -e"):
        make_envs(TASKS["mujoco/hopper"], 1)
