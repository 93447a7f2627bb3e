"""Environments to our conventions: N of one task in lockstep, each row reset by whoever plays. The only file that makes them.

Atari: a decision every 4 frames; the pixelwise maximum of the last two, shrunk to 64x80 RGB by area; all 18 actions;
rewards as they are; a lost life ends nothing; sticky actions off. An emulator without chance plays the same game each
time, so an episode begins with 1 to 30 no-ops drawn by its seed. MuJoCo: Gymnasium's v5 environments as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import ale_py
import ale_py.roms
import cv2
import gymnasium
import mujoco
import numpy as np
from jaxtyping import Bool, Float, Shaped

from gato.task import Task

cv2.setNumThreads(1)
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


def _keep_warning_out_of_folder(message: str) -> None:
    """MuJoCo would append its warnings to a MUJOCO_LOG.TXT where one stands; what they mean, an episode shows."""
    del message


def make_gymnasium(task: Task) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """The task's Gymnasium environment itself. ValueError where it cannot be made."""
    mujoco.set_mju_user_warning(_keep_warning_out_of_folder)  # pyright: ignore[reportAttributeAccessIssue]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return gymnasium.make(task.env_id, disable_env_checker=True)
        except gymnasium.error.Error as problem:
            raise ValueError(f"cannot make {task.env_id} of task {task.name}: {problem}") from problem


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


class AtariEnv:
    """An Atari game, straight from the emulator."""

    def __init__(self, task: Task) -> None:
        options: Mapping[str, Any] = task.env_kwargs
        self._max_frames = task.max_steps * int(options["frameskip"])
        self._frameskip = int(options["frameskip"])
        self._max_noops = int(options["max_noops"])
        self._sticky = float(options["sticky"])
        if self._frameskip < 1 or not 0.0 <= self._sticky < 1.0:
            raise ValueError(
                f"task {task.name}: frameskip {self._frameskip} must be at least 1 and sticky {self._sticky} in [0, 1)"
            )
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rom = ale_py.roms.get_rom_path(str(options["rom"]))
        if rom is None:
            raise ValueError(
                f"no ROM {options['rom']!r} for task {task.name}; ale-py carries its own, install it again"
            )
        self._rom = str(rom)
        self._size = (task.observations["image"].shape[1], task.observations["image"].shape[0])
        self._frames = np.zeros((2, 210, 160, 3), np.uint8)
        self._num_frames = 0
        self._load(0)

    def _load(self, seed: int) -> None:
        self._ale.setFloat("repeat_action_probability", self._sticky)
        self._ale.setInt("random_seed", seed % 2**31)
        self._ale.loadROM(self._rom)
        self._actions = self._ale.getLegalActionSet()

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        if self._sticky:
            self._load(seed)  # the emulator takes its seed when the game is loaded
        self._ale.reset_game()
        noops = int(np.random.default_rng(seed).integers(1, self._max_noops + 1)) if self._max_noops else 0
        for _ in range(noops):
            self._ale.act(self._actions[0])
        self._num_frames = noops
        self._ale.getScreenRGB(self._frames[1])
        self._frames[0] = self._frames[1]
        return {"image": self._image()}

    def _image(self) -> np.ndarray:
        return cv2.resize(self._frames.max(axis=0), self._size, interpolation=cv2.INTER_AREA)

    def step(self, action: Shaped[np.ndarray, ...]) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        reward, done_frames = 0.0, 0
        for frame in range(self._frameskip):
            reward += self._ale.act(self._actions[int(action)])
            done_frames += 1
            if self._ale.game_over():
                break
            if frame >= self._frameskip - 2:
                self._ale.getScreenRGB(self._frames[frame - self._frameskip + 2])
        self._num_frames += done_frames
        terminated = self._ale.game_over()
        if terminated:
            self._ale.getScreenRGB(self._frames[1])
        if self._frameskip == 1:
            self._frames[0] = self._frames[1]  # there is no frame before it to take the maximum with
        return {"image": self._image()}, reward, terminated, not terminated and self._num_frames >= self._max_frames

    def extras(self) -> dict[str, np.ndarray]:
        return {"ram": np.asarray(self._ale.getRAM(), np.uint8)}

    def close(self) -> None: ...


MAKERS: Mapping[str, type[MujocoEnv] | type[AtariEnv]] = {"mujoco": MujocoEnv, "atari": AtariEnv}


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
        for name, values in observation.items():
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
            except Exception as problem:
                raise EnvFailedError(f"{self.task.name} broke at step {self._steps[row]}: {problem!r}") from problem
            self._take(int(row), observation)
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


def versions_of(task: Task) -> dict[str, str]:
    """What an episode must be compared by: the environment's id and its engine's version, which changes the physics."""
    engine = {"mujoco": f"mujoco {mujoco.__version__}", "atari": f"ale-py {ale_py.__version__}"}[task.family]
    return {"env_id": task.env_id, "engine": engine, "gymnasium": gymnasium.__version__}
