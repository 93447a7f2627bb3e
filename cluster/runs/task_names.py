"""Tasks in a config by their own names, whatever names a person wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from actors.tasks.resolve import resolve_task
from cluster.runs.config import RunConfig

OF_TASKS = ("evaluate_of", "generate_of", "teacher_of", "demonstration_steps_of")
"""Settings of the actors for single tasks."""


def with_own_names(config: RunConfig) -> RunConfig:
    """The run with each task, and the settings of it, by the task's own name. Names of modules
    stay. Raises ValueError, with the nearest name, if there is no such task."""
    own = {name: name if ":" in name else resolve_task(name).name for name in config.tasks}
    if all(name == of for name, of in own.items()):
        return config

    def renamed(by_task: Mapping[str, Any]) -> dict[str, Any]:
        return {own.get(name, name): setting for name, setting in by_task.items()}

    mix = replace(config.replay.mix, tasks=renamed(config.replay.mix.tasks))
    return replace(
        config,
        tasks=tuple(dict.fromkeys(own.values())),
        model=replace(config.model, normalise=renamed(config.model.normalise)),
        replay=replace(config.replay, mix=mix),
        actors=replace(
            config.actors, **{name: renamed(getattr(config.actors, name)) for name in OF_TASKS}
        ),
    )
