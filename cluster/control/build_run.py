"""Build the config of a run from a preset or a file and what the caller changes, and check it
before anything starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from actors.tasks.resolve import resolve_task, resolve_tasks, use_env_python
from actors.tasks.text_encoder import BYTES, model_path, text_encoder
from actors.teachers.resolve import TAUGHT, absolute_spec, has_teacher, teacher_for, teacher_return
from cluster.monitor.scores import Scale, scale_of
from cluster.runs.config import RunConfig
from cluster.runs.config_file import read_config
from cluster.runs.config_text import is_config_file, read_plain
from cluster.runs.data import datasets
from cluster.runs.data.alphabet import cut_notes, require_writable
from cluster.runs.normalise import with_statistics
from cluster.runs.overrides import override, told_paths, with_tasks
from cluster.runs.presets import FINETUNE, FOLLOW_TASKS, find_run_config
from cluster.runs.resolve import check_fits, tasks_of
from cluster.runs.task_names import with_own_names
from cluster.runs.task_settings import (
    fit_rows,
    has_derived,
    with_derived,
    without_derived,
)
from gato.task import Task


def make_config(
    run: str,
    *,
    name: str | None,
    tasks: Sequence[str] | None,
    data: Sequence[str],
    settings: Sequence[str],
    text: str | None = None,
    teachers: Sequence[str] = (),
    normalise: Sequence[str] = (),
    weights: str | None = None,
) -> RunConfig:
    """The run of a preset or of a config file, with changes.

    Args:
        run: A preset's name, or a config file (.yaml, .toml).
        name: Name of the run. Default: the preset's or the file's.
        tasks: Any names of tasks. Default: those of `data`, else those of the run.
        data: Data sets to train on.
        settings: `path=value` settings.
        text: A SentencePiece model's file, or "bytes".
        teachers: `TASK=SPEC` teachers.
        normalise: Tasks whose observations are normalised by the statistics of the data.
        weights: A run, a checkpoint or a policy file whose model and weights it begins with.

    Raises:
        ValueError: A name, a file, a setting or a combination of them is wrong.
    """
    plain = read_plain(Path(run)) if is_config_file(run) else {"preset": run}
    base = _read_from(Path(run)) if is_config_file(run) else find_run_config(run)
    if weights is not None:
        from cluster.control.initial_weights import with_initial  # imports torch

        base = with_initial(
            base,
            weights,
            takes_tasks=plain.get("preset") == FINETUNE and "tasks" not in plain,
            text=None if text is None else model_path(text),
        )
    else:
        require_weights(base, plain)
    return change_config(
        base,
        name=name,
        tasks=tasks,
        data=data,
        settings=settings,
        text=text,
        teachers=teachers,
        normalise=normalise,
        fit=FOLLOW_TASKS.get(run) if weights is None else None,
    )


def require_weights(config: RunConfig, plain: Mapping[str, object]) -> None:
    """ValueError if a run is the one that begins with a trained model, and has none. `plain`: its
    file, or its preset."""
    if plain.get("preset", config.name) == FINETUNE and not config.initial_weights:
        raise ValueError(
            f"{FINETUNE} begins with a trained model: name its run, or a file of gato export, with"
            " --from RUN|FILE"
        )


def change_config(
    config: RunConfig,
    *,
    name: str | None,
    tasks: Sequence[str] | None,
    data: Sequence[str],
    settings: Sequence[str],
    text: str | None = None,
    teachers: Sequence[str] = (),
    normalise: Sequence[str] = (),
    fit: Callable[[RunConfig, Mapping[str, Task]], RunConfig] | None = None,
) -> RunConfig:
    """A run with the changes that `make_config` describes. Raises ValueError likewise.

    `fit`: makes settings that are not given follow from tasks that are not the run's own.
    """
    if text is not None:
        config = replace(config, text=model_path(text))
    encoder = text_encoder(config.text)  # raises ValueError if it is not an encoder
    if data:
        found = [datasets.find(entry) for entry in data]
        config = replace(config, data=tuple(d.name for d in found))
        if tasks is None:
            tasks = list(dict.fromkeys(task for d in found for task in d.tasks))
    given = [setting for setting in settings if setting.startswith("actors.env_python=")]
    use_env_python(override(config, given).actors.env_python)
    chosen = None if tasks is None else resolve_tasks(*tasks)
    if chosen is not None and set(chosen) != set(config.tasks):
        follows = fit not in (None, fit_rows)
        config = fit(config, chosen) if fit else with_tasks(config, list(chosen))
    else:
        follows = has_derived(config)
        config = config if chosen is None else with_tasks(config, list(chosen))
    config = override(without_derived(config) if follows else config, settings)
    if follows:
        config = with_derived(config, told=told_paths(settings))
    config = replace(config, name=config.name if name is None else name)
    config = _with_teachers(config, teachers)
    if normalise:
        config = with_statistics(config, normalise)
    check_fits(config, tasks_of(config))
    for found in map(datasets.find, config.data):
        require_writable(found.name, found.alphabets, encoder)
    if config.learner.frozen:
        from learner.optimiser import require_parts

        require_parts(config.model, config.learner.frozen)
    _require_demonstrations(config)
    return config


def _read_from(file: Path) -> RunConfig:
    """The config in a file; the paths in it start from the file's folder, and its tasks may have
    any of their names."""
    return with_paths_of(read_config(file), file)


def with_paths_of(config: RunConfig, file: Path) -> RunConfig:
    """The config that was read from `file`, with the paths in it made absolute, and tasks by their
    own names."""
    use_env_python(config.actors.env_python)
    config = with_own_names(config)
    if config.text == BYTES:
        return config
    return replace(config, text=str((file.parent / Path(config.text).expanduser()).absolute()))


def data_notes(config: RunConfig) -> list[str]:
    """What is doubtful of the run's data sets: sources that were not read to the end, refused
    episodes, blind entries."""
    found = [datasets.find(name) for name in config.data]
    encoder = text_encoder(config.text) if any(data.alphabets for data in found) else None
    return [
        f"data set {data.name}: {line}"
        for data in found
        for line in [*data.doubts, *(cut_notes(data.alphabets, encoder) if encoder else ())]
    ]


def _require_demonstrations(config: RunConfig) -> None:
    """ValueError where a task has neither data nor a teacher to begin with."""
    shown = {task for name in config.data for task in datasets.find(name).tasks} | set(
        config.actors.teacher_of
    )
    for name, task in resolve_tasks(*config.tasks).items():
        if name not in shown and not has_teacher(task):
            train = ", or train one (gato teach)" if task.family in TAUGHT else ""
            raise ValueError(
                f"{name} has no demonstrations: no teacher of it ships; bring data (gato"
                f" import, then --data NAME) or name who teaches it (--teacher {name}=SPEC){train}"
            )


def _with_teachers(config: RunConfig, named: Sequence[str]) -> RunConfig:
    """The run with `TASK=SPEC` teachers, each of which is made once to see that it can be."""
    specs = dict(config.actors.teacher_of)
    for entry in named:
        parts = re.fullmatch(r"([^?=]+(?:\?(?:\w+=[^=&]+&)*\w+=[^=&]+)?)=(.+)", entry)
        if parts is None:
            raise ValueError(
                f"teacher {entry!r} names no task; write it as TASK=SPEC, such as"
                " hopper=sb3:hopper.zip"
            )
        specs[resolve_task(parts[1]).name] = parts[2]
    specs = {task: absolute_spec(spec) for task, spec in specs.items()}
    config = replace(config, actors=replace(config.actors, teacher_of=specs))
    for task, spec in specs.items():
        teacher_for(resolve_task(task), spec)
    return config


def teacher_notes(config: RunConfig) -> list[str]:
    """What a user must be told of the teachers that were named: what was converted, allowed, found
    or is not known."""
    specs = {task: spec for task, spec in config.actors.teacher_of.items() if task in config.tasks}
    return [
        f"teacher of {task}: {note.removeprefix('noted: ')}"
        for task, spec in specs.items()
        for note in teacher_for(resolve_task(task), spec).notes
    ]


def scales_of(config: RunConfig, data_returns: Mapping[str, float]) -> dict[str, Scale]:
    """Where 0 and 1 of the normalised return are: random, and who demonstrates (or the published
    expert).

    A task without references has none: its returns are shown as they are.
    """
    scales: dict[str, Scale] = {}
    for name, task in resolve_tasks(*config.tasks).items():
        taught = teacher_return(task, config.actors.teacher_of.get(name, ""))
        scale = scale_of(task, data_returns.get(name, taught))
        if scale is not None:
            scales[name] = scale
    return scales
