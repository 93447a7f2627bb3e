"""Scripted teachers that read a game's RAM."""

import numpy as np


class Freeway:
    def reset(self, rows): ...
    def act(self, ram):
        return np.full(len(ram), 2, np.int64)


RULES = {"atari/freeway": Freeway()}
