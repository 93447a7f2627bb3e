"""Options behind the name of a task, as in a URL: `pong?sticky=0.25&frames=4`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from actors.tasks.atari_table import with_frames, with_sticky
from actors.tasks.dm_control_table import with_pixels
from actors.tasks.metaworld_table import with_task_id
from gato.task import Task

Options = Mapping[str, str]
"""Values by name, as they were written."""


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """The name without its options, and the options.

    Raises:
        ValueError: if they are not written as NAME=VALUE, or one is given twice.
    """
    base, question, query = name.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if question and (len(pairs) != query.count("&") + 1 or not all(options.values())):
        raise ValueError(
            f"the options of {name!r} cannot be read; write them as {base}?max_steps=1000, several"
            " with & between them"
        )
    if len(options) < len(pairs):
        raise ValueError(f"{name!r} gives an option twice; leave one out")
    return base, options


def named(base: str, options: Options) -> str:
    """The name of a task with options: the same ones give the same name in any order."""
    return f"{base}?{urlencode(sorted(options.items()), safe='/:,')}" if options else base


def whole_number(task: str, option: str, text: str, example: str = "1000") -> int:
    """An option that is a number of 1 or more. Raises ValueError if it is not."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(
            f"{option}={text} of {task} is not a whole number of 1 or more; write it as"
            f" {task}?{option}={example}"
        )
    return int(text)


def real_number(task: str, option: str, text: str, example: str) -> float:
    """An option that is a number. Raises ValueError if it is not."""
    try:
        return float(text)
    except ValueError as problem:
        raise ValueError(
            f"{option}={text} of {task} is not a number; write it as {task}?{option}={example}"
        ) from problem


def keyword(text: str) -> str | int | float | bool:
    """A keyword of an environment: JSON, or else text."""
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, str | int | float | bool) else text


def _max_steps(task: Task, text: str) -> tuple[Task, str]:
    limit = whole_number(task.name, "max_steps", text)
    # Published returns are of the task's own limit.
    references = task.references if limit == task.max_steps else None
    return replace(task, max_steps=limit, references=references), str(limit)


def _sticky(task: Task, text: str) -> tuple[Task, str]:
    value = real_number(task.name, "sticky", text, "0.25")
    return with_sticky(task, value), f"{value:g}"


def _frames(task: Task, text: str) -> tuple[Task, str]:
    frames = whole_number(task.name, "frames", text, "4")
    return with_frames(task, frames=frames), str(frames)


def _grey(task: Task, text: str) -> tuple[Task, str]:
    if text not in ("0", "1"):
        raise ValueError(
            f"grey={text} of {task.name} is neither 0 nor 1; write it as {task.name}?grey=1"
        )
    return with_frames(task, grey=text == "1"), text


def _require_one(task: Task, option: str, text: str) -> None:
    if text != "1":
        raise ValueError(
            f"{option}={text} of {task.name} is not 1; write it as {task.name}?{option}=1, or leave"
            " it out"
        )


def _pixels(task: Task, text: str) -> tuple[Task, str]:
    _require_one(task, "pixels", text)
    return with_pixels(task), text


def _task_id(task: Task, text: str) -> tuple[Task, str]:
    _require_one(task, "task_id", text)
    return with_task_id(task), text


OF_TASKS: Mapping[str, Callable[[Task, str], tuple[Task, str]]] = {
    "max_steps": _max_steps,
    "sticky": _sticky,
    "frames": _frames,
    "grey": _grey,
    "pixels": _pixels,
    "task_id": _task_id,
}
"""Makes another task of a task and an option, and says how the option is written in its name."""


def with_options(task: Task, options: Options, *, ends_itself: bool) -> Task:
    """The task with these options, called by its name and them.

    `ends_itself`: whether its environment ends episodes at the task's limit, whatever is asked.

    Raises:
        ValueError: if the task does not have an option, or not with this value.
    """
    base, said, own_limit = task.name, dict[str, str](), task.max_steps
    for option, text in options.items():
        if option not in OF_TASKS:
            raise ValueError(
                f"{base} has no option {option!r}; there are {', '.join(OF_TASKS)}, and the"
                " keywords of environments that are named by their id"
            )
        task, said[option] = OF_TASKS[option](task, text)
    if ends_itself and task.max_steps > own_limit:
        raise ValueError(
            f"{base} ends after {own_limit:,} steps by itself; max_steps can only be lower"
        )
    return replace(task, name=named(base, said), aliases=()) if said else task
