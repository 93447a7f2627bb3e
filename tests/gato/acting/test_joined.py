"""Contexts that are joined into one batch act as each would have acted by itself."""

from __future__ import annotations

import numpy as np
import pytest

from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.sequence import Window
from gato.task import Task
from tests.gato.models import GAME, ROBOT, random_observations, small_model


@pytest.mark.parametrize("positions", ["transformer-xl", "rotary"])
@pytest.mark.parametrize("task", [ROBOT, GAME], ids=lambda task: task.name)
@pytest.mark.parametrize(("steps_before", "others_before"), [(5, 2), (1, 7), (4, 4), (0, 3)])
def test_rows_that_are_joined_act_as_they_would_alone(
    task: Task, positions: str, steps_before: int, others_before: int
) -> None:
    policy = Policy(small_model(64, positions=positions), task, ActingConfig(window_steps=3))
    rng = np.random.default_rng(0)
    prompt = Window(
        observations=random_observations(task, 2, rng),
        actions=np.zeros((2, *task.action.shape), task.action.dtype),
    )
    alone = [policy.start(2, prompt), policy.start(1, prompt)]
    for state, count in zip(alone, (steps_before, others_before), strict=True):
        for _ in range(count):
            policy.act(state, random_observations(task, state.num_envs, rng))
    both = alone[0].joined([alone[1]], policy.steps.tokens_per_step)
    for step in range(5):
        seen = random_observations(task, 3, rng)
        of_first = policy.act(alone[0], {name: values[:2] for name, values in seen.items()})
        of_second = policy.act(alone[1], {name: values[2:] for name, values in seen.items()})
        got = policy.act(both, seen)
        np.testing.assert_allclose(
            got, np.concatenate([of_first, of_second]), atol=1e-3, err_msg=f"step {step}"
        )


def test_returns_to_go_are_joined_with_their_rows() -> None:
    policy = Policy(small_model(64), ROBOT, ActingConfig(window_steps=3))
    first, second = policy.start(2), policy.start(1)
    first.returns_to_go.values[:] = 1.0, 2.0
    second.returns_to_go.values[:] = 3.0
    both = first.joined([second], policy.steps.tokens_per_step).returns_to_go
    both.subtract(np.ones(3, np.float32))  # no row has acted: no reward is theirs
    both.subtract(np.ones(3, np.float32))
    np.testing.assert_array_equal(both.values, [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(first.returns_to_go.values, [1.0, 2.0])
