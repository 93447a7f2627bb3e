"""Tasks of dm_control's suite: the state as arrays by name, or a picture of 84 by 84.

Needs the extra `dm-control`.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from actors.envs.adapters.dm_control_package import import_suite
from actors.envs.mujoco_render import MujocoPainter

suite = import_suite()
PIXELS = 84
CAMERA = 0
"""The one that the suite's authors draw from."""


class DmControl(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """One task of the suite; a reward is in [0, 1], an episode lasts 1,000 steps.

    With `pixels` it shows `image`, uint8 [84, 84, 3], by OpenGL in place of the state.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self, domain: str, task: str, pixels: bool = False, render_mode: str | None = None
    ) -> None:
        """Raises ValueError if the suite has no such task, or pictures cannot be drawn here."""
        if (domain, task) not in suite.ALL_TASKS:
            raise ValueError(f"dm_control has no task {task!r} of {domain!r}")
        self._env: Any = suite.load(domain, task)
        self.metadata = {**self.metadata, "render_fps": 1 / self._env.control_timestep()}
        self._pixels = pixels
        bounds = self._env.action_spec()
        self.action_space = spaces.Box(
            bounds.minimum.astype(np.float32), bounds.maximum.astype(np.float32), dtype=np.float32
        )
        arrays: dict[str, spaces.Space[Any]] = {
            name: spaces.Box(-np.inf, np.inf, spec.shape, np.float32)
            for name, spec in self._env.observation_spec().items()
        }
        if pixels:
            self._env.reset()
            arrays = {"image": spaces.Box(0, 255, self._drawn().shape, np.uint8)}
        self.observation_space = spaces.Dict(arrays)
        self.render_mode = render_mode
        self._painter: MujocoPainter | None = None

    def _drawn(self) -> np.ndarray:
        """What the camera sees. Raises ValueError if nothing can be drawn here."""
        try:
            return self._env.physics.render(PIXELS, PIXELS, camera_id=CAMERA)
        except Exception as problem:  # OpenGL raises what it likes
            raise ValueError(
                f"pictures cannot be drawn here ({problem}); install libegl1 and"
                " libgl1-mesa-dri (MUJOCO_GL=egl), or train on the state: leave out pixels"
            ) from problem

    def _shown(self, observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if self._pixels:
            return {"image": self._drawn()}
        return {name: np.asarray(values, np.float32) for name, values in observation.items()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._env.task._random = np.random.RandomState(seed % 2**32)
        return self._shown(self._env.reset().observation), {}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        result = self._env.step(action)
        ended = result.last()
        return (
            self._shown(result.observation),
            float(result.reward),
            ended and result.discount == 0.0,
            ended and result.discount > 0.0,
            {},
        )

    def render(self) -> Any:
        if self._painter is None:
            self._painter = MujocoPainter(self._env.physics.model.ptr)
        return self._painter.paint(self._env.physics.data.ptr)

    def close(self) -> None:
        self._env.close()


gymnasium.register(
    "gato/DmControl-v0", entry_point="actors.envs.adapters.dm_control_suite:DmControl"
)
