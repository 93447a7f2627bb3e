"""Crafted pickles: none reads or writes memory that is not its own, none runs anything; what is
honest is read as it was."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.teachers.safe_pickle import numbers_of, read_inert

ROOT = Path(__file__).resolve().parents[3]


def read(data: bytes) -> Any:
    return read_inert(data)


def called(module: str, name: str, *arguments: bytes) -> bytes:
    """Opcodes that call a name with arguments that are opcodes themselves."""
    return b"c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def short(value: bytes) -> bytes:
    return b"C" + bytes([len(value)]) + value


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


OBJECTS = called("numpy", "dtype", text("O8"))
FOUR = b"K\x04\x85"
FROM_BYTES = called("numpy", "ndarray", FOUR, OBJECTS, short(b"A" * 32))
RECONSTRUCTED = called(
    "numpy._core.multiarray", "_reconstruct", b"cnumpy\nndarray\n", b"K\x00\x85", short(b"b")
)
STATE = b"(K\x01" + FOUR + OBJECTS + b"\x89" + short(b"A" * 32) + b"t"
BUFFER = called("numpy._core.numeric", "_frombuffer", short(b"A" * 32), OBJECTS, FOUR, text("C"))
SCALAR = called("numpy._core.multiarray", "scalar", OBJECTS, short(b"A" * 8))
INTERFACE = (
    called("gymnasium.spaces", "Box")
    + b"}("
    + text("__array_interface__")
    + b"}("
    + text("shape")
    + FOUR
    + text("typestr")
    + text("<f8")
    + text("version")
    + b"K\x03"
    + text("data")
    + b"K\x08\x89\x86"
    + b"uub"
)
CRAFTED = {
    "an array of objects out of bytes": FROM_BYTES,
    "a reconstructed array of objects": RECONSTRUCTED + STATE + b"b",
    "a buffer of objects": BUFFER,
    "an object as a scalar": SCALAR,
    "an interface to memory": INTERFACE,
    "a shape that is larger than its bytes": RECONSTRUCTED
    + b"(K\x01K\xff\x85"
    + called("numpy", "dtype", text("f8"))
    + b"\x89"
    + short(b"A" * 8)
    + b"tb",
    "a type in place of an array": OBJECTS,
}

TRIES = """
import io, pickle, sys
from actors.teachers.safe_pickle import numbers_of, read_inert

for data in pickle.load(sys.stdin.buffer):
    try:
        value = read_inert(data)
        print([str(numbers_of(value)) for _ in range(3)])
    except (ValueError, TypeError) as problem:
        print("refused")
"""


def test_crafted_arrays_are_rejected() -> None:
    crafted = pickle.dumps([b"\x80\x04" + craft + b"." for craft in CRAFTED.values()])
    ran = subprocess.run(
        [sys.executable, "-c", TRIES], cwd=ROOT, input=crafted, capture_output=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert dict(zip(CRAFTED, ran.stdout.decode().splitlines(), strict=True)) == dict.fromkeys(
        CRAFTED, "refused"
    )


def test_a_shell_takes_no_names_that_mean_something_to_python() -> None:
    shell = read(b"\x80\x04" + INTERFACE + b".")
    assert vars(shell) == {}
    assert not hasattr(shell, "__array_interface__")


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("kind", ["f8", ">f4", "i8", "u1", "bool", "f2"])
def test_honest_arrays_and_numbers_are_read_as_they_were(protocol: int, kind: str) -> None:
    rows = np.arange(12).reshape(3, 4).astype(kind)
    for value in (rows, np.asfortranarray(rows), rows[::2, 1], rows[1, 1], rows[:0], 0.25, 7):
        got = numbers_of(read(pickle.dumps(value, protocol)))
        np.testing.assert_array_equal(got, np.asarray(value, np.float64))


def test_a_pickle_that_calls_anything_else_is_rejected() -> None:
    for value in (print, np.load, np.array(["a"]), pickle.loads):
        with pytest.raises((pickle.UnpicklingError, ValueError), match=r"it calls|not of numbers"):
            numbers_of(read(pickle.dumps(value)))
