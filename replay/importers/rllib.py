"""RLlib's offline episodes (`output_write_episodes=True`): Parquet with one packed episode a row, read without RLlib.

A row is msgpack with NumPy arrays in the encoding of msgpack-numpy. That encoding keeps arrays of objects as pickles,
which run code when they are opened: they are never opened here.

Shape letters: T steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from jaxtyping import Shaped

from gato.episode import Episode
from gato.task import ArraySpec, Kind, Task
from replay.importers import parquet
from replay.importers.fit import check_lengths, fit_array
from replay.importers.reading import Known, Reading, nothing_known

COLUMN = "item"
NEEDED = ("observations", "actions", "rewards", "is_terminated", "is_truncated")
PLAIN_KINDS = "biufSU"
"""Kinds of dtype that are only numbers or text."""


class _Refused:
    """In place of what may not be decoded: an array of objects, or a structured one."""


def read_rllib(
    path: Path, tasks: Mapping[str, Task], task: Task | None = None, *, known: Known = nothing_known
) -> Reading:
    """The episodes of a file that RLlib wrote, or of a folder of such. ValueError, at once, where they do not fit.

    for episode in read_rllib(Path("out/hopperenv"), tasks, known=store.known):
        ...

    Without `task`, the name of a file or folder must tell it: RLlib names a folder after the environment's class. RLlib cuts
    episodes into chunks unless `batch_mode="complete_episodes"`: each is an episode here, and `info` says at which step
    it begins. RLlib keeps actions as its policy gave them; where the task's bounds are not -1 and 1 they are scaled to
    them, as RLlib does for the environment (`normalize_actions`, its default).
    """
    files = parquet.find_files(path)
    names = parquet.column_names(path)
    if COLUMN not in names:
        raise ValueError(
            f"{path} has columns {', '.join(names)}, expected {COLUMN!r}; write episodes with output_write_episodes=True"
        )
    found = parquet.task_of(path, files[0], tasks, task, "RLlib's folders are such as hopperenv")
    first = next(parquet.rows(files, "rllib", [COLUMN], nothing_known), None)
    if first is None:
        raise ValueError(f"{path} is empty: it holds no episodes")
    _episode(first, found)  # a file of another task is refused before anything is stored
    return Reading(_episodes(files, found, known), total=parquet.num_rows(files))


def _episodes(files: list[Path], task: Task, known: Known) -> Iterator[Episode | None]:
    for row in parquet.rows(files, "rllib", [COLUMN], known):
        episode = None if row.values is None else _episode(row, task)
        if episode is not None or row.values is None:
            yield episode


def _episode(row: parquet.Row, task: Task) -> Episode | None:
    """None for a chunk without a step, as RLlib writes one where an episode had just begun."""
    where = f"{row.file.name}, row {row.key.rpartition(':')[2]}"
    state = _state(row, where)
    actions = _actions(_own(state["actions"], where), task.action, f"actions of {where}")
    if not len(actions):
        return None
    observations = _observations(_own(state["observations"], where), len(actions), task, where)
    started = int(state.get("t_started") or 0)
    rewards = _array(_own(state["rewards"], where), f"rewards of {where}").astype(np.float32).reshape(-1)
    check_lengths(where, len(actions), {"rewards": rewards})
    info = {"file": row.file.name, "rllib_episode": str(state.get("id_", ""))[:64]}
    if started:
        info["begins"] = f"at step {started} of its episode"
    terminated = bool(state["is_terminated"])
    return Episode(
        key=row.key,
        task=task.name,
        source=f"file:{row.file.parent.name}",
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        truncated=bool(state["is_truncated"]) or not terminated,
        seed=0,
        info=info,
    )


def _state(row: parquet.Row, where: str) -> Mapping[str, Any]:
    """What was packed. ValueError where it is no episode of a single agent."""
    packed = row.values.column(COLUMN)[0].as_py()
    try:
        state = msgpack.unpackb(packed, object_hook=decode, strict_map_key=False)
    except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException) as problem:
        raise ValueError(f"{where} is damaged, or no packed episode: {problem}") from problem
    if not isinstance(state, dict) or any(name not in state for name in NEEDED):
        named = ", ".join(map(str, list(state)[:6])) if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"{where} holds {named}; expected a single agent's episode with {', '.join(NEEDED)} (several agents: write "
            "one file an agent)"
        )
    return state


def decode(packed: Mapping[Any, Any]) -> Any:
    """One mapping of msgpack, as a NumPy array or number where it is one. Never opens a pickle.

    The encoding: `{b"nd": True, b"type": dtype, b"kind": b"", b"shape": ..., b"data": bytes}` for an array, and without
    kind and shape for a number; kind `O` has a pickle as data, kind `V` a structured dtype.
    """
    if b"nd" not in packed:
        return packed
    kind, dtype = packed.get(b"kind", b""), packed[b"type"]
    if kind or not isinstance(dtype, str):
        return _Refused()
    plain = np.dtype(dtype)
    if plain.kind not in PLAIN_KINDS:
        return _Refused()
    values = np.frombuffer(packed[b"data"], plain)
    return values.reshape(tuple(packed[b"shape"])) if packed[b"nd"] else values[0]


def _own(buffer: Any, where: str) -> Any:
    """What belongs to this chunk: before it a buffer repeats the last steps of the one before."""
    try:
        data, lookback = buffer["data"], int(buffer["lookback"])
    except (TypeError, KeyError, ValueError) as problem:
        raise ValueError(f"{where} is no episode of RLlib: a column lacks {problem}") from problem
    return _sliced(data, lookback)


def _sliced(data: Any, start: int) -> Any:
    if isinstance(data, dict):
        return {name: _sliced(part, start) for name, part in data.items()}
    return data[start:] if isinstance(data, (list, np.ndarray)) else data


def _array(data: Any, what: str) -> Shaped[np.ndarray, "T ..."]:
    """Rows, each an array or a number, or all in one array. ValueError where they differ, or are objects."""
    parts = data if isinstance(data, list) else [data]
    if any(isinstance(part, _Refused) for part in parts):
        raise ValueError(f"{what}: an array of Python objects; such may run code and is never opened")
    try:
        array = np.asarray(data)
    except ValueError as problem:
        raise ValueError(f"{what}: steps of different shapes") from problem
    if array.ndim == 0 or array.dtype.kind not in PLAIN_KINDS:
        raise ValueError(f"{what}: {array.dtype} of shape {array.shape}, expected an array with a row for each step")
    return array


def _actions(data: Any, spec: ArraySpec, what: str) -> Shaped[np.ndarray, "T ..."]:
    """Actions as the environment took them."""
    actions = _array(data, what)
    if not len(actions):
        return actions
    if spec.kind is Kind.CONTINUOUS and spec.bounds is not None:
        low, high = (np.broadcast_to(bound, (spec.size,)).reshape(spec.shape) for bound in spec.bounds)
        if actions.shape[1:] == spec.shape and ((low != -1.0) | (high != 1.0)).any():
            actions = low + (np.clip(actions, -1.0, 1.0) + 1.0) / 2.0 * (high - low)
    return fit_array(actions, spec, what)


def _observations(data: Any, num_steps: int, task: Task, where: str) -> dict[str, Shaped[np.ndarray, "T ..."]]:
    """The observations before each action, by the task's names; nested ones by path."""
    observations: dict[str, np.ndarray] = {}
    for key, spec in task.observations.items():
        what = f"{key} of {where}"
        if _is_nested(data):
            values = _array(_nested(data, key.split("/"), what), what)
        elif len(task.observations) == 1:
            values = _array(data, what)
        else:
            raise ValueError(f"{where} shows one array, task {task.name} {sorted(task.observations)}")
        if len(values) != num_steps + 1:
            raise ValueError(f"{what}: {len(values)} observations and {num_steps} actions; expected one more")
        observations[key] = fit_array(values[:-1], spec, what)
    return observations


def _is_nested(data: Any) -> bool:
    return isinstance(data, dict) or (isinstance(data, list) and bool(data) and isinstance(data[0], dict))


def _nested(data: Any, path: list[str], what: str) -> Any:
    """One part of nested observations: of a list of mappings, or of a mapping of arrays."""
    try:
        if isinstance(data, list):
            return [_nested(step, path, what) for step in data]
        return _nested(data[path[0]], path[1:], what) if path else data
    except (KeyError, TypeError, IndexError) as problem:
        raise ValueError(f"{what}: the file shows no {'/'.join(path)}") from problem
