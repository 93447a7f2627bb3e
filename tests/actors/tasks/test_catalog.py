"""The table of tasks agrees with the environments that are installed, and finds a task by any of
its names."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections import Counter

import ale_py
import ale_py.roms
import gymnasium
import numpy as np
import pytest

from actors.envs.factory import make_envs
from actors.envs.gymnasium_env import make_gymnasium
from actors.tasks.atari_table import PUBLISHED
from actors.tasks.catalog import TASKS
from actors.tasks.mujoco_table import ROBOTS
from gato.array_spec import Kind
from gato.task import find_task
from tests.actors.jat_scores import JAT_SCORES

GAMES = [task for task in TASKS.values() if task.family == "atari"]


@pytest.mark.parametrize("task", ROBOTS, ids=lambda task: task.name)
def test_a_robots_spec_is_that_of_its_environment(task) -> None:
    env = make_gymnasium(task)
    seen, done = env.observation_space, env.action_space
    assert isinstance(seen, gymnasium.spaces.Box)
    assert isinstance(done, gymnasium.spaces.Box)
    assert task.observations["state"].shape == seen.shape
    assert task.observations["state"].low is None
    assert np.isinf(seen.low).all()
    assert task.action.shape == done.shape
    assert (done.low == np.float32(task.action.low)).all()
    assert (done.high == np.float32(task.action.high)).all()
    assert env.spec is not None
    assert env.spec.max_episode_steps == task.max_steps
    env.close()


def test_the_table_has_every_robot_that_gymnasium_can_make_and_every_game_of_ale() -> None:
    gymnasium.register_envs(ale_py)
    specs = {
        env_id: spec
        for env_id, spec in gymnasium.registry.items()
        if env_id.endswith(("-v4", "-v5"))
    }
    robots = {
        env_id for env_id, spec in specs.items() if "gymnasium.envs.mujoco" in str(spec.entry_point)
    }
    assert {task.env_id for task in ROBOTS} == robots - {"Pusher-v4"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all of v4 are out of date, it says
        with pytest.raises(ImportError, match="mujoco<3"):
            gymnasium.make("Pusher-v4", disable_env_checker=True)
    games = {
        env_id: spec.kwargs["game"] for env_id, spec in specs.items() if env_id.startswith("ALE/")
    }
    assert len(games) == 104
    for family in ("atari", "atari84"):
        ours = [task for task in GAMES if task.name.startswith(f"{family}/")]
        assert {task.env_id: task.env_kwargs["rom"] for task in ours} == games
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert all(ale_py.roms.get_rom_path(rom) for rom in games.values())


def test_a_game_takes_all_eighteen_buttons_and_ends_after_108_000_frames() -> None:
    for task in GAMES:
        assert (task.action.kind, task.action.num_values) == (Kind.DISCRETE, 18)
        assert task.max_steps * int(task.env_kwargs["frameskip"]) == 108_000


@pytest.mark.parametrize(
    "name",
    [
        *(task.name for task in ROBOTS),
        "atari/pong",
        "atari84/pong",
        "atari/adventure",
        "atari84/carnival",
        "atari/skiing",
    ],
)
def test_what_a_task_shows_fits_its_spec(name: str) -> None:
    task = TASKS[name]
    envs = make_envs(task, 2)
    envs.reset_row(0, 1)
    envs.reset_row(1, 2)
    actions = np.full(
        (2, *task.action.shape), 17 if task.family == "atari" else 0, task.action.dtype
    )
    envs.step(actions, np.ones(2, np.bool_))
    for key, spec in task.observations.items():
        assert spec.problem_with(envs.observations[key], key) is None
    assert ("ram" in envs.extras()) == (task.family == "atari")
    envs.close()


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("Hopper-v5", "mujoco/hopper"),
        ("Hopper-v4", "mujoco-v4/hopper"),
        ("Hopper-v3", "mujoco/hopper"),
        ("hopper-medium-v2", "mujoco/hopper"),
        ("halfcheetah-medium-expert-v2", "mujoco/halfcheetah"),
        ("mujoco/hopper/expert-v0", "mujoco/hopper"),
        ("mujoco-walker", "mujoco-v4/walker2d"),
        ("mujoco-pendulum", "mujoco-v4/inverted-pendulum"),
        ("mujoco-standup", "mujoco-v4/humanoid-standup"),
        ("ANT", "mujoco/ant"),
        ("ALE/Pong-v5", "atari/pong"),
        ("PongNoFrameskip-v4", "atari/pong"),
        ("atari-pong", "atari/pong"),
        ("atari/pong/expert-v0", "atari/pong"),
        ("SpaceInvadersNoFrameskip-v4", "atari/space-invaders"),
        ("atari-spaceinvaders", "atari/space-invaders"),
        ("atari/montezumarevenge/expert-v0", "atari/montezuma-revenge"),
        ("ALE/TicTacToe3D-v5", "atari/tic-tac-toe-3d"),
        ("freeway", "atari/freeway"),
        ("qbert-84", "atari84/qbert"),
    ],
)
def test_a_task_is_found_by_the_names_people_use(alias: str, name: str) -> None:
    assert find_task(alias, TASKS).name == name


def test_no_two_tasks_share_a_name() -> None:
    counts = Counter(
        alias.lower() for task in TASKS.values() for alias in {task.name, *task.aliases}
    )
    assert [alias for alias, count in counts.items() if count > 1] == []


def test_an_unknown_task_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'mujoco/hopper'"):
        find_task("hoper", TASKS)


def test_every_reference_names_its_source() -> None:
    for task in TASKS.values():
        if task.references is None:
            assert task.env_kwargs.get("rom") not in PUBLISHED
            assert np.isnan(task.normalise(1.0))
            continue
        assert len(task.references.source) > 10
        assert task.normalise(task.references.expert) == pytest.approx(1.0)
        assert task.normalise(task.references.random) == pytest.approx(0.0)


DIFFERENT = {
    "battle_zone": {"random": 236.0},  # a zero was lost
    "video_pinball": {"random": 0.0},
    "double_dunk": {"human": 16.4},  # a minus sign was lost
    "fishing_derby": {"human": 38.7},
    "tennis": {"human": 8.3},
}
"""What JAT normalised by, where it is not DQN Zoo's."""


@pytest.mark.parametrize("rom", PUBLISHED)
def test_jats_normalised_scores_follow_from_its_raw_ones_and_our_references(rom: str) -> None:
    raw, by_expert, by_human = JAT_SCORES[rom]
    random, human, expert = PUBLISHED[rom]
    random, human = (
        DIFFERENT.get(rom, {}).get("random", random),
        DIFFERENT.get(rom, {}).get("human", human),
    )
    assert (raw - random) / (human - random) == pytest.approx(by_human, abs=0.0101)
    if rom in ("bowling", "venture"):  # JAT says 1 where its expert is no better than chance
        assert (expert <= random, by_expert) == (True, 1.0)
    else:
        assert (raw - random) / (expert - random) == pytest.approx(by_expert, abs=0.0101)


def test_the_table_is_read_without_any_environment() -> None:
    check = (
        "import sys, actors.tasks.catalog, actors.tasks.resolve; print({'gymnasium', 'ale_py',"
        " 'mujoco', 'torch'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", check], text=True).strip() == "set()"
