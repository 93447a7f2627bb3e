"""The yardstick: a Decision Transformer that sees nothing of the future, and trains and resumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from actors.players.player import TimeStep
from benchmarks.decision_transformer.plain import (
    RETURN_SCALE,
    DecisionTransformer,
    DTConfig,
    DTPlayer,
    Trajectories,
    train,
)
from gato.episode import Episode

CONFIG = DTConfig(
    num_observations=2, num_actions=1, context_steps=4, num_layers=1, width=16, windows=8,
    warmup_updates=2, rate=3e-3, dropout=0.0,
)  # fmt: skip


def episode(seed: int, *, steps: int = 12) -> Episode:
    """Good ones act 0.5, bad ones -0.5; the reward says which it was."""
    good = seed % 2
    rng = np.random.default_rng(seed)
    return Episode(
        key=f"fake.1.{seed + 1}",
        task="fake/levels",
        source="file",
        observations={"state": rng.normal(size=(steps, 2)).astype(np.float32)},
        actions=np.full((steps, 1), 0.5 if good else -0.5, np.float32),
        rewards=np.full(steps, 100.0 * good, np.float32),
        terminated=False,
        truncated=True,
        seed=seed,
        version=None,
    )


DATA = Trajectories([episode(seed) for seed in range(8)])


def test_an_action_sees_its_own_observation_and_no_later_token() -> None:
    torch.manual_seed(0)
    model = DecisionTransformer(CONFIG).eval()
    returns, observations, actions, times, _ = DATA.batch(np.random.default_rng(0), 2, 4)
    is_step = torch.ones(2, 4, dtype=torch.bool)
    before = model(returns, observations, actions, times, is_step)
    changed = observations.clone()
    changed[:, 2] += 1.0
    after = model(returns, changed, actions, times, is_step)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2:], after[:, 2:])
    own = actions.clone()
    own[:, 2] += 1.0  # its own action is what it is to predict
    assert torch.equal(before[:, :3], model(returns, observations, own, times, is_step)[:, :3])


def test_padding_is_not_seen() -> None:
    torch.manual_seed(0)
    model = DecisionTransformer(CONFIG).eval()
    returns, observations, actions, times, _ = DATA.batch(np.random.default_rng(0), 2, 4)
    is_step = torch.tensor([[False, True, True, True]] * 2)
    before = model(returns, observations, actions, times, is_step)
    other = observations.clone()
    other[:, 0] += 5.0
    assert torch.equal(before[:, 1:], model(returns, other, actions, times, is_step)[:, 1:])


def test_windows_are_padded_in_front_and_tell_the_return_to_go() -> None:
    data = Trajectories([episode(1, steps=3)])
    returns, observations, actions, times, is_step = data.batch(np.random.default_rng(0), 64, 4)
    assert not is_step[:, 0].any()
    assert is_step[:, -1].all()
    start = 3 - is_step.sum(1)
    assert torch.equal(times[:, -1], torch.full((64,), 2))
    assert torch.allclose(returns[:, -1], torch.tensor(100.0 / RETURN_SCALE))
    first = is_step.long().argmax(1)
    of_first = returns[torch.arange(64), first]
    assert torch.allclose(of_first, (3 - start) * 100.0 / RETURN_SCALE)
    assert observations.shape == (64, 4, 2)
    assert actions.shape == (64, 4, 1)


def test_it_learns_to_reach_the_return_that_it_is_asked_for(tmp_path: Path) -> None:
    model = train(CONFIG, DATA, updates=150, seed=0, file=tmp_path / "plain.pt")
    acted = {}
    for target in (0.0, 1200.0):
        player = DTPlayer(model, DATA, num_envs=3, target_return=target)
        state = np.zeros((3, 2), np.float32)
        acted[target] = float(player.act(TimeStep.first({"state": state}, seeds=[0, 1, 2])).mean())
    assert acted[0.0] < -0.25 < 0.25 < acted[1200.0]


def test_a_training_that_was_ended_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = train(CONFIG, DATA, updates=6, seed=1, file=tmp_path / "whole.pt")
    train(CONFIG, DATA, updates=3, seed=1, file=tmp_path / "half.pt")
    resumed = train(CONFIG, DATA, updates=6, seed=1, file=tmp_path / "half.pt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="no episodes"):
        Trajectories([])
