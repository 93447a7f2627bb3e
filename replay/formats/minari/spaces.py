"""Spaces of a Minari data set against a task's specs: rejected, or how to convert the values.

Shape letters: T steps, n elements of one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped

from gato.array_spec import ArraySpec, Kind
from replay.formats.atari_frames import may_shrink
from replay.formats.minari.storage import shape_of

SPACES: Mapping[Kind, tuple[str, ...]] = {
    Kind.IMAGE: ("Box",),
    Kind.CONTINUOUS: ("Box",),
    Kind.DISCRETE: ("Discrete", "MultiDiscrete", "MultiBinary", "Box"),
    Kind.TEXT: ("Text",),
}
"""Gymnasium's spaces, as Minari names them, that can be of a kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How stored values become the task's."""

    start: Integer[np.ndarray, " n"] | None = None
    """The least value of each element, which is 0 in the task. None: they begin at 0."""
    is_channels_first: bool = False
    is_grey: bool = False

    def __call__(self, values: Shaped[np.ndarray, "T ..."]) -> Shaped[np.ndarray, "T ..."]:
        if self.start is not None and values.dtype.kind in "iu":
            values = values.astype(np.int64) - self.start.reshape(
                values.shape[1:] if values.ndim > 1 else ()
            )
        if self.is_channels_first:
            values = np.moveaxis(values, 1, -1)
        if self.is_grey:
            values = np.repeat(values.reshape(*values.shape[:3], 1), 3, axis=3)
        return values

    @property
    def text(self) -> str:
        """A description; empty if nothing is converted."""
        parts = (
            [f"counted from {self.start.tolist()} on, in the task from 0"]
            if self.start is not None
            else []
        )
        parts += ["channels are put last"] if self.is_channels_first else []
        parts += ["grey, in all three channels"] if self.is_grey else []
        return ", ".join(parts)


def conversion_of(
    space: Mapping[str, Any], spec: ArraySpec, name: str, task_name: str, *, may_be_grey: bool
) -> Conversion:
    """Raises ValueError if the space is of another kind, shape or number of values than the task's.
    `may_be_grey`: the task's own environment shows grey frames, so that they are the same in all
    three channels."""
    kind = space.get("type")
    if kind not in SPACES[spec.kind]:
        raise ValueError(f"has a {kind} space as {name}, task {task_name} {spec.kind}")
    if spec.kind is Kind.TEXT:
        return Conversion()
    shape = shape_of(space)
    if spec.kind is Kind.IMAGE:
        return _of_image(shape, spec, task_name, may_be_grey)
    if shape != spec.shape:
        raise ValueError(f"has {name} of shape {shape} in each step, task {task_name} {spec.shape}")
    if spec.kind is Kind.CONTINUOUS:
        if np.dtype(space.get("dtype", "float32")).kind != "f":
            raise ValueError(
                f"declares {name} of {space['dtype']}, task {task_name} of float32: it was rounded"
            )
        return Conversion()
    counts, start = _counts(space, spec.size)
    if (counts != spec.counts).any():
        raise ValueError(
            f"has {_short(counts)} values of {name}, task {task_name} {_short(spec.counts)}"
        )
    return Conversion(start=start if start.any() else None)


def _of_image(
    shape: tuple[int, ...], spec: ArraySpec, task_name: str, may_be_grey: bool
) -> Conversion:
    if shape == spec.shape or may_shrink(shape):
        return Conversion()
    height, width, _ = spec.shape
    if may_be_grey and shape in ((height, width), (height, width, 1)):
        return Conversion(is_grey=True)
    if shape == (3, height, width) or (may_be_grey and shape == (1, height, width)):
        return Conversion(is_channels_first=True, is_grey=shape[0] == 1)
    size = "x".join(map(str, shape))
    raise ValueError(f"has images of size {size} in each step, task {task_name} {spec.shape}")


def _counts(
    space: Mapping[str, Any], size: int
) -> tuple[Integer[np.ndarray, " n"], Integer[np.ndarray, " n"]]:
    """How many values each element may take, and the least."""
    start = space.get("start", 0)
    match space["type"]:
        case "Discrete":
            counts = space.get("n")
        case "MultiDiscrete":
            counts = space.get("nvec")
        case "MultiBinary":
            counts = 2
        case _:
            start = space["low"]
            counts = np.asarray(space["high"]) - np.asarray(start) + 1
    found = np.asarray(counts), np.asarray(start)
    if any(part.dtype.kind not in "iuf" or (part != np.floor(part)).any() for part in found):
        raise ValueError(f"declares {counts!r} values from {start!r} on, expected whole numbers")
    counts_n, start_n = (
        np.broadcast_to(part.reshape(-1), (size,)).astype(np.int64) for part in found
    )
    return counts_n, start_n


def _short(counts: Integer[np.ndarray, " n"]) -> str:
    distinct = set(counts.tolist())
    return str(distinct.pop()) if len(distinct) == 1 else str(counts.tolist())
