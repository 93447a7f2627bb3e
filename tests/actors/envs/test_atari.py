"""Grey games of 84x84, as other projects' data sets show them."""

import warnings

import ale_py
import cv2
import gymnasium
import numpy as np
import pytest

from actors.envs.factory import make_envs
from actors.envs.provenance import env_spec_of
from actors.tasks.catalog import TASKS
from actors.tasks.resolve import resolve_task
from gato.sequence import StepLayout
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.formats.atari_frames import MINIMAL_BUTTONS

GAMES = [task for task in TASKS.values() if task.name.startswith("atari/")]
ONE_OF_EACH_KIND = (
    "pong",
    "breakout",
    "space-invaders",
    "freeway",
    "skiing",
    "asteroids",
    "journey-escape",
)


@pytest.mark.parametrize("game", ["pong", "breakout", "space-invaders", "freeway"])
def test_a_grey_game_shows_what_gymnasiums_own_wrapper_shows(game: str) -> None:
    task = TASKS[f"atari84/{game}"]
    envs = make_envs(task, 1)
    gymnasium.register_envs(ale_py)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = gymnasium.make(
            task.env_id, frameskip=1, repeat_action_probability=0.0, full_action_space=True
        )
    theirs = gymnasium.wrappers.AtariPreprocessing(plain, noop_max=0, frame_skip=4, screen_size=84)
    seed = 3
    num_noops = int(np.random.default_rng(seed).integers(1, 31))
    envs.reset_row(0, seed)
    theirs.reset(seed=seed)
    for _ in range(num_noops):
        plain.unwrapped.ale.act(ale_py.Action.NOOP)  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = int(rng.integers(18))
        envs.step(np.array([action]), np.ones(1, np.bool_))
        grey, *_ = theirs.step(action)
        np.testing.assert_array_equal(
            envs.observations["image"][0], np.repeat(grey[..., None], 3, axis=-1)
        )
    theirs.close()


def test_a_games_first_grey_frame_is_the_screen_shrunk_by_area() -> None:
    envs = make_envs(TASKS["atari84/pong"], 1)
    envs.reset_row(0, 5)
    ale = envs._envs[0]._ale  # type: ignore[attr-defined]
    expected = cv2.resize(ale.getScreenGrayscale(), (84, 84), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(
        envs.observations["image"][0], np.repeat(expected[..., None], 3, axis=-1)
    )


def test_several_frames_are_those_of_the_last_steps_the_oldest_first() -> None:
    task = resolve_task("pong?frames=3&grey=1")
    steps = StepLayout(task, TokenLayout())
    assert steps.tokens_per_step - 2 == 3 * (
        StepLayout(TASKS["atari/pong"], TokenLayout()).tokens_per_step - 2
    )
    envs, one = make_envs(task, 1), make_envs(resolve_task("pong?grey=1"), 1)
    shown: list[np.ndarray] = []
    for made in (envs, one):
        made.reset_row(0, 5)
    for step in range(6):
        shown.append(one.observations["image"][0].copy())
        expected = [shown[max(0, step - back)] for back in (2, 1, 0)]
        for place, frame in enumerate(expected):
            np.testing.assert_array_equal(envs.observations[f"image/{place}"][0], frame)
        for made in (envs, one):
            made.step(np.array([step % 18]), np.array([True]))


@pytest.mark.parametrize(
    "task", [TASKS[f"atari/{game}"] for game in ONE_OF_EACH_KIND], ids=lambda task: task.name
)
def test_the_importers_know_a_games_buttons(task: Task) -> None:
    check_buttons(task)


@pytest.mark.slow
def test_the_importers_know_the_buttons_of_each_game() -> None:
    assert {str(task.env_kwargs["rom"]) for task in GAMES} == set(MINIMAL_BUTTONS)
    for task in GAMES:
        check_buttons(task)


def check_buttons(task: Task) -> None:
    ale = ale_py.ALEInterface()
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale.loadROM(ale_py.roms.get_rom_path(str(task.env_kwargs["rom"])))
    minimal = tuple(action.value for action in ale.getMinimalActionSet())
    assert MINIMAL_BUTTONS[str(task.env_kwargs["rom"])] == minimal


@pytest.mark.parametrize("name", ["mujoco/hopper", "atari/pong", "atari84/pong"])
def test_an_environment_is_made_again_from_its_description(name: str) -> None:
    spec = gymnasium.envs.registration.EnvSpec.from_json(env_spec_of(TASKS[name]))
    env = gymnasium.make(spec)
    observation, _ = env.reset(seed=0)
    shape = (210, 160, 3) if name.startswith("atari") else TASKS[name].observations["state"].shape
    assert observation.shape == shape
    if name.startswith("atari"):
        assert env.action_space == gymnasium.spaces.Discrete(18)
    env.close()
