"""From a run's config to what its parts are built from: tasks, the layout of tokens, acting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from actors.envs.packages import require_package
from actors.tasks.resolve import resolve_tasks, use_env_python
from actors.tasks.text_encoder import text_encoder
from cluster.runs.config import RunConfig
from cluster.runs.normalise import normalised_tasks
from gato.acting.config import ActingConfig
from gato.array_spec import Kind
from gato.sequence import StepLayout
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.sampling.config import least_steps


def tasks_of(config: RunConfig) -> dict[str, Task]:
    """The run's tasks by name, in the run's order, with the statistics that their observations are
    normalised by. ValueError suggests the nearest name for one that is unknown."""
    use_env_python(config.actors.env_python)
    return normalised_tasks(resolve_tasks(*config.tasks), config)


def check_installed(config: RunConfig) -> None:
    """ValueError, before anything starts, if a package that this machine's workers need is not
    installed, or the interpreter of environments elsewhere is not there."""
    for task in tasks_of(config).values() if config.actors.num_workers else ():
        require_package(task, env_python=config.actors.env_python)


def layout_of(config: RunConfig, tasks: Mapping[str, Task], folder: Path | None) -> TokenLayout:
    """The model's layout, with the encoder of text where a task shows some; its file is sought in
    the run's `folder`."""
    is_needed = have_text(tasks.values())
    return replace(
        config.model.layout, text=text_encoder(config.text, folder) if is_needed else None
    )


def have_text(tasks: Iterable[Task]) -> bool:
    """Whether one of the tasks shows text, or has it written."""
    return any(
        spec.kind is Kind.TEXT
        for task in tasks
        for spec in (*task.observations.values(), task.action)
    )


def check_fits(config: RunConfig, tasks: Mapping[str, Task]) -> None:
    """ValueError, before anything starts, where a step of a task is too long for the model or a
    row, or a prompt for a window."""
    for role in ("evaluate", "generate"):
        acting_configs(config, role)
    recorded = [name for name, task in tasks.items() if not task.has_environment]
    if recorded and config.actors.inference == "node":
        raise ValueError(
            f"records of {recorded[0]} are evaluated by how likely they are, which an inference"
            " process does not tell; set actors.inference=worker"
        )
    layout = layout_of(config, tasks, None)
    for task in tasks.values():
        steps = StepLayout(task, layout)
        mix = config.replay.mix
        needed = steps.tokens_per_step * least_steps(mix, task)
        if needed > mix.row_tokens:
            raise ValueError(
                f"{task.name} needs rows of {needed} tokens, run {config.name} has"
                f" {mix.row_tokens}; add --set"
                f" model.context_tokens={max(needed, config.model.context_tokens)} --set"
                f" replay.mix.row_tokens={needed}"
                + (
                    ", or for rows without prompts --set replay.mix.prompt_fraction=0"
                    if mix.prompt_fraction
                    else ""
                )
            )
        if steps.num_observation_tokens > config.model.max_observation_tokens:
            raise ValueError(
                f"{task.name} shows {steps.num_observation_tokens} tokens a step, the model has"
                f" positions for {config.model.max_observation_tokens}; add --set"
                f" model.max_observation_tokens={steps.num_observation_tokens}"
            )


def acting_configs(config: RunConfig, role: str) -> dict[str, ActingConfig]:
    """How each task is acted to `evaluate` or to `generate`: as deep a window as it is trained
    with."""
    actors = config.actors
    general, single = {
        "evaluate": (actors.evaluate, actors.evaluate_of),
        "generate": (actors.generate, actors.generate_of),
    }[role]
    out: dict[str, ActingConfig] = {}
    for name in config.tasks:
        acting = single.get(name, general)
        mix = config.replay.mix.tasks.get(name)
        out[name] = replace(
            acting, window_steps=acting.window_steps or (mix.window_steps if mix else None)
        )
    return out


def acting_of(config: RunConfig, tasks: Sequence[str]) -> dict[str, ActingConfig]:
    """How evaluations act, by task; also of tasks that the run was not trained on."""
    return {**dict.fromkeys(tasks, config.actors.evaluate), **acting_configs(config, "evaluate")}
