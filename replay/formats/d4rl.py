"""D4RL files: HDF5 with all steps in a row, cut into episodes where `terminals` or `timeouts` say
so.

Shape letters: N rows of a file, S size of an observation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Bool

from gato.array_spec import ArraySpec, Kind
from gato.compatibility.compare import compare
from gato.compatibility.environment import EnvDescription
from gato.episode import Episode
from gato.task import Task
from replay.formats.convert import Converter
from replay.formats.env_spec import described
from replay.formats.hdf5 import opened
from replay.formats.reader import (
    NO_OPTIONS,
    Attempt,
    ImportOptions,
    Known,
    Reading,
    Report,
    nothing_known,
)
from replay.formats.schema import (
    content_digest,
    episode_key,
    guess_task,
    one_number_a_step,
    unknown_task,
    without_version,
)

NEEDED = ("observations", "actions", "rewards", "terminals")
ENV_NAMES = ("metadata/env_id", "metadata/env_name", "metadata/env", "metadata/task")
VERSION = re.compile(r"-v(\d+)$")
"""In the name of a file: D4RL's own v0 to v2 are of the robots that mujoco-py ran as v2."""
MOST_BREAKS = 0.1
"""In more of the rows an episode cannot end without a mark: then the rows are not in the order in
which they were played."""
IN_ORDER = "row-order"
"""What `--allow` takes for that."""
BLOCK_ROWS = 16_384
"""Rows that are compared at once to find where one episode ends and another begins."""
SAME = 1e-4
"""How far two numbers of the same observation may be apart, relative and absolute: files keep them
in 32 bits or 64."""
FORMAT = f"a D4RL file holds {', '.join(NEEDED)} (one row a step) and, as a rule, timeouts"


def read_d4rl(
    path: Path,
    tasks: Mapping[str, Task],
    task: Task | None = None,
    *,
    known: Known = nothing_known,
    options: ImportOptions = NO_OPTIONS,
) -> Reading:
    """The episodes of a D4RL file, one in memory at a time. ValueError, at once, if it cannot be
    read as `task`.

    for episode in read_d4rl(Path("hopper-medium-v2.hdf5"), tasks, known=store.known):
        ...

    Without `task`, the file's metadata or its name must tell it. An episode ends where `terminals`
    or `timeouts` say so, and where they do not: after the task's `max_steps`; where
    `next_observations`, if the file has them, are not the observations of the next row, as in the
    middle of a medium-expert file; and where `infos/seed` changes. A last piece that ends with the
    file is truncated. An episode that contradicts the task is refused alone, and counted.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}")
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not an HDF5 file; {FORMAT}")
    with opened(path) as file:
        plan = _plan(file, path, tasks, task, options)
    return Reading(
        _episodes(path, plan, known),
        total=len(plan.spans),
        report=Report(task=plan.converter.task.name, notes=plan.notes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """Rows [start, stop) of a file that are an episode, or a part of `split_from` rows without a
    mark between them."""

    start: int
    stop: int
    split_from: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What was found out about a file before its first episode is read."""

    converter: Converter
    observation: str
    env_id: str
    has_seeds: bool
    terminals: Bool[np.ndarray, " N"]
    spans: list[_Span]
    notes: list[str]


def _plan(
    file: h5py.File,
    path: Path,
    tasks: Mapping[str, Task],
    task: Task | None,
    options: ImportOptions,
) -> _Plan:
    missing = [name for name in NEEDED if not isinstance(file.get(name), h5py.Dataset)]
    if missing:
        minari = (
            "; this one looks like Minari's: give the folder of its data set"
            if "episode_0" in file
            else ""
        )
        raise ValueError(f"{path} has no {', '.join(missing)}; {FORMAT}{minari}")
    env_id = next((text for name in ENV_NAMES if (text := _text(file, name))), "")
    found = task or guess_task([env_id, path.stem] if env_id else [path.stem], tasks)
    named = VERSION.search(path.stem)
    if task is None and found is not None and not env_id and named and found.family == "mujoco":
        stated = f"{without_version(found.env_id)}-v{named[1]}"
        found = next((other for other in tasks.values() if other.env_id == stated), found)
    if found is None:
        said = f" from its env_id {env_id!r} or its name" if env_id else " from its name"
        raise unknown_task(str(path), tasks, [env_id, path.stem], said)
    comparison = compare(
        _description(file, path, env_id, found),
        found,
        defaults=options.defaults,
        allowed=options.allowed,
    )
    comparison.require()
    observation = _single_observation(found)
    num_rows = _rows(file, path, "timeouts" in file)
    _check_column(file, path, "observations", found, found.observations[observation])
    _check_column(file, path, "actions", found, found.action)
    seeds = file.get("infos/seed")
    has_seeds = (
        isinstance(seeds, h5py.Dataset) and seeds.shape == (num_rows,) and seeds.dtype.kind in "iu"
    )
    terminals = _marks(file, path, "terminals")
    marked_N = terminals | _marks(file, path, "timeouts") if "timeouts" in file else terminals
    unmarked_N = _breaks(file, num_rows) & ~marked_N
    share = float(unmarked_N.mean())
    if share > MOST_BREAKS and num_rows > 1 / MOST_BREAKS:
        if IN_ORDER not in options.allowed:
            raise ValueError(
                f"{path} is not in order: in {share:.0%} of its rows next_observations are not the"
                " observations of the next row, so the rows were shuffled, or one of the two"
                f" columns was changed; add --allow {IN_ORDER} to read the rows as they stand"
            )
        unmarked_N[:] = False
    if has_seeds:
        seeds_N = np.asarray(_column(file, "infos/seed")[()])
        unmarked_N[:-1] |= seeds_N[1:] != seeds_N[:-1]
    unmarked_N &= ~marked_N
    spans = list(_spans(marked_N | unmarked_N, found.max_steps))
    notes = list(comparison.notes)
    if unmarked_N.any() and "timeouts" in file:
        notes.append(
            f"assumed: {int(unmarked_N.sum()):,} ends of episodes that no mark says: there"
            " next_observations or infos/seed are another episode's"
        )
    if "timeouts" not in file:
        notes.append(
            f"assumed: the file has no timeouts; an episode ends after {found.max_steps:,} steps at"
            " the latest"
        )
    return _Plan(
        converter=Converter(task=found, comparison=comparison, allowed=options.allowed),
        observation=observation,
        env_id=env_id or "not stated",
        has_seeds=has_seeds,
        terminals=terminals,
        spans=spans,
        notes=notes,
    )


def _description(file: h5py.File, path: Path, env_id: str, task: Task) -> EnvDescription:
    """What the file says of its environment. Files of D4RL itself say it by the version in their
    name alone."""
    spec, kwargs = (_mapping(file, path, f"metadata/{name}") for name in ("env_spec", "env_kwargs"))
    named = VERSION.search(path.stem)
    if not env_id and named and task.family == "mujoco":
        env_id = f"{without_version(task.env_id)}-v{max(int(named[1]), 2)}"
    said = described(spec, where=str(path), env_id=env_id, kwargs=kwargs)
    return replace(said, converts_versions=True)


def _mapping(file: h5py.File, path: Path, name: str) -> dict[str, Any]:
    """What a text of the file says in JSON; nothing if there is none. ValueError if it is no
    mapping."""
    try:
        found = json.loads(_text(file, name) or "null")
    except (ValueError, RecursionError) as problem:
        raise ValueError(
            f"{path} has {name} that is no JSON: {problem}; remove it, or write it again"
        ) from problem
    if not isinstance(found, dict | None):
        raise ValueError(
            f"{path} has {name} {found!r}, expected a mapping in JSON; remove it, or write it again"
        )
    return found or {}


def _marks(file: h5py.File, path: Path, name: str) -> Bool[np.ndarray, " N"]:
    """A column of flags. ValueError if it holds more than yes and no."""
    values = one_number_a_step(np.asarray(_column(file, name)[()]), f"{name} of {path}")
    if not np.isin(values, (0, 1)).all():
        odd = values[~np.isin(values, (0, 1))][0]
        raise ValueError(f"{path} has {name} other than 0 and 1, such as {odd}; {FORMAT}")
    return values.astype(np.bool_)


def _breaks(file: h5py.File, num_rows: int) -> Bool[np.ndarray, " N"]:
    """Rows after which the next row is of another episode, as far as `next_observations` tell."""
    breaks_N = np.zeros(num_rows, np.bool_)
    after = file.get("next_observations")
    seen = _column(file, "observations")
    if (
        not isinstance(after, h5py.Dataset)
        or after.shape != seen.shape
        or after.dtype.kind not in "fiu"
    ):
        return breaks_N
    for start in range(0, num_rows - 1, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, num_rows - 1)
        same_NS = np.isclose(
            after[start:stop], seen[start + 1 : stop + 1], rtol=SAME, atol=SAME, equal_nan=True
        )
        breaks_N[start:stop] = ~same_NS.all(axis=1)
    return breaks_N


def _spans(ends_N: Bool[np.ndarray, " N"], longest: int) -> Iterator[_Span]:
    """The rows of each episode: up to each end, and at most `longest` at once."""
    start = 0
    for end in dict.fromkeys([*(np.flatnonzero(ends_N) + 1).tolist(), len(ends_N)]):
        whole = end - start
        while start < end:
            stop = min(start + longest, end)
            yield _Span(start=start, stop=stop, split_from=whole if whole > longest else 0)
            start = stop


def _episodes(path: Path, plan: _Plan, known: Known) -> Iterator[Attempt | None]:
    digest = content_digest(path)
    with opened(path) as file:
        for index, span in enumerate(plan.spans):
            key = episode_key("d4rl", path.stem, digest, index)
            what = f"episode {index} of {path.name}"
            yield (
                None
                if known(key)
                else Attempt(what=what, make=partial(_episode, file, path, plan, key, what, span))
            )


def _episode(file: h5py.File, path: Path, plan: _Plan, key: str, what: str, span: _Span) -> Episode:
    rows = slice(span.start, span.stop)
    terminated = bool(plan.terminals[span.stop - 1])
    return plan.converter.episode(
        key=key,
        source=f"file:{path.stem}",
        what=what,
        observations={plan.observation: np.asarray(_column(file, "observations")[rows])},
        actions=np.asarray(_column(file, "actions")[rows]),
        rewards=np.asarray(_column(file, "rewards")[rows]),
        terminated=terminated,
        truncated=not terminated,
        seed=int(_column(file, "infos/seed")[span.start]) if plan.has_seeds else 0,
        info={"env_id": plan.env_id, "file": path.name},
        split_from=span.split_from,
    )


def _single_observation(task: Task) -> str:
    keys = [
        key
        for key, spec in task.observations.items()
        if spec.kind is Kind.CONTINUOUS and len(spec.shape) == 1
    ]
    if len(task.observations) != 1 or len(keys) != 1:
        raise ValueError(
            f"task {task.name} observes {sorted(task.observations)}, a D4RL file one vector of"
            " numbers; use a Minari data set for it"
        )
    return keys[0]


def _check_column(file: h5py.File, path: Path, name: str, task: Task, spec: ArraySpec) -> None:
    column = _column(file, name)
    if column.shape[1:] != spec.shape:
        raise ValueError(
            f"{path} has {name} of shape {column.shape[1:]} in each step, task {task.name}"
            f" ({task.env_id}) {spec.shape}"
        )
    if column.dtype.kind not in "fiu" or (spec.kind is Kind.DISCRETE and column.dtype.kind == "f"):
        raise ValueError(
            f"{path} has {name} of dtype {column.dtype}, task {task.name} {spec.dtype}"
        )


def _rows(file: h5py.File, path: Path, has_timeouts: bool) -> int:
    """How many steps the file holds, once all of its columns agree."""
    names = (*NEEDED, "timeouts") if has_timeouts else NEEDED
    shapes = {name: _column(file, name).shape for name in names}
    flat = [name for name in names if name not in ("observations", "actions")]
    if any(not shape for shape in shapes.values()) or any(
        shapes[name][1:] not in ((), (1,)) for name in flat
    ):
        raise ValueError(
            f"{path} has columns of shapes {shapes}; {', '.join(flat)} must be one number a step"
        )
    lengths = {name: shape[0] for name, shape in shapes.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{path} has columns of different lengths: {lengths}")
    if not lengths["rewards"]:
        raise ValueError(f"{path} is empty: it has no steps")
    return lengths["rewards"]


def _column(file: h5py.File, name: str) -> h5py.Dataset:
    found = file[name]
    assert isinstance(found, h5py.Dataset), name
    return found


def _text(file: h5py.File, name: str) -> str:
    """A single text of the file, alone or in an array of one; else nothing."""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset) or found.size != 1:
        return ""
    value = np.asarray(found[()]).reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else ""
