"""Loading: what a store holds when it is opened, read from its headers and streams."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from replay.storage.database import DAMAGED, Database
from replay.storage.dedup import Intervals, split_key
from replay.storage.header import DamagedEpisode, Header, header_from_bytes


@dataclass(slots=True, kw_only=True)
class Loaded:
    """The episodes of a store."""

    episodes: dict[int, Header] = field(default_factory=dict[int, Header])
    """Headers of the episodes that may be read, by number, oldest first."""
    taken_out: dict[int, Header] = field(default_factory=dict[int, Header])
    """Headers of damaged episodes, by number."""
    damaged: dict[int, str] = field(default_factory=dict[int, str])
    """Why an episode is damaged, by number; the header itself may be unreadable."""
    stored_bytes: int = 0

    @property
    def next_number(self) -> int:
        """One more than the largest number of a readable header; the number of a damaged one may
        be anything."""
        return max(chain(self.episodes, self.taken_out), default=-1) + 1


def load_headers(database: Database) -> Loaded:
    """Read all headers; those that are damaged are noted and left out."""
    loaded = Loaded()
    numbers: set[int] = set()
    with database.env.begin() as txn:
        for name, reason in txn.cursor(db=database.parts.counters):
            if name.startswith(DAMAGED) and name[len(DAMAGED) :].isdigit():
                loaded.damaged[int(name[len(DAMAGED) :])] = reason.decode(errors="replace")
        for key, value in txn.cursor(db=database.parts.headers):
            number = int.from_bytes(key, "big")
            numbers.add(number)
            try:
                header = header_from_bytes(value)
                if header.number != number:
                    raise DamagedEpisode(
                        f"the header of {header.key} is stored under number {number}"
                    )
            except DamagedEpisode as problem:
                loaded.damaged.setdefault(number, str(problem))
                continue
            loaded.stored_bytes += header.stored_bytes
            group = loaded.taken_out if number in loaded.damaged else loaded.episodes
            group[number] = header
    # An episode that was noted as damaged and evicted since then is gone.
    loaded.damaged = {n: reason for n, reason in loaded.damaged.items() if n in numbers}
    return loaded


def repair_streams(
    database: Database, headers: Iterable[Header], num_shards: int, *, read_only: bool
) -> list[str]:
    """Note the keys of stored episodes in the deduplication where a damaged stream lost them.

    Returns:
        The streams that were damaged: of their evicted episodes nothing is known, so these may be
        stored again.
    """
    streams: dict[str, Intervals] = {}
    damaged: set[str] = set()
    with database.env.begin() as txn:
        parts = database.parts
        for name, value in txn.cursor(db=parts.streams) if parts.streams is not None else ():
            stream = name.decode(errors="replace")
            try:
                streams[stream] = Intervals.from_bytes(value)
            except ValueError:
                damaged.add(stream)
        # Only episodes that may be read: the key of one that was taken out may be forgotten.
        for header in headers:
            stream, number = split_key(header.key)
            intervals = streams.setdefault(stream, Intervals())
            number //= num_shards
            if number not in intervals and txn.get(header.key.encode(), db=parts.keys) is None:
                intervals.add(number)
                damaged.add(stream)
    if damaged and not read_only:
        repaired = {
            name.encode(): streams.get(name, Intervals()).to_bytes() for name in sorted(damaged)
        }
        database.put(repaired, database.parts.streams)
    return sorted(damaged)
