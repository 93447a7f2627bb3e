"""The arena: memory for what was read lately, as rows of bytes, so that a batch is gathered by
whole rows.

Shape letters: P pieces (runs of rows of one key), C pieces cut at the ends of chunks, T rows of all
pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

ABSENT = -1


class Arena:
    """A ring of bytes: arrays of rows go in at its head and the oldest fall out.

    arena = Arena(1 << 20); arena.put("k", rows); arena.rows(width)[arena.place("k") : ]
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._buffer = np.empty(capacity_bytes, np.uint8)
        """The operating system provides its pages when they are first written."""
        self._head = 0
        self._entries: deque[tuple[int, int, Hashable]] = deque()
        """(first byte, one past the last, key), oldest first."""
        self._row_of: dict[Hashable, int] = {}

    def place(self, key: Hashable) -> int:
        """The first row of what was put under `key`, counted in rows of its width; ABSENT where it
        is not here."""
        return self._row_of.get(key, ABSENT)

    def places(self, keys: Sequence[Hashable]) -> Int64[np.ndarray, " P"]:
        """The place of each key."""
        return np.fromiter(map(self._row_of.get, keys, repeat(ABSENT)), np.int64, len(keys))

    def rows(self, width: int) -> UInt8[np.ndarray, "N width"]:
        """All of it as rows of `width` bytes."""
        return self._buffer[: len(self._buffer) // width * width].reshape(-1, width)

    def put(self, key: Hashable, rows: UInt8[np.ndarray, "n width"]) -> None:
        """Store a copy of the rows; rows that take more than half of the arena are not stored."""
        size, width = rows.nbytes, rows.shape[1]
        if key in self._row_of or 2 * size > len(self._buffer):
            return
        start, free_from = -(-self._head // width) * width, self._head
        if start + size > len(self._buffer):
            # The end of the ring: entries behind the head are the oldest. They go, so that the
            # order of places stays that of age.
            while self._entries and self._entries[0][0] >= self._head:
                self._drop_oldest()
            start = free_from = 0
        # Drop what will be overwritten. From the head, not from the aligned `start`: an entry
        # between them is older than those that are overwritten.
        while (
            self._entries and self._entries[0][0] < start + size and self._entries[0][1] > free_from
        ):
            self._drop_oldest()
        self._buffer[start : start + size] = rows.reshape(-1)
        self._head = start + size
        self._entries.append((start, start + size, key))
        self._row_of[key] = start // width

    def _drop_oldest(self) -> None:
        _, _, key = self._entries.popleft()
        del self._row_of[key]


def gather(
    arena: Arena,
    keys_P: Sequence[Hashable],
    start_P: Int64[np.ndarray, " P"],
    length_P: Int64[np.ndarray, " P"],
    width: int,
    load: Callable[[Any], UInt8[np.ndarray, "n width"]],
    *,
    out: UInt8[np.ndarray, "T width"] | None = None,
) -> UInt8[np.ndarray, "T width"]:
    """The rows of all pieces, one after another: piece p is rows [start, start + length) of its
    key.

    Args:
        width: bytes of a row.
        load: reads all rows of a key that the arena does not have. They are stored after the batch
            is gathered, so that one row of a batch never pushes out another.
        out: is filled and returned, if it is given.
    """
    first_P = arena.places(keys_P)
    begin_P = np.cumsum(length_P) - length_P
    at_P = first_P + start_P
    # Row numbers of all pieces in one pass: rows of a piece are consecutive, so they are the
    # cumulative sum of ones, with a jump at the beginning of each piece.
    step_T = np.ones(int(length_P.sum()), np.int64)
    if len(step_T):
        step_T[begin_P] = np.concatenate([at_P[:1], at_P[1:] - at_P[:-1] - length_P[:-1] + 1])
    here = arena.rows(width)
    where_T = np.cumsum(step_T)
    rows_TW = np.empty((len(where_T), width), np.uint8) if out is None else out
    if len(here):  # rows of absent pieces are garbage until they are loaded
        np.take(here, where_T, axis=0, out=rows_TW, mode="clip")
    loaded: dict[Hashable, np.ndarray] = {}
    for p in np.flatnonzero(first_P == ABSENT).tolist():
        key = keys_P[p]
        if key not in loaded:
            loaded[key] = load(key)
        rows_TW[begin_P[p] : begin_P[p] + length_P[p]] = loaded[key][
            start_P[p] : start_P[p] + length_P[p]
        ]
    for key, rows in loaded.items():
        arena.put(key, rows)
    return rows_TW


@dataclass(frozen=True, slots=True)
class Cut:
    """Pieces cut at the ends of chunks."""

    of: Int64[np.ndarray, " C"]
    """Which piece each is a part of."""
    chunk: Int64[np.ndarray, " C"]
    start: Int64[np.ndarray, " C"]
    """Counted within the chunk."""
    length: Int64[np.ndarray, " C"]


def cut_in_chunks(
    start_P: Int64[np.ndarray, " P"], length_P: Int64[np.ndarray, " P"], chunk_rows: int
) -> Cut:
    """Runs of rows as runs within chunks of `chunk_rows` rows, in the same order."""
    first_P = start_P // chunk_rows
    count_P = (start_P + length_P - 1) // chunk_rows - first_P + 1
    of = np.repeat(np.arange(len(count_P)), count_P)
    chunk = first_P[of] + np.arange(len(of)) - np.repeat(np.cumsum(count_P) - count_P, count_P)
    begin = np.maximum(start_P[of], chunk * chunk_rows)
    end = np.minimum((start_P + length_P)[of], (chunk + 1) * chunk_rows)
    return Cut(of, chunk, begin - chunk * chunk_rows, end - begin)


def as_bytes(array: Shaped[np.ndarray, "n ..."]) -> UInt8[np.ndarray, "n width"]:
    """Rows of any shape and dtype as rows of bytes."""
    flat = np.ascontiguousarray(array).reshape(len(array), -1)
    return flat.view(np.uint8)
