"""Gymnasium's spaces as specs: nested observations become flat mappings, flat actions become
nested again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Shaped

from actors.envs.env import ACTION_BOUND
from actors.envs.space_arrays import SpaceArray, array_of, bounds_of, closed
from gato.array_spec import ArraySpec, Kind

SINGLE = {Kind.IMAGE: "image", Kind.TEXT: "text", Kind.CONTINUOUS: "state", Kind.DISCRETE: "state"}
"""The name of an observation that is a single array."""
Path = tuple[str | int, ...]


class ObservationSpace:
    """An environment's observations as a task shows them.

    space = ObservationSpace(env.observation_space, text_tokens=None)
    task = Task(observations=space.specs, ...)
    arrays = space.flatten(observation)  # {"camera/left": uint8 [64, 80, 3], "joints": ...}

    Nested spaces become one mapping. A key is the path: names of a Dict and indices of a Tuple,
    joined by "/". Indices are padded with zeros, so that the order of the tokens, which is
    lexicographic, is the Tuple's own.
    """

    def __init__(self, space: spaces.Space[Any], *, text_tokens: int | None = None) -> None:
        """`text_tokens`: number of tokens of a text in every step. Raises ValueError if a space
        cannot become tokens."""
        self._arrays: dict[str, tuple[Path, SpaceArray]] = {}
        for path, key, leaf in _leaves(space):
            if key and _is_empty(leaf):
                continue  # a part without elements shows nothing
            array = array_of(leaf, key or "the observation", text_tokens)
            key = key or SINGLE[array.spec.kind]
            if key in self._arrays:
                raise ValueError(
                    f"two parts of the observation are called {key!r}; rename one of them"
                )
            self._arrays[key] = (path, array)
        if not self._arrays:
            raise ValueError(f"the observation {space} is empty; a task shows at least one array")

    @property
    def specs(self) -> dict[str, ArraySpec]:
        return {key: array.spec for key, (_, array) in self._arrays.items()}

    def flatten(self, observation: Any) -> dict[str, np.ndarray]:
        """The observation's arrays by key, each in the dtype and shape of its spec."""
        out: dict[str, np.ndarray] = {}
        for key, (path, array) in self._arrays.items():
            value = observation
            for name in path:
                value = value[name]
            out[key] = array.keep(value)
        return out


class ActionSpace:
    """An environment's actions as one array. Elements of a Dict or Tuple stand in the order of
    their keys.

    space = ActionSpace(env.action_space)
    env.step(space.unflatten(action))    # an action of space.spec
    """

    def __init__(self, space: spaces.Space[Any], *, bound: float = ACTION_BOUND) -> None:
        """`bound`: how far an element without bounds is taken to reach. Raises ValueError if the
        space cannot become one array of tokens."""
        self._space = space
        leaves = sorted(_leaves(space), key=lambda leaf: leaf[1])
        found = [(path, key, leaf) for path, key, leaf in leaves if not (key and _is_empty(leaf))]
        self._empty = {
            path: np.zeros(leaf.shape or (), leaf.dtype)
            for path, key, leaf in leaves
            if key and _is_empty(leaf)
        }
        self._arrays = [
            (path, array_of(leaf, key or "the action", None)) for path, key, leaf in found
        ]
        specs = [array.spec for _, array in self._arrays]
        kinds = {spec.kind for spec in specs}
        if len(kinds) != 1 or not kinds <= {Kind.CONTINUOUS, Kind.DISCRETE}:
            raise ValueError(
                f"the action {space} has parts that are {', '.join(sorted(kinds)) or 'none'}; an"
                " action is all continuous or all discrete: wrap the environment, for example with"
                " bins in place of the continuous part"
            )
        joined = specs[0] if len(specs) == 1 else _joined(specs)
        self._low, self._high = np.zeros(0), np.zeros(0)
        if joined.kind is Kind.CONTINUOUS:
            boxes = [bounds_of(leaf) for _, _, leaf in found if isinstance(leaf, spaces.Box)]
            self._low, self._high = (
                np.concatenate([side.ravel() for side in sides])
                for sides in zip(*boxes, strict=True)
            )
            low, high = closed(self._low, self._high, bound)
            joined = replace(joined, low=low, high=high)
        self.spec = joined
        self._ends = np.cumsum([0, *(spec.size for spec in specs)])

    def accepts(self, spec: ArraySpec) -> bool:
        """Whether a task with this spec acts in this space: an element without bounds here may
        have any."""
        if spec.kind is not self.spec.kind or spec.shape != self.spec.shape:
            return False
        if spec.kind is not Kind.CONTINUOUS or spec.bounds is None:
            return spec == self.spec
        own = (self._low, self._high)
        pairs = [np.broadcast_arrays(*pair) for pair in zip(own, spec.bounds, strict=True)]
        return all((~np.isfinite(ours) | (ours == theirs)).all() for ours, theirs in pairs)

    def unflatten(self, action: Shaped[np.ndarray, ...]) -> Any:
        """The argument of the environment's `step`, of an action of `spec`."""
        flat = action.reshape(-1)
        parts = zip(self._arrays, pairwise(self._ends), strict=True)
        values = {
            path: array.give_back(flat[start:end].reshape(array.spec.shape))
            for (path, array), (start, end) in parts
        }
        return _nested(self._space, (), values | self._empty)


def _is_empty(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and not all(space.shape)


def _leaves(
    space: spaces.Space[Any], path: Path = (), key: str = ""
) -> Iterator[tuple[Path, str, spaces.Space[Any]]]:
    """Path, key and space of each part of a nested space that is not itself a Dict or a Tuple."""
    if isinstance(space, spaces.Dict):
        parts = [(name, str(name), part) for name, part in space.spaces.items()]
    elif isinstance(space, spaces.Tuple):
        digits = len(str(len(space.spaces) - 1))
        parts = [(place, f"{place:0{digits}}", part) for place, part in enumerate(space.spaces)]
    else:
        yield path, key, space
        return
    for name, label, part in parts:
        yield from _leaves(part, (*path, name), f"{key}/{label}" if key else label)


def _nested(space: spaces.Space[Any], path: Path, values: Mapping[Path, Any]) -> Any:
    """The inverse of `_leaves`: nest values by path as the space does."""
    if isinstance(space, spaces.Dict):
        return {name: _nested(part, (*path, name), values) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(
            _nested(part, (*path, place), values) for place, part in enumerate(space.spaces)
        )
    return values[path]


def _joined(specs: list[ArraySpec]) -> ArraySpec:
    """One spec for the elements of several specs of the same kind, without bounds."""
    shape = (sum(spec.size for spec in specs),)
    if specs[0].kind is Kind.DISCRETE:
        counts = np.concatenate([spec.counts for spec in specs]).tolist()
        return ArraySpec(kind=Kind.DISCRETE, shape=shape, num_values=tuple(counts))
    return ArraySpec(kind=Kind.CONTINUOUS, shape=shape)
