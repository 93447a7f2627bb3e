"""Meta-World's 50 manipulation tasks, with a new goal and new objects in every episode.

Needs the extra `metaworld`. A step shows 39 numbers: hand, gripper and objects now and one step
before, and the goal; on demand also which of the 50 tasks it is.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportPrivateUsage=false
from __future__ import annotations

from typing import Any

import gymnasium
import metaworld
import mujoco
import numpy as np
from gymnasium import spaces
from metaworld.env_dict import ALL_V3_ENVIRONMENTS, MT50_V3, ML1_args_kwargs
from metaworld.sawyer_xyz_env import SawyerMocapBase

from actors.envs.mujoco_render import MujocoPainter

TASK_IDS = {name: index for index, name in enumerate(MT50_V3)}
"""By environment: where MT50's one-hot vector has its one."""
WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)
"""What Meta-World writes of a weld: anchor, relative pose, and the share of the rotation."""
REACH_M = 1.25
"""All places are within so many metres of the origin."""


def _write_welds(base: Any) -> None:
    """`reset_mocap_welds` for a MuJoCo whose constraints have more numbers than Meta-World knows:
    it writes those that it knows."""
    welds = base.model.eq_type == mujoco.mjtEq.mjEQ_WELD
    if base.model.nmocap:
        base.model.eq_data[welds, : len(WELD)] = WELD


if len(WELD) != mujoco.mjNEQDATA:
    SawyerMocapBase.reset_mocap_welds = _write_welds


class MetaWorld(gymnasium.Env[Any, np.ndarray]):
    """One of the tasks; `reset(seed)` draws the goal and the objects' places from the seed.

    `info["success"]` says in each step whether the task is solved.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012

    def __init__(
        self, env_name: str, render_mode: str | None = None, *, task_id: bool = False
    ) -> None:
        """`task_id`: also show the number of the task, as MT50's one-hot vector does. Raises
        ValueError if Meta-World has no such environment."""
        if env_name not in ALL_V3_ENVIRONMENTS:
            raise ValueError(f"Meta-World has no {env_name!r}; its names are as reach-v3")
        made_by = ALL_V3_ENVIRONMENTS[env_name]
        self._env: Any = made_by()
        options = dict(ML1_args_kwargs[env_name]["kwargs"])
        del options["task_id"]
        options |= {"rand_vec": None, "env_cls": made_by, "partially_observable": False}
        self._env.set_task(metaworld._encode_task(env_name, options))
        # From here on each reset draws, from the generator that `seed` sets.
        self._env._freeze_rand_vec, self._env.seeded_rand_vec = False, True
        state = spaces.Box(-REACH_M, REACH_M, (39,), np.float32)
        self._task_id = TASK_IDS[env_name] if task_id else None
        self.observation_space = (
            spaces.Dict({"state": state, "task": spaces.Discrete(len(TASK_IDS))})
            if task_id
            else state
        )
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.render_mode = render_mode
        self._painter: MujocoPainter | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._env.seed(seed)
        # What Meta-World keeps between episodes would be shown in the first step of the next.
        self._env._prev_obs = np.zeros_like(self._env._prev_obs)
        mujoco.mj_resetData(self._env.model, self._env.data)
        observation, _ = self._env.reset()
        return self._shown(observation), {"success": False}

    def _shown(self, state: np.ndarray) -> Any:
        state = state.astype(np.float32)
        return state if self._task_id is None else {"state": state, "task": self._task_id}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self._env.step(action)
        return (
            self._shown(observation),
            float(reward),
            terminated,
            truncated,
            {"success": bool(info["success"])},
        )

    def render(self) -> Any:
        if self._painter is None:
            self._painter = MujocoPainter(self._env.model, {"distance": 1.8, "azimuth": 135.0})
        return self._painter.paint(self._env.data)

    def close(self) -> None:
        self._env.close()


gymnasium.register("gato/MetaWorld-v0", entry_point="actors.envs.adapters.metaworld_env:MetaWorld")
