"""Gato as a player: weights come and go between episodes."""

import gc
import weakref

import numpy as np
import pytest
import torch

from actors.players.gato_player import GatoPlayer, GatoPlayers
from actors.players.player import TimeStep
from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.network.model import Gato
from gato.network.quantise import Int8Kind
from gato.sequence import Window
from gato.version import Version
from gato.weights import Weights, snapshot
from tests.gato.models import ROBOT, random_observations, small_model


def weights_of(model: Gato, number: int) -> Weights:
    return Weights(version=Version(0, number), learner_step=number, arrays=snapshot(model))


@pytest.mark.parametrize("int8", [None, "weights", "dynamic"])
def test_a_player_acts_with_the_weights_it_was_given_last(int8: Int8Kind | None) -> None:
    first, second = small_model(64), small_model(64)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    seen = random_observations(ROBOT, 3, np.random.default_rng(0))
    step = TimeStep.first(seen, seeds=range(3))

    def new_player() -> GatoPlayer:
        return GatoPlayer(small_model(64), ROBOT, ActingConfig(int8=int8), num_envs=3, seed=0)

    def act(player: GatoPlayer, model: Gato, number: int) -> np.ndarray:
        player.load(weights_of(model, number))
        return player.act(step)

    player = new_player()
    before, after = act(player, first, 1), act(player, second, 2)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, act(new_player(), second, 2))
    np.testing.assert_array_equal(after, player.act(step))
    player.rest()
    np.testing.assert_array_equal(after, player.act(step))


@pytest.mark.parametrize("int8", ["weights", "dynamic"])
def test_a_player_that_rests_holds_no_quantised_copy(int8: Int8Kind) -> None:
    player = GatoPlayer(small_model(64), ROBOT, ActingConfig(int8=int8), num_envs=1)
    player.act(TimeStep.first(random_observations(ROBOT, 1, np.random.default_rng(0)), seeds=[0]))
    assert player._policy is not None
    held = weakref.ref(player._policy.model)
    player.rest()
    gc.collect()
    assert held() is None


def test_a_player_that_rests_holds_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has one for each task and role, all of one model."""
    model, shared = small_model(64), small_model(64)
    seen = random_observations(ROBOT, 3, np.random.default_rng(0))
    held = list[weakref.ref[object]]()
    for number in range(3):
        player = GatoPlayer(shared, ROBOT, ActingConfig(), num_envs=3)
        player.load(weights_of(model, number))
        player.act(TimeStep.first(seen, seeds=range(3)))
        assert player._state is not None
        held.append(weakref.ref(player._state))
        player.rest()
    gc.collect()
    assert [reference() for reference in held] == [None] * 3


def test_an_agent_is_prompted_with_a_demonstration_as_soon_as_there_is_one() -> None:
    rng = np.random.default_rng(0)
    shown = Window(
        observations=random_observations(ROBOT, 2, rng),
        actions=rng.uniform(-1, 1, (2, 3)).astype(np.float32),
    )
    found: list[Window | None] = [None, shown]
    asked: list[tuple[str, int]] = []

    class Prompts:
        def demonstration(self, task_name: str, num_steps: int) -> Window | None:
            asked.append((task_name, num_steps))
            return found.pop(0)

    model = small_model(64)
    acting = {ROBOT.name: ActingConfig(window_steps=3, prompt_steps=2)}
    players = GatoPlayers(
        model=model.config, evaluate=acting, generate=acting, seed=0, prompts=Prompts()
    )
    player = players(ROBOT, 3, "evaluate")
    seen = random_observations(ROBOT, 3, rng)

    def act(number: int) -> np.ndarray:
        player.load(weights_of(model, number))
        return player.act(TimeStep.first(seen, seeds=range(3)))

    bare, prompted = act(1), act(2)
    assert not np.array_equal(bare, prompted)
    np.testing.assert_array_equal(act(3), prompted)
    assert asked == [(ROBOT.name, 2)] * 2
    plain = Policy(model, ROBOT, acting[ROBOT.name])
    expected = plain.act(plain.start(3, shown), seen)
    np.testing.assert_allclose(prompted, expected, atol=0.05)  # bfloat16 weights


def test_a_prompt_needs_room_in_the_window() -> None:
    with pytest.raises(ValueError, match="with longer windows"):
        ActingConfig(window_steps=2, prompt_steps=2)
