"""A run's config as a YAML or TOML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cluster.runs.config import RunConfig
from cluster.runs.config_text import Dumper, read_plain
from cluster.runs.overrides import merge
from gato.serialization import from_plain, to_plain

if TYPE_CHECKING:
    from gato.task import Task

RENAMED: Mapping[tuple[str, ...], str] = {
    ("actors", "teach_share"): "demonstrate_share",
    ("actors", "teach_noise"): "demonstration_noise",
    ("actors", "evaluate", "wished_return"): "target_return",
    ("actors", "generate", "wished_return"): "target_return",
}
"""Settings that had another name when a file may have been written."""
HEADER = """\
# Every setting of run {name}. `gato start FILE` starts a run like it; change a copy, or give
# a file of your own only `preset: {preset}` and the settings that differ.
"""


def read_config(file: Path) -> RunConfig:
    """The config in a YAML or TOML file, which holds every setting or a `preset` and some.

    Raises:
        ValueError: There is no such file, or it is damaged or holds a wrong setting. The text
            names the file and the setting.
    """
    plain = read_plain(file)
    try:
        return config_from_plain(plain)
    except ValueError as problem:
        raise ValueError(f"{file}: {problem}") from problem


def config_from_plain(plain: Mapping[str, Any]) -> RunConfig:
    """The config that a file's mapping describes. Raises ValueError if a setting is wrong."""
    plain = _with_new_names(dict(plain))
    preset = plain.pop("preset", None)
    if preset is None:
        return from_plain(RunConfig, plain)
    # Here, because a run's own file names no preset, and commands that only look at runs are fast.
    from cluster.runs.presets import FOLLOW_TASKS, find_run_config
    from cluster.runs.task_settings import (
        fit_rows,
        has_derived,
        with_derived,
        without_derived,
    )

    config = find_run_config(str(preset))
    fit = FOLLOW_TASKS.get(str(preset))
    tasks = _tasks_in(plain, config)
    if tasks is not None:
        plain["tasks"] = list(tasks)  # by their own names
    if fit and tasks and set(tasks) != set(config.tasks):
        config = fit(config, tasks)
        follows = fit not in (None, fit_rows)
    else:
        follows = not plain.get("data") and has_derived(config)
    config = merge(without_derived(config) if follows else config, plain)
    if not follows:
        return config
    told = [f"replay.limiter.{name}" for name in plain.get("replay", {}).get("limiter", {})]
    told += [f"actors.{name}" for name in plain.get("actors", {})]
    return with_derived(config, told=told)


def _tasks_in(plain: Mapping[str, Any], config: RunConfig) -> dict[str, Task] | None:
    """The tasks that a file names, if it does. Raises ValueError if there is no such task."""
    from actors.tasks.resolve import resolve_tasks, use_env_python

    names, actors = plain.get("tasks"), plain.get("actors")
    if not isinstance(names, list):
        return None
    given = actors.get("env_python") if isinstance(actors, dict) else None
    use_env_python(given if isinstance(given, str) else config.actors.env_python)
    return resolve_tasks(*map(str, names))


def config_to_yaml(config: RunConfig) -> str:
    """Every setting as YAML, which `read_config` reads back as an equal config."""
    header = HEADER.format(name=config.name, preset="demo")
    return header + yaml.dump(
        to_plain(config), Dumper=Dumper, sort_keys=False, width=100, allow_unicode=True
    )


def write_config(config: RunConfig, file: Path) -> None:
    """Write the config to a YAML file: whole, or not at all."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    draft.write_text(config_to_yaml(config))
    os.replace(draft, file)


def _with_new_names(plain: dict[str, Any]) -> dict[str, Any]:
    for (*parents, old), new in RENAMED.items():
        group: Any = plain
        for name in parents:
            group = group.get(name) if isinstance(group, dict) else None
        if isinstance(group, dict) and old in group:
            group[new] = group.pop(old)
    return plain
