"""Compares the spaces in a zip of Stable-Baselines3 with a task.

The zip has pickled spaces next to their attributes as JSON, or as NumPy prints them. Only the
attributes are read.

Shape letters: n elements of an array.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from actors.envs.gymnasium_env import keyword_defaults
from actors.teachers.sb3.archive import Archive
from gato.array_spec import ArraySpec, Kind
from gato.compatibility.compare import compare
from gato.compatibility.environment import Bounds, Comparison, Difference, EnvDescription
from gato.compatibility.spaces import UNBOUNDED
from gato.task import Task

SPACE = re.compile(r"<class '(?:gym|gymnasium|gymnasium_robotics)\.spaces\.\w+\.(\w+)'>")
FLOATS = ("float16", "float32", "float64")
"""Types that the policy casts to float32, so that they do not differ to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What is readable of a space. None: missing or not readable."""

    kind: str | None
    """`Box`, `Discrete`, or another class of Gymnasium's."""
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    low: Float[np.ndarray, " n"] | None = None
    high: Float[np.ndarray, " n"] | None = None
    n: int | None = None
    start: int = 0

    @property
    def bounds(self) -> Bounds | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def size(self) -> int | None:
        return None if self.shape is None else math.prod(self.shape)


def space_of(entry: Mapping[str, Any]) -> Space:
    """The space of an entry of `data`. Raises ValueError if its parts contradict each other.

    space_of({":type:": "<class 'gym.spaces.box.Box'>", "_shape": [2], "low": "[-1. -1.]", ...})
    """
    match = SPACE.fullmatch(str(entry.get(":type:")))
    kind = match[1] if match else None
    if kind == "Discrete":
        return Space(kind=kind, n=_whole(entry.get("n")), start=_whole(entry.get("start", 0)) or 0)
    if kind != "Box":
        return Space(kind=kind)
    shape = entry.get("_shape", entry.get("shape"))
    has_shape = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    sizes = tuple(shape) if has_shape else None
    low, high = (_printed(entry, name, sizes) for name in ("low", "high"))
    if low is not None and high is not None and (low > high).any():
        raise ValueError(
            f"its space has the bounds low={entry.get('low')} above high={entry.get('high')}"
        )
    return Space(
        kind=kind,
        shape=sizes,
        dtype=None if entry.get("dtype") is None else str(entry["dtype"]),
        low=low,
        high=high,
    )


def _whole(value: Any) -> int | None:
    """An integer, also one that was printed as a string."""
    return (
        int(value)
        if type(value) is int or (isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value))
        else None
    )


def _printed(
    entry: Mapping[str, Any], name: str, shape: tuple[int, ...] | None
) -> Float[np.ndarray, " n"] | None:
    """The elements of a printed array, row-major. NumPy shortens long ones by "..."; then
    `NAME_repr` may have one number for all."""
    if shape is None:
        return None
    size, whole, short = (
        math.prod(shape),
        _numbers(entry.get(name)),
        _numbers(entry.get(f"{name}_repr")),
    )
    same = short is not None and len(short) == 1
    if size > 2**20:
        return None
    if whole is not None and len(whole) == size:
        if same and short is not None and not np.allclose(whole, short[0], rtol=1e-4):
            raise ValueError(
                f"its space says {name}={entry.get(name)} and {entry.get(f'{name}_repr')}"
            )
        return whole
    if whole is not None and len(whole) != 1:
        raise ValueError(
            f"its space has {len(whole)} numbers in {name} for a shape of {list(shape)}"
        )
    return np.full(size, short[0]) if same and short is not None else None


def _numbers(text: Any) -> Float[np.ndarray, " n"] | None:
    """All numbers of a printed array; None if it contains anything else."""
    if not isinstance(text, str) or "..." in text:
        return None
    try:
        values = np.array([float(word) for word in re.sub(r"[\[\],]", " ", text).split()])
    except ValueError:
        return None
    return None if np.isnan(values).any() else values


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a policy's environment compares to a task."""

    comparison: Comparison
    action_bounds: Bounds | None
    """The bounds of the policy's actions; None if they are discrete."""
    has_open_bounds: bool
    """Whether it declares infinite bounds."""


def compare_spaces(
    archive: Archive,
    task: Task,
    said: EnvDescription,
    *,
    shown: int,
    taken: int,
    allowed: frozenset[str],
) -> Fit:
    """Compare the spaces of a zip, and what else is `said` of its environment, with a task.

    Args:
        shown: Size of the first layer's input.
        taken: Size of the last layer.
        allowed: Subjects of differences that the user allows.

    Raises:
        ValueError: if a space contradicts the policy's own layers, or is of another kind than the
            task's.
    """
    (name, spec), differences = next(iter(task.observations.items())), list[Difference]()
    try:
        seen, acted = (
            space_of(archive.readable("observation_space")),
            space_of(archive.readable("action_space")),
        )
    except ValueError as problem:
        raise ValueError(
            f"{archive.path} is damaged: {problem}; save the policy again"
        ) from problem
    _require_kinds(archive, task, seen, acted)
    for space, what, size in ((seen, "observations", shown), (acted, "actions", taken)):
        declared = space.n if space.kind == "Discrete" else space.size
        if declared is not None and declared != size:
            raise ValueError(
                f"{archive.path} is damaged: its space of {what} has {declared} elements, its"
                f" layers have {size}; save the policy again"
            )
    differ = _Differ(differences, allowed)
    for what, space, of in (("observation", seen, spec), ("action", acted, task.action)):
        _compare_box(differ, what, space, of, task)
    if acted.start:
        differ.reject(
            "start", f"its actions begin with {acted.start}, a policy names them from 0 on"
        )
    bounds = {name: seen.bounds} if seen.bounds is not None else {}
    said = replace(said, action_bounds=acted.bounds, observation_bounds=bounds)
    compared = compare(said, task, defaults=keyword_defaults, allowed=allowed)
    comparison = replace(compared, differences=(*differences, *compared.differences))
    if task.action.kind is Kind.DISCRETE:
        return Fit(comparison=comparison, action_bounds=None, has_open_bounds=False)
    assert task.action.bounds is not None
    low, high = (np.broadcast_to(bound, (task.action.size,)) for bound in task.action.bounds)
    is_open = acted.bounds is not None and bool((np.abs(acted.bounds) >= UNBOUNDED).any())
    return Fit(
        comparison=comparison,
        action_bounds=compared.scale_from or (low, high),
        has_open_bounds=is_open,
    )


def _require_kinds(archive: Archive, task: Task, seen: Space, acted: Space) -> None:
    wanted = "Discrete" if task.action.kind is Kind.DISCRETE else "Box"
    for space, what, kind in ((seen, "observations", "Box"), (acted, "actions", wanted)):
        if space.kind not in (kind, None):
            raise ValueError(
                f"{archive.path} has a {space.kind} space of {what}, task {task.name} has {what} of"
                f" a {kind} space; it was trained in another environment, or behind a wrapper,"
                " which is not played here"
            )


class _Differ:
    """Collects differences; those that the user allows are not rejected."""

    def __init__(self, differences: list[Difference], allowed: frozenset[str]) -> None:
        self._differences, self._allowed = differences, allowed

    def reject(self, subject: str, text: str) -> None:
        outcome = "allowed" if subject in self._allowed else "rejected"
        self._differences.append(Difference(subject=subject, text=text, outcome=outcome))

    def note(self, subject: str, text: str) -> None:
        self._differences.append(Difference(subject=subject, text=text, outcome="noted"))


def _compare_box(differ: _Differ, what: str, space: Space, spec: ArraySpec, task: Task) -> None:
    """Compare type and shape, and note what is not readable; bounds are compared elsewhere."""
    if space.kind is None:
        differ.note(
            f"{what}-space",
            f"its space of {what}s cannot be read; taken as that of task {task.name}",
        )
    if space.kind == "Discrete":
        if space.n is None:
            differ.note(
                f"{what}-space", f"its number of {what}s cannot be read; taken as its last layer's"
            )
        return
    if space.kind != "Box":
        return
    if space.dtype is None:
        differ.note(
            f"{what}-dtype", f"the type of its {what}s cannot be read; taken as {spec.dtype}"
        )
    elif space.dtype not in FLOATS:
        differ.reject(
            f"{what}-dtype",
            f"its {what}s are of type {space.dtype}, task {task.name} has {spec.dtype}: they mean"
            " something else",
        )
    if space.shape is None:
        differ.note(
            f"{what}-shape", f"the shape of its {what}s cannot be read; taken as {list(spec.shape)}"
        )
    elif [n for n in space.shape if n != 1] != [n for n in spec.shape if n != 1]:
        said = (
            f"its {what}s have shape {list(space.shape)}, task {task.name} has {list(spec.shape)}"
        )
        if 1 in (len(space.shape), len(spec.shape)):
            differ.note(f"{what}-shape", f"{said}: taken row by row")
        else:
            differ.reject(f"{what}-shape", f"{said}: rows and columns differ")
    if space.bounds is None:
        differ.note(
            f"{what}-bounds",
            f"the bounds of its {what}s cannot be read; taken as those of task {task.name}",
        )
