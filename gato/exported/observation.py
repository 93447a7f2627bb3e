"""One step's observation, as a user or a client has it, as arrays of one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from gato.array_spec import ArraySpec, Kind
from gato.task import Task
from gato.text import text_to_bytes


def one_row(task: Task, observation: Any) -> dict[str, Shaped[np.ndarray, "1 ..."]]:
    """The observation [1, *shape] by name, in the dtypes of the task's specs.

    Args:
        task: Whose step it is.
        observation: Arrays by name, each of its spec's shape; a text may be a `str`. A task that
            shows one array takes it without its name too.

    Raises:
        ValueError: If it is not what the task shows.
    """
    specs = task.observations
    named = observation
    if not isinstance(named, Mapping):
        given = type(named).__name__
        named = dict.fromkeys(specs, named) if len(specs) == 1 else {}
    else:
        given = f"{sorted(map(str, named))}"
    if set(named) != set(specs):
        raise ValueError(
            f"the observation is {given}, but {task.name} shows {sorted(specs)}; give an array for"
            " each name"
        )
    return {name: _row(spec, named[name], name) for name, spec in specs.items()}


def _row(spec: ArraySpec, value: Any, name: str) -> Shaped[np.ndarray, "1 ..."]:
    if spec.kind is Kind.TEXT and isinstance(value, str):
        return text_to_bytes([value], spec.shape[0])
    array = np.asarray(value)
    # Integers of any width, and floats: a picture or a count that is a float is a mistake.
    kinds = "fiu" if spec.kind is Kind.CONTINUOUS else "iu"
    if array.dtype.kind not in kinds or array.shape != spec.shape:
        raise ValueError(
            f"observation {name!r} is of {array.dtype} and shape {array.shape}, expected"
            f" {spec.dtype} and {spec.shape}"
        )
    row = array.astype(spec.dtype)[None]
    if spec.kind is not Kind.CONTINUOUS and (row[0] != array).any():
        raise ValueError(f"observation {name!r} has values that {spec.dtype} does not hold")
    if problem := spec.problem_with(row, f"observation {name!r}"):
        raise ValueError(f"{problem}; fix the environment that shows it")
    return row
