"""MuJoCo robots of Gymnasium, unchanged; pictures need no OpenGL (`actors.envs.mujoco_render`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from actors.envs.gymnasium_env import make_gymnasium
from actors.envs.mujoco_render import MujocoPainter
from gato.task import Task


class MujocoEnv:
    """A MuJoCo environment of Gymnasium: one observation, `state`, as float32."""

    def __init__(self, task: Task) -> None:
        self._env = make_gymnasium(task, max_episode_steps=task.max_steps)
        self._action_dtype = self._env.action_space.dtype
        self._bare: Any = self._env.unwrapped
        self._painter: MujocoPainter | None = None

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        observation, _ = self._env.reset(seed=seed)
        return {"state": observation.astype(np.float32)}

    def step(
        self, action: Shaped[np.ndarray, ...]
    ) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        observation, reward, terminated, truncated, _ = self._env.step(
            action.astype(self._action_dtype)
        )
        return (
            {"state": observation.astype(np.float32)},
            float(reward),
            bool(terminated),
            bool(truncated),
        )

    def extras(self) -> dict[str, np.ndarray]:
        return {}

    @property
    def steps_per_s(self) -> float:
        return 1.0 / self._bare.dt

    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        if self._painter is None:
            self._painter = MujocoPainter(
                self._bare.model, self._bare.mujoco_renderer.default_cam_config
            )
        return self._painter.paint(self._bare.data)

    def close(self) -> None:
        self._env.close()
