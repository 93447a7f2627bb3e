"""Messages between processes over a pipe: plain values and arrays of numbers, without pickles."""

from __future__ import annotations

from typing import Any, cast

import msgpack
import numpy as np

ARRAY = 1


def encode(value: Any) -> bytes:
    """Encode None, bool, int, float, str, lists, mappings and arrays of numbers. Raises TypeError
    for anything else."""
    # packb returns None only if it was given a stream.
    return cast(bytes, msgpack.packb(value, default=_array))


def decode(message: bytes) -> Any:
    """Decode a message: tuples have become lists, arrays are read-only."""
    return msgpack.unpackb(message, ext_hook=_extension, strict_map_key=False)


def _array(value: Any) -> msgpack.ExtType:
    if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.kind not in "biuf":
        raise TypeError(
            f"{type(value).__name__} {value!r} is neither a plain value nor an array of numbers"
        )
    return msgpack.ExtType(ARRAY, msgpack.packb((value.dtype.str, value.shape, value.tobytes())))


def _extension(code: int, data: bytes) -> np.ndarray:
    if code != ARRAY:
        raise ValueError(f"a message holds an extension of code {code}, known here is {ARRAY}")
    kind, shape, values = msgpack.unpackb(data)
    return np.frombuffer(values, np.dtype(kind)).reshape(shape)
