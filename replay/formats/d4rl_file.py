"""Columns of a D4RL file: checked, and cut into the rows of each episode.

Shape letters: N rows of a file, S size of an observation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Bool

from gato.array_spec import ArraySpec, Kind
from gato.task import Task
from replay.formats.schema import one_number_a_step

NEEDED = ("observations", "actions", "rewards", "terminals")
BLOCK_ROWS = 16_384
"""Rows that are compared at once to find where one episode ends and another begins."""
SAME = 1e-4
"""How far two numbers of the same observation may be apart, relative and absolute: files keep them
in 32 bits or 64."""
FORMAT = f"a D4RL file holds {', '.join(NEEDED)} (one row a step) and, as a rule, timeouts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Rows [start, stop) of a file that are an episode, or a part of `split_from` rows without a
    mark between them."""

    start: int
    stop: int
    split_from: int = 0


def mapping_of(file: h5py.File, path: Path, name: str) -> dict[str, Any]:
    """A mapping that the file has as JSON in a text; empty if there is none. Raises ValueError if
    it is not a mapping."""
    try:
        found = json.loads(text_of(file, name) or "null")
    except (ValueError, RecursionError) as problem:
        raise ValueError(
            f"{path} has {name} that is not JSON: {problem}; remove it, or write it again"
        ) from problem
    if not isinstance(found, dict | None):
        raise ValueError(
            f"{path} has {name} {found!r}, expected a mapping in JSON; remove it, or write it again"
        )
    return found or {}


def marks_of(file: h5py.File, path: Path, name: str) -> Bool[np.ndarray, " N"]:
    """A column of flags. Raises ValueError if it has values other than 0 and 1."""
    values = one_number_a_step(np.asarray(column_of(file, name)[()]), f"{name} of {path}")
    if not np.isin(values, (0, 1)).all():
        odd = values[~np.isin(values, (0, 1))][0]
        raise ValueError(f"{path} has {name} other than 0 and 1, such as {odd}; {FORMAT}")
    return values.astype(np.bool_)


def breaks_of(file: h5py.File, num_rows: int) -> Bool[np.ndarray, " N"]:
    """Rows after which the next row is of another episode, as far as `next_observations` tell."""
    breaks_N = np.zeros(num_rows, np.bool_)
    after = file.get("next_observations")
    observed = column_of(file, "observations")
    if (
        not isinstance(after, h5py.Dataset)
        or after.shape != observed.shape
        or after.dtype.kind not in "fiu"
    ):
        return breaks_N
    for start in range(0, num_rows - 1, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, num_rows - 1)
        same_NS = np.isclose(
            after[start:stop], observed[start + 1 : stop + 1], rtol=SAME, atol=SAME, equal_nan=True
        )
        breaks_N[start:stop] = ~same_NS.all(axis=1)
    return breaks_N


def spans_of(ends_N: Bool[np.ndarray, " N"], longest: int) -> Iterator[Span]:
    """The rows of each episode: up to each end, and at most `longest` at once."""
    start = 0
    for end in dict.fromkeys([*(np.flatnonzero(ends_N) + 1).tolist(), len(ends_N)]):
        whole = end - start
        while start < end:
            stop = min(start + longest, end)
            yield Span(start=start, stop=stop, split_from=whole if whole > longest else 0)
            start = stop


def check_column(file: h5py.File, path: Path, name: str, task: Task, spec: ArraySpec) -> None:
    column = column_of(file, name)
    if column.shape[1:] != spec.shape:
        raise ValueError(
            f"{path} has {name} of shape {column.shape[1:]} in each step, task {task.name}"
            f" ({task.env_id}) {spec.shape}"
        )
    if column.dtype.kind not in "fiu" or (spec.kind is Kind.DISCRETE and column.dtype.kind == "f"):
        raise ValueError(
            f"{path} has {name} of dtype {column.dtype}, task {task.name} {spec.dtype}"
        )


def num_rows_of(file: h5py.File, path: Path, has_timeouts: bool) -> int:
    """How many steps the file holds, once all of its columns agree."""
    names = (*NEEDED, "timeouts") if has_timeouts else NEEDED
    shapes = {name: column_of(file, name).shape for name in names}
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


def column_of(file: h5py.File, name: str) -> h5py.Dataset:
    found = file[name]
    assert isinstance(found, h5py.Dataset), name
    return found


def text_of(file: h5py.File, name: str) -> str:
    """A single text of the file, alone or in an array of one; else nothing."""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset) or found.size != 1:
        return ""
    value = np.asarray(found[()]).reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else ""
