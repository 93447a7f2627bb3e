"""D4RL files: HDF5 with all steps in a row, cut into episodes where `terminals` or `timeouts` say so.

Shape letters: N rows of a file, S size of an observation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Bool

from gato.episode import Episode
from gato.task import ArraySpec, Kind, Task
from replay.importers.fit import content_digest, episode_key, fit_array, guess_task, without_version
from replay.importers.reading import Known, Reading, nothing_known

NEEDED = ("observations", "actions", "rewards", "terminals")
ENV_NAMES = ("metadata/env_id", "metadata/env_name", "metadata/env", "metadata/task")
BLOCK_ROWS = 65_536
"""Rows that are compared at once to find where one episode ends and another begins."""
SAME = 1e-4
"""How far two numbers of the same observation may be apart, relative and absolute: files keep them in 32 bits or 64."""
FORMAT = f"a D4RL file holds {', '.join(NEEDED)} (one row a step) and, as a rule, timeouts"


def read_d4rl(
    path: Path, tasks: Mapping[str, Task], task: Task | None = None, *, known: Known = nothing_known
) -> Reading:
    """The episodes of a D4RL file, one in memory at a time. ValueError, at once, where it cannot be read as `task`.

    for episode in read_d4rl(Path("hopper-medium-v2.hdf5"), tasks, known=store.known):
        ...

    Without `task`, the file's metadata or its name must tell it. Without `timeouts` (v0, v1), an episode ends as well
    after the task's `max_steps`, and where `next_observations`, if the file has them, are not the observations of the
    next row, as in the midst of a medium-expert file. A last piece that ends with the file is truncated.
    A value that is not finite passes: `check_episode` refuses that one episode, not the file.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}")
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not an HDF5 file; {FORMAT}")
    try:
        with h5py.File(path, "r") as file:
            plan = _plan(file, path, tasks, task)
    except OSError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return Reading(_episodes(path, plan, known), total=len(plan.spans))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What was found out about a file before its first episode is read."""

    task: Task
    observation: str
    env_id: str
    has_seeds: bool
    terminals: Bool[np.ndarray, " N"]
    spans: list[tuple[int, int]]


def _plan(file: h5py.File, path: Path, tasks: Mapping[str, Task], task: Task | None) -> _Plan:
    missing = [name for name in NEEDED if not isinstance(file.get(name), h5py.Dataset)]
    if missing:
        minari = "; this one looks like Minari's: give the folder of its data set" if "episode_0" in file else ""
        raise ValueError(f"{path} has no {', '.join(missing)}; {FORMAT}{minari}")
    env_id = next((text for name in ENV_NAMES if (text := _text(file, name))), "")
    found = task or guess_task([env_id, path.stem] if env_id else [path.stem], tasks)
    if found is None:
        said = f"its env_id {env_id!r} or its name" if env_id else "its name"
        raise ValueError(f"cannot tell the task of {path} from {said}; pass --task, one of {', '.join(sorted(tasks))}")
    if env_id and "-v" in env_id and without_version(env_id) != without_version(found.env_id):
        raise ValueError(
            f"{path} was made in {env_id}, but task {found.name} is {found.env_id}; pass the --task it is of"
        )
    observation = _single_observation(found)
    num_rows = _rows(file, path, "timeouts" in file)
    _check_width(file, path, "observations", found, found.observations[observation])
    _check_width(file, path, "actions", found, found.action)
    terminals = np.asarray(_column(file, "terminals")[()]).astype(np.bool_)
    timeouts = np.asarray(_column(file, "timeouts")[()]).astype(np.bool_) if "timeouts" in file else None
    longest = found.max_steps if timeouts is None else num_rows
    seeds = file.get("infos/seed")
    return _Plan(
        task=found,
        observation=observation,
        env_id=env_id or "not stated",
        has_seeds=isinstance(seeds, h5py.Dataset) and seeds.shape == (num_rows,) and seeds.dtype.kind in "iu",
        terminals=terminals,
        spans=list(_spans(terminals, _breaks(file, num_rows) if timeouts is None else timeouts, longest)),
    )


def _breaks(file: h5py.File, num_rows: int) -> Bool[np.ndarray, " N"]:
    """Rows after which the next row is of another episode, as far as `next_observations` tell."""
    breaks_N = np.zeros(num_rows, np.bool_)
    after = file.get("next_observations")
    seen = _column(file, "observations")
    if not isinstance(after, h5py.Dataset) or after.shape != seen.shape:
        return breaks_N
    for start in range(0, num_rows - 1, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, num_rows - 1)
        same_NS = np.isclose(after[start:stop], seen[start + 1 : stop + 1], rtol=SAME, atol=SAME, equal_nan=True)
        breaks_N[start:stop] = ~same_NS.all(axis=1)
    return breaks_N


def _spans(
    terminals_N: Bool[np.ndarray, " N"], cuts_N: Bool[np.ndarray, " N"], longest: int
) -> Iterator[tuple[int, int]]:
    """First and one past the last row of each episode: cut at terminals, at `cuts_N`, and after `longest` rows."""
    start = 0
    for end in dict.fromkeys([*(np.flatnonzero(terminals_N | cuts_N) + 1).tolist(), len(terminals_N)]):
        while start < end:
            stop = min(start + longest, end)
            yield start, stop
            start = stop


def _episodes(path: Path, plan: _Plan, known: Known) -> Iterator[Episode | None]:
    digest, task = content_digest(path), plan.task
    try:
        with h5py.File(path, "r") as file:
            for index, (start, stop) in enumerate(plan.spans):
                key = episode_key("d4rl", path.stem, digest, index)
                if known(key):
                    yield None
                    continue
                rows = slice(start, stop)
                terminated = bool(plan.terminals[stop - 1])
                spec = task.observations[plan.observation]
                observations = fit_array(_column(file, "observations")[rows], spec, f"observations of {path}")
                yield Episode(
                    key=key,
                    task=task.name,
                    source=f"file:{path.stem}",
                    observations={plan.observation: observations},
                    actions=fit_array(_column(file, "actions")[rows], task.action, f"actions of {path}"),
                    rewards=np.asarray(_column(file, "rewards")[rows]).astype(np.float32),
                    terminated=terminated,
                    truncated=not terminated,
                    seed=int(_column(file, "infos/seed")[start]) if plan.has_seeds else 0,
                    info={"env_id": plan.env_id, "file": path.name},
                )
    except OSError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _single_observation(task: Task) -> str:
    keys = [key for key, spec in task.observations.items() if spec.kind is Kind.CONTINUOUS and len(spec.shape) == 1]
    if len(task.observations) != 1 or len(keys) != 1:
        raise ValueError(
            f"task {task.name} observes {sorted(task.observations)}, a D4RL file one vector of numbers; "
            "use a Minari data set for it"
        )
    return keys[0]


def _check_width(file: h5py.File, path: Path, name: str, task: Task, spec: ArraySpec) -> None:
    shape = _column(file, name).shape[1:]
    if shape != spec.shape:
        raise ValueError(
            f"{path} has {name} of shape {shape} in each step, task {task.name} ({task.env_id}) {spec.shape}"
        )


def _rows(file: h5py.File, path: Path, has_timeouts: bool) -> int:
    """How many steps the file holds, once all of its columns agree."""
    names = (*NEEDED, "timeouts") if has_timeouts else NEEDED
    shapes = {name: _column(file, name).shape for name in names}
    flat = [name for name in names if name not in ("observations", "actions")]
    if any(not shape for shape in shapes.values()) or any(len(shapes[name]) != 1 for name in flat):
        raise ValueError(f"{path} has columns of shapes {shapes}; {', '.join(flat)} must be one number a step")
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
    """A single text of the file, or nothing."""
    found = file.get(name)
    value = found[()] if isinstance(found, h5py.Dataset) and found.shape == () else ""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else ""
