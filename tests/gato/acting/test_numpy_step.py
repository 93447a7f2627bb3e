"""Steps in NumPy are those of PyTorch, and only of models that it can be faster for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.acting.state import ActingState
from gato.network.model import Gato
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
    assert first.caches[0].weights is second.caches[0].weights
    before = policy.act(first, shown)
    load(model, snapshot(other))
    after = policy.act(policy.start(2), shown)
    assert np.abs(after - before).max() > 1e-3
    in_pytorch = policy.act(without_numpy(policy.start(2)), shown)
    np.testing.assert_allclose(after, in_pytorch, atol=1e-5)


def by_a_fused_step(model: Gato) -> None:
    optimiser = torch.optim.AdamW(model.requires_grad_(True).parameters(), lr=0.1, fused=True)
    sum((parameter**2).sum() for parameter in model.parameters()).backward()
    optimiser.step()


def by_data(model: Gato) -> None:
    for parameter in model.transformer.parameters():
        parameter.data.mul_(1.5).add_(0.1 * torch.randn_like(parameter))


def by_numpy(model: Gato) -> None:
    for parameter in model.transformer.parameters():
        parameter.detach().numpy()[...] *= 1.5


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("change", [by_a_fused_step, by_data, by_numpy])
def test_weights_that_changed_count_however_they_changed(
    change: Callable[[Gato], None], is_frozen: bool
) -> None:
    """None of these is counted by PyTorch as writing into the weights."""
    model = small_model(64).requires_grad_(not is_frozen)
    policy = Policy(model, ROBOT, ActingConfig())
    shown = random_observations(ROBOT, 2, np.random.default_rng(3))
    begun = policy.start(2)
    kept = np.copy(begun.caches[0].weights.feedforward_bias)  # type: ignore[union-attr]
    before = policy.act(policy.start(2), shown)
    change(model)
    model.requires_grad_(not is_frozen)
    np.testing.assert_array_equal(
        begun.caches[0].weights.feedforward_bias,  # type: ignore[union-attr]
        kept,
    )
    after = policy.act(policy.start(2), shown)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, policy.act(without_numpy(policy.start(2)), shown), atol=1e-4)


def test_weights_of_attention_may_vanish_whatever_numpy_is_told() -> None:
    model = small_model(64)
    for layer in model.transformer.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data.mul_(8.0)
    policy, rng = Policy(model, ROBOT, ActingConfig()), np.random.default_rng(3)
    state = policy.start(2)
    with np.errstate(all="raise"):
        for _ in range(policy.window_steps):
            policy.act(state, random_observations(ROBOT, 2, rng))


def with_hook(model: Gato) -> Gato:
    block = model.transformer.blocks[0]
    block.feedforward_out.register_forward_hook(lambda _layer, _given, out: out * 1.1)  # type: ignore
    return model


def test_other_models_step_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, rotary = small_model(64), small_model(64, positions="rotary")
    policies = {
        "rotary": Policy(rotary, ROBOT, ActingConfig()),
        "int8": Policy(plain, ROBOT, ActingConfig(int8="weights")),
        "bfloat16": Policy(small_model(64).to(torch.bfloat16), ROBOT, ActingConfig()),
        "hooks": Policy(with_hook(small_model(64)), ROBOT, ActingConfig()),
    }
    for name, policy in policies.items():
        assert not all(has_numpy(policy.start(1))), name
    monkeypatch.setattr("gato.network.transformer.MOST_PARAMETERS", 1000)
    assert not any(has_numpy(Policy(plain, ROBOT, ActingConfig()).start(1)))
