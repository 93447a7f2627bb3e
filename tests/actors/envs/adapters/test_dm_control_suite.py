"""The tasks of dm_control's suite keep the contract, in state and in pixels."""

import os
from importlib.util import find_spec

import numpy as np
import pytest

if not find_spec("dm_control"):
    pytest.skip("needs the extra dm-control", allow_module_level=True)

from actors.envs.conformance import check_envs
from actors.envs.factory import make_envs
from actors.tasks.catalog import TASKS
from actors.tasks.resolve import resolve_task
from actors.teachers.control_rules import CONTROL_RULES
from actors.teachers.measure import measure
from actors.teachers.resolve import has_teacher, teacher_return

NAMES = [name for name in TASKS if name.startswith("dm-control/")]


def test_a_task_keeps_the_contract() -> None:
    assert check_envs(TASKS["dm-control/walker-run"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_task_keeps_the_contract(name: str) -> None:
    errors = [str(found) for found in check_envs(TASKS[name]) if found.is_error]
    assert errors == []


def test_there_are_the_28_of_the_benchmark() -> None:
    from actors.envs.adapters.dm_control_suite import suite

    assert {(task.env_kwargs["domain"], task.env_kwargs["task"]) for task in TASKS.values()
            if task.family == "dm-control"} == set(suite.BENCHMARKING)  # fmt: skip


def test_pixels_are_another_task_without_a_rule() -> None:
    task = resolve_task("dm-control/cartpole-swingup?pixels=1")
    assert {name: spec.shape for name, spec in task.observations.items()} == {"image": (84, 84, 3)}
    assert not has_teacher(task)
    if os.environ["MUJOCO_GL"] not in ("egl", "osmesa"):
        pytest.skip("no OpenGL on this machine")
    envs, shown = make_envs(task, 1), []
    for seed in (1, 2, 1):
        envs.reset_row(0, seed)
        envs.step(np.array([[1.0]], np.float32), np.array([True]))
        shown.append(envs.observations["image"][0].copy())
    np.testing.assert_array_equal(shown[0], shown[2])
    assert (shown[0] != shown[1]).any()
    envs.close()


def test_a_rule_swings_the_pendulum_up() -> None:
    task = TASKS["dm-control/pendulum-swingup"]
    assert measure(task, episodes=1, noise=0.0)["return_mean"] > 0.8 * teacher_return(task)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROL_RULES)
def test_each_rule_has_its_record(name: str) -> None:
    record = measure(TASKS[name], episodes=20, noise=0.0)
    assert record["return_mean"] == pytest.approx(teacher_return(TASKS[name]), abs=0.5)
