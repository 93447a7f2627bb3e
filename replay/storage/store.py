"""The store: episodes in a database, each value with a checksum, each key stored only once."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import lmdb
import numpy as np

from gato.episode import Episode
from gato.sequence import Window
from replay.storage.checksum import number_to_bytes
from replay.storage.column_reader import ColumnReader
from replay.storage.database import (
    DAMAGED,
    HEADROOM_BYTES,
    LOCK_WAIT_S,
    Database,
    column_key,
    number_key,
)
from replay.storage.dedup import Deduplication, Intervals, SequenceKey, split_key
from replay.storage.durability import Durability
from replay.storage.eviction import (
    Eviction,
    Remover,
    ReplayDiskFull,
    delete_episode,
    oldest_of_the_agent,
    raising_disk_full,
)
from replay.storage.header import Header, numbered
from replay.storage.index import Index
from replay.storage.loading import load_headers, repair_streams
from replay.storage.record import Record, pack

Outcome = Header | None | ReplayDiskFull
"""What became of a record: its stored header; None: its key was stored before; or there was no
room."""


class EpisodeStore:
    """Episodes in one folder. One process writes; others may open it to read at the same time.

    store = EpisodeStore(folder, capacity_bytes=1 << 30)
    header = store.add(episode, tokens=15_000)     # None: its key was stored before
    window = store.read(header, 10, 14)
    """

    def __init__(
        self,
        folder: Path,
        *,
        capacity_bytes: int,
        map_bytes: int | None = None,
        durability: Durability = "group",
        num_shards: int = 1,
        read_only: bool = False,
        lock_wait_s: float = LOCK_WAIT_S,
        repairing: bool = False,
    ) -> None:
        """Open the store in `folder`, or create it.

        Args:
            capacity_bytes: stored bytes above which episodes are evicted.
            map_bytes: the most that LMDB's file may take; None: twice the capacity. What is unused
                takes no disk.
            durability: with `none` a commit is in the operating system's memory when `add`
                returns, otherwise it is on the disk.
            num_shards: stores that the episodes of a run are spread over; read-only stores use the
                number that they find.
            lock_wait_s: how long to wait for another writer to end. Readers need not wait.
            repairing: open it to write although its counters are damaged.

        Raises:
            ValueError: if it cannot be opened or read, or another process writes to it.
        """
        self.capacity_bytes = capacity_bytes
        self.durability = durability
        self.read_only = read_only
        self.database = Database(
            folder,
            map_bytes=map_bytes or 2 * capacity_bytes + HEADROOM_BYTES,
            sync=durability != "none",
            read_only=read_only,
            lock_wait_s=lock_wait_s,
            trusts_counters=not repairing,
        )
        self.index = Index()
        self.evicts_demonstrations = False
        """Whether damaged demonstrations may make room. Which others may is up to the remover."""
        self.num_evicted = 0
        """Episodes that made room since the store was opened."""
        try:
            self.num_shards = self._shards(num_shards)
            loaded = load_headers(self.database)
            self.episodes = loaded.episodes
            """Headers of the episodes that may be read, by number, oldest first."""
            self.taken_out = loaded.taken_out
            """Headers of damaged episodes, by number; those that can be read."""
            self.damaged = loaded.damaged
            """Why an episode was taken out, by number."""
            self.stored_bytes = loaded.stored_bytes
            self.index.add(self.episodes.values())
            self.damaged_streams = repair_streams(
                self.database, self.episodes.values(), self.num_shards, read_only=read_only
            )
            """Streams of keys that were damaged when the store was opened: nothing is known of
            their evicted episodes, which may be stored again."""
            self._dedup = Deduplication(self.database, self.num_shards, self._stored_keys)
            # Not below the largest stored number: a damaged counter must not overwrite episodes.
            self._next = max(loaded.next_number, self.database.counter("next"))
            self.inserted_tokens = self.database.counter("inserted_tokens")
            stored_tokens = sum(header.tokens for header in self.episodes.values())
            if self.inserted_tokens < stored_tokens and not (read_only or repairing):
                problem = f"{self.inserted_tokens} are fewer than the {stored_tokens} stored"
                raise self.database.damaged_counter("inserted_tokens", problem)
            self.incarnation = self.database.counter("incarnation") + (not read_only)
        except BaseException as problem:
            self.database.close()
            if isinstance(problem, lmdb.Error):
                raise ValueError(
                    f"cannot read the replay store in {folder}: {problem}"
                ) from problem
            raise
        self.remover: Remover = oldest_of_the_agent(self.episodes)
        self._columns = ColumnReader(self.database)
        if not read_only:
            self.database.set_counters(incarnation=self.incarnation, num_shards=num_shards)

    def _shards(self, num_shards: int) -> int:
        """The number of shards, which never changes. Raises ValueError if the store has another."""
        before = self.database.counter("num_shards")
        if self.read_only:
            return before or 1
        if before and before != num_shards:
            raise ValueError(
                f"{self.database.folder} is one of {before} shards, this run has {num_shards};"
                f" episodes would be counted twice: set replay.num_shards={before}, or export them"
                " and start again"
            )
        return num_shards

    def _stored_keys(self) -> Iterator[str]:
        for header in chain(list(self.episodes.values()), list(self.taken_out.values())):
            yield header.key

    def known(self, key: str, parts: SequenceKey | None = None) -> bool:
        """Whether an episode of this key was ever stored. `parts`: the key, if it was split
        before."""
        with self.database.env.begin() as txn:
            return self._dedup.lookup(txn, key, parts or split_key(key))[0]

    def stream_intervals(self, stream: str, value: bytes) -> Intervals:
        """The intervals of a stream from its stored value; see `Deduplication.of_stream`."""
        return self._dedup.of_stream(stream, value)

    def add(self, episode: Episode, *, tokens: int) -> Header | None:
        """Store an episode. None: its key was stored before.

        Raises:
            ReplayDiskFull: if there is no room for it.
        """
        (outcome,) = self.add_all([(pack(episode), tokens)])
        if isinstance(outcome, ReplayDiskFull):
            raise outcome
        return outcome

    def add_all(self, records: Sequence[tuple[Record, int]]) -> list[Outcome]:
        """Store records, each with its number of tokens, in one transaction. One that finds no room
        does not keep the others out.

        Only one thread may be in here at a time.
        """
        try:
            return self._add_all(records)
        except ReplayDiskFull as full:
            if len(records) == 1:
                return [full]
        return [outcome for record in records for outcome in self.add_all([record])]

    def _add_all(self, records: Sequence[tuple[Record, int]]) -> list[Outcome]:
        parts = self.database.parts
        stored: list[Header] = []
        outcomes: list[Outcome] = []
        streams: dict[str, Intervals] = {}
        eviction = Eviction(
            episodes=self.episodes, taken_out=self.taken_out, remover=self.remover,
            takes_demonstrations=self.evicts_demonstrations, capacity_bytes=self.capacity_bytes,
        )  # fmt: skip
        # Nothing in memory changes before the commit, so that a failed transaction leaves no trace.
        number, room_bytes = self._next, self.capacity_bytes - self.stored_bytes
        inserted_tokens = self.inserted_tokens
        with raising_disk_full(), self.database.env.begin(write=True) as txn:
            for record, tokens in records:
                # A key may come twice in one group: look also at what this transaction added.
                is_known, intervals = self._dedup.lookup(txn, record.header.key, record.key)
                intervals = streams.setdefault(record.key.stream, intervals)
                if is_known or self._dedup.number(record.key) in intervals:
                    outcomes.append(None)
                    continue
                header, header_bytes = numbered(
                    record.header, map(len, record.values.values()), number, tokens
                )
                room_bytes -= header.stored_bytes
                if room_bytes < 0:
                    for victim in eviction.make_room(-room_bytes, header):
                        room_bytes += victim.stored_bytes
                        delete_episode(txn, parts, victim)
                for (column, chunk), value in record.values.items():
                    txn.put(column_key(number, column, chunk), value, db=parts.columns)
                txn.put(number_key(number), header_bytes, db=parts.headers)
                intervals.add(self._dedup.number(record.key))
                stored.append(header)
                outcomes.append(header)
                inserted_tokens += tokens
                number += 1
            if not stored:
                return outcomes
            for stream, intervals in streams.items():
                txn.put(stream.encode(), intervals.to_bytes(), db=parts.streams)
            txn.put(b"next", number_to_bytes(number), db=parts.counters)
            txn.put(b"inserted_tokens", number_to_bytes(inserted_tokens), db=parts.counters)
        self._next, self.inserted_tokens = number, inserted_tokens
        self._forget(eviction.victims.values())
        for header in stored:
            self.stored_bytes += header.stored_bytes
            self.episodes[header.number] = header
        self.index.add(stored)
        return outcomes

    def _forget(self, victims: Collection[Header]) -> None:
        """Take evicted episodes out of memory."""
        for victim in victims:
            self.stored_bytes -= victim.stored_bytes
            self.num_evicted += victim.number in self.episodes
            for group in (self.episodes, self.taken_out, self.damaged):
                group.pop(victim.number, None)
        if victims:
            self.index.remove([victim.number for victim in victims])
            # LMDB keeps the pages that a reader may still need. A killed reader would hold back all
            # space that is freed from then on, so clear dead readers.
            self.database.env.reader_check()

    def gone(self, numbers: Iterable[int]) -> None:
        """Forget episodes that another process evicted; one's own evictions are known."""
        if self.read_only:
            self._forget([self.episodes[n] for n in set(numbers) if n in self.episodes])

    @contextmanager
    def views(
        self, header: Header, names: Iterable[str], start: int, stop: int
    ) -> Generator[dict[str, np.ndarray]]:
        """See `ColumnReader.views`."""
        with self._columns.views(header, names, start, stop) as opened:
            yield opened

    def column(self, header: Header, name: str, start: int, stop: int) -> np.ndarray:
        """See `ColumnReader.column`."""
        return self._columns.column(header, name, start, stop)

    def read(self, header: Header, start: int, stop: int) -> Window:
        """See `ColumnReader.window`."""
        return self._columns.window(header, start, stop)

    def episode(self, header: Header) -> Episode:
        """See `ColumnReader.episode`."""
        return self._columns.episode(header)

    def all_episodes(self) -> Iterator[Episode]:
        """Every episode that may be read, oldest first."""
        for header in list(self.episodes.values()):
            yield self.episode(header)

    def quarantine(self, header: Header, reason: str) -> None:
        """Take a damaged episode out permanently; it stays on disk while there is room."""
        if self.episodes.pop(header.number, None) is not None:
            self.damaged[header.number] = reason
            self.taken_out[header.number] = header
            self.index.remove([header.number])
            if not self.read_only:
                note = {DAMAGED + str(header.number).encode(): reason.encode()}
                self.database.put(note, self.database.parts.counters)

    def close(self) -> None:
        """Close the store; it may be opened again."""
        if self.durability == "none":
            self.database.sync()
        self.database.close()
