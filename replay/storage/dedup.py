"""What was ever stored, by key, in little space: of each stream of keys the intervals of its
sequence numbers.

A key is a stream and a number, such as `w0.4f2a.17` or `d4rl:hopper:9c1b:3`: writer, incarnation
and sequence number. Numbers that arrive in order make one interval, however many they are, so that
a duplicate is known for ever, also after its episode was evicted, for a few bytes a writer.
"""

from __future__ import annotations

import re
import struct
import zlib
from bisect import bisect_right

_SPLIT = re.compile(r"(.*[.:])(0|[1-9][0-9]{0,17})", re.DOTALL)


def split_key(key: str) -> tuple[str, int]:
    """Stream and sequence number. A key that does not end in a number is a stream of its own, with
    one number."""
    found = _SPLIT.fullmatch(key)
    return (found[1], int(found[2])) if found else (key + "\0", 0)


class Intervals:
    """A set of whole numbers as sorted, disjoint, half-open intervals.

    seen = Intervals.from_bytes(value); seen.add(17); seen.to_bytes()
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

    def add(self, number: int) -> bool:
        """Whether it is new."""
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
        """Take a number out, where it is in."""
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
        """Whether bytes of `to_bytes` are as they were."""
        return len(value) % 8 == 4 and zlib.crc32(value[4:]) == int.from_bytes(value[:4], "little")

    @classmethod
    def from_bytes(cls, value: bytes) -> Intervals:
        """ValueError where it is damaged."""
        if not cls.is_whole(value):
            raise ValueError("intervals do not match their checksum")
        edges = struct.unpack(f"<{len(value) // 8}q", value[4:])
        made = cls()
        made._starts, made._ends = list(edges[::2]), list(edges[1::2])
        return made
