"""MiniGrid and BabyAI as tasks: the mission is text, the view discrete values, the bot a teacher.

Needs the extra `minigrid`. The name of a task is `minigrid:` and an id of that package, such as
`minigrid:BabyAI-GoToLocal-v0`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any, SupportsFloat

import gymnasium
import minigrid
import numpy as np
from gymnasium import spaces
from jaxtyping import Integer, Shaped
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError

from actors.envs.gymnasium_env import task_of
from gato.task import Task

ENV_ID = "actors.envs.babyai:gato/MiniGrid-v0"
MISSION_BYTES = 320
MOST_GOALS = 8
"""Most places that one instruction sends the agent to: two clauses of two parts, each of which puts
one thing next to another."""
SAMPLED_MISSIONS = 50
CELL_VALUES = len(OBJECT_TO_IDX) * len(COLOR_TO_IDX) * len(STATE_TO_IDX)


class MiniGrid(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Shows each cell of the view as one value of (object, colour, state), and the bot's next
    action in `info["teacher"]`.

    The bot is asked in each step, also if the agent plays: it demonstrates and it relabels.
    """

    def __init__(self, level: str, render_mode: str | None = None) -> None:
        super().__init__(gymnasium.make(level, disable_env_checker=True, render_mode=render_mode))
        shown: Any = self.env.observation_space
        height, width, _ = shown["image"].shape
        self.observation_space = spaces.Dict(
            direction=spaces.Discrete(4),
            mission=spaces.Text(MISSION_BYTES, charset="abcdefghijklmnopqrstuvwxyz ,."),
            view=spaces.MultiDiscrete(np.full((height, width), CELL_VALUES)),
        )
        self.has_bot = isinstance(self.unwrapped, RoomGridLevel)
        self._bot: BabyAIBot | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        with redirect_stdout(io.StringIO()):  # minigrid prints each layout that it rejects
            observation, info = self.env.reset(seed=seed, options=options)
        self._bot = BabyAIBot(self.env) if self.has_bot else None
        return _shown(observation), info | self._advice(None)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return _shown(observation), reward, terminated, truncated, info | self._advice(int(action))

    def _advice(self, taken: int | None) -> dict[str, Any]:
        """The bot's next action, after `taken`. If its plan fails it makes a new one; if that
        fails, the action is "done" (6)."""
        if self._bot is None:
            return {}
        for _ in range(2):
            try:
                wanted: Any = self._bot.replan(taken)
                return {"teacher": {"action": np.int64(wanted)}}
            except (AssertionError, DisappearedBoxError, TypeError, AttributeError):
                self._bot, taken = BabyAIBot(self.env), None
        return {"teacher": {"action": np.int64(6)}}


def _shown(observation: Mapping[str, Any]) -> dict[str, Any]:
    kind, colour, state = np.moveaxis(observation["image"].astype(np.int64), -1, 0)
    view = (kind * len(COLOR_TO_IDX) + colour) * len(STATE_TO_IDX) + state
    return {"direction": observation["direction"], "mission": observation["mission"], "view": view}


def in_sight(view: Integer[np.ndarray, "h w"]) -> list[str]:
    """The things in a view as `_shown` has it, such as "red ball", without walls and floor, in the
    order of the alphabet."""
    kind, rest = np.divmod(view, len(COLOR_TO_IDX) * len(STATE_TO_IDX))
    colours = {number: name for name, number in COLOR_TO_IDX.items()}
    names = {OBJECT_TO_IDX[name]: name for name in ("door", "key", "ball", "box")}
    pairs = zip(kind.flat, (rest // len(STATE_TO_IDX)).flat, strict=True)
    return sorted({f"{colours[int(c)]} {names[int(k)]}" for k, c in pairs if int(k) in names})


def act(
    observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
    extras: Mapping[str, Shaped[np.ndarray, "N ..."]],
) -> Integer[np.ndarray, " N"]:
    """The bot as a teacher: `python:actors.envs.babyai:act`."""
    del observations
    return extras["action"]


def task(level: str, *, name: str) -> Task:
    """The task of a level, such as `BabyAI-GoToLocal-v0`.

    A mission gets as many tokens as the longest of 50 sampled ones has bytes.

    Raises:
        ValueError: if minigrid does not have the level.
    """
    if level not in gymnasium.registry or "minigrid" not in str(gymnasium.spec(level).entry_point):
        raise ValueError(
            f"task {name}: minigrid {minigrid.__version__} has no {level!r}; its ids are as"
            " BabyAI-GoToLocal-v0"
        )
    env = MiniGrid(level)
    missions = [env.reset(seed=seed)[0]["mission"] for seed in range(SAMPLED_MISSIONS)]
    inner: Any = env.unwrapped
    limit = (
        MOST_GOALS * inner.room_size**2 * inner.num_rows * inner.num_cols
        if env.has_bot
        else inner.max_steps
    )
    env.close()
    return task_of(
        ENV_ID,
        name=name,
        env_kwargs={"level": level},
        text_tokens=max(len(mission) for mission in missions),
        # Never reached: the level itself ends an episode, sooner if the instruction is short.
        max_steps=limit,
    )


def make(level: str, render_mode: str | None = None) -> MiniGrid:
    """The entry point that Gymnasium calls: it does not accept a wrapper class."""
    return MiniGrid(level, render_mode)


gymnasium.register("gato/MiniGrid-v0", entry_point="actors.envs.babyai:make")
