"""Gymnasium's own description of an environment, as files keep it in JSON, read without
Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gato.compatibility.environment import Bounds, EnvDescription, Wrapper


def described(
    spec: Mapping[str, Any],
    *,
    where: str,
    env_id: str = "",
    kwargs: Mapping[str, Any] | None = None,
    action_bounds: Bounds | None = None,
    observation_bounds: Mapping[str, Bounds] | None = None,
) -> EnvDescription:
    """The description of an environment from its spec (`EnvSpec.to_json`) and what else is known.
    Raises ValueError if it is not a spec."""
    stated, wrappers = spec.get("kwargs") or {}, spec.get("additional_wrappers") or ()
    if not isinstance(stated, dict) or not isinstance(wrappers, (list, tuple)):
        raise ValueError(
            f"{where} has an env_spec whose kwargs are {stated!r} and additional_wrappers"
            f" {wrappers!r}"
        )
    limit = spec.get("max_episode_steps")
    return EnvDescription(
        where=where,
        env_id=str(spec.get("id") or env_id),
        entry_point=str(spec.get("entry_point") or ""),
        kwargs={**stated, **(kwargs or {})},
        wrappers=tuple(map(_wrapper, wrappers)),
        max_steps=limit if isinstance(limit, int) else None,
        action_bounds=action_bounds,
        observation_bounds=observation_bounds or {},
    )


def _wrapper(plain: Any) -> Wrapper:
    if not isinstance(plain, dict):  # a name alone
        return Wrapper(name=str(plain))
    return Wrapper(
        name=str(plain.get("name", "")),
        entry_point=str(plain.get("entry_point") or ""),
        kwargs=plain.get("kwargs") or {},
    )


def bounds_of(space: Mapping[str, Any]) -> Bounds | None:
    """The bounds that a Box in Gymnasium's or Minari's JSON declares, row-major. None for another
    space, or without bounds."""
    low, high = space.get("low"), space.get("high")
    if low is None or high is None:
        return None
    shape = tuple(space.get("shape", np.shape(low)))
    try:
        found = tuple(
            np.broadcast_to(np.asarray(bound, np.float64), shape).reshape(-1)
            for bound in (low, high)
        )
    except (ValueError, TypeError) as problem:
        raise ValueError(
            f"a space of shape {list(shape)} with bounds that do not fit: {problem}"
        ) from problem
    return found[0], found[1]
