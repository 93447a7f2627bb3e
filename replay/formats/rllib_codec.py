"""RLlib's packed episodes: msgpack with NumPy arrays, decoded without ever opening a pickle.

Shape letters: T steps.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from gato.episode import BadEpisode
from replay.formats.schema import Misfit

MOST_BOUND_BYTES = 1 << 24
"""Of the bounds of a space, unpacked."""
MOST_LOOKBACK = 1_000_000
PLAIN_KINDS = "biufSU"
"""Kinds of dtype that are only numbers or text."""


class Unreadable:
    """In place of an array that must not be decoded: of objects, or structured."""


def decode(packed: Mapping[Any, Any]) -> Any:
    """Decode one mapping of msgpack; a NumPy array or number becomes one. Never opens a pickle.

    The encoding: `{b"nd": True, b"type": dtype, b"kind": b"", b"shape": ..., b"data": bytes}` for
    an array, and without kind and shape for a number; kind `O` has a pickle as data, kind `V` a
    structured dtype.
    """
    if b"nd" not in packed:
        return packed
    kind, dtype = packed.get(b"kind", b""), packed[b"type"]
    if kind or not isinstance(dtype, str):
        return Unreadable()
    plain = np.dtype(dtype)
    if plain.kind not in PLAIN_KINDS:
        return Unreadable()
    values = np.frombuffer(packed[b"data"], plain)
    return values.reshape(tuple(packed[b"shape"])) if packed[b"nd"] else values[0]


def own_steps(buffer: Any, where: str) -> Any:
    """The steps of this chunk. Before them a buffer repeats the last steps of the previous
    chunk."""
    try:
        data, lookback = buffer["data"], int(buffer["lookback"])
        if not 0 <= lookback <= MOST_LOOKBACK:
            raise BadEpisode(f"{where}: a lookback of {lookback} steps")
    except BadEpisode:
        raise
    except (TypeError, KeyError, ValueError) as problem:
        raise ValueError(
            f"{where} is not an episode of RLlib: a column lacks {problem}"
        ) from problem
    return _sliced(data, lookback)


def _sliced(data: Any, start: int) -> Any:
    if isinstance(data, dict):
        return {name: _sliced(part, start) for name, part in data.items()}
    return data[start:] if isinstance(data, (list, np.ndarray)) else data


def array_of(data: Any, what: str) -> Shaped[np.ndarray, "T ..."]:
    """Rows, each an array or a number, or all in one array. Raises ValueError if they differ, or
    are objects."""
    parts = data if isinstance(data, list) else [data]
    if any(isinstance(part, Unreadable) for part in parts):
        raise BadEpisode(
            f"{what}: an array of Python objects; such may run code and is never opened"
        )
    try:
        array = np.asarray(data)
    except ValueError as problem:
        raise BadEpisode(f"{what}: steps of different shapes") from problem
    if array.ndim == 0 or array.dtype.kind not in PLAIN_KINDS:
        raise ValueError(
            f"{what}: {array.dtype} of shape {array.shape}, expected an array with a row for each"
            " step"
        )
    return array


def unpacked(bound: Any) -> np.ndarray:
    """Raises ValueError if it is no array of numbers; pickles are not opened."""
    if not isinstance(bound, (str, bytes)):
        return np.asarray(bound, np.float64)
    try:
        packed = zlib.decompressobj().decompress(base64.b64decode(bound), MOST_BOUND_BYTES)
        return np.load(io.BytesIO(packed), allow_pickle=False)
    except (ValueError, zlib.error, EOFError, OSError) as problem:
        raise BadEpisode(f"its space has bounds that cannot be read: {problem}") from problem


def is_nested(data: Any) -> bool:
    return isinstance(data, dict) or (
        isinstance(data, list) and bool(data) and isinstance(data[0], dict)
    )


def nested_of(data: Any, path: list[str], what: str) -> Any:
    """One part of nested observations: of a list of mappings, or of a mapping of arrays."""
    try:
        if isinstance(data, list):
            return [nested_of(step, path, what) for step in data]
        return nested_of(data[path[0]], path[1:], what) if path else data
    except (KeyError, TypeError, IndexError) as problem:
        raise Misfit(f"{what}: the file shows no {'/'.join(path)}") from problem
