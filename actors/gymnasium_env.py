"""Any Gymnasium environment as a task: its spaces laid flat (`actors.spaces`), and the task that they make."""

from __future__ import annotations

import importlib
import inspect
import os
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from jaxtyping import Shaped, UInt8

from actors.spaces import ActionSpace, ObservationSpace
from gato.task import Kind, References, Task

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame, which many draw with, would greet each run


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
        except Exception as problem:  # whatever its author's code raises
            raise ValueError(
                f"cannot make {task.env_id} of task {task.name}: {type(problem).__name__}: {problem}; its package must be on each "
                "machine that plays it"
            ) from problem


def registered(env_id: str) -> EnvSpec:
    """How an environment is registered; of `module:ID` the module is imported first, as `gymnasium.make` does.

    ValueError where it is not.
    """
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except Exception as problem:
        raise ValueError(f"{env_id} cannot be looked up: {type(problem).__name__}: {problem}") from problem


class GymnasiumEnv:
    """Any Gymnasium environment whose spaces can become tokens; `task_of` makes its task."""

    def __init__(self, task: Task) -> None:
        """ValueError where it cannot be made, or is not what the task says."""
        options: dict[str, Any] = {"max_episode_steps": task.max_steps, **task.env_kwargs}
        self._env: gymnasium.Env[Any, Any] = make_gymnasium(task, **options)
        text_tokens = next((spec.max_tokens for spec in task.observations.values() if spec.kind is Kind.TEXT), None)
        self._observation = ObservationSpace(self._env.observation_space, text_tokens=text_tokens)
        self._action = ActionSpace(self._env.action_space)
        shown = {name: spec.raw for name, spec in task.observations.items()}
        if self._observation.specs != shown or self._action.spec != task.action:
            raise ValueError(
                f"task {task.name} shows {shown} and takes {task.action}, its environment {task.env_id} shows "
                f"{self._observation.specs} and takes {self._action.spec}; make the task anew with task_of"
            )

        self._extras: dict[str, np.ndarray] = {}

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        observation, info = self._env.reset(seed=seed)
        self._keep_extras(info)
        return self._observation.flatten(observation)

    def _keep_extras(self, info: Mapping[str, Any]) -> None:
        self._extras = {name: np.asarray(values) for name, values in info.get("teacher", {}).items()}

    def step(self, action: Shaped[np.ndarray, ...]) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        observation, reward, terminated, truncated, info = self._env.step(self._action.unflatten(action))
        self._keep_extras(info)
        return self._observation.flatten(observation), float(reward), bool(terminated), bool(truncated)

    def extras(self) -> dict[str, np.ndarray]:
        """The arrays that the environment put into `info["teacher"]`, the same ones in each step."""
        return self._extras

    @property
    def steps_per_s(self) -> float:
        return float(self._env.metadata.get("render_fps") or 15.0)

    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """RuntimeError where it draws none."""
        bare = self._env.unwrapped
        # Said when the first picture is wanted, and not when it is made: not every environment takes the word there.
        bare.render_mode = "rgb_array"
        drawn = bare.render()
        if drawn is None:
            raise RuntimeError(f"{type(bare).__name__}.render() gave nothing for render_mode rgb_array")
        return np.asarray(drawn, np.uint8)

    def close(self) -> None:
        self._env.close()


def keyword_defaults(task: Task) -> dict[str, Any]:
    """The keywords of the task's environment and the values that they have if nothing is said; empty if it is not here."""
    if task.family not in ("mujoco", "gymnasium"):
        return {}
    try:
        spec = registered(task.env_id)
        made_by = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        parameters = inspect.signature(made_by).parameters if made_by is not None else {}
    except (ValueError, TypeError, ImportError, AttributeError):  # it needs not be installed to read its data
        return {}
    stated = {n: p.default for n, p in parameters.items() if p.default is not inspect.Parameter.empty}
    return {**stated, **spec.kwargs}


def task_of(
    env_id: str,
    *,
    references: References | None = None,
    name: str | None = None,
    max_steps: int | None = None,
    text_tokens: int | None = None,
    env_kwargs: Mapping[str, str | int | float | bool] | None = None,
) -> Task:
    """The task of any Gymnasium environment, from its spaces. ValueError where they cannot become tokens.

    task = task_of("CartPole-v1", references=References(random=22.0, expert=500.0, source="20 episodes"))

    `max_steps` is needed where the environment is registered without a limit, `text_tokens` where it shows text.
    """
    options: dict[str, Any] = dict(env_kwargs or {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env: gymnasium.Env[Any, Any] = gymnasium.make(env_id, disable_env_checker=True, **options)
    except Exception as problem:  # whatever its author's code raises
        raise ValueError(f"cannot make {env_id}: {type(problem).__name__}: {problem}") from problem
    try:
        limit = max_steps or (env.spec.max_episode_steps if env.spec else None)
        if limit is None:
            raise ValueError(
                f"{env_id} has no limit of steps; register it with max_episode_steps, or give task_of max_steps"
            )
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
