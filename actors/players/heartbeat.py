"""A heartbeat: counts a player's steps, so that another thread can see whether it is alive."""

from __future__ import annotations

import time

import numpy as np
from jaxtyping import Shaped

from actors.players.player import Player, TimeStep


class Heartbeat:
    """Acts as `player` does, and counts the steps."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self.steps = 0
        self.env_steps = 0
        """Of all rows that played."""
        self.last_step_s = time.monotonic()
        """When the last step began, in seconds of `time.monotonic`."""

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        self.steps += 1
        self.env_steps += int(step.active.sum())
        self.beat()
        return self._player.act(step)

    def beat(self) -> None:
        """Count as alive: something other than a step was done."""
        self.last_step_s = time.monotonic()
