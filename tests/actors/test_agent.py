"""Gato as a player: weights come and go between episodes."""

import numpy as np
import pytest
import torch

from actors.agent import GatoPlayer
from gato.acting import ActingConfig
from gato.model import Gato
from gato.quantise import Int8Kind
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
    all_rows, seeds = np.ones(3, np.bool_), np.arange(3)

    def new_player() -> GatoPlayer:
        return GatoPlayer(small_model(64), ROBOT, ActingConfig(int8=int8), num_envs=3, seed=0)

    def act(player: GatoPlayer, model: Gato, number: int) -> np.ndarray:
        player.load(weights_of(model, number))
        player.reset_rows(all_rows, seeds)
        return player.act(seen, {})

    player = new_player()
    before, after = act(player, first, 1), act(player, second, 2)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, act(new_player(), second, 2))
    player.reset_rows(all_rows, seeds)
    np.testing.assert_array_equal(after, player.act(seen, {}))
