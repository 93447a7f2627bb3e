"""Changes to a run's config: `path=value` settings, a partial config file, other tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from cluster.runs.config import RunConfig
from gato.serialization import from_plain, to_plain
from replay.sampling.config import TableConfig

GENERAL_OF = {"evaluate_of": "evaluate", "generate_of": "generate"}
"""Settings of single tasks, and the setting of all tasks that each of them stands for."""


NAMED_FREELY = {"tasks", "demonstration_steps_of", "teacher_of", *GENERAL_OF}
"""Groups whose names are tasks rather than settings."""


REPLACED = NAMED_FREELY | {"tables", "normalise"}
"""Groups that a `path=value` setting of a whole one replaces: their names are the user's. Of others
it changes what it names."""


def override(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """The config with `path=value` settings applied, such as `learner.num_updates=500`.

    Raises:
        ValueError: A setting is unknown (the nearest name is suggested) or its value is wrong.
    """
    plain = to_plain(config)
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator:
            raise ValueError(f"setting {setting!r} has no '='; write it as learner.num_updates=500")
        if "?" in path:
            raise ValueError(
                f"setting {setting!r} names a task with options, which a path cannot; set it for"
                " all tasks, without _of"
            )
        value = _value(path, text)
        if path == "tasks" and isinstance(value, list):
            plain = to_plain(_on_tasks(from_plain(RunConfig, plain), value))
            continue
        *above, last = path.split(".")
        if last in REPLACED:
            _set(plain, [*above, last], value, known=config)
        else:
            _merge(plain, above, {last: value}, known=config)
    return from_plain(RunConfig, plain)


def told_paths(settings: Sequence[str]) -> list[str]:
    """The paths of `path=value` settings; of a group, of each setting in it."""
    paths: list[str] = []
    for path, _, text in (setting.partition("=") for setting in settings):
        value = _value(path, text)
        inside = [f"{path}.{name}" for name in value] if isinstance(value, dict) else []
        paths += inside or [path]
    return paths


def _value(path: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
    except RecursionError:
        raise ValueError(f"setting {path} is nested too deeply; give a plain value") from None


def _on_tasks(config: RunConfig, names: Sequence[object]) -> RunConfig:
    """The run on the tasks of any of these names. Raises ValueError if there is no such task."""
    from actors.tasks.resolve import resolve_tasks, use_env_python

    use_env_python(config.actors.env_python)
    return with_tasks(config, list(resolve_tasks(*map(str, names))))


def merge(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The config with the settings of a partial config file, in groups as in a whole one.

    Raises:
        ValueError: A setting is unknown (the nearest name is suggested) or its value is wrong.
    """
    rest = dict(changes)
    tasks = rest.pop("tasks", None)
    if tasks is not None:
        if not isinstance(tasks, list):
            raise ValueError(f"tasks: expected a list of names, got {tasks!r}")
        config = with_tasks(config, [str(task) for task in tasks])
    plain = to_plain(config)
    _merge(plain, [], rest, known=config)
    return from_plain(RunConfig, plain)


def _merge(
    plain: dict[str, Any], above: list[str], changes: Mapping[str, Any], *, known: RunConfig
) -> None:
    for name, value in changes.items():
        path = [*above, str(name)]
        if isinstance(value, Mapping) and (value or _group(plain, path) is not None):
            _merge(plain, path, value, known=known)
        else:
            _set(plain, path, value, known=known)


def _group(plain: dict[str, Any], path: Sequence[str]) -> dict[str, Any] | None:
    """The group of settings at a path; None if there is none. One of a single task's, and a table,
    is made."""
    place: Any = plain
    for above, name in zip(["", *path], path, strict=False):
        if isinstance(place, dict) and above in GENERAL_OF:
            # A task of its own begins with the settings of all tasks.
            place.setdefault(name, dict(plain["actors"][GENERAL_OF[above]]))
        if isinstance(place, dict) and above == "tables":
            place.setdefault(name, to_plain(TableConfig()))
        place = place.get(name) if isinstance(place, dict) else None
    return place if isinstance(place, dict) else None


def _set(plain: dict[str, Any], path: Sequence[str], value: Any, *, known: RunConfig) -> None:
    *parents, last = path
    place = _group(plain, parents)
    if place is None or (last not in place and not NAMED_FREELY & set(parents)):
        near = get_close_matches(".".join(path), _paths(to_plain(known)), n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown setting {'.'.join(path)!r}{hint}")
    old = place.get(last)
    if isinstance(old, dict) and not isinstance(value, Mapping):
        raise ValueError(f"{'.'.join(path)}: expected a group of settings, got {value!r}")
    if old is not None and value is not None and not isinstance(value, type(old)) and not (
        isinstance(old, float) and isinstance(value, int)
    ):  # fmt: skip
        raise ValueError(f"setting {'.'.join(path)} is {old!r}; {value!r} is of another kind")
    place[last] = value


def _paths(plain: Mapping[str, Any], prefix: str = "") -> list[str]:
    out: list[str] = []
    for name, value in plain.items():
        out.extend(
            _paths(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
        )
    return out


def with_tasks(config: RunConfig, tasks: Sequence[str]) -> RunConfig:
    """The run on other tasks; settings of single tasks stay with the tasks that stay."""
    kept = {task: mix for task, mix in config.replay.mix.tasks.items() if task in tasks}
    mix = replace(config.replay.mix, tasks=kept)
    actors = replace(
        config.actors,
        evaluate_of={
            task: acting for task, acting in config.actors.evaluate_of.items() if task in tasks
        },
        generate_of={
            task: acting for task, acting in config.actors.generate_of.items() if task in tasks
        },
        teacher_of={task: spec for task, spec in config.actors.teacher_of.items() if task in tasks},
        demonstration_steps_of={
            task: steps
            for task, steps in config.actors.demonstration_steps_of.items()
            if task in tasks
        },
    )
    return replace(
        config, tasks=tuple(tasks), actors=actors, replay=replace(config.replay, mix=mix)
    )
