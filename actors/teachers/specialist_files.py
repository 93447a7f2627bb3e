"""Reads the two files of a specialist, arrays and record, and rejects what is damaged or unknown.

Shape letters: obs numbers of an observation, act of an action, out and in of a layer.
"""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file

MOST_ARRAYS_BYTES = 2**29
"""Largest file of arrays: 512 MiB; real ones have some kilobytes."""
MOST_RECORD_BYTES = 2**24
NEEDED = frozenset({"task", "env_id", "observation_clip", "action_low", "action_high"})
PLAYED = NEEDED | {"activation", "squash", "output_clip"}
"""Entries of a record that change the actions."""
TOLD = frozenset(
    {
        "algorithm",
        "command",
        "config",
        "date",
        "env_steps",
        "kept",
        "measured_seeds",
        "return_mean",
        "return_std",
        "return_min",
        "sampled_return_mean",
        "sampled_return_std",
        "steps_mean",
        "versions",
        "wall_s",
    }
)
"""Entries that say how the specialist was made."""
ADVICE = "copy it again, or train it again with `gato teach`"


def read_record(path: Path, activations: frozenset[str]) -> dict[str, Any]:
    """A specialist's record. Raises ValueError if the file is damaged, or an entry is missing or
    unknown."""
    try:
        if path.stat().st_size > MOST_RECORD_BYTES:
            raise ValueError(
                f"it has {path.stat().st_size:,} bytes, at most {MOST_RECORD_BYTES:,} are read"
            )
        record = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as problem:
        raise ValueError(f"{path} is damaged: {problem}; {ADVICE}") from problem
    problem = _record_problem(record, activations)
    if problem:
        raise ValueError(f"{path} is not a record of a specialist: {problem}; {ADVICE}")
    return record


def _record_problem(record: Any, activations: frozenset[str]) -> str | None:
    if not isinstance(record, dict):
        return f"it is a {type(record).__name__}, not a mapping"
    if missing := sorted(NEEDED - set(record)):
        return f"it lacks {', '.join(missing)}"
    if unknown := sorted(set(record) - PLAYED - TOLD):
        return f"it has {', '.join(unknown)}, which may change what it plays and is unknown here"
    for name in ("task", "env_id"):
        if not isinstance(record[name], str):
            return f"{name} is {record[name]!r}, not a text"
    if record.get("activation", "tanh") not in activations:
        return (
            f"activation is {record['activation']!r}, known here are"
            f" {', '.join(sorted(activations))}"
        )
    if not isinstance(record.get("squash", False), bool):
        return f"squash is {record['squash']!r}, neither true nor false"
    for name in ("observation_clip", "output_clip"):
        value = record.get(name, 1.0)
        if not (_is_number(value) and value > 0):
            return f"{name} is {value!r}, not a number above 0"
    bounds = (record["action_low"], record["action_high"])
    ends = [each if isinstance(each, list) else [each] for each in bounds]
    if (
        not all(each and all(map(_is_finite, each)) for each in ends)
        or len({len(each) for each in ends}) != 1
    ):
        return f"its bounds of actions are {bounds[0]!r} and {bounds[1]!r}, not finite numbers"
    if any(low > high for low, high in zip(*ends, strict=True)):
        return f"its bounds of actions are {bounds[0]!r} above {bounds[1]!r}"
    return None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and not math.isnan(value)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def read_arrays(path: Path, *, fix: str = ADVICE) -> dict[str, Float[np.ndarray, ...]]:
    """A specialist's arrays. Raises ValueError if the file is damaged, or does not hold one network
    and its statistics."""
    try:
        if path.stat().st_size > MOST_ARRAYS_BYTES:
            raise ValueError(
                f"it has {path.stat().st_size:,} bytes, at most {MOST_ARRAYS_BYTES:,} are read"
            )
        arrays = load_file(path)
    except (
        OSError,
        SafetensorError,
        ValueError,
        LookupError,
        TypeError,
        MemoryError,
        AttributeError,
    ) as problem:
        raise ValueError(f"{path} is damaged: {problem}; {fix}") from problem
    problem = _arrays_problem(arrays)
    if problem:
        raise ValueError(f"{path} does not hold a specialist: {problem}; {fix}")
    return arrays


def _arrays_problem(arrays: dict[str, np.ndarray]) -> str | None:
    count = sum(bool(re.fullmatch(r"layer\d+\.weight", name)) for name in arrays)
    wanted = {"obs_mean", "obs_std", "log_std"}
    wanted |= {f"layer{i}.{part}" for i in range(max(count, 1)) for part in ("weight", "bias")}
    if missing := sorted(wanted - set(arrays)):
        return f"it lacks {', '.join(missing)}"
    if unknown := sorted(set(arrays) - wanted):
        return f"it has {', '.join(unknown)}, which may change what it plays and is unknown here"
    for name, array in arrays.items():
        dimensions = 2 if name.endswith(".weight") else 1
        if array.dtype.kind != "f" or array.ndim != dimensions or not array.size:
            return f"{name} is of type {array.dtype} and shape {array.shape}"
        if not np.isfinite(array).all():
            return f"{name} has numbers that are not finite"
    if not (arrays["obs_std"] > 0).all():
        return "obs_std has numbers that are not above 0"
    weights = [arrays[f"layer{i}.weight"] for i in range(count)]
    sizes = [weights[0].shape[1], *(len(weight) for weight in weights)]
    fits = all(
        weight.shape == (after, before)
        for weight, (before, after) in zip(weights, pairwise(sizes), strict=True)
    )
    fits &= all(arrays[f"layer{i}.bias"].shape == (sizes[i + 1],) for i in range(count))
    if not fits:
        return (
            f"its layers have the shapes {', '.join(str(weight.shape) for weight in weights)},"
            " which do not fit each other"
        )
    for name, size in (("obs_mean", sizes[0]), ("obs_std", sizes[0]), ("log_std", sizes[-1])):
        if arrays[name].shape != (size,):
            return (
                f"{name} has {len(arrays[name])} numbers, the layers take {sizes[0]} and return"
                f" {sizes[-1]}"
            )
    return None
