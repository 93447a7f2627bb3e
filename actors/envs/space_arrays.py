"""One Gymnasium space that is an array: its spec, and how its values are converted both ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
from gymnasium import spaces

from gato.array_spec import MAX_VALUES, ArraySpec, Kind
from gato.text import text_to_bytes

WIDEST = 1e6
"""A larger bound counts as none: it says nothing about the values, which are companded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceArray:
    """One space that is an array: its spec, and conversion to stored values and back."""

    spec: ArraySpec
    keep: Callable[[Any], np.ndarray]
    """The environment's value as it is stored in episodes."""
    give_back: Callable[[np.ndarray], Any]
    """The stored value as the environment accepts it."""


@singledispatch
def array_of(space: spaces.Space[Any], name: str, text_tokens: int | None) -> SpaceArray:
    raise ValueError(
        f"{name} is a {type(space).__name__} space ({space}), which cannot become a fixed number of"
        " tokens; wrap the environment so that it is Box, Discrete, MultiDiscrete, MultiBinary,"
        " Text, or a Dict or Tuple of those"
    )


def _per_element(values: np.ndarray) -> Any:
    """One number if all elements are the same, else one for each."""
    flat = values.reshape(-1).tolist()
    return flat[0] if len(set(flat)) == 1 else tuple(flat)


def _discrete(
    space: spaces.Space[Any], name: str, counts: np.ndarray, start: np.ndarray
) -> SpaceArray:
    """Integers from `start` to `start + counts - 1`, stored from 0 on."""
    if counts.max() > MAX_VALUES:
        raise ValueError(
            f"{name} is {space}, whose elements take up to {int(counts.max())} values, but discrete"
            f" tokens have {MAX_VALUES}; wrap the environment: as a MultiDiscrete of digits, or as"
            " a Box of floats"
        )
    shape = counts.shape
    spec = ArraySpec(kind=Kind.DISCRETE, shape=shape, num_values=_per_element(counts))
    return SpaceArray(
        spec=spec,
        keep=lambda value: np.asarray(np.asarray(value, np.int64) - start, np.int64).reshape(shape),
        give_back=lambda kept: (kept + start).astype(space.dtype)[()],
    )


@array_of.register
def _(space: spaces.Discrete, name: str, text_tokens: int | None) -> SpaceArray:
    return _discrete(space, name, np.asarray(space.n, np.int64), np.asarray(space.start, np.int64))


@array_of.register
def _(space: spaces.MultiDiscrete, name: str, text_tokens: int | None) -> SpaceArray:
    return _discrete(space, name, space.nvec.astype(np.int64), space.start.astype(np.int64))


@array_of.register
def _(space: spaces.MultiBinary, name: str, text_tokens: int | None) -> SpaceArray:
    return _discrete(space, name, np.full(space.shape, 2), np.zeros(space.shape, np.int64))


@array_of.register
def _(space: spaces.Box, name: str, text_tokens: int | None) -> SpaceArray:
    if not all(space.shape):
        raise ValueError(f"{name} is {space}, which has no elements; leave it out")
    is_bytes = space.dtype == np.uint8 and (space.low == 0).all() and (space.high == 255).all()
    if is_bytes and len(space.shape) in (2, 3):
        return _image(space, name)
    if np.dtype(space.dtype).kind in "iub":
        low, high = (
            space.low.astype(object),
            space.high.astype(object),
        )  # Python's integers do not overflow
        pairs = zip(low.flat, high.flat, strict=True)
        counts = np.array([min(most - least + 1, 2**62) for least, most in pairs], np.int64)
        if counts.max() <= MAX_VALUES:
            return _discrete(space, name, counts.reshape(space.shape), space.low.astype(np.int64))
    # Floats, and integers of more values than there are discrete tokens.
    low, high = bounds_of(space)
    if not (np.isfinite(low) & np.isfinite(high)).any():
        spec = ArraySpec(kind=Kind.CONTINUOUS, shape=space.shape)
    else:
        same = len(set(zip(low.flat, high.flat, strict=True))) == 1
        lows, highs = low.reshape(-1).tolist(), high.reshape(-1).tolist()
        bounds = (lows[0], highs[0]) if same else (tuple(lows), tuple(highs))
        spec = ArraySpec(kind=Kind.CONTINUOUS, shape=space.shape, low=bounds[0], high=bounds[1])
    return SpaceArray(
        spec=spec,
        keep=lambda value: _as_float32(value, name).reshape(space.shape),
        give_back=lambda kept: _within(kept, space),
    )


def _within(kept: np.ndarray, space: spaces.Box) -> np.ndarray:
    """A stored value as a value of the space: in its bounds and dtype, integers rounded."""
    is_whole = np.dtype(space.dtype).kind in "iub"
    wanted = np.rint(kept.astype(np.float64)) if is_whole else kept
    return np.asarray(np.clip(wanted, space.low, space.high), space.dtype)


def bounds_of(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of each element as float64; infinite where they say nothing."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return (
        np.where(np.abs(low) <= WIDEST, low, -np.inf),
        np.where(np.abs(high) <= WIDEST, high, np.inf),
    )


def closed(low: np.ndarray, high: np.ndarray, bound: float) -> tuple[Any, Any]:
    """Finite bounds of actions: where there is none they reach to `bound` from 0, or so far from
    the one bound that there is."""
    lows = np.where(np.isfinite(low), low, np.minimum(-bound, high - bound))
    highs = np.where(np.isfinite(high), high, np.maximum(bound, low + bound))
    if len(set(zip(lows.flat, highs.flat, strict=True))) == 1:
        return float(lows.flat[0]), float(highs.flat[0])
    return tuple(lows.ravel().tolist()), tuple(highs.ravel().tolist())


def _as_float32(value: Any, name: str) -> np.ndarray:
    """The value as float32. Raises ValueError if a finite number is too large for it."""
    wide = np.asarray(value)
    with np.errstate(over="ignore"):
        kept = wide.astype(np.float32)
    if wide.dtype != np.float32 and (np.isinf(kept) & np.isfinite(wide)).any():
        raise ValueError(
            f"{name} holds {wide[np.isinf(kept)].flat[0]:g}, but it is stored as float32, which"
            " ends at 3.4e38; rescale it, for example by gymnasium.wrappers.TransformObservation"
        )
    return kept


def _image(space: spaces.Box, name: str) -> SpaceArray:
    """An image of bytes in two or three dimensions: grey is repeated to RGB, channels come
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

    return SpaceArray(
        spec=ArraySpec(kind=Kind.IMAGE, shape=(*shape[:2], 3)), keep=keep, give_back=_never
    )


@array_of.register
def _(space: spaces.Text, name: str, text_tokens: int | None) -> SpaceArray:
    if text_tokens is None:
        raise ValueError(
            f"{name} is {space}, for which there is no encoder; give a SentencePiece model and how"
            " many tokens a text takes"
        )
    widest = max((len(character.encode()) for character in space.character_list), default=1)
    max_bytes = max(1, space.max_length * widest)
    return SpaceArray(
        spec=ArraySpec(kind=Kind.TEXT, shape=(max_bytes,), max_tokens=text_tokens),
        keep=lambda value: text_to_bytes([str(value)], max_bytes)[0],
        give_back=_never,
    )


def _never(kept: np.ndarray) -> Any:
    raise AssertionError("images and texts are rejected as actions")


def number_of(reward: Any) -> float:
    """The reward as a float. Raises ValueError if it is not one number."""
    try:
        array = np.asarray(reward)
    except ValueError:  # a list of lists of different lengths
        array = np.asarray(None)
    if array.shape == () and array.dtype.kind in "biuf":
        return float(array)
    shown = f"{reward!r} of shape {array.shape}" if array.shape else repr(reward)
    fix = "return float(reward[0])" if array.size == 1 and array.shape else "return a float"
    raise ValueError(
        f"the reward is {' '.join(shown.split())[:80]}, expected a single number (float); {fix}"
        " from step"
    )
