"""Environments to our conventions: N of one task in lockstep, each row reset by whoever plays.

Atari: see `actors.atari`. MuJoCo: Gymnasium's v5 environments as they are. Any other Gymnasium environment: as it is, see
`actors.gymnasium_env`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import ale_py
import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.registration import WrapperSpec
from jaxtyping import Bool, Float, Shaped

from actors.atari import AtariEnv
from actors.gymnasium_env import GymnasiumEnv, make_gymnasium, registered
from gato.task import Task

Observations = Mapping[str, Shaped[np.ndarray, "N ..."]]


class EnvFailedError(RuntimeError):
    """An environment broke; the message names the task, the step and the reason."""


@runtime_checkable
class Env(Protocol):
    """One environment as `Envs` needs it."""

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        """Begin an episode; the same seed begins the same one."""
        ...

    def step(self, action: Shaped[np.ndarray, ...]) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        """Observation, reward, terminated, truncated."""
        ...

    def extras(self) -> dict[str, np.ndarray]:
        """What only a teacher may look at."""
        ...

    def close(self) -> None: ...


class MujocoEnv:
    """A Gymnasium MuJoCo environment."""

    def __init__(self, task: Task) -> None:
        self._env = make_gymnasium(task)
        self._action_dtype = self._env.action_space.dtype

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        observation, _ = self._env.reset(seed=seed)
        return {"state": observation.astype(np.float32)}

    def step(self, action: Shaped[np.ndarray, ...]) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        observation, reward, terminated, truncated, _ = self._env.step(action.astype(self._action_dtype))
        return {"state": observation.astype(np.float32)}, float(reward), bool(terminated), bool(truncated)

    def extras(self) -> dict[str, np.ndarray]:
        return {}

    def close(self) -> None:
        self._env.close()


MAKERS: Mapping[str, type[MujocoEnv] | type[AtariEnv] | type[GymnasiumEnv]] = {
    "mujoco": MujocoEnv,
    "atari": AtariEnv,
    "gymnasium": GymnasiumEnv,
}


class Envs:
    """N environments of one task. Rows that do not play keep their last observation."""

    def __init__(self, task: Task, envs: list[Env]) -> None:
        self.task = task
        self._envs = envs
        self._steps = np.zeros(len(envs), np.int64)
        self.observations: dict[str, np.ndarray] = {
            name: np.zeros((len(envs), *spec.shape), spec.dtype) for name, spec in task.observations.items()
        }

    def __len__(self) -> int:
        return len(self._envs)

    def _take(self, row: int, observation: Mapping[str, np.ndarray]) -> None:
        """ValueError where an observation is outside of its spec."""
        for name, values in observation.items():
            problem = self.task.observations[name].problem_with(values[None], name)
            if problem:
                raise ValueError(problem)
            self.observations[name][row] = values

    def reset_row(self, row: int, seed: int) -> None:
        """Begin an episode in one row; `observations` then shows its first."""
        self._steps[row] = 0
        try:
            self._take(row, self._envs[row].reset(seed))
        except Exception as problem:
            raise EnvFailedError(f"{self.task.name} broke at reset with seed {seed}: {problem!r}") from problem

    def step(
        self, actions: Shaped[np.ndarray, "N ..."], rows: Bool[np.ndarray, " N"]
    ) -> tuple[Float[np.ndarray, " N"], Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
        """Rewards, terminated, truncated of the rows that play; EnvFailedError names task and step where one breaks."""
        rewards = np.zeros(len(self), np.float32)
        terminated, truncated = np.zeros(len(self), np.bool_), np.zeros(len(self), np.bool_)
        for row in np.flatnonzero(rows):
            try:
                observation, rewards[row], terminated[row], truncated[row] = self._envs[row].step(actions[row])
                self._take(int(row), observation)
            except Exception as problem:
                raise EnvFailedError(f"{self.task.name} broke at step {self._steps[row]}: {problem!r}") from problem
            self._steps[row] += 1
        return rewards, terminated, truncated

    def extras(self) -> dict[str, Shaped[np.ndarray, "N ..."]]:
        """What only teachers may look at: for Atari `ram` [N, 128]."""
        rows = [env.extras() for env in self._envs]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def close(self) -> None:
        for env in self._envs:
            env.close()


def make_envs(task: Task, num_envs: int) -> Envs:
    """N environments of a task. ValueError where its family or its environment is unknown here."""
    if task.family not in MAKERS:
        raise ValueError(f"task {task.name} is of family {task.family!r}; known families: {', '.join(MAKERS)}")
    return Envs(task, [MAKERS[task.family](task) for _ in range(num_envs)])


def env_spec_of(task: Task) -> str:
    """Gymnasium's own description of the task's environment as JSON, for data sets that others make it from again.

    A game is described before it is shrunk: 210x160 RGB, the maximum of the last two frames.
    """
    spec = copy.deepcopy(registered(task.env_id))
    if task.family == "atari":
        skip = int(task.env_kwargs["frameskip"])
        spec.kwargs |= {
            "frameskip": 1,
            "repeat_action_probability": float(task.env_kwargs["sticky"]),
            "full_action_space": True,
        }
        wrapper = "gymnasium.wrappers.stateful_observation:MaxAndSkipObservation"
        skipping = WrapperSpec(name="MaxAndSkipObservation", entry_point=wrapper, kwargs={"skip": skip})
        spec.additional_wrappers = (*spec.additional_wrappers, skipping)
    elif task.family == "gymnasium":
        spec.kwargs |= dict(task.env_kwargs)
        spec.max_episode_steps = task.max_steps
    return spec.to_json()


def versions_of(task: Task) -> dict[str, str]:
    """What an episode must be compared by: the environment's id and its engine's version, which changes the physics."""
    engines = {
        "mujoco": f"mujoco {mujoco.__version__}",
        "atari": f"ale-py {ale_py.__version__}",
        "gymnasium": f"gymnasium {gymnasium.__version__}",
    }
    return {"env_id": task.env_id, "engine": engines[task.family], "gymnasium": gymnasium.__version__}
