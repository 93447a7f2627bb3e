"""Export: writes episodes of one task as a Minari data set, which imports as the same episodes
again.

Shape letters: T steps.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Shaped

from gato.array_spec import ArraySpec, Kind
from gato.episode import Episode, check_episode
from gato.task import Task
from gato.text import bytes_to_text
from replay.formats.minari.folder import PREFIX, datasets_root
from replay.formats.minari.storage import HDF5_FILE

DATASET_ID = re.compile(r"([-\w]+/)*[-\w][-\w.]*-v\d+")
CHUNK_BYTES = 1 << 20
GZIP_LEVEL = 4
LAST_OBSERVATION = (
    "An episode of T steps has T+1 observations, as Minari wants it; the one after the last action"
    " was not kept, so the last is the one before it again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    folder: Path
    dataset_id: str
    num_episodes: int
    num_steps: int


def export_minari(
    episodes: Iterable[Episode],
    task: Task,
    destination: str | Path,
    *,
    dataset_id: str | None = None,
    env_spec: str | None = None,
    description: str = "",
) -> Exported:
    """Write episodes of `task` as a Minari data set (HDF5, lossless), one in memory at a time.

    export_minari(store.all_episodes(), task, Path("out/hopper-mine-v0"))
    export_minari(store.all_episodes(), task, "gato/hopper/mine-v0")     # under
    MINARI_DATASETS_PATH

    A `Path` is the data set's own folder, a text its id. `dataset_id` is for a `Path`: without it,
    it is made of the task's and the folder's names, with a dash for what an id may not have.
    `env_spec` is Gymnasium's description as JSON (`actors.envs.factory.env_spec_of`): with it,
    Minari can make the environment again; without it, the data set names only the environment's id.

    Raises:
        ValueError: if the destination exists, the id has another form, an episode is of another
            task, or there are none. Then, and if writing fails, nothing is left behind.
    """
    folder, dataset_id = _destination(destination, dataset_id, task)
    if folder.exists():
        raise ValueError(f"{folder} is there already; remove it, or export to another place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".{folder.name}.draft-{os.getpid()}"
    try:
        (draft / "data").mkdir(parents=True)
        counts, characters = _write_episodes(draft / "data" / HDF5_FILE, episodes, task)
        if not counts:
            raise ValueError(f"there are no episodes of {task.name} to export")
        metadata = {
            "total_episodes": len(counts),
            "total_steps": sum(counts),
            "data_format": "hdf5",
            "jpeg_encoding": False,
            "observation_space": json.dumps(_observation_space(task, characters)),
            "action_space": json.dumps(_space(task.action, "")),
            "env_spec": env_spec or _bare_env_spec(task),
            "dataset_id": dataset_id,
            "minari_version": version("minari"),
            "dataset_size": round((draft / "data" / HDF5_FILE).stat().st_size / 1e6, 1),
            "description": f"{description} {LAST_OBSERVATION}".strip(),
            "gato_task": task.name,
        }
        (draft / "data" / "metadata.json").write_text(json.dumps(metadata))
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Exported(
        folder=folder, dataset_id=dataset_id, num_episodes=len(counts), num_steps=sum(counts)
    )


def _destination(destination: str | Path, dataset_id: str | None, task: Task) -> tuple[Path, str]:
    """The folder and the id of the data set."""
    if isinstance(destination, Path):
        folder = destination.expanduser()
        found = dataset_id or f"{_namespace(task)}/{_versioned(destination.name)}"
    else:
        found = destination.removeprefix(PREFIX)
        folder = datasets_root() / found
        if dataset_id not in (None, found):
            raise ValueError(
                f"the destination {destination!r} is an id already; leave out dataset_id"
                f" {dataset_id!r}"
            )
    if not DATASET_ID.fullmatch(found):
        raise ValueError(
            f"{found!r} is not an id of a Minari data set; they are such as"
            f" {_namespace(task)}/mine-v0"
        )
    return folder, found


def _namespace(task: Task) -> str:
    """The task's name in the characters that an id may have: `myenvs/Lift-v0` of
    `myenvs:Lift-v0`."""
    parts = re.split(r"[/:]", task.name)
    return (
        "/".join(found for part in parts if (found := re.sub(r"[^-\w]+", "-", part).strip("-")))
        or "gato"
    )


def _versioned(name: str) -> str:
    """The name of a folder as the last part of an id."""
    stem, version = (
        (name, "-v0") if not (found := re.fullmatch(r"(.*)(-v\d+)", name)) else found.groups()
    )
    return (re.sub(r"[^-\w.]+", "-", stem).strip("-.") or "data") + version


def _write_episodes(
    file: Path, episodes: Iterable[Episode], task: Task
) -> tuple[list[int], dict[str, set[str]]]:
    """Steps of each episode, and the characters of each text."""
    counts: list[int] = []
    characters: dict[str, set[str]] = {
        key: set() for key, spec in task.observations.items() if spec.kind is Kind.TEXT
    }
    with h5py.File(file, "w", track_order=True) as out:
        for index, episode in enumerate(episodes):
            check_episode(episode, task)
            group = out.create_group(f"episode_{index}")
            group.attrs.update(
                {"id": index, "total_steps": episode.num_steps, "seed": episode.seed}
            )
            group.attrs.update({"gato_key": episode.key, "gato_source": episode.source})
            group.attrs["gato_info"] = json.dumps(dict(episode.info))
            for key, values in episode.observations.items():
                name = f"observations/{key}" if len(task.observations) > 1 else "observations"
                if key in characters:
                    texts = [bytes_to_text(row) for row in values]
                    characters[key].update(*texts)
                    group.create_dataset(
                        name, data=[*texts, texts[-1]], dtype=h5py.string_dtype("utf-8")
                    )
                else:
                    _write(group, name, values, repeat_last=True)
            _write(group, "actions", episode.actions)
            _write(group, "rewards", episode.rewards)
            last = np.arange(episode.num_steps) == episode.num_steps - 1
            _write(group, "terminations", last & episode.terminated)
            _write(group, "truncations", last & episode.truncated)
            if episode.labels is not None:
                _write(group, "infos/labels", episode.labels, repeat_last=True)
            counts.append(episode.num_steps)
    return counts, characters


def _write(
    group: h5py.Group, name: str, values: Shaped[np.ndarray, "T ..."], *, repeat_last: bool = False
) -> None:
    """Write `values`, compressed; with `repeat_last`, the last row twice."""
    rows = max(1, min(len(values), CHUNK_BYTES // max(1, values[:1].nbytes)))
    data = group.create_dataset(
        name,
        shape=(len(values) + repeat_last, *values.shape[1:]),
        dtype=values.dtype,
        chunks=(rows, *values.shape[1:]),
        compression="gzip",
        compression_opts=GZIP_LEVEL,
    )
    data[: len(values)] = values
    if repeat_last:
        data[len(values)] = values[-1]


def _observation_space(task: Task, characters: Mapping[str, set[str]]) -> dict[str, Any]:
    """One observation as it is; several as a Dict, whose names with "/" are Dicts again."""
    spaces = {
        key: _space(spec, "".join(sorted(characters.get(key, ()))))
        for key, spec in task.observations.items()
    }
    if len(spaces) == 1:
        return next(iter(spaces.values()))
    root: dict[str, Any] = {"type": "Dict", "subspaces": {}}
    for key, space in spaces.items():
        *outer, name = key.split("/")
        inside = root
        for word in outer:
            inside = inside["subspaces"].setdefault(word, {"type": "Dict", "subspaces": {}})
        inside["subspaces"][name] = space
    return root


def _space(spec: ArraySpec, characters: str) -> dict[str, Any]:
    """One array as Minari describes it."""
    if spec.kind is Kind.TEXT:
        return {"type": "Text", "max_length": spec.shape[0], "min_length": 0, "charset": characters}
    if spec.kind is Kind.DISCRETE and not spec.shape:
        return {"type": "Discrete", "dtype": "int64", "start": 0, "n": int(spec.counts[0])}
    if spec.kind is Kind.DISCRETE:
        counts = spec.counts.reshape(spec.shape)
        return {
            "type": "MultiDiscrete",
            "dtype": "int64",
            "nvec": counts.tolist(),
            "start": np.zeros_like(counts).tolist(),
        }
    bounds = (0, 255) if spec.kind is Kind.IMAGE else spec.bounds or (-np.inf, np.inf)
    low, high = (
        np.broadcast_to(np.ravel(bound), (spec.size,)).reshape(spec.shape).tolist()
        for bound in bounds
    )
    return {
        "type": "Box",
        "dtype": str(spec.dtype),
        "shape": list(spec.shape),
        "low": low,
        "high": high,
    }


def _bare_env_spec(task: Task) -> str:
    """Gymnasium's description of an environment of which only the id is known."""
    return json.dumps(
        {
            "id": task.env_id,
            "entry_point": None,
            "reward_threshold": None,
            "nondeterministic": False,
            "max_episode_steps": task.max_steps,
            "order_enforce": True,
            "disable_env_checker": False,
            "kwargs": {},
            "additional_wrappers": [],
            "vector_entry_point": None,
        }
    )
