"""metadata.json of a Minari data set: its environment, spaces and number of episodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gato.array_spec import Kind
from gato.compatibility.environment import EnvDescription
from gato.task import Task
from replay.formats.env_spec import bounds_of, described
from replay.formats.minari.storage import FORMATS, HDF5_FILE, leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """The metadata of a data set."""

    dataset_id: str
    env_id: str
    """Empty if it is not stated."""
    env_spec: Mapping[str, Any]
    made_for: str
    """The task, if gato-ray exported the data set; otherwise empty."""
    data_format: str
    num_episodes: int
    observation_space: Mapping[str, Any]
    spaces: Mapping[str, Mapping[str, Any]]
    """The parts of the observation space, by path."""
    action_space: Mapping[str, Any]


def read_metadata(folder: Path) -> Metadata:
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
        if not isinstance(metadata, dict):
            raise ValueError(f"metadata.json holds {type(metadata).__name__}, expected a mapping")
        data_format = metadata.get("data_format", "hdf5")
        if data_format == "hdf5" and not (folder / HDF5_FILE).is_file():
            raise ValueError(f"it has no {HDF5_FILE}")
        if data_format not in FORMATS:
            raise ValueError(
                f"its format is {data_format}; those that can be read are {', '.join(FORMATS)}"
            )
        dataset_id, num_episodes = metadata["dataset_id"], metadata["total_episodes"]
        if not isinstance(dataset_id, str) or not dataset_id:
            raise ValueError(f"its dataset_id is {dataset_id!r}, expected a name")
        if type(num_episodes) is not int or num_episodes < 0:
            raise ValueError(
                f"its total_episodes is {num_episodes!r}, expected a number of episodes"
            )
        env = _json(metadata, "env_spec") if metadata.get("env_spec") else None
        space, action_space = _json(metadata, "observation_space"), _json(metadata, "action_space")
        if not isinstance(space, dict) or not isinstance(action_space, dict):
            raise ValueError(
                f"its spaces are {space!r} and {action_space!r}, expected Gymnasium's in JSON"
            )
        if env is not None and not isinstance(env, dict):
            raise ValueError(f"its env_spec is {env!r}, expected an environment's in JSON, or null")
        env = env or {}
        return Metadata(
            dataset_id=dataset_id,
            env_id=str(env.get("id") or ""),
            env_spec=env,
            made_for=str(metadata.get("gato_task", "")),
            data_format=data_format,
            num_episodes=num_episodes,
            observation_space=space,
            spaces=dict(leaves(space)),
            action_space=action_space,
        )
    except KeyError as error:
        raise ValueError(
            f"{folder} is not a Minari data set that can be read: metadata.json lacks {error}"
        ) from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{folder} is not a Minari data set that can be read: {error}") from error


def _json(metadata: Mapping[str, Any], name: str) -> Any:
    """A value of the metadata that is JSON in a text, as Minari writes it, or as it is."""
    value = metadata[name]
    return json.loads(value) if isinstance(value, str) else value


def description_of(about: Metadata, task: Task, paths: Mapping[str, str]) -> EnvDescription:
    bounds = {key: bounds_of(about.spaces[path]) for key, path in paths.items()}
    return described(
        about.env_spec,
        where=about.dataset_id,
        action_bounds=(
            bounds_of(about.action_space) if task.action.kind is Kind.CONTINUOUS else None
        ),
        observation_bounds={
            key: found
            for key, found in bounds.items()
            if found is not None and task.observations[key].kind is Kind.CONTINUOUS
        },
    )


def paths_of(about: Metadata, task: Task) -> dict[str, str]:
    """Where in the data set each observation of the task is. Raises ValueError if one is not
    there."""
    plain = "" in about.spaces
    if plain and len(task.observations) != 1:
        raise ValueError(
            f"{about.dataset_id} shows one array, task {task.name} {sorted(task.observations)}"
        )
    if not plain and not set(task.observations) <= set(about.spaces):
        raise ValueError(
            f"{about.dataset_id} shows {sorted(about.spaces)}, task {task.name}"
            f" {sorted(task.observations)}"
        )
    return {key: "" if plain else key for key in task.observations}
