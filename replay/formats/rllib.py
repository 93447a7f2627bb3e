"""RLlib's offline episodes (`output_write_episodes=True`): Parquet with one packed episode a row,
read without RLlib.

A row is msgpack with NumPy arrays in the encoding of msgpack-numpy. That encoding keeps arrays of
objects as pickles, which run code when they are opened: they are never opened here.

Shape letters: T steps.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from jaxtyping import Shaped

from gato.array_spec import Kind
from gato.compatibility.compare import compare
from gato.compatibility.environment import Bounds, EnvDescription, full_bounds
from gato.episode import BadEpisode, Episode
from gato.task import Task
from replay.formats import parquet
from replay.formats.convert import Converter
from replay.formats.env_spec import bounds_of
from replay.formats.reader import (
    DAMAGE,
    NO_OPTIONS,
    ImportOptions,
    Known,
    Reading,
    Report,
    nothing_known,
)
from replay.formats.schema import Misfit

COLUMN = "item"
NEEDED = ("observations", "actions", "rewards", "is_terminated", "is_truncated")
MOST_BOUND_BYTES = 1 << 24
"""Of the bounds of a space, unpacked."""
MOST_LOOKBACK = 1_000_000
PLAIN_KINDS = "biufSU"
"""Kinds of dtype that are only numbers or text."""


class _Refused:
    """In place of what may not be decoded: an array of objects, or a structured one."""


def read_rllib(
    path: Path,
    tasks: Mapping[str, Task],
    task: Task | None = None,
    *,
    known: Known = nothing_known,
    options: ImportOptions = NO_OPTIONS,
) -> Reading:
    """The episodes of a file that RLlib wrote, or of a folder of such. ValueError, at once, where
    they do not fit.

    for episode in read_rllib(Path("out/hopperenv"), tasks, known=store.known):
        ...

    Without `task`, the name of a file or folder must tell it: RLlib names a folder after the
    environment's class. RLlib cuts episodes into chunks unless `batch_mode="complete_episodes"`:
    each is an episode here, and `info` says at which step it begins. RLlib keeps actions as its
    policy gave them; where the task's bounds are not -1 and 1 they are scaled to them, as RLlib
    does for the environment (`normalize_actions`, its default).
    """
    files = parquet.find_files(path)
    names = parquet.column_names(path)
    if COLUMN not in names:
        raise ValueError(
            f"{path} has columns {', '.join(names)}, expected {COLUMN!r}; write episodes with"
            " output_write_episodes=True"
        )
    found = parquet.task_of(path, files, tasks, task, "RLlib's folders are such as hopperenv")
    if not parquet.num_rows(files):
        raise ValueError(f"{path} is empty: it holds no episodes")
    comparison = compare(
        _description(path, files, found), found, defaults=options.defaults, allowed=options.allowed
    )
    comparison.require()
    # RLlib keeps actions between -1 and 1, whatever bounds it declares: they are scaled from these,
    # and from no others.
    converter = Converter(
        task=found,
        comparison=replace(comparison, scale_from=_kept_bounds(found)),
        allowed=options.allowed,
    )
    notes = [*comparison.notes]
    if converter.comparison.scale_from is not None:
        notes.append(
            "assumed: actions are RLlib's own, between -1 and 1 (normalize_actions); scaled to the"
            " task's bounds"
        )
    parquet.require_fit(
        parquet.rows(files, "rllib", [COLUMN], nothing_known), partial(_episode, converter), path
    )
    rows = parquet.rows(files, "rllib", [COLUMN], known)
    return Reading(
        parquet.attempts(rows, partial(_episode, converter)),
        total=parquet.num_rows(files),
        report=Report(task=found.name, notes=notes),
    )


def _kept_bounds(task: Task) -> Bounds | None:
    """The bounds of the actions that RLlib keeps; None if they are the task's own."""
    bounds, size = task.action.bounds, task.action.size
    if (
        task.action.kind is not Kind.CONTINUOUS
        or bounds is None
        or ((bounds[0] == -1.0).all() and (bounds[1] == 1.0).all())
    ):
        return None
    return np.full(size, -1.0), np.full(size, 1.0)


def _description(path: Path, files: list[Path], task: Task) -> EnvDescription:
    """The spaces that the first episode with any declares; RLlib names no environment."""
    for row in islice(parquet.rows(files, "rllib", [COLUMN], nothing_known), parquet.LOOKED_AT):
        try:
            state = None if row.values is None else _state(row)
        except DAMAGE:
            continue
        if state is not None and (state.get("_observation_space") or state.get("_action_space")):
            return _declared(path, state, task)
    return EnvDescription(where=str(path))


def _declared(path: Path, state: Mapping[str, Any], task: Task) -> EnvDescription:
    """ValueError if its spaces are of other kinds or sizes than the task's."""
    action, observation = (
        state.get(name) or {} for name in ("_action_space", "_observation_space")
    )
    spec = task.action
    if spec.kind is Kind.DISCRETE and action.get("space") == "discrete":
        if action.get("start", 0) or (spec.counts != action.get("n")).any():
            raise Misfit(
                f"{path} has actions from {action.get('start', 0)} on, {action.get('n')} of them;"
                f" task {task.name} takes {spec.num_values} from 0 on"
            )
    elif action and (action.get("space") == "box") != (spec.kind is Kind.CONTINUOUS):
        raise Misfit(
            f"{path} has actions of a {action.get('space')} space, task {task.name} takes"
            f" {spec.kind} ones"
        )
    bounds: dict[str, Bounds] = {}
    for name, its in task.observations.items():
        part = (
            observation
            if observation.get("space") != "dict"
            else _space_at(observation, name.split("/"))
        )
        found = bounds_of(_plain_box(part)) if part and part.get("space") == "box" else None
        if found is not None and its.kind is Kind.CONTINUOUS:
            bounds[name] = found
    # RLlib keeps actions between -1 and 1 whatever bounds it declares, so that these convert
    # nothing.
    declared = bounds_of(_plain_box(action)) if action.get("space") == "box" else None
    traits: tuple[str, ...] = ()
    if declared is not None and spec.bounds is not None:
        wanted = full_bounds(spec.bounds, spec.size)
        if len(declared[0]) != spec.size:
            raise Misfit(
                f"{path} has actions of {len(declared[0])} numbers, task {task.name} of {spec.size}"
            )
        if not all(np.allclose(own, its) for own, its in zip(declared, wanted, strict=True)):
            own = f"[{declared[0].min():g}, {declared[1].max():g}]"
            traits = (
                (
                    f"it declares actions in {own}, the task's are in [{wanted[0].min():g},"
                    f" {wanted[1].max():g}]"
                ),
            )
    return EnvDescription(where=str(path), observation_bounds=bounds, traits=traits)


def _space_at(space: Mapping[str, Any], path: list[str]) -> Mapping[str, Any]:
    for name in path:
        space = (space.get("spaces") or {}).get(name) or {}
    return space


def _plain_box(space: Mapping[str, Any]) -> dict[str, Any]:
    """A box of RLlib's with its bounds as arrays: they are compressed and in base64, as `.npy`."""
    return {
        "shape": space.get("shape", ()),
        **{name: _unpacked(space[name]) for name in ("low", "high")},
    }


def _unpacked(bound: Any) -> np.ndarray:
    """ValueError if it is no array of numbers; pickles are not opened."""
    if not isinstance(bound, (str, bytes)):
        return np.asarray(bound, np.float64)
    try:
        packed = zlib.decompressobj().decompress(base64.b64decode(bound), MOST_BOUND_BYTES)
        return np.load(io.BytesIO(packed), allow_pickle=False)
    except (ValueError, zlib.error, EOFError, OSError) as problem:
        raise BadEpisode(f"its space has bounds that cannot be read: {problem}") from problem


def _episode(converter: Converter, row: parquet.Row) -> Episode | None:
    """None for a chunk without a step, as RLlib writes one where an episode had just begun."""
    what, task = row.where, converter.task
    state = _state(row)
    actions = _array(_own(state["actions"], what), f"actions of {what}")
    if not len(actions):
        return None
    observations = _observations(_own(state["observations"], what), len(actions), task, what)
    started = int(state.get("t_started") or 0)
    info = {"file": row.file.name, "rllib_episode": str(state.get("id_", ""))[:64]}
    if started:
        info["begins"] = f"at step {started} of its episode"
    terminated = bool(state["is_terminated"])
    return converter.episode(
        key=row.key,
        source=f"file:{row.file.parent.name}",
        what=what,
        observations=observations,
        actions=actions,
        rewards=_array(_own(state["rewards"], what), f"rewards of {what}"),
        terminated=terminated,
        truncated=bool(state["is_truncated"]) or not terminated,
        info=info,
    )


def _state(row: parquet.Row) -> Mapping[str, Any]:
    """What was packed. BadEpisode if it is no episode of a single agent."""
    where = row.where
    packed = row.values.column(COLUMN)[0].as_py()
    try:
        state = msgpack.unpackb(packed, object_hook=decode, strict_map_key=False)
    except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException) as problem:
        raise ValueError(f"{where} is damaged, or no packed episode: {problem}") from problem
    if not isinstance(state, dict) or any(name not in state for name in NEEDED):
        named = (
            ", ".join(map(str, list(state)[:6]))
            if isinstance(state, dict)
            else type(state).__name__
        )
        raise ValueError(
            f"{where} holds {named}; expected a single agent's episode with {', '.join(NEEDED)}"
            " (several agents: write one file an agent)"
        )
    return state


def decode(packed: Mapping[Any, Any]) -> Any:
    """One mapping of msgpack, as a NumPy array or number where it is one. Never opens a pickle.

    The encoding: `{b"nd": True, b"type": dtype, b"kind": b"", b"shape": ..., b"data": bytes}` for
    an array, and without kind and shape for a number; kind `O` has a pickle as data, kind `V` a
    structured dtype.
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
        if not 0 <= lookback <= MOST_LOOKBACK:
            raise BadEpisode(f"{where}: a lookback of {lookback} steps")
    except BadEpisode:
        raise
    except (TypeError, KeyError, ValueError) as problem:
        raise ValueError(f"{where} is no episode of RLlib: a column lacks {problem}") from problem
    return _sliced(data, lookback)


def _sliced(data: Any, start: int) -> Any:
    if isinstance(data, dict):
        return {name: _sliced(part, start) for name, part in data.items()}
    return data[start:] if isinstance(data, (list, np.ndarray)) else data


def _array(data: Any, what: str) -> Shaped[np.ndarray, "T ..."]:
    """Rows, each an array or a number, or all in one array. ValueError where they differ, or are
    objects."""
    parts = data if isinstance(data, list) else [data]
    if any(isinstance(part, _Refused) for part in parts):
        raise BadEpisode(
            f"{what}: an array of Python objects; such may run code and is never opened"
        )
    try:
        array = np.asarray(data)
    except ValueError as problem:
        raise BadEpisode(f"{what}: steps of different shapes") from problem
    if array.ndim == 0 or array.dtype.kind not in PLAIN_KINDS:
        raise ValueError(
            f"{what}: {array.dtype} of shape {array.shape}, expected an array with a row for each"
            " step"
        )
    return array


def _observations(
    data: Any, num_steps: int, task: Task, where: str
) -> dict[str, Shaped[np.ndarray, "T ..."]]:
    """The observations before each action, by the task's names; nested ones by path."""
    observations: dict[str, np.ndarray] = {}
    for key in task.observations:
        what = f"{key} of {where}"
        if _is_nested(data):
            values = _array(_nested(data, key.split("/"), what), what)
        elif len(task.observations) == 1:
            values = _array(data, what)
        else:
            raise Misfit(f"{where} shows one array, task {task.name} {sorted(task.observations)}")
        if len(values) != num_steps + 1:
            raise BadEpisode(
                f"{what}: {len(values)} observations and {num_steps} actions; expected one more"
            )
        observations[key] = values[:-1]
    return observations


def _is_nested(data: Any) -> bool:
    return isinstance(data, dict) or (
        isinstance(data, list) and bool(data) and isinstance(data[0], dict)
    )


def _nested(data: Any, path: list[str], what: str) -> Any:
    """One part of nested observations: of a list of mappings, or of a mapping of arrays."""
    try:
        if isinstance(data, list):
            return [_nested(step, path, what) for step in data]
        return _nested(data[path[0]], path[1:], what) if path else data
    except (KeyError, TypeError, IndexError) as problem:
        raise Misfit(f"{what}: the file shows no {'/'.join(path)}") from problem
