"""dm_control's environments: shimmy's ids by their names alone, with today's MuJoCo."""

from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest

if not (find_spec("dm_control") and find_spec("shimmy")):  # shimmy itself would choose no OpenGL
    pytest.skip("needs the extra dm-control", allow_module_level=True)

from actors.envs.conformance_checks import random_action
from actors.envs.factory import make_envs
from actors.tasks.resolve import resolve_task

A_FEW = (
    "cheetah-run",
    "lqr-lqr_2_1",
    "RodentRunGaps",
    "quadruped-escape",
    "stack_2_bricks_features",
)
NEEDS_AN_OBJECT = "dm_control/compatibility-env-v0"
"""Whose keyword is an environment made in Python."""


def plays(name: str) -> None:
    task = resolve_task(f"{name}?max_steps=3")
    assert resolve_task(task.name) == task
    envs, rng = make_envs(task, 1), np.random.default_rng(0)
    envs.reset_row(0, 0)
    for last in (False, False, True):
        _, ended, cut = envs.step(random_action(task, rng)[None], np.array([True]))
        assert (ended[0], cut[0]) == (False, last)
    envs.close()


@pytest.mark.parametrize("name", A_FEW)
def test_an_id_of_shimmy_is_played_by_its_name(name: str) -> None:
    plays(f"dm_control/{name}-v0")


@pytest.mark.slow
def test_all_ids_of_shimmy_are_played_by_their_names() -> None:
    resolve_task("dm_control/cheetah-run-v0?max_steps=3")
    ids = {name for name in gymnasium.registry if name.startswith("dm_control/")}
    assert len(ids) == 86
    for name in sorted(ids - {NEEDS_AN_OBJECT}):
        plays(name)
