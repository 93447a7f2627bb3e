"""Steps in NumPy are those of PyTorch, and only of models that it can be faster for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from gato.acting.policy import Policy
from gato.acting.state import ActingState
from gato.config import ActingConfig
from gato.task import Task
from gato.weights import load, snapshot
from tests.gato.models import GAME, ROBOT, random_observations, small_model


def without_numpy(state: ActingState) -> ActingState:
    """The same state, whose steps are PyTorch's."""
    for cache in state.caches:
        cache.weights = None
    return state


def has_numpy(state: ActingState) -> Sequence[bool]:
    return [cache.weights is not None for cache in state.caches]


@pytest.mark.parametrize("task", [ROBOT, GAME], ids=["robot", "game"])
@pytest.mark.parametrize("num_envs", [1, 5])
def test_both_write_the_same_and_see_the_same(task: Task, num_envs: int) -> None:
    """Past the end of the ring buffer, while rows begin again."""
    rng = np.random.default_rng(2)
    policy = Policy(small_model(64), task, ActingConfig())
    ours, theirs = policy.start(num_envs), without_numpy(policy.start(num_envs))
    assert all(has_numpy(ours))
    for step in range(3 * policy.window_steps):
        if step % 4 == 3:
            for state in (ours, theirs):
                state.reset(np.arange(num_envs) == step % num_envs)
        shown = random_observations(task, num_envs, rng)
        np.testing.assert_allclose(
            policy.act(ours, shown), policy.act(theirs, shown), atol=1e-5, rtol=1e-4
        )
    for mine, other in zip(ours.caches, theirs.caches, strict=True):
        torch.testing.assert_close(mine.keys, other.keys, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(mine.values, other.values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("is_frozen", [True, False])
def test_new_weights_count_from_the_next_state_on(is_frozen: bool) -> None:
    rng = np.random.default_rng(3)
    model, other = small_model(64).requires_grad_(not is_frozen), small_model(64)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    policy = Policy(model, ROBOT, ActingConfig())
    shown = random_observations(ROBOT, 2, rng)
    first, second = policy.start(2), policy.start(2)
    assert (first.caches[0].weights is second.caches[0].weights) == is_frozen
    before = policy.act(first, shown)
    load(model, snapshot(other))
    after = policy.act(policy.start(2), shown)
    assert np.abs(after - before).max() > 1e-3
    in_pytorch = policy.act(without_numpy(policy.start(2)), shown)
    np.testing.assert_allclose(after, in_pytorch, atol=1e-5)


def test_a_model_that_learns_acts_with_what_it_has_learned() -> None:
    """An optimiser's fused step is not counted by PyTorch as writing into the weights."""
    model = small_model(64)
    policy = Policy(model, ROBOT, ActingConfig())
    shown = random_observations(ROBOT, 2, np.random.default_rng(3))
    before = policy.act(policy.start(2), shown)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    sum((parameter**2).sum() for parameter in model.parameters()).backward()
    optimiser.step()
    after = policy.act(policy.start(2), shown)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, policy.act(without_numpy(policy.start(2)), shown), atol=1e-4)


def test_other_models_step_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, rotary = small_model(64), small_model(64, positions="rotary")
    policies = {
        "rotary": Policy(rotary, ROBOT, ActingConfig()),
        "int8": Policy(plain, ROBOT, ActingConfig(int8="weights")),
        "bfloat16": Policy(small_model(64).to(torch.bfloat16), ROBOT, ActingConfig()),
    }
    for name, policy in policies.items():
        assert not any(has_numpy(policy.start(1))), name
    monkeypatch.setattr("gato.network.transformer.MOST_PARAMETERS", 1000)
    assert not any(has_numpy(Policy(plain, ROBOT, ActingConfig()).start(1)))
