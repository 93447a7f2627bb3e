"""A player that can be asked, from another thread, how far it is."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Shaped

from actors.players.player import Player


class Watched:
    """A player whose decisions are counted, so that whoever asks sees whether it is alive."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self.steps = 0
        self.last_step_s = time.monotonic()

    def reset_rows(self, rows: Bool[np.ndarray, " N"], seeds: Shaped[np.ndarray, " N"]) -> None:
        self._player.reset_rows(rows, seeds)

    def act(
        self,
        observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
        extras: Mapping[str, Shaped[np.ndarray, "N ..."]],
        rewards: Float[np.ndarray, " N"],
    ) -> Shaped[np.ndarray, "N ..."]:
        self.steps += 1
        self.last_step_s = time.monotonic()
        return self._player.act(observations, extras, rewards)
