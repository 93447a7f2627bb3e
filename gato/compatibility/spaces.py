"""The bounds that a source declares of actions and observations, compared with a task's.

Shape letters: n elements of an action or of an observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gato.array_spec import Kind
from gato.compatibility.environment import Bounds, Differences, EnvDescription, full_bounds
from gato.task import Task

UNBOUNDED = 1e6
"""A bound at or beyond this limits nothing: Gymnasium's older spaces write 3.4e38 for infinity."""
TOLERANCE = 1e-4
"""How far two bounds of the same space may be apart, relative to their size: they may come from 32
bits or from printed text."""


def compare_actions(
    said: EnvDescription, rescale: Mapping[str, Any] | None, task: Task, found: Differences
) -> Bounds | None:
    """The bounds that actions are to be scaled from; None: they are not scaled.

    `rescale`: the keywords of the outermost RescaleAction, whose bounds count if a ClipAction
    around it declares none.
    """
    bounds, size = task.action.bounds, task.action.size
    if task.action.kind is not Kind.CONTINUOUS or bounds is None:
        return None
    wanted = full_bounds(bounds, size)
    own = None if said.action_bounds is None else _open(said.action_bounds)
    if rescale is not None and (own is None or (np.isinf(own[0]) & np.isinf(own[1])).all()):
        own = _of_rescale(rescale, size)
        if own is None:
            found.reject(
                "wrapper:RescaleAction",
                "it was made behind RescaleAction, but does not say to which bounds",
            )
    if own is None or len(own[0]) != size or _same(own, wanted):
        return None  # another number of elements is rejected as a shape
    if (np.isfinite(own[0]) & np.isfinite(own[1])).all():
        found.convert(
            "action-bounds",
            f"actions are scaled from {_bounds_text(own)}, the bounds it declares, to"
            f" {_bounds_text(wanted)}",
        )
        return own
    if (np.isinf(own[0]) & np.isinf(own[1])).all():
        found.note(
            "action-bounds",
            f"it declares no bounds of actions; they are clipped to {_bounds_text(wanted)}",
        )
    else:
        found.reject(
            "action-bounds",
            f"it declares actions in {_bounds_text(own)}, task {task.name} in"
            f" {_bounds_text(wanted)}",
        )
    return None


def _of_rescale(kwargs: Mapping[str, Any], size: int) -> Bounds | None:
    try:
        low, high = (
            np.asarray(kwargs[name], np.float64).reshape(-1)
            for name in ("min_action", "max_action")
        )
        return full_bounds((low, high), size)
    except (KeyError, TypeError, ValueError):
        return None


def compare_observation(name: str, bounds: Bounds, task: Task, found: Differences) -> None:
    """Reject an observation whose declared bounds are not the task's."""
    spec = task.observations[name]
    own = _both(_open(bounds))
    if spec.kind is not Kind.CONTINUOUS or len(own[0]) != spec.size:
        return  # another size is rejected as a shape
    wanted = _both(full_bounds(spec.bounds or (np.array([-np.inf]), np.array([np.inf])), spec.size))
    if not _same(own, wanted):
        found.reject(
            "observation-bounds",
            f"it declares {name} in {_bounds_text(own)}, task {task.name} in"
            f" {_bounds_text(wanted)}: it was rescaled or normalised, or is of another environment",
        )


def _open(bounds: Bounds) -> Bounds:
    """Bounds in 64 bits, those that limit nothing as infinite."""
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in bounds)
    return np.where(low <= -UNBOUNDED, -np.inf, low), np.where(high >= UNBOUNDED, np.inf, high)


def _both(bounds: Bounds) -> Bounds:
    """Elements with one bound become elements without: both are companded."""
    is_bounded = np.isfinite(bounds[0]) & np.isfinite(bounds[1])
    return np.where(is_bounded, bounds[0], -np.inf), np.where(is_bounded, bounds[1], np.inf)


def _same(one: Bounds, other: Bounds) -> bool:
    return all(
        np.allclose(a, b, rtol=TOLERANCE, atol=1e-6) for a, b in zip(one, other, strict=True)
    )


def _bounds_text(bounds: Bounds) -> str:
    """`[-1, 1]` if all elements share them, else those of the first elements."""
    pairs = [f"[{low:g}, {high:g}]" for low, high in zip(*bounds, strict=True)]
    if len(set(pairs)) == 1:
        return pairs[0]
    return ", ".join(pairs[:4]) + (", ..." if len(pairs) > 4 else "")
