"""Gymnasium's spaces as specs: nested observations laid flat, flat actions given back their nested
form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import singledispatch
from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Shaped

from gato.array_spec import MAX_VALUES, ArraySpec, Kind
from gato.text import text_to_bytes

WIDEST = 1e6
"""A bound beyond this says nothing about the values: they are companded, as where there is no
bound."""
SINGLE = {Kind.IMAGE: "image", Kind.TEXT: "text", Kind.CONTINUOUS: "state", Kind.DISCRETE: "state"}
"""What an observation that is a single array is called."""
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Array:
    """One space that is an array: its spec, and its values to what episodes keep and back."""

    spec: ArraySpec
    keep: Callable[[Any], np.ndarray]
    give_back: Callable[[np.ndarray], Any]


class ObservationSpace:
    """An environment's observations as a task shows them.

    space = ObservationSpace(env.observation_space, text_tokens=None)
    task = Task(observations=space.specs, ...)
    arrays = space.flatten(observation)        # {"camera/left": uint8 [64, 80, 3], "joints":
    float32 [7]}

    Nested spaces become one mapping. A key is the path: names of a Dict and places in a Tuple,
    joined by "/"; places have zeros before them, so that the lexicographic order, which is that of
    the tokens, is the Tuple's own.
    """

    def __init__(self, space: spaces.Space[Any], *, text_tokens: int | None = None) -> None:
        """`text_tokens`: how many tokens a text takes in every step. ValueError where a space
        cannot become tokens."""
        self._arrays: dict[str, tuple[Path, _Array]] = {}
        for path, key, leaf in _leaves(space):
            array = _array(leaf, key or "the observation", text_tokens)
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
    """An environment's actions as one array; of a Dict or a Tuple, the parts' elements in the order
    of their keys.

    space = ActionSpace(env.action_space)
    env.step(space.unflatten(action))          # action: as space.spec says
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        """ValueError where the space cannot be one array of tokens."""
        self._space = space
        found = sorted(_leaves(space), key=lambda leaf: leaf[1])
        self._arrays = [
            (path, _array(leaf, key or "the action", None)) for path, key, leaf in found
        ]
        specs = [array.spec for _, array in self._arrays]
        kinds = {spec.kind for spec in specs}
        if len(kinds) != 1 or not kinds <= {Kind.CONTINUOUS, Kind.DISCRETE}:
            raise ValueError(
                f"the action {space} has parts that are {', '.join(sorted(kinds)) or 'none'}; an"
                " action is all continuous or all discrete: wrap the environment, for example with"
                " bins in place of the continuous part"
            )
        for path, array in self._arrays:
            bounds = array.spec.bounds
            if array.spec.kind is Kind.CONTINUOUS and (
                bounds is None or not np.isfinite(bounds).all()
            ):
                raise ValueError(
                    f"the action {_key(path) or space} has no finite bounds (up to {WIDEST:g}), so"
                    " it cannot be scaled to [-1, 1]; give the space finite bounds, such as"
                    " Box(-1, 1), or wrap the environment: gymnasium.wrappers.TransformAction(env,"
                    " lambda action: action, Box(-1, 1, env.action_space.shape))"
                )
        self.spec = specs[0] if len(specs) == 1 else _joined(specs)
        self._ends = np.cumsum([0, *(spec.size for spec in specs)])

    def unflatten(self, action: Shaped[np.ndarray, ...]) -> Any:
        """What the environment's `step` takes, of an action as `spec` says."""
        flat = action.reshape(-1)
        parts = zip(self._arrays, pairwise(self._ends), strict=True)
        values = {
            path: array.give_back(flat[start:end].reshape(array.spec.shape))
            for (path, array), (start, end) in parts
        }
        return _nested(self._space, (), values)


def _key(path: Path) -> str:
    return "/".join(str(name) for name in path)


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
    for name, word, part in parts:
        yield from _leaves(part, (*path, name), f"{key}/{word}" if key else word)


def _nested(space: spaces.Space[Any], path: Path, values: Mapping[Path, Any]) -> Any:
    """The inverse of `_leaves`: values by path in the space's own form."""
    if isinstance(space, spaces.Dict):
        return {name: _nested(part, (*path, name), values) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(
            _nested(part, (*path, place), values) for place, part in enumerate(space.spaces)
        )
    return values[path]


def _joined(specs: list[ArraySpec]) -> ArraySpec:
    """One array of all elements of several of one kind."""
    shape = (sum(spec.size for spec in specs),)
    if specs[0].kind is Kind.DISCRETE:
        counts = np.concatenate([spec.counts for spec in specs]).tolist()
        return ArraySpec(kind=Kind.DISCRETE, shape=shape, num_values=tuple(counts))
    bounds = [np.broadcast_to(spec.bounds or 0.0, (2, spec.size)) for spec in specs]
    low, high = np.concatenate(bounds, axis=1).tolist()
    return ArraySpec(kind=Kind.CONTINUOUS, shape=shape, low=tuple(low), high=tuple(high))


@singledispatch
def _array(space: spaces.Space[Any], name: str, text_tokens: int | None) -> _Array:
    raise ValueError(
        f"{name} is a {type(space).__name__} space ({space}), which cannot become a fixed number of"
        " tokens; wrap the environment so that it is Box, Discrete, MultiDiscrete, MultiBinary,"
        " Text, or a Dict or Tuple of those"
    )


def _per_element(values: np.ndarray) -> Any:
    """One number where all elements have the same, else one for each."""
    flat = values.reshape(-1).tolist()
    return flat[0] if len(set(flat)) == 1 else tuple(flat)


def _discrete(space: spaces.Space[Any], name: str, counts: np.ndarray, start: np.ndarray) -> _Array:
    """Whole numbers of `start` to `start + counts - 1`, kept from 0 on."""
    if counts.max() > MAX_VALUES:
        raise ValueError(
            f"{name} is {space}, whose elements take up to {int(counts.max())} values, but discrete"
            f" tokens have {MAX_VALUES}; wrap the environment: as a MultiDiscrete of digits, or as"
            " a Box of floats"
        )
    shape = counts.shape
    spec = ArraySpec(kind=Kind.DISCRETE, shape=shape, num_values=_per_element(counts))
    return _Array(
        spec=spec,
        keep=lambda value: np.asarray(np.asarray(value, np.int64) - start, np.int64).reshape(shape),
        give_back=lambda kept: (kept + start).astype(space.dtype)[()],
    )


@_array.register
def _(space: spaces.Discrete, name: str, text_tokens: int | None) -> _Array:
    return _discrete(space, name, np.asarray(space.n, np.int64), np.asarray(space.start, np.int64))


@_array.register
def _(space: spaces.MultiDiscrete, name: str, text_tokens: int | None) -> _Array:
    return _discrete(space, name, space.nvec.astype(np.int64), space.start.astype(np.int64))


@_array.register
def _(space: spaces.MultiBinary, name: str, text_tokens: int | None) -> _Array:
    return _discrete(space, name, np.full(space.shape, 2), np.zeros(space.shape, np.int64))


@_array.register
def _(space: spaces.Box, name: str, text_tokens: int | None) -> _Array:
    if not all(space.shape):
        raise ValueError(f"{name} is {space}, which has no elements; leave it out")
    is_bytes = space.dtype == np.uint8 and (space.low == 0).all() and (space.high == 255).all()
    if is_bytes and len(space.shape) in (2, 3):
        return _image(space, name)
    if np.dtype(space.dtype).kind in "iub":
        low, high = space.low.astype(object), space.high.astype(object)  # Python's: no overflow
        counts = np.asarray(np.minimum(high - low + 1, 2**62), np.int64)
        return _discrete(space, name, counts, space.low.astype(np.int64))
    low = np.where(np.abs(space.low) <= WIDEST, space.low, -np.inf).astype(np.float64)
    high = np.where(np.abs(space.high) <= WIDEST, space.high, np.inf).astype(np.float64)
    if not (np.isfinite(low) & np.isfinite(high)).any():
        spec = ArraySpec(kind=Kind.CONTINUOUS, shape=space.shape)
    else:
        same = len(set(zip(low.flat, high.flat, strict=True))) == 1
        lows, highs = low.reshape(-1).tolist(), high.reshape(-1).tolist()
        bounds = (lows[0], highs[0]) if same else (tuple(lows), tuple(highs))
        spec = ArraySpec(kind=Kind.CONTINUOUS, shape=space.shape, low=bounds[0], high=bounds[1])
    return _Array(
        spec=spec,
        keep=lambda value: _as_float32(value, name).reshape(space.shape),
        give_back=lambda kept: np.asarray(np.clip(kept, space.low, space.high), space.dtype),
    )


def _as_float32(value: Any, name: str) -> np.ndarray:
    """ValueError where a finite number is too large for it."""
    wide = np.asarray(value)
    with np.errstate(over="ignore"):
        kept = wide.astype(np.float32)
    if wide.dtype != np.float32 and (np.isinf(kept) & np.isfinite(wide)).any():
        raise ValueError(
            f"{name} holds {wide[np.isinf(kept)].flat[0]:g}, but float32, in which it is kept, ends"
            " at 3.4e38; rescale it, for example by gymnasium.wrappers.TransformObservation"
        )
    return kept


def _image(space: spaces.Box, name: str) -> _Array:
    """Bytes of 0 to 255 in two or three dimensions: grey is repeated to RGB, channels are put
    last."""
    shape = space.shape if len(space.shape) == 3 else (*space.shape, 1)
    channels_first = shape[2] not in (1, 3) and shape[0] in (1, 3)
    if channels_first:
        shape = (*shape[1:], shape[0])
    if shape[2] not in (1, 3):
        channels = min(shape[0], shape[2])
        raise ValueError(
            f"{name} is {space}, an image of {channels} channels, but patches have 1 or 3; show one"
            " frame, or split it into a Dict of images"
        )

    def keep(value: Any) -> np.ndarray:
        image = np.asarray(value, np.uint8).reshape(space.shape)
        image = np.moveaxis(image, 0, -1) if channels_first else image.reshape(shape)
        return np.repeat(image, 3, axis=2) if shape[2] == 1 else image

    return _Array(
        spec=ArraySpec(kind=Kind.IMAGE, shape=(*shape[:2], 3)), keep=keep, give_back=_never
    )


@_array.register
def _(space: spaces.Text, name: str, text_tokens: int | None) -> _Array:
    if text_tokens is None:
        raise ValueError(
            f"{name} is {space}, for which there is no encoder; give a SentencePiece model and how"
            " many tokens a text takes"
        )
    widest = max((len(character.encode()) for character in space.character_list), default=1)
    max_bytes = max(1, space.max_length * widest)
    return _Array(
        spec=ArraySpec(kind=Kind.TEXT, shape=(max_bytes,), max_tokens=text_tokens),
        keep=lambda value: text_to_bytes([str(value)], max_bytes)[0],
        give_back=_never,
    )


def _never(kept: np.ndarray) -> Any:
    raise AssertionError("images and texts are refused as actions")
