"""Teachers: they play well, the same way for the same seed, and say so where there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.envs.factory import make_envs
from actors.envs.packages import PACKAGES
from actors.players.player import Player, Teacher, TimeStep
from actors.tasks.catalog import TASKS
from actors.tasks.resolve import resolve_task
from actors.teachers.demonstrate import demonstrate
from actors.teachers.measure import MEASURE_SEED, measure
from actors.teachers.resolve import (
    absolute_spec,
    has_teacher,
    teacher_for,
    teacher_return,
    teacher_spread,
)
from actors.teachers.scripted import RULES, Rule
from actors.teachers.scripted_records import RECORDS
from actors.teachers.specialist import SHIPPED
from gato.array_spec import Kind
from gato.episode import check_episode

GAMES = list(RULES)
LEAST = {
    "atari/freeway": 28.0,
    "atari/pong": 19.0,
    "atari/breakout": 50.0,
    "atari/boxing": 40.0,
    "atari/demon-attack": 1200.0,
}
"""What a game's teacher must reach in a quick look."""
MOST_BUTTONS = {"atari/boxing": 12}
"""Where it needs more than four: Boxing goes and punches in all directions."""


@pytest.mark.parametrize("name", GAMES)
def test_a_rule_keeps_its_promises(name: str) -> None:
    rule, teacher = RULES[name], teacher_for(TASKS[name])
    assert isinstance(rule, Rule)
    assert isinstance(teacher, Player)
    ram = np.random.default_rng(0).integers(0, 256, (5, 128)).astype(np.uint8)
    buttons = rule(ram)
    assert buttons.shape == (5,)
    np.testing.assert_array_equal(rule(ram[2:3]), buttons[2:3])  # a row's button is its own


@pytest.mark.parametrize("name", GAMES)
def test_a_rule_plays_well_and_with_few_buttons(name: str) -> None:
    (episode,) = demonstrate(TASKS[name], episodes=1, seed=MEASURE_SEED + 100)
    check_episode(episode, TASKS[name])
    assert episode.episode_return >= LEAST[name]
    assert len(set(episode.actions.tolist())) <= MOST_BUTTONS.get(name, 4)
    assert episode.source == f"teacher:rule:{name}"


@pytest.mark.parametrize("name", GAMES)
def test_a_record_says_how_it_was_measured(name: str) -> None:
    record = RECORDS[name]
    assert record["command"].startswith(f"python -m actors.teachers.measure {name}")
    first, end = record["measured_seeds"]
    assert end - first >= 10
    assert teacher_return(TASKS[name]) == record["return_mean"]
    human = TASKS[name].references.human
    assert human is not None
    assert record["return_mean"] >= human


@pytest.mark.slow
@pytest.mark.parametrize("name", GAMES)
def test_a_record_is_measured_again(name: str) -> None:
    first, end = RECORDS[name]["measured_seeds"]
    again = measure(TASKS[name], episodes=end - first, seed=first)
    assert again["return_mean"] == pytest.approx(RECORDS[name]["return_mean"], abs=0.01)


def test_the_command_prints_a_record() -> None:
    command = [
        sys.executable,
        "-m",
        "actors.teachers.measure",
        "inverted-pendulum",
        "--episodes",
        "2",
    ]
    record = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert record["task"] == "mujoco/inverted-pendulum"
    assert record["return_mean"] > 500


def test_a_specialists_noise_comes_with_odd_seeds_and_is_the_same_again() -> None:
    task = TASKS["mujoco/inverted-pendulum"]
    state = {"state": np.zeros((2, 4), np.float32)}
    noisy, plain, again = teacher_for(task), teacher_for(task, noise=0.0), teacher_for(task)
    step = TimeStep.first(state, seeds=[2, 3])
    first, greedy, second = (teacher.act(step) for teacher in (noisy, plain, again))
    assert first[0] == greedy[0]
    assert first[1] != greedy[1]
    np.testing.assert_array_equal(first, second)


def test_a_rules_noise_comes_with_odd_seeds_and_its_labels_have_none() -> None:
    task = TASKS["dm-control/cartpole-balance"]
    teacher, plain = teacher_for(task, noise=0.3), teacher_for(task, noise=0.0)
    rng = np.random.default_rng(0)
    shown = {
        name: rng.normal(0.0, 0.02, (64, *spec.shape)).astype(np.float32)
        for name, spec in task.observations.items()
    }
    step = TimeStep.first(shown, seeds=list(range(64)))
    actions, wanted = teacher.act(step), plain.act(step)
    labels = teacher.labels()
    assert labels is not None
    np.testing.assert_array_equal(labels, wanted)
    assert plain.labels() is None
    np.testing.assert_array_equal(actions[::2], wanted[::2])
    assert np.abs(actions).max() <= 1.0
    # 0.3 times half of the way from the middle of the bounds to either: 0.15 of [-1, 1].
    inside = np.abs(wanted[1::2]) < 0.4
    assert 0.1 < np.std((actions - wanted)[1::2][inside]) < 0.2


def test_without_a_teacher_the_error_says_what_to_do() -> None:
    assert not has_teacher(TASKS["atari/space-invaders"])
    assert teacher_return(TASKS["atari/space-invaders"]) is None
    with pytest.raises(
        ValueError,
        match=r"no teacher for atari/space-invaders; there are rules for .*atari/freeway",
    ):
        teacher_for(TASKS["atari/space-invaders"])


def test_every_teacher_that_ships_fits_its_task() -> None:
    for task in TASKS.values():
        if not has_teacher(task) or task.action.kind is not Kind.CONTINUOUS:
            continue
        package = PACKAGES.get(task.family, "numpy")
        if not find_spec(package):
            with pytest.raises(ValueError, match=f"needs the package {package}"):
                make_envs(task, 1)
            continue
        teacher = teacher_for(task)
        shown = {
            name: np.zeros((3, *spec.shape), np.float32) for name, spec in task.observations.items()
        }
        actions = teacher.act(TimeStep.first(shown, seeds=range(3)))
        assert task.action.problem_with(actions, "action") is None


PENDULUM = TASKS["mujoco/inverted-pendulum"]
STATES = np.random.default_rng(0).normal(0.0, 0.1, (3, 4)).astype(np.float32)


def asked(teacher: Teacher, states: np.ndarray = STATES) -> np.ndarray:
    """The labels of a teacher that advises."""
    ram = np.zeros((len(states), 128), np.uint8)
    step = TimeStep.first({"state": states}, seeds=range(len(states)), extras={"ram": ram})
    actions = teacher.act(step)
    wanted = teacher.labels()
    return actions if wanted is None else wanted


def against_the_tilt(
    observations: Mapping[str, np.ndarray], extras: Mapping[str, np.ndarray]
) -> np.ndarray:
    return 10.0 * observations["state"][:, 1:2]


class Remembering:
    """A teacher with a memory: it counts the steps of each row's episode."""

    def __init__(self, task: object) -> None:
        self.steps = np.zeros(3)

    def reset(self, rows: np.ndarray, seeds: np.ndarray) -> None:
        self.steps[rows] = 0.0

    def __call__(
        self, observations: Mapping[str, np.ndarray], extras: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        self.steps += 1.0
        return self.steps[:, None]


def test_a_function_is_a_teacher_by_name_and_by_itself() -> None:
    by_name = teacher_for(PENDULUM, f"python:{__name__}:against_the_tilt")
    by_itself = teacher_for(PENDULUM, against_the_tilt)
    assert isinstance(by_name, Teacher)
    np.testing.assert_array_equal(asked(by_name), asked(by_itself))
    np.testing.assert_allclose(asked(by_name), 10.0 * STATES[:, 1:2], rtol=1e-6)
    assert asked(by_name).dtype == PENDULUM.action.dtype
    assert by_itself.name == "python:against_the_tilt"


def test_a_function_plays_whole_episodes() -> None:
    spec = f"python:{__name__}:against_the_tilt"
    (episode,) = demonstrate(PENDULUM, episodes=1, seed=5, teacher_spec=spec)
    check_episode(episode, PENDULUM)
    assert episode.source == f"teacher:{spec}"


def test_a_teachers_memory_ends_with_the_episode_of_its_row() -> None:
    teacher = teacher_for(PENDULUM, f"python:{__name__}:Remembering")
    assert asked(teacher).tolist() == [[1.0], [1.0], [1.0]]
    step = TimeStep.first({"state": STATES}, seeds=[0, 9, 0])
    teacher.act(replace(step, is_first=np.zeros(3, np.bool_)))
    step = replace(step, is_first=np.array([False, True, False]))
    assert teacher.act(step).tolist() == [[3.0], [1.0], [3.0]]


@pytest.mark.parametrize(
    ("actions", "problem"),
    [
        (np.zeros((3, 1), np.int64), "dtype int64, expected float32"),
        (np.zeros(3, np.float32), r"shape \(3,\), expected \(3, 1\): a row for each environment"),
        (np.full((3, 1), np.nan), "the result is not finite"),
        (None, "dtype object, expected float32"),
    ],
    ids=["dtype", "shape", "nan", "nothing"],
)
def test_a_function_that_gives_something_else_is_named(
    actions: np.ndarray | None, problem: str
) -> None:
    def wrong(*_: Any) -> Any:
        return actions

    with pytest.raises(
        ValueError,
        match=rf"teacher python:.*wrong of task mujoco/inverted-pendulum returned.*{problem}",
    ):
        asked(teacher_for(PENDULUM, wrong))


def test_a_function_that_is_off_by_rounding_is_clipped_and_one_that_is_farther_is_named() -> None:
    def push(*_: Any) -> np.ndarray:
        return np.array([[3.0000005], [-3.00001], [0.5]], np.float32)

    def push_harder(*_: Any) -> np.ndarray:
        return np.array([[0.0], [-3.2], [0.0]], np.float32)

    assert asked(teacher_for(PENDULUM, push)).tolist() == [[3.0], [-3.0], [0.5]]
    with pytest.raises(
        ValueError,
        match=r"-3\.2.* is outside of the bounds \[-3, 3\]; clip or scale them in your function",
    ):
        asked(teacher_for(PENDULUM, push_harder))


THEIRS = """
def typo(observations, extras):
    return obseravtions

def ragged(observations, extras):
    return [[0.0], [0.0, 1.0], [0.0]]

class Choosy:
    def __init__(self, task):
        raise KeyError(task.name)
"""


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            "python:theirs_pkg:typo",
            (
                "python:theirs_pkg:typo of task mujoco/inverted-pendulum raised NameError:"
                " .*obseravtions"
            ),
        ),
        (
            "python:theirs_pkg:ragged",
            "python:theirs_pkg:ragged of task mujoco/inverted-pendulum raised ValueError: ",
        ),
        (
            "python:theirs_pkg:Choosy",
            (
                "python:theirs_pkg:Choosy of task .* cannot be made: KeyError:"
                " 'mujoco/inverted-pendulum'"
            ),
        ),
        (
            "python:theirs_pkg",
            "cannot be imported: AttributeError: .*no function is named.*; write it as",
        ),
        ("python:sulky_teacher:act", "cannot be imported: RuntimeError: not today"),
    ],
)
def test_a_teacher_whose_code_is_broken_is_a_line_that_says_where(
    spec: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs_pkg.py").write_text(THEIRS)
    (tmp_path / "sulky_teacher.py").write_text("raise RuntimeError('not today')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=problem):
        asked(teacher_for(PENDULUM, spec))


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            "oracle",
            (
                r"unknown teacher 'oracle' for task mujoco/inverted-pendulum; give one of: rule,"
                r" specialist.*sb3:"
            ),
        ),
        ("sb3:", "unknown teacher 'sb3:'"),
        ("rule", "no teacher for mujoco/inverted-pendulum; there are rules for atari/freeway"),
        ("python:no.such:thing", "cannot be imported: ModuleNotFoundError: No module named 'no'"),
        (
            "python:json:no_such",
            "cannot be imported: AttributeError: module 'json' has no attribute 'no_such'",
        ),
        ("python:json", "cannot be imported"),
        ("python:json:__name__", "is not a function but 'json'"),
        ("specialist:/nowhere", "no specialist for mujoco/inverted-pendulum in /nowhere"),
    ],
)
def test_a_teacher_that_is_not_there_is_a_line_that_says_what_to_do(
    spec: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        teacher_for(PENDULUM, spec)


def test_an_environment_of_the_users_needs_a_teacher_of_the_users() -> None:
    theirs = replace(PENDULUM, name="my:Env-v0", family="gymnasium")
    assert not has_teacher(theirs)
    with pytest.raises(
        ValueError, match=r"no teacher ships for my:Env-v0; name one of: rule, specialist"
    ):
        teacher_for(theirs)
    assert asked(teacher_for(theirs, against_the_tilt)).shape == (3, 1)


def test_a_specialist_of_another_version_is_rejected(tmp_path: Path) -> None:
    for file in SHIPPED.glob("inverted-pendulum.*"):
        shutil.copy(file, tmp_path)
    same: Callable[[], Teacher] = lambda: teacher_for(PENDULUM, f"specialist:{tmp_path}")  # noqa: E731
    assert asked(same()).shape == (3, 1)
    wider = replace(
        PENDULUM, observations={"state": replace(PENDULUM.observations["state"], shape=(5,))}
    )
    with pytest.raises(
        ValueError, match=r"shows 5 numbers, the specialist of InvertedPendulum-v5 was trained on 4"
    ):
        teacher_for(wider, f"specialist:{tmp_path}")
    record = json.loads((tmp_path / "inverted-pendulum.json").read_text())
    (tmp_path / "inverted-pendulum.json").write_text(
        json.dumps(record | {"env_id": "InvertedPendulum-v4"})
    )
    with pytest.raises(
        ValueError, match=r"a specialist of InvertedPendulum-v4 for task .* of InvertedPendulum-v5"
    ) as bad:
        same()
    assert "\n" not in str(bad.value)


def test_a_perturbed_teacher_says_what_it_wanted_and_a_calm_one_does_it() -> None:
    calm, perturbed = teacher_for(PENDULUM, noise=0.0), teacher_for(PENDULUM, noise=1.0)
    np.testing.assert_array_equal(asked(calm), asked(perturbed))


def test_a_game_in_another_size_has_the_same_rule() -> None:
    assert teacher_for(TASKS["atari84/pong"]).record == RECORDS["atari/pong"]
    assert asked(teacher_for(TASKS["atari84/pong"])).shape == (3,)


def test_a_teachers_files_are_found_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "50% a+b"
    odd.mkdir()
    for name in ("sac.zip", "sac.pkl"):
        shutil.copy(Path(__file__).parents[2] / "data" / "sb3" / name, odd)
    monkeypatch.chdir(odd)
    spec = absolute_spec("sb3:sac.zip?vecnormalize=sac.pkl&activation=relu")
    monkeypatch.chdir(tmp_path)
    assert teacher_for(TASKS["mujoco/inverted-pendulum"], spec).record["activation"] == "relu"
    assert spec.startswith(f"sb3:{odd}/sac.zip?vecnormalize=/")
    assert absolute_spec(spec) == spec
    assert absolute_spec("sb3:a.zip") == f"sb3:{tmp_path}/a.zip"
    assert absolute_spec("specialist:mine") == f"specialist:{tmp_path}/mine"
    assert absolute_spec("specialist") == "specialist"
    assert absolute_spec("python:a.b:c") == "python:a.b:c"


def test_the_spread_of_returns_is_that_of_the_record() -> None:
    breakout = TASKS["atari/breakout"]
    record = RECORDS[breakout.name]
    assert breakout.references is not None
    expected = record["return_std"] / (record["return_mean"] - breakout.references.random)
    assert teacher_spread(breakout) == pytest.approx(expected)
    assert teacher_spread(TASKS["mujoco/hopper"]) == teacher_spread(
        TASKS["mujoco/hopper"], "specialist"
    )
    assert teacher_spread(TASKS["mujoco/humanoid"]) is None, "no teacher ships"
    assert teacher_spread(resolve_task("pong?sticky=0.25")) is None
