"""The store: episodes in a database, each value checked by a checksum when it is read, each key
counted once for ever."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal

import lmdb
import numpy as np

from gato.episode import Episode
from gato.sequence import Window
from replay.storage.checksum import number_to_bytes
from replay.storage.database import (
    DAMAGED,
    HEADROOM_BYTES,
    LOCK_WAIT_S,
    Database,
    column_key,
    number_key,
)
from replay.storage.dedup import Intervals, split_key
from replay.storage.header import (
    DamagedEpisode,
    Header,
    disk_bytes,
    header_from_bytes,
    header_to_bytes,
)
from replay.storage.index import Index
from replay.storage.record import (
    IMAGE_BYTES,
    Record,
    chunk_steps,
    episode_of,
    open_value,
    pack,
    step_bytes,
)

Durability = Literal["always", "group", "none"]
"""When an episode is acknowledged. always: after a commit of its own. group: after a commit that it
shares with what else came while the last one was written. none: once the operating system has it,
which a killed process does not lose, but a power cut may, and with it the store.
"""
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class ReplayDiskFull(OSError):
    """There is no space for an episode; nothing was written and reads go on."""


class ReplayFull(ReplayDiskFull):
    """The capacity is used up by what may not be evicted."""


class EpisodeGone(LookupError):
    """An episode was evicted while it was to be read."""


Outcome = Header | None | ReplayDiskFull
"""What became of a record: stored, its key was seen before, or there was no room."""
Remover = Callable[[int], list[int]]
"""Numbers of the episodes to evict, in this order, so that some bytes are freed; fewer where not
enough may go."""


class EpisodeStore:
    """Episodes in one folder. One process writes; others may open it to read at the same time.

    store = EpisodeStore(folder, capacity_bytes=1 << 30)
    header = store.add(episode, tokens=15_000)     # None: its key was seen before
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
        is_mended: bool = False,
    ) -> None:
        """`map_bytes` is the most that LMDB's file may take (default: twice the capacity; what is
        unused takes no disk).

        With durability `none` a commit is in the operating system's memory when `add` returns, else
        it is on the disk. A second writer is refused where the first does not end within
        `lock_wait_s`; readers come and go as they like. A store whose counters are damaged is
        opened to write only where it `is_mended`.
        """
        self.capacity_bytes = capacity_bytes
        self.durability = durability
        self.read_only = read_only
        self.num_shards = num_shards
        """To read: of what was found."""
        self.database = Database(
            folder, map_bytes=map_bytes or 2 * capacity_bytes + HEADROOM_BYTES, sync=durability != "none",
            read_only=read_only, lock_wait_s=lock_wait_s,
            trusts_counters=not is_mended,
        )  # fmt: skip
        self.episodes: dict[int, Header] = {}
        """Headers of what is kept, by number, oldest first."""
        self.index = Index()
        self.damaged: dict[int, str] = {}
        """Why an episode was taken out of what is read, by number."""
        self.forgetful: list[str] = []
        """Streams that were damaged when the store was opened: of what was evicted nothing is
        known, and it may be stored again."""
        self.taken_out: dict[int, Header] = {}
        """Of those that are damaged, the headers that can be read."""
        self.remover: Remover = self._oldest_of_the_agent
        self.evicts_demonstrations = False
        """Whether damaged ones may make room; which others may is the remover's business."""
        self.stored_bytes = 0
        self.num_evicted = 0
        """Episodes that made room since the store was opened."""
        try:
            self._check_shards()
            # A damaged counter lets no episode write over another.
            self._next = max(self._open_headers(), self.database.counter("next"))
            self.inserted_tokens = self.database.counter("inserted_tokens")
            kept_tokens = sum(header.tokens for header in self.episodes.values())
            if self.inserted_tokens < kept_tokens and not (read_only or is_mended):
                problem = f"{self.inserted_tokens} are fewer than the {kept_tokens} kept"
                raise self.database.damaged_counter("inserted_tokens", problem)
            self.incarnation = self.database.counter("incarnation") + (not read_only)
        except BaseException as problem:
            self.database.close()
            if isinstance(problem, lmdb.Error):
                raise ValueError(
                    f"cannot read the replay store in {folder}: {problem}"
                ) from problem
            raise
        if not read_only:
            self.database.set_counters(incarnation=self.incarnation, num_shards=num_shards)

    def _check_shards(self) -> None:
        before = self.database.counter("num_shards")
        if self.read_only:
            self.num_shards = before or 1
        elif before and before != self.num_shards:
            raise ValueError(
                f"{self.database.folder} is one of {before} shards, this run has {self.num_shards};"
                f" episodes would be counted twice: set replay.num_shards={before}, or export them"
                " and start anew"
            )

    def _open_headers(self) -> int:
        """Take in what is there. One more than the last number; what is damaged may have any."""
        kept: list[Header] = []
        numbers: set[int] = set()
        with self.database.env.begin() as txn:
            for name, reason in txn.cursor(db=self.database.parts.counters):
                if name.startswith(DAMAGED) and name[len(DAMAGED) :].isdigit():
                    self.damaged[int(name[len(DAMAGED) :])] = reason.decode(errors="replace")
            for key, value in txn.cursor(db=self.database.parts.headers):
                number = int.from_bytes(key, "big")
                numbers.add(number)
                try:
                    header = header_from_bytes(value)
                    if header.number != number:
                        raise DamagedEpisode(
                            f"the header of {header.key} is kept under number {number}"
                        )
                except DamagedEpisode as problem:
                    self.damaged.setdefault(number, str(problem))
                    continue
                self.stored_bytes += header.stored_bytes
                if header.number in self.damaged:
                    self.taken_out[header.number] = header
                else:
                    self.episodes[header.number] = header
                    kept.append(header)
        self.index.add(kept)
        self._check_streams()
        # What was noted as damaged while it was evicted is gone.
        self.damaged = {
            number: reason for number, reason in self.damaged.items() if number in numbers
        }
        return max(chain(self.episodes, self.taken_out), default=-1) + 1

    def _check_streams(self) -> None:
        """Note as seen what is kept, where a damaged stream has forgotten it."""
        seen: dict[str, Intervals] = {}
        mended: set[str] = set()
        with self.database.env.begin() as txn:
            for name, value in (
                txn.cursor(db=self.database.parts.streams)
                if self.database.parts.streams is not None
                else ()
            ):
                stream = name.decode(errors="replace")
                try:
                    seen[stream] = Intervals.from_bytes(value)
                except ValueError:
                    mended.add(stream)
            # the key of one that was taken out may be forgotten
            for header in self.episodes.values():
                stream, number = split_key(header.key)
                its_seen = seen.setdefault(stream, Intervals())
                number //= self.num_shards
                if (
                    number not in its_seen
                    and txn.get(header.key.encode(), db=self.database.parts.keys) is None
                ):
                    its_seen.add(number)
                    mended.add(stream)
        self.forgetful = sorted(mended)
        if mended and not self.read_only:
            mends = {
                name.encode(): seen.get(name, Intervals()).to_bytes() for name in self.forgetful
            }
            self.database.put(mends, self.database.parts.streams)

    def known(self, key: str) -> bool:
        """Whether an episode of this key was ever stored."""
        with self.database.env.begin() as txn:
            return self._known(txn, key)[0]

    def _known(self, txn: lmdb.Transaction, key: str) -> tuple[bool, str, int, Intervals]:
        """Whether a key was ever stored; its stream, its number in this shard and what was seen of
        the stream."""
        stream, number = split_key(key)
        number //= self.num_shards
        parts = self.database.parts
        whole = parts.keys is not None and txn.get(key.encode(), db=parts.keys) is not None
        value = txn.get(stream.encode(), db=parts.streams) if parts.streams is not None else None
        seen = self.intervals(stream, bytes(value)) if value is not None else Intervals()
        return whole or number in seen, stream, number, seen

    def intervals(self, stream: str, value: bytes) -> Intervals:
        """What was seen of a stream, from its value; where that is damaged, what is kept tells at
        least that."""
        try:
            return Intervals.from_bytes(value)
        except ValueError:
            seen = Intervals()
            for header in chain(list(self.episodes.values()), list(self.taken_out.values())):
                its_stream, number = split_key(header.key)
                if its_stream == stream:
                    seen.add(number // self.num_shards)
            return seen

    def add(self, episode: Episode, *, tokens: int) -> Header | None:
        """Store an episode; None where its key was seen before. ReplayDiskFull where there is no
        room for it."""
        (outcome,) = self.add_all([(pack(episode), tokens)])
        if isinstance(outcome, ReplayDiskFull):
            raise outcome
        return outcome

    def add_all(self, records: Sequence[tuple[Record, int]]) -> list[Outcome]:
        """Store records, each with its number of tokens, in one transaction. One that finds no room
        costs no other.

        Only one thread may be in here at a time.
        """
        try:
            return self._add_all(records)
        except ReplayDiskFull as full:
            if len(records) == 1:
                return [full]
        return [outcome for record in records for outcome in self.add_all([record])]

    def _add_all(self, records: Sequence[tuple[Record, int]]) -> list[Outcome]:
        stored: list[Header] = []
        outcomes: list[Outcome] = []
        victims: dict[int, Header] = {}
        tokens_before = self.inserted_tokens
        seen: dict[str, Intervals] = {}
        number, room = self._next, self.capacity_bytes - self.stored_bytes
        try:
            with self.database.env.begin(write=True) as txn:
                for record, tokens in records:
                    is_known, stream, in_stream, intervals = self._known(txn, record.header.key)
                    intervals = seen.setdefault(stream, intervals)
                    if is_known or in_stream in intervals:
                        outcomes.append(None)
                        continue
                    header = _numbered(record, number, tokens)
                    room -= header.stored_bytes
                    if room < 0:
                        going = self._make_room(-room, victims, header)
                        room += sum(victim.stored_bytes for victim in going)
                        for victim in going:
                            victims[victim.number] = victim
                            self._delete(txn, victim)
                    for (column, chunk), value in record.values.items():
                        txn.put(
                            column_key(number, column, chunk), value, db=self.database.parts.columns
                        )
                    txn.put(
                        number_key(number), header_to_bytes(header), db=self.database.parts.headers
                    )
                    intervals.add(in_stream)
                    stored.append(header)
                    outcomes.append(header)
                    number += 1
                if not stored:
                    return outcomes
                for stream, intervals in seen.items():
                    txn.put(stream.encode(), intervals.to_bytes(), db=self.database.parts.streams)
                added_tokens = sum(header.tokens for header in stored)
                txn.put(b"next", number_to_bytes(number), db=self.database.parts.counters)
                txn.put(
                    b"inserted_tokens",
                    number_to_bytes(tokens_before + added_tokens),
                    db=self.database.parts.counters,
                )
        except (lmdb.MapFullError, lmdb.DiskError) as problem:
            raise ReplayDiskFull(errno.ENOSPC, f"disk full: {problem}") from problem
        except lmdb.Error as problem:
            # A write that was cut short for want of space is an input/output error to LMDB.
            if any(
                words in str(problem)
                for words in ("No space", "too large", "quota", "Input/output")
            ):
                raise ReplayDiskFull(errno.ENOSPC, f"disk full: {problem}") from problem
            raise
        except OSError as problem:
            if problem.errno in NO_SPACE and not isinstance(problem, ReplayDiskFull):
                raise ReplayDiskFull(problem.errno, f"disk full: {problem}") from problem
            raise
        self._next = number
        self.inserted_tokens = tokens_before + added_tokens
        self._forget(victims.values())
        for header in stored:
            self.stored_bytes += header.stored_bytes
            self.episodes[header.number] = header
        self.index.add(stored)
        return outcomes

    def _forget(self, victims: Collection[Header]) -> None:
        """Take what was evicted out of what is in memory."""
        for victim in victims:
            self.stored_bytes -= victim.stored_bytes
            self.num_evicted += victim.number in self.episodes
            for kept in (self.episodes, self.taken_out, self.damaged):
                kept.pop(victim.number, None)
        if victims:
            self.index.remove([victim.number for victim in victims])
            # A reader that was killed while it read would keep the space of all that is let go from
            # then on.
            self.database.env.reader_check()

    def _oldest_of_the_agent(self, excess_bytes: int) -> list[int]:
        """The agent's oldest episodes; demonstrations are never evicted."""
        out: list[int] = []
        for header in list(self.episodes.values()):
            if excess_bytes <= 0:
                break
            if header.by_agent:
                out.append(header.number)
                excess_bytes -= header.stored_bytes
        return out

    def _make_room(self, missing: int, gone: Mapping[int, Header], header: Header) -> list[Header]:
        """What must go for `missing` more bytes: damaged episodes that may go, then those that the
        remover names."""
        victims = [h for h in list(self.taken_out.values()) if h.number not in gone]
        victims = [h for h in victims if h.by_agent or self.evicts_demonstrations]
        freed = sum(victim.stored_bytes for victim in victims)
        if freed < missing:
            # The remover does not know of those that this transaction has let go, so they are asked
            # for again.
            already = sum(
                victim.stored_bytes for victim in gone.values() if victim.number in self.episodes
            )
            named = [
                self.episodes.get(number) for number in self.remover(missing - freed + already)
            ]
            victims += [
                victim for victim in named if victim is not None and victim.number not in gone
            ]
            freed = sum(victim.stored_bytes for victim in victims)
        if freed < missing:
            raise ReplayFull(
                errno.ENOSPC,
                f"replay full: the episode takes {header.stored_bytes} bytes and"
                f" {self.capacity_bytes} are used up by what is never evicted (demonstrations);"
                " raise capacity_bytes",
            )
        return victims

    def _delete(self, txn: lmdb.Transaction, header: Header) -> None:
        prefix = number_key(header.number)
        cursor = txn.cursor(db=self.database.parts.columns)
        while cursor.set_range(prefix) and bytes(cursor.key())[:8] == prefix:
            cursor.delete()
        txn.delete(prefix, db=self.database.parts.headers)
        txn.delete(DAMAGED + str(header.number).encode(), db=self.database.parts.counters)

    @contextmanager
    def views(
        self, header: Header, names: Iterable[str], start: int, stop: int
    ) -> Generator[dict[str, np.ndarray]]:
        """Steps [start, stop) of some columns: what is not compressed is LMDB's own memory, good
        until the block ends.

        DamagedEpisode where a checksum is wrong, EpisodeGone where it was evicted.
        """
        with self.database.env.begin(db=self.database.parts.columns, buffers=True) as txn:
            yield {name: self._view(txn, header, name, start, stop) for name in names}

    def _view(
        self, txn: lmdb.Transaction, header: Header, name: str, start: int, stop: int
    ) -> np.ndarray:
        dtype, shape = header.columns[name]
        index = list(header.columns).index(name)
        each = chunk_steps(dtype, shape, header.steps)
        parts: list[np.ndarray] = []
        for chunk in range(start // each, -(-stop // each)):
            try:
                value = txn.get(column_key(header.number, index, chunk))
                if value is None:
                    if txn.get(number_key(header.number), db=self.database.parts.headers) is None:
                        raise EpisodeGone(f"episode {header.key} was evicted")
                    raise DamagedEpisode("it is missing")
                opened = open_value(value, dtype, shape, min(each, header.steps - chunk * each))
            except (DamagedEpisode, lmdb.CorruptedError, lmdb.PageNotFoundError) as problem:
                raise DamagedEpisode(
                    f"episode {header.key}: column {name} is damaged: {problem}"
                ) from problem
            parts.append(opened[max(0, start - chunk * each) : stop - chunk * each])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def column(self, header: Header, name: str, start: int, stop: int) -> np.ndarray:
        """Steps [start, stop) of one column, as memory of its own. Errors as in `views`."""
        with self.views(header, [name], start, stop) as opened:
            array = opened[name]
            return array.copy() if step_bytes(*header.columns[name]) < IMAGE_BYTES else array

    def read(self, header: Header, start: int, stop: int) -> Window:
        """Steps [start, stop) as a window. DamagedEpisode where a checksum is wrong."""
        observed = [name for name in header.columns if name.startswith("o/")]
        return Window(
            observations={name[2:]: self.column(header, name, start, stop) for name in observed},
            actions=self.column(header, "actions", start, stop),
        )

    def episode(self, header: Header) -> Episode:
        """A whole episode, as it was handed in."""
        return episode_of(
            header, {name: self.column(header, name, 0, header.steps) for name in header.columns}
        )

    def all_episodes(self) -> Iterator[Episode]:
        """Every kept episode, oldest first."""
        for header in list(self.episodes.values()):
            yield self.episode(header)

    def record(self, header: Header) -> Record:
        """An episode as it is stored, unchecked."""
        prefix = number_key(header.number)
        values: dict[tuple[int, int], bytes | memoryview] = {}
        with self.database.env.begin(db=self.database.parts.columns) as txn:
            cursor = txn.cursor()
            more = cursor.set_range(prefix)
            while more and cursor.key()[:8] == prefix:
                _, column, chunk = struct.unpack(">QHI", cursor.key())
                values[column, chunk] = cursor.value()
                more = cursor.next()
        return Record(header=header, values=values)

    def quarantine(self, header: Header, reason: str) -> None:
        """Take a damaged episode out of what is read, for good; it stays on disk, while there is
        room."""
        if self.episodes.pop(header.number, None) is not None:
            self.damaged[header.number] = reason
            self.taken_out[header.number] = header
            self.index.remove([header.number])
            if not self.read_only:
                noted = {DAMAGED + str(header.number).encode(): reason.encode()}
                self.database.put(noted, self.database.parts.counters)

    def close(self) -> None:
        if self.durability == "none":
            self.database.sync()
        self.database.close()


def _numbered(record: Record, number: int, tokens: int) -> Header:
    """The header that is stored, with what the episode takes of the disk."""
    header = replace(record.header, number=number, tokens=tokens, stored_bytes=0)
    size = sum(disk_bytes(len(value)) for value in record.values.values())
    return replace(header, stored_bytes=size + disk_bytes(len(header_to_bytes(header)) + 20))
