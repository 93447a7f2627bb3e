"""D4RL files: HDF5 with all steps in one sequence, cut into episodes at `terminals` and `timeouts`.

Shape letters: N rows of a file, S size of an observation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Bool

from gato.array_spec import Kind
from gato.compatibility.compare import compare
from gato.compatibility.environment import EnvDescription
from gato.episode import Episode
from gato.task import Task
from replay.formats.convert import Converter
from replay.formats.d4rl_file import (
    FORMAT,
    NEEDED,
    Span,
    breaks_of,
    check_column,
    column_of,
    mapping_of,
    marks_of,
    num_rows_of,
    spans_of,
    text_of,
)
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
    unknown_task,
    without_version,
)

ENV_NAMES = ("metadata/env_id", "metadata/env_name", "metadata/env", "metadata/task")
VERSION = re.compile(r"-v(\d+)$")
"""In the name of a file. D4RL's own v0 to v2 are of the robots that mujoco-py ran as v2."""
MOST_BREAKS = 0.1
"""Share of the rows that may end an episode without a mark. If there are more, the rows are not in
their original order."""
IN_ORDER = "row-order"
"""The subject of `--allow` for that."""


def read_d4rl(
    path: Path,
    tasks: Mapping[str, Task],
    task: Task | None = None,
    *,
    known: Known = nothing_known,
    options: ImportOptions = NO_OPTIONS,
) -> Reading:
    """The episodes of a D4RL file, one in memory at a time. Raises ValueError at once if it cannot
    be read as `task`.

    for episode in read_d4rl(Path("hopper-medium-v2.hdf5"), tasks, known=store.known):
        ...

    Without `task`, the file's metadata or its name must tell it. An episode ends at a mark of
    `terminals` or `timeouts`. Without a mark it ends after the task's `max_steps`; when
    `next_observations`, if the file has them, differ from the observations of the next row, as in
    the middle of a medium-expert file; and when `infos/seed` changes. A last part that ends with
    the file is truncated. An episode that contradicts the task is rejected alone, and counted.
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
class _Plan:
    """What is known of a file before its first episode is read."""

    converter: Converter
    observation: str
    env_id: str
    has_seeds: bool
    terminals: Bool[np.ndarray, " N"]
    spans: list[Span]
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
    env_id = next((text for name in ENV_NAMES if (text := text_of(file, name))), "")
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
    num_rows = num_rows_of(file, path, "timeouts" in file)
    check_column(file, path, "observations", found, found.observations[observation])
    check_column(file, path, "actions", found, found.action)
    seeds = file.get("infos/seed")
    has_seeds = (
        isinstance(seeds, h5py.Dataset) and seeds.shape == (num_rows,) and seeds.dtype.kind in "iu"
    )
    terminals = marks_of(file, path, "terminals")
    marked_N = terminals | marks_of(file, path, "timeouts") if "timeouts" in file else terminals
    unmarked_N = breaks_of(file, num_rows) & ~marked_N
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
        seeds_N = np.asarray(column_of(file, "infos/seed")[()])
        unmarked_N[:-1] |= seeds_N[1:] != seeds_N[:-1]
    unmarked_N &= ~marked_N
    spans = list(spans_of(marked_N | unmarked_N, found.max_steps))
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
    """The file's description of its environment. D4RL's own files have only a version in their
    name."""
    spec, kwargs = (
        mapping_of(file, path, f"metadata/{name}") for name in ("env_spec", "env_kwargs")
    )
    named = VERSION.search(path.stem)
    if not env_id and named and task.family == "mujoco":
        env_id = f"{without_version(task.env_id)}-v{max(int(named[1]), 2)}"
    said = described(spec, where=str(path), env_id=env_id, kwargs=kwargs)
    return replace(said, converts_versions=True)


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


def _episode(file: h5py.File, path: Path, plan: _Plan, key: str, what: str, span: Span) -> Episode:
    rows = slice(span.start, span.stop)
    terminated = bool(plan.terminals[span.stop - 1])
    return plan.converter.episode(
        key=key,
        source=f"file:{path.stem}",
        what=what,
        observations={plan.observation: np.asarray(column_of(file, "observations")[rows])},
        actions=np.asarray(column_of(file, "actions")[rows]),
        rewards=np.asarray(column_of(file, "rewards")[rows]),
        terminated=terminated,
        truncated=not terminated,
        seed=int(column_of(file, "infos/seed")[span.start]) if plan.has_seeds else 0,
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
