"""Teachers: they play well, the same way for the same seed, and say so where there is none."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from actors.demonstrate import demonstrate
from actors.ram_teachers import RECORDS, RULES, Rule
from actors.rollout import Player
from actors.tasks import TASKS
from actors.teachers import MEASURE_SEED, has_teacher, measure, teacher_for, teacher_return
from gato.episode import check_episode
from gato.task import Kind

GAMES = list(RULES)
LEAST = {"atari/freeway": 28.0, "atari/pong": 19.0, "atari/breakout": 50.0}
"""What a game's teacher must reach in a quick look."""


@pytest.mark.parametrize("name", GAMES)
def test_a_rule_keeps_its_promises_to_whoever_uses_it(name: str) -> None:
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
    assert len(set(episode.actions.tolist())) <= 4
    assert episode.source == f"teacher:rule:{name}"


@pytest.mark.parametrize("name", GAMES)
def test_a_record_says_how_it_was_measured(name: str) -> None:
    record = RECORDS[name]
    assert record["command"].startswith(f"python -m actors.teachers measure {name}")
    first, end = record["measured_seeds"]
    assert end - first >= 10
    assert teacher_return(TASKS[name]) == record["return_mean"]


@pytest.mark.slow
@pytest.mark.parametrize("name", GAMES)
def test_a_record_is_measured_again(name: str) -> None:
    first, end = RECORDS[name]["measured_seeds"]
    again = measure(TASKS[name], episodes=end - first, seed=first)
    assert again["return_mean"] == pytest.approx(RECORDS[name]["return_mean"], abs=0.01)


def test_the_command_prints_a_record() -> None:
    command = [sys.executable, "-m", "actors.teachers", "measure", "inverted-pendulum", "--episodes", "2"]
    record = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert record["task"] == "mujoco/inverted-pendulum"
    assert record["return_mean"] > 500


def test_a_specialists_noise_comes_with_odd_seeds_and_is_the_same_again() -> None:
    task = TASKS["mujoco/inverted-pendulum"]
    state = {"state": np.zeros((2, 4), np.float32)}
    seeds, rows = np.array([2, 3]), np.ones(2, np.bool_)
    noisy, plain, again = teacher_for(task), teacher_for(task, noise=0.0), teacher_for(task)
    for teacher in (noisy, plain, again):
        teacher.reset_rows(rows, seeds)
    first, greedy, second = (
        teacher.act(state, {}, np.zeros(len(state["state"]), np.float32)) for teacher in (noisy, plain, again)
    )
    assert first[0] == greedy[0]
    assert first[1] != greedy[1]
    np.testing.assert_array_equal(first, second)


def test_where_there_is_no_teacher_one_is_told_what_to_do() -> None:
    assert not has_teacher(TASKS["atari/space-invaders"])
    assert teacher_return(TASKS["atari/space-invaders"]) is None
    with pytest.raises(ValueError, match=r"no teacher for atari/space-invaders; there are rules for .*atari/freeway"):
        teacher_for(TASKS["atari/space-invaders"])


def test_every_teacher_that_ships_fits_its_task() -> None:
    for task in TASKS.values():
        if not has_teacher(task) or task.action.kind is not Kind.CONTINUOUS:
            continue
        teacher = teacher_for(task)
        teacher.reset_rows(np.ones(3, np.bool_), np.arange(3))
        actions = teacher.act(
            {"state": np.zeros((3, *task.observations["state"].shape), np.float32)}, {}, np.zeros(3, np.float32)
        )
        assert task.action.problem_with(actions, "action") is None
