"""RLlib's offline episodes (`output_write_episodes=True`): Parquet with one packed episode a row,
read without RLlib.

A row is msgpack with NumPy arrays in the encoding of msgpack-numpy. That encoding keeps arrays of
objects as pickles, which run code when they are opened: they are never opened here.

Shape letters: T steps.
"""

from __future__ import annotations

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
from replay.formats.rllib_codec import array_of, decode, is_nested, nested_of, own_steps, unpacked
from replay.formats.schema import Misfit

COLUMN = "item"
NEEDED = ("observations", "actions", "rewards", "is_terminated", "is_truncated")


def read_rllib(
    path: Path,
    tasks: Mapping[str, Task],
    task: Task | None = None,
    *,
    known: Known = nothing_known,
    options: ImportOptions = NO_OPTIONS,
) -> Reading:
    """The episodes of a file that RLlib wrote, or of a folder of such. Raises ValueError at once if
    they do not fit.

    for episode in read_rllib(Path("out/hopperenv"), tasks, known=store.known):
        ...

    Without `task`, the name of a file or folder must tell it: RLlib names a folder after the
    environment's class. RLlib cuts episodes into chunks unless `batch_mode="complete_episodes"`:
    each is an episode here, and `info` says at which step it begins. RLlib stores actions as its
    policy returned them. If the task's bounds are not -1 and 1, they are scaled to these, as RLlib
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
    """Raises ValueError if its spaces are of other kinds or sizes than the task's."""
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
        **{name: unpacked(space[name]) for name in ("low", "high")},
    }


def _episode(converter: Converter, row: parquet.Row) -> Episode | None:
    """None for a chunk without steps, which RLlib writes if an episode has just begun."""
    what, task = row.where, converter.task
    state = _state(row)
    actions = array_of(own_steps(state["actions"], what), f"actions of {what}")
    if not len(actions):
        return None
    observations = _observations(own_steps(state["observations"], what), len(actions), task, what)
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
        rewards=array_of(own_steps(state["rewards"], what), f"rewards of {what}"),
        terminated=terminated,
        truncated=bool(state["is_truncated"]) or not terminated,
        info=info,
    )


def _state(row: parquet.Row) -> Mapping[str, Any]:
    """The packed mapping. Raises BadEpisode if it is not the episode of a single agent."""
    where = row.where
    packed = row.values.column(COLUMN)[0].as_py()
    try:
        state = msgpack.unpackb(packed, object_hook=decode, strict_map_key=False)
    except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException) as problem:
        raise ValueError(f"{where} is damaged, or not a packed episode: {problem}") from problem
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


def _observations(
    data: Any, num_steps: int, task: Task, where: str
) -> dict[str, Shaped[np.ndarray, "T ..."]]:
    """The observations before each action, by the task's names; nested ones by path."""
    observations: dict[str, np.ndarray] = {}
    for key in task.observations:
        what = f"{key} of {where}"
        if is_nested(data):
            values = array_of(nested_of(data, key.split("/"), what), what)
        elif len(task.observations) == 1:
            values = array_of(data, what)
        else:
            raise Misfit(f"{where} shows one array, task {task.name} {sorted(task.observations)}")
        if len(values) != num_steps + 1:
            raise BadEpisode(
                f"{what}: {len(values)} observations and {num_steps} actions; expected one more"
            )
        observations[key] = values[:-1]
    return observations
