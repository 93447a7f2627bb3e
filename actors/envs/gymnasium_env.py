"""Any Gymnasium environment as a task: `task_of` makes the task, `GymnasiumEnv` plays it."""

from __future__ import annotations

import importlib
import inspect
import os
import textwrap
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from jaxtyping import Shaped, UInt8

from actors.envs.env import ACTION_BOUND
from actors.envs.former_modules import current, former
from actors.envs.space_arrays import number_of
from actors.envs.spaces import ActionSpace, ObservationSpace
from gato.array_spec import ArraySpec, Kind
from gato.compatibility.environment import EnvFacts
from gato.task import References, Task

# pygame, which many environments draw with, prints a greeting otherwise.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")


def _keep_warning_out_of_folder(message: str) -> None:
    """Drop it: MuJoCo would append it to a MUJOCO_LOG.TXT in the working folder."""
    del message


def make_gymnasium(task: Task, /, **options: Any) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """The task's Gymnasium environment itself. Raises ValueError if it cannot be made."""
    mujoco.set_mju_user_warning(_keep_warning_out_of_folder)  # pyright: ignore[reportAttributeAccessIssue]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return gymnasium.make(current(task.env_id), disable_env_checker=True, **options)
        except (Exception, SystemExit) as problem:  # the author's code may raise anything
            raise ValueError(
                f"cannot make {task.env_id} of task {task.name}: {type(problem).__name__}:"
                f" {problem}; its package must be on each machine that plays it"
            ) from problem


def registered(env_id: str) -> EnvSpec:
    """Gymnasium's spec of an id. For `module:ID` the module is imported first, as `gymnasium.make`
    does.

    Raises:
        ValueError: if it is not registered, or the module cannot be imported.
    """
    module, _, name = current(env_id).rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except BaseException as problem:  # an import may raise SystemExit, too
        raise ValueError(
            f"{env_id} cannot be looked up: {type(problem).__name__}: {problem}"
        ) from problem


SUCCESS = ("success", "is_success")
"""What environments call it in `info` that the task is solved."""
RESET = "def reset(self, *, seed=None, options=None), which returns (observation, info)"


def _form(given: Any) -> str:
    """A short description of what an environment returned."""
    if isinstance(given, tuple):
        return f"a tuple of {len(given)}"
    return (
        f"an array of shape {given.shape}"
        if isinstance(given, np.ndarray)
        else f"a {type(given).__name__}"
    )


def _short(spec: ArraySpec | None) -> str:
    """A spec in few words."""
    return textwrap.shorten(str(spec), 160, placeholder=" ...") if spec is not None else "nothing"


class GymnasiumEnv:
    """Any Gymnasium environment whose spaces can become tokens; `task_of` makes its task."""

    def __init__(self, task: Task) -> None:
        """Make it. Raises ValueError if it cannot be made, or its spaces are not the task's."""
        options: dict[str, Any] = {"max_episode_steps": task.max_steps, **task.env_kwargs}
        self._env: gymnasium.Env[Any, Any] = make_gymnasium(task, **options)
        text_tokens = next(
            (spec.max_tokens for spec in task.observations.values() if spec.kind is Kind.TEXT), None
        )
        self._observation = ObservationSpace(self._env.observation_space, text_tokens=text_tokens)
        self._action = ActionSpace(self._env.action_space)
        shown = {name: spec.raw for name, spec in task.observations.items()}
        if self._observation.specs != shown:
            specs = self._observation.specs
            name = next(n for n in (*shown, *specs) if shown.get(n) != specs.get(n))
            raise ValueError(
                f"task {task.name} shows {name} as {_short(shown.get(name))}, its environment"
                f" {task.env_id} as {_short(specs.get(name))}; make the task again with task_of"
            )
        if not self._action.accepts(task.action):
            raise ValueError(
                f"task {task.name} takes {_short(task.action)}, its environment {task.env_id}"
                f" {_short(self._action.spec)}; make the task again with task_of"
            )
        self._extras: dict[str, np.ndarray] = {}
        self._success: bool | None = None

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        try:
            given: Any = self._env.reset(seed=seed)
        except TypeError as problem:
            if "unexpected keyword argument 'seed'" not in str(problem):
                raise
            raise ValueError(
                f"reset does not accept a seed; write it as {RESET} ({problem})"
            ) from problem
        # Checked, because an observation of two elements could be unpacked as well.
        if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[1], Mapping):
            raise ValueError(
                f"reset returned {_form(given)}, expected (observation, info): write it as {RESET}"
            )
        self._success = None
        self._keep_extras(given[1])
        return self._observation.flatten(given[0])

    def _keep_extras(self, info: Mapping[str, Any]) -> None:
        said = next((bool(info[name]) for name in SUCCESS if name in info), None)
        self._success = said if self._success is None else self._success or bool(said)
        self._extras = {
            name: np.asarray(values) for name, values in info.get("teacher", {}).items()
        }

    def step(
        self, action: Shaped[np.ndarray, ...]
    ) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        wanted = self._action.unflatten(action)
        try:
            observation, reward, terminated, truncated, info = self._env.step(wanted)
        except ValueError as problem:
            if "values to unpack" not in str(problem):
                raise
            raise ValueError(
                "step did not return (observation, reward, terminated, truncated, info):"
                f" {problem}; an environment of old gym, whose step returns four values, is"
                " named gym:ID"
            ) from problem
        self._keep_extras(info)
        return (
            self._observation.flatten(observation),
            number_of(reward),
            bool(terminated),
            bool(truncated),
        )

    def extras(self) -> dict[str, np.ndarray]:
        """The arrays in `info["teacher"]`, whose names and shapes are the same in each step."""
        return self._extras

    @property
    def success(self) -> bool | None:
        return self._success

    @property
    def steps_per_s(self) -> float:
        return float(self._env.metadata.get("render_fps") or 15.0)

    def picture(self) -> UInt8[np.ndarray, ...]:
        """Draw the present state, unchecked. Raises RuntimeError if there is no picture."""
        bare = self._env.unwrapped
        # Set when a picture is wanted, not when the environment is made: not every environment
        # accepts `render_mode` there.
        bare.render_mode = "rgb_array"
        drawn = bare.render()
        if drawn is None:
            raise RuntimeError(
                f"{type(bare).__name__}.render() returned None for render_mode rgb_array"
            )
        return np.asarray(drawn, np.uint8)

    def close(self) -> None:
        self._env.close()


def keyword_defaults(task: Task) -> EnvFacts:
    """The keywords of the task's environment with their defaults, and its class; empty if it is not
    installed."""
    if task.family not in ("mujoco", "gymnasium"):
        return EnvFacts()
    try:
        spec = registered(task.env_id)
        made_by = (
            load_env_creator(spec.entry_point)
            if isinstance(spec.entry_point, str)
            else spec.entry_point
        )
        parameters = inspect.signature(made_by).parameters if made_by is not None else {}
    except (
        ValueError,
        TypeError,
        ImportError,
        AttributeError,
    ):  # data of an environment can be read if it is not installed
        return EnvFacts()
    stated = {
        n: p.default for n, p in parameters.items() if p.default is not inspect.Parameter.empty
    }
    entry_point = spec.entry_point if isinstance(spec.entry_point, str) else ""
    return EnvFacts(
        keywords={**stated, **spec.kwargs},
        entry_point=entry_point,
        former_entry_points=former(entry_point),
    )


def task_of(
    env_id: str,
    *,
    references: References | None = None,
    name: str | None = None,
    max_steps: int | None = None,
    text_tokens: int | None = None,
    action_bound: float = ACTION_BOUND,
    env_kwargs: Mapping[str, str | int | float | bool] | None = None,
) -> Task:
    """The task of any Gymnasium environment, from its spaces.

    task = task_of("CartPole-v1")

    Args:
        env_id: Gymnasium's id, or `module:ID` of a module that registers it.
        references: Returns that the task's returns are normalised by.
        name: Default: `gymnasium/` and the id in lower case.
        max_steps: Needed if the environment is registered without a limit.
        text_tokens: Number of tokens of a text; needed if it shows text.
        action_bound: How far an action without bounds reaches.
        env_kwargs: Keywords that it is made with.

    Raises:
        ValueError: if it cannot be made, or its spaces cannot become tokens.
    """
    options: dict[str, Any] = dict(env_kwargs or {})
    env_id = current(env_id)
    called = (name or env_id).partition("?")[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env: gymnasium.Env[Any, Any] = gymnasium.make(
                env_id, disable_env_checker=True, **options
            )
    except BaseException as problem:  # the author's code may raise anything, SystemExit as well
        raise ValueError(
            f"cannot make {called}: {type(problem).__name__}: {problem}".rstrip(": ")
        ) from problem
    try:
        limit = max_steps or (env.spec.max_episode_steps if env.spec else None)
        # An environment elsewhere has a limit there.
        limit = limit or getattr(env.unwrapped, "max_episode_steps", None)
        if limit is None:
            raise ValueError(
                "it has no limit of steps; register it with one, as in register(...,"
                " max_episode_steps=1000), or add one to the name of the task:"
                f" '{called}?max_steps=1000'"
            )
        return Task(
            name=name or f"gymnasium/{env_id.lower()}",
            env_id=env_id,
            family="gymnasium",
            observations=ObservationSpace(env.observation_space, text_tokens=text_tokens).specs,
            action=ActionSpace(env.action_space, bound=action_bound).spec,
            references=references,
            max_steps=limit,
            env_kwargs=options,
        )
    except ValueError as problem:
        raise ValueError(f"{called} cannot become a task: {problem}") from problem
    finally:
        try:
            env.close()
        except BaseException as problem:  # the author's code may raise anything
            raise ValueError(f"{called} raised {problem!r} when it was closed") from problem
