"""Reads pickles as data: numbers, arrays and attributes of objects, from files that are not
trusted.

Reading calls nothing of NumPy: its names build plain records of what the file says of an array.
The array is made afterwards, of numbers alone, after its length is checked. Classes of
Stable-Baselines3 and Gymnasium become shells without behaviour; everything else is rejected.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

MOST_BYTES = 2**27
"""Largest array, in bytes. Statistics of observations are far smaller."""
NUMBERS = re.compile(r"b1|[iu][1248]|f[248]")
"""Names of NumPy types for which any bytes are values."""
SHELLS = re.compile(r"(stable_baselines3|sb3_contrib|gymnasium|gym|numpy\.random)\..*")
NUMPY = re.compile(
    r"numpy(?:\._?core\.(?:multiarray|numeric))?\.(_reconstruct|_frombuffer|scalar|ndarray|dtype)"
)


class Shell:
    """Stands for a class of the file: has its attributes, and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):  # a generator's is a tuple, which is not needed
            # Names such as __array_interface__ would tell NumPy where to look in memory.
            self.__dict__.update(
                {
                    str(name): value
                    for name, value in state.items()
                    if not str(name).startswith("__")
                }
            )


class _Marker:
    """Stands for the class `numpy.ndarray`, which pickles name and do not call."""


class _Type:
    """What the file says of a type of numbers."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        """The NumPy type. Raises ValueError if its values are not numbers."""
        if not (
            isinstance(self.name, str)
            and NUMBERS.fullmatch(self.name)
            and self.order in ("<", ">", "=", "|")
        ):
            raise ValueError(f"it holds an array of {self.name!r}, not of numbers")
        return np.dtype(self.name).newbyteorder(self.order)


class _Array:
    """What the file says of an array."""

    def __init__(self, *_: Any) -> None:
        self._parts: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        self._parts = (data, kind, shape, "F" if by_columns else "C")

    @classmethod
    def of(cls, data: Any, kind: Any, shape: Any = (), order: Any = "C") -> _Array:
        array = cls()
        array._parts = (data, kind, shape, order)
        return array

    def numpy(self) -> Shaped[np.ndarray, ...]:
        """The array. Raises ValueError if it is not of numbers, or its bytes do not fit its
        shape."""
        data, kind, shape, order = self._parts or (None, None, None, None)
        if not (
            isinstance(data, bytes | bytearray)
            and isinstance(kind, _Type)
            and len(data) <= MOST_BYTES
        ):
            raise ValueError("it holds an array that is not of numbers")
        if not (
            isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        ):
            raise ValueError(f"it holds an array of shape {shape!r}")
        return np.frombuffer(bytes(data), kind.numpy()).reshape(
            shape, order="F" if order == "F" else "C"
        )


BUILDERS: dict[str, Callable[..., Any]] = {
    "_reconstruct": _Array,
    "_frombuffer": _Array.of,
    "scalar": lambda kind, data=None: _Array.of(data, kind),
    "ndarray": _Marker,
    "dtype": _Type,
}


class _Unpickler(pickle.Unpickler):
    """Calls only what this module defines."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        known = NUMPY.fullmatch(full)
        if known:
            return BUILDERS[known[1]]
        if SHELLS.fullmatch(full):
            return Shell
        raise pickle.UnpicklingError(f"it calls {full}")


def read_inert(content: bytes) -> Any:
    """The content of a pickle: shells, plain values, and arrays for `numbers_of`.

    Raises:
        pickle.UnpicklingError: if it names anything that is not known to be harmless.
        Exception: whatever `pickle` raises if the file is damaged.
    """
    for opcode, argument, _ in pickletools.genops(content):
        # The memo grows to the largest index at once: a few bytes could ask for all memory.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise pickle.UnpicklingError("it numbers more parts than it can have")
    return _Unpickler(io.BytesIO(content)).load()


def numbers_of(value: Any) -> Float64[np.ndarray, ...]:
    """An array or a number of the file, as float64. Raises ValueError if it is neither."""
    if isinstance(value, _Array):
        value = value.numpy()
    if not (
        type(value) in (bool, int, float)
        or (type(value) is np.ndarray and value.dtype.kind in "biuf")
    ):
        raise ValueError(f"it has {type(value).__name__} where numbers were expected")
    return np.asarray(value, np.float64)
