"""Resolves names of tasks: of the catalogue, of Gymnasium, or of a user's own module."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from actors.envs.former_modules import current
from actors.tasks.atari_table import with_sticky
from actors.tasks.catalog import TASKS
from actors.tasks.mujoco_table import ROBOTS
from gato.task import Task, find_task

TEXT_TOKENS = 64
"""Tokens of a text, for an environment that is named by its id alone; a task made in Python may
have more or fewer."""
ADAPTERS = {"gym": "actors.envs.legacy_gym", "minigrid": "actors.envs.babyai"}
"""Packages whose environments need an adapter, and our module that is it."""


def resolve_task(name: str) -> Task:
    """The task called `name`. Its own name resolves to the same task again.

    resolve_task("Hopper-v5")                     # of the catalogue, by any of its names
    resolve_task("CartPole-v1")                   # an environment that Gymnasium has registered
    resolve_task("my_pkg:MyEnv-v0")               # one that importing my_pkg registers
    resolve_task("my_pkg.tasks:TASK")             # a Task, or a function that returns one
    resolve_task("minigrid:BabyAI-GoToLocal-v0")  # MiniGrid and BabyAI: actors.envs.babyai
    resolve_task("gym:CartPole-v1")               # of old gym: actors.envs.legacy_gym
    resolve_task("pong?sticky=0.25")              # a game with sticky actions: another task

    Raises:
        ValueError: if there is no such task, or its module or environment does not work.
    """
    base, question, sticky = name.partition("?sticky=")
    if question:
        return _sticky(resolve_task(base), sticky)
    module, colon, attribute = name.partition(":")
    if not colon:
        try:
            return find_task(name, TASKS)
        except ValueError:
            module, attribute = _package_of(name), name
            if not module:
                raise
            if module not in ADAPTERS:
                return _of_id(name)
    found = _import(current(ADAPTERS.get(module, module)), name)
    if module in ADAPTERS:
        return found["task"](attribute, name=name)
    if attribute not in found:
        return _of_id(name)
    try:
        task = found[attribute]() if callable(found[attribute]) else found[attribute]
    except BaseException as problem:  # the author's code may raise anything, SystemExit as well
        raise ValueError(
            f"{name} raised {type(problem).__name__}: {problem}; it must be a Task, or a function"
            " without arguments that returns one"
        ) from problem
    if not isinstance(task, Task):
        raise ValueError(
            f"{name} is a {type(task).__name__}, not a gato.task.Task or a function that returns"
            " one; make it with actors.envs.gymnasium_env.task_of, or name the id that its"
            " environment is registered by, such as my_pkg:MyEnv-v0"
        )
    # A worker makes the environment from its id alone, so the id names the module that registers
    # it.
    env_id = (
        task.env_id
        if task.family != "gymnasium" or ":" in task.env_id
        else f"{module}:{task.env_id}"
    )
    return replace(task, name=name, env_id=current(env_id), aliases=())


def _sticky(game: Task, chance: str) -> Task:
    try:
        value = float(chance)
    except ValueError as problem:
        raise ValueError(
            f"sticky={chance} of {game.name} is not a number; write it as {game.name}?sticky=0.25"
        ) from problem
    return replace(with_sticky(game, value), name=f"{game.name}?sticky={value:g}", aliases=())


def resolve_tasks(*names: str) -> dict[str, Task]:
    """The tasks called `names`, by their own names and in this order."""
    return {task.name: task for task in map(resolve_task, names)}


def note_on(name: str) -> str | None:
    """A note for the user if `name` resolves to a task that is not quite the same; else None."""
    robot, _, version = name.rpartition("-")
    task = next((task for task in ROBOTS if task.env_id.lower() == f"{robot}-v5".lower()), None)
    if version not in ("v2", "v3") or task is None:
        return None
    return (
        f"{name} ran on mujoco-py; {task.name} is {task.env_id}, whose physics and rewards differ"
    )


def _package_of(env_id: str) -> str:
    """The package of an environment that Gymnasium has registered; empty if it has not."""
    import gymnasium  # imported here: tasks of the catalogue do not need it

    return (
        str(gymnasium.registry[env_id].entry_point).split(".")[0]
        if env_id in gymnasium.registry
        else ""
    )


def _of_id(env_id: str) -> Task:
    from actors.envs.gymnasium_env import task_of

    return task_of(env_id, name=env_id, text_tokens=TEXT_TOKENS)


def _import(module: str, name: str) -> Mapping[str, Any]:
    """The module's names. It may lie in the working folder, as with `python -m`."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return vars(importlib.import_module(module))
    except ImportError as problem:
        raise ValueError(
            f"task {name!r} needs {module}, which cannot be imported ({problem}); install it, or"
            " run gato where it lies"
        ) from problem
    except BaseException as problem:  # the author's code may raise anything, SystemExit as well
        raise ValueError(
            f"task {name!r} needs {module}, which raised {problem!r} as it was imported; fix the"
            f" module: python -c 'import {module}' shows where"
        ) from problem
