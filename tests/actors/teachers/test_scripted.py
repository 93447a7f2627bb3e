"""Rules that read the RAM: legal buttons, a row's own, from the present frame alone, and games that
they win."""

from __future__ import annotations

import numpy as np
import pytest

from actors.envs.factory import make_envs
from actors.tasks.catalog import TASKS
from actors.teachers.scripted import DOWN, RULES, Freeway

LEAST = {"atari/pong": 15.0, "atari/freeway": 20.0}
"""What the mean return of each must reach."""


def returns_of(name: str, seeds: range) -> np.ndarray:
    """Returns of the rule in one episode of each seed, each of which must end by itself."""
    envs, rows = make_envs(TASKS[name], len(seeds)), np.ones(len(seeds), np.bool_)
    for row, seed in enumerate(seeds):
        envs.reset_row(row, seed)
    returns = np.zeros(len(seeds))
    while rows.any():
        rewards, terminated, truncated = envs.step(RULES[name](envs.extras()["ram"]), rows)
        assert not truncated.any(), "a game went on to the longest that one may take"
        returns += rewards
        rows &= ~terminated
    envs.close()
    return returns


def rams_of(name: str, num_rows: int = 8, num_steps: int = 100) -> np.ndarray:
    """RAM as random play meets it, and RAM that no game ever shows: `[num_rams, 128]`."""
    rng, rows = np.random.default_rng(0), np.ones(num_rows, np.bool_)
    envs = make_envs(TASKS[name], num_rows)
    for row in range(num_rows):
        envs.reset_row(row, seed=row)
    rams = [rng.integers(0, 256, (200, 128)).astype(np.uint8)]
    for _ in range(num_steps):
        envs.step(rng.integers(0, 18, num_rows), rows)
        rams.append(envs.extras()["ram"])
    envs.close()
    return np.concatenate(rams)


@pytest.mark.parametrize("name", list(RULES))
def test_a_rule_stays_in_the_action_set_and_answers_each_row_for_itself(name: str) -> None:
    rams = rams_of(name)
    before = rams.copy()
    buttons = RULES[name](rams)
    assert TASKS[name].action.problem_with(buttons, "action") is None
    assert buttons.dtype == np.int64
    assert len(np.unique(buttons)) > 1
    alone = np.concatenate([RULES[name](rams[row : row + 1]) for row in range(len(rams))])
    np.testing.assert_array_equal(alone, buttons)
    order = np.random.default_rng(1).permutation(len(rams))
    # nothing is kept between calls
    np.testing.assert_array_equal(RULES[name](rams[order]), buttons[order])
    np.testing.assert_array_equal(rams, before)


def test_freeway_is_crossed() -> None:
    assert returns_of("atari/freeway", range(1)).min() >= 20


def test_freeway_answers_in_front_of_a_car_that_cannot_be_escaped() -> None:
    """A student walks into it, and what it is then told must not be the opposite of what it was
    told just before."""
    ram = np.zeros((1, 128), np.uint8)
    ram[:, Freeway.CHICKEN] = Freeway.FIRST_LANE
    ram[:, Freeway.CARS] = 46  # on the chicken's column, at the pace of the slowest lane
    # one decision to the pavement; upwards the car goes along
    assert RULES["atari/freeway"](ram) == DOWN


@pytest.mark.slow
@pytest.mark.parametrize("name", list(LEAST))
def test_ten_games_go_well(name: str) -> None:
    assert returns_of(name, range(10)).mean() >= LEAST[name]
