"""An environment that breaks in a given way, which processes can import:
`tests.actors.faulty:Faulty-v0`."""

from __future__ import annotations

import os
import threading
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from gato.array_spec import ArraySpec, Kind
from gato.task import References, Task

FAULTS = ("raise", "nan", "inf", "shape", "dtype", "pay nan", "pay much", "reset")
"""Faults that do not end the process."""


class FaultyEnv(gymnasium.Env):
    """Shows (seed, step). Episodes last 5 steps; those of odd seeds break in the third step, as
    `fault` says. Faults separated by commas take turns."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Discrete(2)
    metadata: ClassVar[dict[str, Any]] = {"render_fps": 50}

    def __init__(self, fault: str = "none", always: bool = False) -> None:
        self.fault, self.always, self.count, self.seeded = fault, always, 0, 0

    def _shown(self) -> np.ndarray:
        return np.array([self.seeded, self.count], np.float32)

    def _breaks(self, at: int) -> bool:
        return self.count == at and (self.always or self.seeded % 2 == 1)

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.seeded, self.count = seed or 0, 0
        if self.fault == "reset" and self._breaks(0):
            raise OSError("it will not begin")
        return self._shown(), {} if self.fault == "extras" else {"teacher": {"wanted": 0}}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        shown, reward = self._shown(), 1.0
        if self._breaks(3):
            ways = self.fault.split(",")
            match ways[self.seeded // 2 % len(ways)]:
                case "raise":
                    raise OSError("the wheels came off")
                case "nan" | "inf":
                    shown[1] = float(self.fault)
                case "shape":
                    shown = np.zeros(3, np.float32)
                case "dtype":
                    shown = np.array(["a", "b"])
                case "pay nan":
                    reward = float("nan")
                case "pay much":
                    reward = 1e39
                case "hang":
                    threading.Event().wait()
                case "abort":
                    os.abort()
                case "exit":
                    os._exit(3)
                case _:
                    pass
        return shown, reward, self.count == 5, False, {"teacher": {"wanted": 1}}

    def render(self) -> Any:
        """Bright by step."""
        match self.fault:
            case "cannot draw":
                raise OSError("no brush; buy one")
            case "draws grey":
                return np.zeros((4, 6), np.uint8)
            case _:
                return np.full((4, 6, 3), 10 * self.count, np.uint8)


gymnasium.register("Faulty-v0", entry_point=FaultyEnv, max_episode_steps=9)


def faulty(fault: str, *, always: bool = False) -> Task:
    return Task(
        name=f"faulty/{fault.replace(' ', '-')}",
        env_id="tests.actors.faulty:Faulty-v0",
        family="gymnasium",
        observations={"state": ArraySpec(kind=Kind.CONTINUOUS, shape=(2,))},
        action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=2),
        references=References(random=0.0, expert=5.0, source="made up"),
        max_steps=9,
        env_kwargs={"fault": fault, "always": always},
    )
