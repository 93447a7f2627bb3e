"""Minari data sets: a folder, or an id under MINARI_DATASETS_PATH, whose environment must be the task's own version."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gato.episode import Episode
from gato.task import ArraySpec, Kind, Task
from replay.importers.fit import content_digest, episode_key, fit_array, guess_task

PREFIX = "minari:"
CONTENT = "main_data.hdf5"


def read_minari(path_or_id: str | Path, tasks: Mapping[str, Task], task: Task | None = None) -> Iterator[Episode]:
    """The episodes of a Minari data set, one in memory at a time. ValueError, at once, where it does not fit its task.

    read_minari(Path("datasets/mujoco/hopper/expert-v0"), tasks)
    read_minari("minari:mujoco/hopper/expert-v0", tasks)

    Without `task`, the data set's environment or its id must tell it.
    """
    folder = _folder(path_or_id)
    about = _read_about(folder)
    found = task or guess_task([about.env_id, about.dataset_id], tasks)
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
    _check_spaces(about, found)
    return _episodes(folder, about, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """What a data set says of itself."""

    dataset_id: str
    env_id: str
    """Empty where it does not say."""
    observation_space: Mapping[str, Any]
    action_space: Mapping[str, Any]


def _folder(path_or_id: str | Path) -> Path:
    """The folder that holds main_data.hdf5 and metadata.json; an id that is not here is downloaded, if that can be."""
    name = str(path_or_id)
    given = Path(name).expanduser()
    if not name.startswith(PREFIX) and given.is_dir():
        for folder in (given / "data", given):
            if (folder / "metadata.json").is_file():
                return folder
        raise ValueError(f"{given} is not a Minari data set: it has no data/metadata.json")
    if isinstance(path_or_id, Path):
        raise ValueError(f"no folder {given}")
    dataset_id = name.removeprefix(PREFIX)
    root = Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")
    folder = root / dataset_id / "data"
    if not (folder / "metadata.json").is_file():
        _download(dataset_id, root)
    return folder


def _download(dataset_id: str, root: Path) -> None:
    if find_spec("huggingface_hub") is None:
        raise ValueError(
            f"no data set {dataset_id!r} in {root}; to download it, pip install 'minari[hf]', "
            "or give the folder of a data set, or set MINARI_DATASETS_PATH"
        )
    import minari

    try:
        minari.download_dataset(dataset_id)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"no data set {dataset_id!r} in {root}, and it cannot be downloaded: {error}") from error


def _read_about(folder: Path) -> _About:
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
        kind = metadata.get("data_format", "hdf5")
        if kind == "hdf5" and not (folder / CONTENT).is_file():
            raise ValueError(f"it has no {CONTENT}")
        if kind != "hdf5":
            raise ValueError(f"its format is {kind}, only hdf5 can be read")
        return _About(
            dataset_id=metadata["dataset_id"],
            env_id=json.loads(metadata.get("env_spec") or "{}").get("id") or "",
            observation_space=json.loads(metadata["observation_space"]),
            action_space=json.loads(metadata["action_space"]),
        )
    except KeyError as error:
        raise ValueError(f"{folder} is not a Minari data set that can be read: metadata.json lacks {error}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a Minari data set that can be read: {error}") from error


def _check_spaces(about: _About, task: Task) -> None:
    """ValueError where the spaces of the data set are not those of the task: before anything large is read."""
    space = about.observation_space
    if space.get("type") == "Dict":
        parts = dict(_flat_spaces(space["subspaces"]))
        if not set(task.observations) <= set(parts):
            raise ValueError(f"{about.dataset_id} shows {sorted(parts)}, task {task.name} {sorted(task.observations)}")
    elif len(task.observations) == 1:
        parts = dict.fromkeys(task.observations, space)
    else:
        raise ValueError(f"{about.dataset_id} shows one array, task {task.name} {sorted(task.observations)}")
    for key, spec in task.observations.items():
        _check_space(about, task, key, parts[key], spec)
    _check_space(about, task, "actions", about.action_space, task.action)


def _flat_spaces(spaces: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Nested Dict spaces by path, as a task names them."""
    for name, space in spaces.items():
        if space.get("type") == "Dict":
            yield from _flat_spaces(space["subspaces"], f"{before}{name}/")
        else:
            yield before + name, space


def _check_space(about: _About, task: Task, name: str, space: Mapping[str, Any], spec: ArraySpec) -> None:
    if (space.get("type") == "Text") != (spec.kind is Kind.TEXT):
        raise ValueError(f"{about.dataset_id} has {space.get('type')} as {name}, task {task.name} {spec.kind}")
    if spec.kind is Kind.TEXT:
        return
    if spec.kind is Kind.DISCRETE and np.any(space.get("start", space.get("low", 0))):
        raise ValueError(
            f"{about.dataset_id} does not count {name} from 0 on, as task {task.name} does; subtract the least value first"
        )
    shape = tuple(space["shape"] if "shape" in space else np.shape(space.get("nvec", 0)))
    if shape != spec.shape:
        size = "x".join(map(str, shape))
        what = f"images of size {size}" if spec.kind is Kind.IMAGE else f"{name} of shape {shape}"
        raise ValueError(f"{about.dataset_id} has {what} in each step, task {task.name} {spec.shape}")
    values = space.get("n")
    if spec.kind is Kind.DISCRETE and isinstance(values, int) and (np.asarray(spec.num_values) != values).any():
        raise ValueError(f"{about.dataset_id} has {values} values of {name}, task {task.name} {spec.num_values}")


def _episodes(folder: Path, about: _About, task: Task) -> Iterator[Episode]:
    from minari.dataset.minari_storage import MinariStorage

    name, digest = about.dataset_id, content_digest(folder / CONTENT)
    try:
        storage = MinariStorage.read(folder)
        for index in range(int(storage.total_episodes)):
            record = next(iter(storage.get_episodes([index])))
            metadata = next(iter(storage.get_episode_metadata([index])))
            yield Episode(
                key=episode_key("minari", name, digest, index),
                task=task.name,
                source=f"file:{name}",
                **_columns(record, task, f"episode {index} of {name}"),
                seed=int(metadata.get("seed") or 0),
                info={"env_id": about.env_id or "not stated", "file": name},
            )
    except (OSError, KeyError) as error:
        raise ValueError(f"{folder / CONTENT} is damaged: {error}") from error


def _columns(record: Mapping[str, Any], task: Task, where: str) -> dict[str, Any]:
    """What an Episode takes of one record: the observation after the last action is dropped."""
    actions = fit_array(np.asarray(record["actions"]), task.action, f"actions of {where}")
    seen = record["observations"]
    observations: dict[str, np.ndarray] = {}
    for key, spec in task.observations.items():
        values = seen
        for name in key.split("/") if isinstance(seen, Mapping) else ():
            values = values[name]
        values = np.asarray(values)
        if len(values) != len(actions) + 1:
            raise ValueError(f"{where} has {len(values)} observations and {len(actions)} actions; expected one more")
        observations[key] = fit_array(values[:-1], spec, f"{key} of {where}")
    ends = [bool(record[name][-1]) if len(record[name]) else False for name in ("terminations", "truncations")]
    return {
        "observations": observations,
        "actions": actions,
        "rewards": np.asarray(record["rewards"]).astype(np.float32),
        "terminated": ends[0],
        "truncated": ends[1] or not ends[0],
    }
