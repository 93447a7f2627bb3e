"""Environments of old gym as tasks, through shimmy: `gym:CartPole-v1`. Needs the extra `legacy`."""

from __future__ import annotations

from typing import Any

import gym  # pyright: ignore[reportMissingImports]
import gymnasium
from shimmy import GymV26CompatibilityV0  # pyright: ignore[reportMissingImports]

from actors.envs.gymnasium_env import task_of
from gato.task import Task

ENV_ID = "actors.envs.legacy_gym:gato/LegacyGym-v0"
TEXT_TOKENS = 64


def make(gym_id: str, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """The environment, converted to Gymnasium. gym's checker is off: it uses `numpy.bool8`, which
    NumPy 2 does not have."""
    return GymV26CompatibilityV0(
        gym_id, make_kwargs={"disable_env_checker": True, "render_mode": render_mode}
    )


def task(gym_id: str, *, name: str) -> Task:
    """The task of an environment that is registered in gym. Raises ValueError if it is not, or is a
    MuJoCo robot."""
    try:
        spec = gym.spec(gym_id)
        if str(spec.entry_point).startswith("gym.envs.mujoco"):
            raise ValueError(
                f"task {name}: gym's robots need an old mujoco; name Gymnasium's, as Hopper-v5"
            )
        return task_of(
            ENV_ID,
            name=name,
            env_kwargs={"gym_id": gym_id},
            max_steps=spec.max_episode_steps,
            text_tokens=TEXT_TOKENS,
        )
    except gym.error.Error as problem:
        raise ValueError(
            f"task {name}: gym {gym.__version__} cannot make {gym_id}: {problem}"
        ) from problem


gymnasium.register("gato/LegacyGym-v0", entry_point="actors.envs.legacy_gym:make")
