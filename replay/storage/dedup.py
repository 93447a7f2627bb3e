"""Deduplication: a compact set of every key ever stored, as intervals of sequence numbers per
stream.

A key is a stream and a number, such as `w0.4f2a.17` or `d4rl:hopper:9c1b:3`: writer, incarnation
and sequence number. Numbers that arrive in order make one interval, however many they are. So a
duplicate is recognised permanently, also after its episode was evicted, for a few bytes a writer.
"""

from __future__ import annotations

import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import NamedTuple

import lmdb

from replay.storage.database import Database

_SPLIT = re.compile(r"(.*[.:])(0|[1-9][0-9]{0,17})", re.DOTALL)


class SequenceKey(NamedTuple):
    """A key in its two parts."""

    stream: str
    number: int


def split_key(key: str) -> SequenceKey:
    """Stream and sequence number. A key that does not end in a number is a stream of its own, with
    number 0."""
    found = _SPLIT.fullmatch(key)
    return SequenceKey(found[1], int(found[2])) if found else SequenceKey(key + "\0", 0)


class Intervals:
    """A set of whole numbers as sorted, disjoint, half-open intervals.

    numbers = Intervals.from_bytes(value); numbers.add(17); numbers.to_bytes()
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._starts, number) - 1
        return place >= 0 and number < self._ends[place]

    def __len__(self) -> int:
        """How many intervals there are."""
        return len(self._starts)

    def count(self) -> int:
        """How many numbers are in it."""
        return sum(self._ends) - sum(self._starts)

    def add(self, number: int) -> bool:
        """Add a number. Returns whether it is new."""
        place = bisect_right(self._starts, number) - 1
        if place >= 0 and number < self._ends[place]:
            return False
        joins_left = place >= 0 and self._ends[place] == number
        joins_right = place + 1 < len(self._starts) and self._starts[place + 1] == number + 1
        if joins_left and joins_right:
            self._ends[place] = self._ends.pop(place + 1)
            self._starts.pop(place + 1)
        elif joins_left:
            self._ends[place] = number + 1
        elif joins_right:
            self._starts[place + 1] = number
        else:
            self._starts.insert(place + 1, number)
            self._ends.insert(place + 1, number + 1)
        return True

    def discard(self, number: int) -> None:
        """Take a number out, if it is in."""
        place = bisect_right(self._starts, number) - 1
        if place < 0 or number >= self._ends[place]:
            return
        start, end = self._starts[place], self._ends[place]
        rest = [(low, high) for low, high in ((start, number), (number + 1, end)) if low < high]
        self._starts[place : place + 1] = [low for low, _ in rest]
        self._ends[place : place + 1] = [high for _, high in rest]

    def to_bytes(self) -> bytes:
        flat = [edge for pair in zip(self._starts, self._ends, strict=True) for edge in pair]
        packed = struct.pack(f"<{len(flat)}q", *flat)
        return zlib.crc32(packed).to_bytes(4, "little") + packed

    @staticmethod
    def is_whole(value: bytes) -> bool:
        """Whether the checksum matches."""
        return len(value) % 8 == 4 and zlib.crc32(value[4:]) == int.from_bytes(value[:4], "little")

    @classmethod
    def from_bytes(cls, value: bytes) -> Intervals:
        """The inverse of `to_bytes`. Raises ValueError if `value` is damaged."""
        if not cls.is_whole(value):
            raise ValueError("intervals do not match their checksum")
        edges = struct.unpack(f"<{len(value) // 8}q", value[4:])
        intervals = cls()
        intervals._starts, intervals._ends = list(edges[::2]), list(edges[1::2])
        return intervals


class Deduplication:
    """The keys that a store has ever stored, as its database has them.

    With k shards a store gets every k-th number of a stream, so it keeps `number // k`.
    """

    def __init__(
        self, database: Database, num_shards: int, stored_keys: Callable[[], Iterable[str]]
    ) -> None:
        """`stored_keys`: the keys of the episodes that are stored now; a damaged stream falls back
        to these."""
        self._database = database
        self._num_shards = num_shards
        self._stored_keys = stored_keys

    def number(self, key: SequenceKey) -> int:
        """The sequence number as this shard counts it."""
        return key.number // self._num_shards

    def lookup(self, txn: lmdb.Transaction, key: str, parts: SequenceKey) -> tuple[bool, Intervals]:
        """Whether a key was ever stored, and the numbers of its stream that were."""
        databases = self._database.parts
        # Stores of schema 1 kept keys whole.
        is_whole_key = (
            databases.keys is not None and txn.get(key.encode(), db=databases.keys) is not None
        )
        value = (
            txn.get(parts.stream.encode(), db=databases.streams)
            if databases.streams is not None
            else None
        )
        numbers = Intervals() if value is None else self.of_stream(parts.stream, bytes(value))
        return is_whole_key or self.number(parts) in numbers, numbers

    def of_stream(self, stream: str, value: bytes) -> Intervals:
        """The numbers of a stream, from its value in the database; if that is damaged, the numbers
        of the episodes that are stored now."""
        try:
            return Intervals.from_bytes(value)
        except ValueError:
            numbers = Intervals()
            for key in self._stored_keys():
                parts = split_key(key)
                if parts.stream == stream:
                    numbers.add(self.number(parts))
            return numbers
