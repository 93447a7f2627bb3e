"""A run's config as a YAML or TOML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.runs.config import RunConfig
from cluster.runs.config_text import Dumper, read_plain
from cluster.runs.overrides import merge
from gato.serialization import from_plain, to_plain

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
    from actors.tasks.resolve import resolve_tasks
    from cluster.runs.presets import FOLLOW_TASKS, find_run_config
    from cluster.runs.task_settings import (
        fit_to_tasks,
        has_derived,
        with_derived,
        without_derived,
    )

    config, names = find_run_config(str(preset)), plain.get("tasks")
    fit = FOLLOW_TASKS.get(str(preset))
    if fit and isinstance(names, list) and set(names) != set(config.tasks):
        tasks = resolve_tasks(*map(str, names))
        config = fit(config, tasks)
        plain["tasks"] = list(tasks)
        follows = fit is fit_to_tasks
    else:
        follows = not plain.get("data") and has_derived(config)
    config = merge(without_derived(config) if follows else config, plain)
    if not follows:
        return config
    told = [f"replay.limiter.{name}" for name in plain.get("replay", {}).get("limiter", {})]
    told += [f"actors.{name}" for name in plain.get("actors", {})]
    return with_derived(config, told=told)


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
