"""Resolves names of tasks: of the catalogue, of Gymnasium, or of a user's own module."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from actors.envs.env import ACTION_BOUND, ENV_PYTHON
from actors.envs.former_modules import current
from actors.tasks.catalog import TASKS
from actors.tasks.lerobot_table import is_lerobot_name, lerobot_task
from actors.tasks.mujoco_table import ROBOTS
from actors.tasks.options import (
    Options,
    keyword,
    named,
    real_number,
    split_name,
    whole_number,
    with_options,
)
from actors.tasks.recorded_table import is_recorded_name, recorded_task
from gato.task import Task, UnknownTaskError, find_task

TEXT_TOKENS = 64
"""Tokens of a text, for an environment that is named by its id alone; a task made in Python may
have more or fewer."""
ADAPTERS = {"gym": "actors.envs.legacy_gym", "minigrid": "actors.envs.babyai"}
"""Packages whose environments need an adapter, and our module that is it."""
REGISTERED_BY = {"dm_control": "actors.envs.adapters.dm_control_ids"}
"""Namespaces of ids whose package does not work as it is, and our module that registers them."""


LIMITED_BY_US = ("mujoco", "atari")
"""Families of the catalogue whose episodes may be longer than usual."""
OUTSIDE, OUTSIDE_MODULE = "outside", "actors.envs.adapters.outside_env"
"""The prefix of environments in another interpreter, and our module that talks to it."""
NEEDED_FOR = {
    "action_bound": "has no action without bounds",
    "text_tokens": "shows no text",
}
"""What an environment lacks for which an option says nothing."""
EXTRAS = {
    "gym": "legacy",
    "minigrid": "minigrid",
    "dm_control": "dm-control",
    "shimmy": "dm-control",
}
"""Extras that install the packages which our modules import, by package."""


def resolve_task(name: str) -> Task:
    """The task called `name`. Its own name resolves to the same task again.

    resolve_task("Hopper-v5")                     # of the catalogue, by any of its names
    resolve_task("CartPole-v1")                   # an environment that Gymnasium has registered
    resolve_task("my_pkg:MyEnv-v0")               # one that importing my_pkg registers
    resolve_task("my_pkg.tasks:TASK")             # a Task, or a function that returns one
    resolve_task("minigrid:BabyAI-GoToLocal-v0")  # MiniGrid and BabyAI: actors.envs.babyai
    resolve_task("gym:CartPole-v1")               # of old gym: actors.envs.legacy_gym
    resolve_task("outside:old_sim:Env-v0")        # of another Python: outside_env
    resolve_task("dm_control/dog-run-v0?max_steps=1000")  # an id that shimmy registers
    resolve_task("pong?sticky=0.25&frames=4")     # another task, by actors.tasks.options
    resolve_task("vqa/easy-vqa")                  # recorded, by actors.tasks.recorded_table

    Raises:
        ValueError: if there is no such task, or its module or environment does not work.
    """
    name, options = split_name(name)
    if is_recorded_name(name):
        return recorded_task(name, options)
    if is_lerobot_name(name):
        return lerobot_task(name, options)
    module, colon, attribute = name.partition(":")
    if not colon:
        try:
            task = find_task(name, TASKS)
            return with_options(task, options, ends_itself=task.family not in LIMITED_BY_US)
        except UnknownTaskError:
            module, attribute = _package_of(name), name
            if name.partition("/")[0] in REGISTERED_BY:
                return _of_id(name, options, module=REGISTERED_BY[name.partition("/")[0]])
            if not module:
                raise
            if module not in ADAPTERS:
                return _of_id(name, options)
    if module == OUTSIDE:
        _import(OUTSIDE_MODULE, name)
        return _of_id(name, options, env_id=f"{OUTSIDE_MODULE}:gato/Outside-v0", inside=attribute)
    found = _import(current(ADAPTERS.get(module, module)), name)
    if module in ADAPTERS:
        return with_options(
            found["task"](attribute, name=f"{module}:{attribute}"), options, ends_itself=True
        )
    if attribute not in found:
        return _of_id(name, options)
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
    task = replace(task, name=name, env_id=current(env_id), aliases=())
    return with_options(task, options, ends_itself=False)


def use_env_python(path: str) -> None:
    """Make `path` the interpreter of tasks named `outside:ID`, here and in processes that are
    started from here; an empty one changes nothing."""
    if path:
        os.environ[ENV_PYTHON] = path


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


def _of_id(
    name: str, options: Options, *, module: str = "", env_id: str = "", inside: str = ""
) -> Task:
    """The task of an environment by its id, which `module` registers. Options that are not the
    task's own are keywords of the environment. `inside`: the id that `env_id` makes elsewhere."""
    from actors.envs.gymnasium_env import task_of

    if module:
        _import(module, name)
    own = {"max_steps": 0, "text_tokens": TEXT_TOKENS} | {
        option: whole_number(name, option, options[option])
        for option in ("max_steps", "text_tokens")
        if option in options
    }
    bound = real_number(name, "action_bound", options.get("action_bound", f"{ACTION_BOUND}"), "1")
    if not 0.0 < bound < math.inf:
        raise ValueError(
            f"action_bound={bound:g} of {name} is not above 0 and finite; write it as"
            f" {name}?action_bound=1"
        )
    make = partial(
        task_of,
        env_id or (f"{module}:{name}" if module else name),
        name=named(name, options),
        max_steps=own["max_steps"] or None,
        env_kwargs=({"env_id": inside} if inside else {})
        | {
            option: keyword(text)
            for option, text in options.items()
            if option not in (*own, "action_bound")
        },
    )
    tokens = own["text_tokens"]
    task = make(text_tokens=tokens, action_bound=bound)
    others = {
        "action_bound": partial(make, text_tokens=tokens, action_bound=2.0 * bound),
        "text_tokens": partial(make, text_tokens=2 * tokens, action_bound=bound),
    }
    for option, other in others.items():
        if option in options and other() == task:
            raise ValueError(f"{name} {NEEDED_FOR[option]}; leave out {option}")
    return task


def _import(module: str, name: str) -> Mapping[str, Any]:
    """The module's names. It may lie in the working folder, as with `python -m`."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return vars(importlib.import_module(module))
    except ImportError as problem:
        extra = EXTRAS.get(str(problem.name))
        if extra is not None:
            raise ValueError(
                f"task {name!r} needs the package {problem.name}, which is not installed; pip"
                f" install -e '.[{extra}]' -c constraints.txt in the project's folder"
            ) from problem
        raise ValueError(
            f"task {name!r} needs {module}, which cannot be imported ({problem}); install it, or"
            " run gato where it lies"
        ) from problem
    except BaseException as problem:  # the author's code may raise anything, SystemExit as well
        raise ValueError(
            f"task {name!r} needs {module}, which raised {problem!r} as it was imported; fix the"
            f" module: python -c 'import {module}' shows where"
        ) from problem
