"""Minari data sets: a folder, or an id under MINARI_DATASETS_PATH, whose environment must be the task's own version.

Shape letters: T steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from gato.episode import Episode
from gato.task import ArraySpec, Kind, Task
from replay.importers.atari import MINIMAL_BUTTONS, may_shrink, minimal_buttons, shrink, to_all_buttons
from replay.importers.fit import check_lengths, content_digest, episode_key, fit_array, guess_task
from replay.importers.minari_folder import find_folder
from replay.importers.minari_storage import FORMATS, HDF5_FILE, Column, MinariStorage, Record, leaves, shape_of
from replay.importers.reading import Known, Reading, nothing_known

BLOCK_STEPS = 128
"""Steps that are decoded at once."""


def read_minari(
    path_or_id: str | Path, tasks: Mapping[str, Task], task: Task | None = None, *, known: Known = nothing_known
) -> Reading:
    """The episodes of a Minari data set (HDF5, Arrow or Parquet). ValueError, at once, where it does not fit its task.

    read_minari(Path("datasets/mujoco/hopper/expert-v0"), tasks)
    read_minari("minari:mujoco/hopper/expert-v0", tasks, known=store.known)

    Without `task`, the data set's environment or its id must tell it. Atari's own frames are shrunk by area to the task's,
    and actions that count a game's own buttons become those of all 18: `info` says so.
    """
    folder = find_folder(path_or_id)
    about = _read_about(folder)
    found = task or guess_task([about.made_for, about.env_id, about.dataset_id], tasks)
    if found is None:
        raise ValueError(
            f"cannot tell the task of {about.dataset_id} (environment {about.env_id or 'not stated'}); "
            f"pass --task, one of {', '.join(sorted(tasks))}"
        )
    if about.env_id and about.env_id != found.env_id:
        raise ValueError(
            f"{about.dataset_id} was made in {about.env_id}, but task {found.name} is {found.env_id}; "
            "versions differ in what they show and pay, so give a data set of that one"
        )
    fitting = _fitting(about, found)
    return Reading(_episodes(folder, about, fitting, known), total=about.num_episodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """What a data set says of itself."""

    dataset_id: str
    env_id: str
    """Empty where it does not say."""
    env_kwargs: Mapping[str, Any]
    made_for: str
    """The task that it was exported from by us; else empty."""
    data_format: str
    num_episodes: int
    observation_space: Mapping[str, Any]
    spaces: Mapping[str, Mapping[str, Any]]
    """The parts of the observation space, by path."""
    action_space: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitting:
    """How a data set's episodes become the task's."""

    task: Task
    paths: Mapping[str, str]
    """Where in the data set each observation of the task is."""
    buttons: tuple[int, ...] | None
    """Of the game, where actions count these; None where they are as the task's."""
    info: Mapping[str, str]


def _read_about(folder: Path) -> _About:
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
        data_format = metadata.get("data_format", "hdf5")
        if data_format == "hdf5" and not (folder / HDF5_FILE).is_file():
            raise ValueError(f"it has no {HDF5_FILE}")
        if data_format not in FORMATS:
            raise ValueError(f"its format is {data_format}; those that can be read are {', '.join(FORMATS)}")
        dataset_id = metadata["dataset_id"]
        env = json.loads(metadata.get("env_spec") or "{}")
        space = json.loads(metadata["observation_space"])
        return _About(
            dataset_id=dataset_id,
            env_id=env.get("id") or "",
            env_kwargs=env.get("kwargs") or {},
            made_for=str(metadata.get("gato_task", "")),
            data_format=data_format,
            num_episodes=int(metadata["total_episodes"]),
            observation_space=space,
            spaces=dict(leaves(space)),
            action_space=json.loads(metadata["action_space"]),
        )
    except KeyError as error:
        raise ValueError(f"{folder} is not a Minari data set that can be read: metadata.json lacks {error}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a Minari data set that can be read: {error}") from error


def _fitting(about: _About, task: Task) -> _Fitting:
    """ValueError where the spaces of the data set are not those of the task: before anything large is read."""
    plain = "" in about.spaces
    if plain and len(task.observations) != 1:
        raise ValueError(f"{about.dataset_id} shows one array, task {task.name} {sorted(task.observations)}")
    if not plain and not set(task.observations) <= set(about.spaces):
        raise ValueError(
            f"{about.dataset_id} shows {sorted(about.spaces)}, task {task.name} {sorted(task.observations)}"
        )
    paths = {key: "" if plain else key for key in task.observations}
    info = {"env_id": about.env_id or "not stated", "file": about.dataset_id}
    if about.env_kwargs:
        info["env_kwargs"] = json.dumps(about.env_kwargs, sort_keys=True, default=str)
    for key, spec in task.observations.items():
        _check_space(about, task, key, about.spaces[paths[key]], spec)
        shape = shape_of(about.spaces[paths[key]])
        if spec.kind is Kind.IMAGE and shape != spec.shape:
            info["frames"] = f"{_size(shape)} shrunk by area to {_size(spec.shape)}"
    buttons = _buttons(about, task)
    if buttons:
        info["actions"] = f"the {len(buttons)} buttons of the game, as those of all 18"
    else:
        _check_space(about, task, "actions", about.action_space, task.action)
    return _Fitting(task=task, paths=paths, buttons=buttons, info=info)


def _buttons(about: _About, task: Task) -> tuple[int, ...] | None:
    """The game's own buttons where the data set's actions count those; None where they are the task's."""
    num_actions = about.action_space.get("n")
    known_game = task.family == "atari" and str(task.env_kwargs.get("rom")) in MINIMAL_BUTTONS
    if not known_game or num_actions == task.action.num_values or about.env_kwargs.get("full_action_space"):
        return None
    buttons = minimal_buttons(task)
    return buttons if num_actions == len(buttons) and not about.action_space.get("start", 0) else None


def _check_space(about: _About, task: Task, name: str, space: Mapping[str, Any], spec: ArraySpec) -> None:
    if (space.get("type") == "Text") != (spec.kind is Kind.TEXT):
        raise ValueError(f"{about.dataset_id} has {space.get('type')} as {name}, task {task.name} {spec.kind}")
    if spec.kind is Kind.TEXT:
        return
    if spec.kind is Kind.DISCRETE and np.any(space.get("start", space.get("low", 0))):
        raise ValueError(
            f"{about.dataset_id} does not count {name} from 0 on, as task {task.name} does; subtract the least value first"
        )
    shape = shape_of(space)
    if shape != spec.shape and not (spec.kind is Kind.IMAGE and may_shrink(shape)):
        what = f"images of size {_size(shape)}" if spec.kind is Kind.IMAGE else f"{name} of shape {shape}"
        raise ValueError(f"{about.dataset_id} has {what} in each step, task {task.name} {spec.shape}")
    values = space.get("n")
    if spec.kind is Kind.DISCRETE and isinstance(values, int) and (np.asarray(spec.num_values) != values).any():
        raise ValueError(f"{about.dataset_id} has {values} values of {name}, task {task.name} {spec.num_values}")


def _episodes(folder: Path, about: _About, fitting: _Fitting, known: Known) -> Iterator[Episode | None]:
    storage = MinariStorage(folder, about.data_format, about.observation_space)
    name = about.dataset_id
    try:
        digest = content_digest(*storage.content_files())
        keys = [episode_key("minari", name, digest, index) for index in range(about.num_episodes)]
        wanted = [not known(key) for key in keys]
        records = storage.records(index for index, is_wanted in enumerate(wanted) if is_wanted)
        for index, key in enumerate(keys):
            if not wanted[index]:
                yield None
                continue
            record = next(records)
            seed = record.attributes.get("seed")
            yield Episode(
                key=key,
                task=fitting.task.name,
                source=f"file:{name}",
                **_columns(record, fitting, f"episode {index} of {name}"),
                labels=None if record.labels is None else fit_array(record.labels[:-1], fitting.task.action, "labels"),
                seed=int(seed) if isinstance(seed, (int, np.integer)) else 0,
                info=fitting.info,
            )
    except (OSError, KeyError, StopIteration) as error:
        raise ValueError(f"{folder} is damaged: {error}") from error


def _columns(record: Record, fitting: _Fitting, where: str) -> dict[str, Any]:
    """What an Episode takes of one record: the observation after the last action is dropped."""
    task = fitting.task
    actions = record.actions
    if fitting.buttons:
        actions = to_all_buttons(actions, fitting.buttons, f"actions of {where}")
    elif actions.ndim == 2:
        actions = actions.reshape(-1, *task.action.shape)  # Arrow keeps all elements of a step in a row
    actions = fit_array(actions, task.action, f"actions of {where}")
    observations = {
        key: _read(record.observations[fitting.paths[key]], len(actions), spec, f"{key} of {where}")
        for key, spec in task.observations.items()
    }
    check_lengths(where, len(actions), {"rewards": record.rewards})
    flags = (record.terminations, record.truncations)
    ends = [bool(values[-1]) if len(values) else False for values in flags]
    return {
        "observations": observations,
        "actions": actions,
        "rewards": np.asarray(record.rewards).astype(np.float32),
        "terminated": ends[0],
        "truncated": ends[1] or not ends[0],
    }


def _read(column: Column, num_steps: int, spec: ArraySpec, what: str) -> Shaped[np.ndarray, "T ..."]:
    """The observations before each action, as the task shows them, decoded block by block."""
    if column.length != num_steps + 1:
        raise ValueError(f"{what}: {column.length} observations and {num_steps} actions; expected one more")
    out = np.empty((num_steps, *spec.shape), spec.dtype)
    for start in range(0, num_steps, BLOCK_STEPS):
        stop = min(start + BLOCK_STEPS, num_steps)
        block = column.rows(start, stop)
        if spec.kind is Kind.IMAGE and block.dtype == np.uint8 and block.shape[1:] != spec.shape:
            block = shrink(block, spec) if may_shrink(block.shape[1:]) else block
        out[start:stop] = fit_array(block, spec, what)
    return out


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
