"""Environments to our conventions: N of one task in lockstep, each row reset by whoever plays.

Atari: see `actors.atari`. MuJoCo: Gymnasium's v5 environments as they are. Any other Gymnasium environment: as it is, its
spaces laid flat (`actors.spaces`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import ale_py
import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.registration import WrapperSpec
from jaxtyping import Bool, Float, Shaped

from actors.atari import AtariEnv
from actors.spaces import ActionSpace, ObservationSpace
from gato.task import Kind, References, Task

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


def make_gymnasium(task: Task, **options: Any) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """The task's Gymnasium environment itself. ValueError where it cannot be made."""
    mujoco.set_mju_user_warning(_keep_warning_out_of_folder)  # pyright: ignore[reportAttributeAccessIssue]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return gymnasium.make(task.env_id, disable_env_checker=True, **options)
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


class GymnasiumEnv:
    """Any Gymnasium environment whose spaces can become tokens; `task_of` makes its task."""

    def __init__(self, task: Task) -> None:
        """ValueError where it cannot be made, or is not what the task says."""
        options: dict[str, Any] = {"max_episode_steps": task.max_steps, **task.env_kwargs}
        self._env: gymnasium.Env[Any, Any] = make_gymnasium(task, **options)
        text_tokens = next((spec.max_tokens for spec in task.observations.values() if spec.kind is Kind.TEXT), None)
        self._observation = ObservationSpace(self._env.observation_space, text_tokens=text_tokens)
        self._action = ActionSpace(self._env.action_space)
        if self._observation.specs != task.observations or self._action.spec != task.action:
            raise ValueError(
                f"task {task.name} shows {task.observations} and takes {task.action}, its environment {task.env_id} shows "
                f"{self._observation.specs} and takes {self._action.spec}; make the task anew with task_of"
            )

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        return self._observation.flatten(self._env.reset(seed=seed)[0])

    def step(self, action: Shaped[np.ndarray, ...]) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        observation, reward, terminated, truncated, _ = self._env.step(self._action.unflatten(action))
        return self._observation.flatten(observation), float(reward), bool(terminated), bool(truncated)

    def extras(self) -> dict[str, np.ndarray]:
        return {}

    def close(self) -> None:
        self._env.close()


def task_of(
    env_id: str,
    *,
    references: References,
    name: str | None = None,
    max_steps: int | None = None,
    text_tokens: int | None = None,
    env_kwargs: Mapping[str, str | int | float | bool] | None = None,
) -> Task:
    """The task of any Gymnasium environment, from its spaces. ValueError where they cannot become tokens.

    task = task_of("CartPole-v1", references=References(random=22.0, expert=500.0, source="measured"))

    `max_steps` is needed where the environment is registered without a limit, `text_tokens` where it shows text.
    """
    options: dict[str, Any] = dict(env_kwargs or {})
    try:
        env: gymnasium.Env[Any, Any] = gymnasium.make(env_id, disable_env_checker=True, **options)
    except gymnasium.error.Error as problem:
        raise ValueError(f"cannot make {env_id}: {problem}") from problem
    try:
        limit = max_steps or (env.spec.max_episode_steps if env.spec else None)
        if limit is None:
            raise ValueError(f"{env_id} has no limit of steps; give max_steps")
        return Task(
            name=name or f"gymnasium/{env_id.lower()}",
            env_id=env_id,
            family="gymnasium",
            observations=ObservationSpace(env.observation_space, text_tokens=text_tokens).specs,
            action=ActionSpace(env.action_space).spec,
            references=references,
            max_steps=limit,
            env_kwargs=options,
        )
    except ValueError as problem:
        raise ValueError(f"{env_id} cannot become a task: {problem}") from problem
    finally:
        env.close()


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
    spec = copy.deepcopy(gymnasium.spec(task.env_id))
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
