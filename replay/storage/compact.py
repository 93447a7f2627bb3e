"""Compaction: a store's file never shrinks, so its episodes are written into a new file, which
replaces it in one step.

A process that dies in between leaves a whole store: the old one before the rename, the new one
after it. The next writer of the store deletes the draft.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import lmdb

from replay.storage.column_reader import read_record
from replay.storage.database import (
    DAMAGED,
    DRAFT,
    FILE,
    HEADROOM_BYTES,
    SWAP_WAIT_S,
    column_key,
    open_parts,
)
from replay.storage.dedup import split_key
from replay.storage.header import SCHEMA, Header, header_to_bytes
from replay.storage.lock import OPEN, WRITING, FolderLock
from replay.storage.record import Record
from replay.storage.store import EpisodeStore
from replay.storage.swap import match_owner, require_closed, sync_folder
from replay.storage.verify import Fault, damage_of, streams_of

COMMIT_BYTES = 64 << 20
"""Bytes that are copied in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """The result of a compaction."""

    num_episodes: int
    left_out: tuple[Fault, ...]
    """Damaged episodes; their keys are still known."""
    before_bytes: int
    after_bytes: int
    num_whole_keys: int
    """Keys of schema 1 that became intervals."""


class Compaction:
    """One store being compacted, in steps, so that the caller can show progress or stop.

    with Compaction(folder) as compaction:
        for copied_bytes in compaction.copy():
            ...
        compaction.check()
        done = compaction.swap()

    Raises ValueError if another process writes to the store. Nothing changes before `swap`.
    """

    def __init__(self, folder: Path, *, swap_wait_s: float = SWAP_WAIT_S) -> None:
        self._folder = folder
        self._draft = folder / DRAFT
        self._swap_wait_s = swap_wait_s
        self._left_out: list[Fault] = []
        self._num_episodes = self._num_values = self._num_whole_keys = 0
        if not (folder / FILE).is_file():
            raise ValueError(f"there is no replay store in {folder}")
        self._writing = FolderLock(folder, WRITING)
        try:
            shutil.rmtree(self._draft, ignore_errors=True)
            self._before_bytes = _disk_bytes(folder / FILE)
            self._written = _written(folder / FILE)
            self._source = EpisodeStore(
                folder,
                capacity_bytes=0,
                map_bytes=2 * (folder / FILE).stat().st_size + HEADROOM_BYTES,
                read_only=True,
            )
        except BaseException:
            self._writing.release()
            raise
        self.total_bytes = sum(header.stored_bytes for header in self._source.episodes.values())
        """Bytes to copy, as the store counts them."""

    def __enter__(self) -> Compaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._source.close()
        shutil.rmtree(self._draft, ignore_errors=True)
        self._writing.release()

    def copy(self) -> Iterator[int]:
        """Write the copy next to the store. Yields the bytes of each episode that was read.

        Raises:
            ValueError: if the disk has no room for it, or a stored key is not known.
            OSError: if it cannot be written.
        """
        free_bytes = shutil.disk_usage(self._folder).free
        if free_bytes < self.total_bytes:
            raise ValueError(
                f"{self._folder} has {free_bytes / 1e9:.1f} GB free, a copy of what is kept takes "
                f"{self.total_bytes / 1e9:.1f} GB; free some first"
            )
        try:
            self._draft.mkdir()
            env = lmdb.open(
                str(self._draft),
                map_size=2 * self._before_bytes + 4 * HEADROOM_BYTES,
                max_dbs=5,
                sync=False,
            )
            try:
                yield from self._copy_into(env)
                env.sync(True)
            finally:
                env.close()
        except lmdb.Error as problem:
            raise OSError(
                errno.ENOSPC, f"cannot write {self._draft}: {problem}; nothing was changed"
            ) from problem

    def _copy_into(self, env: Any) -> Iterator[int]:
        databases = open_parts(env, read_only=False)
        headers = iter(list(self._source.episodes.values()))
        header = next(headers, None)
        while header is not None:
            unwritten = COMMIT_BYTES
            with env.begin(write=True) as txn:
                while header is not None and unwritten > 0:
                    fault = self._copy_episode(txn, databases, header)
                    if fault is not None:
                        self._left_out.append(fault)
                    unwritten -= header.stored_bytes
                    yield header.stored_bytes
                    header = next(headers, None)
        self._left_out += [
            Fault(number=number, key=taken.key if taken else "", column="", reason=reason)
            for number, reason in self._source.damaged.items()
            for taken in [self._source.taken_out.get(number)]
        ]
        streams, _ = streams_of(self._source)
        for kept in self._source.episodes.values():
            stream, number = split_key(kept.key)
            if stream not in streams or number // self._source.num_shards not in streams[stream]:
                raise ValueError(
                    f"the key {kept.key!r} is stored, but not among the known ones; gato replay"
                    " verify --repair fixes that"
                )
        with env.begin(write=True) as txn:
            for stream, seen in streams.items():
                txn.put(stream.encode(), seen.to_bytes(), db=databases.streams)
            for name, value in self._counters():
                txn.put(name, value, db=databases.counters)

    def _copy_episode(self, txn: lmdb.Transaction, databases: Any, header: Header) -> Fault | None:
        """Copy the values as they are. Returns what is wrong, if one is missing or damaged; then
        nothing is copied."""
        try:
            record = read_record(self._source.database, header)
        except (lmdb.CorruptedError, lmdb.PageNotFoundError) as problem:
            return Fault(number=header.number, key=header.key, column="", reason=str(problem))
        fault = damage_of(record)
        if fault is None:
            self._put(txn, databases, record)
        return fault

    def _put(self, txn: lmdb.Transaction, databases: Any, record: Record) -> None:
        number = record.header.number
        for (column, chunk), value in sorted(record.values.items()):
            # In order, appended: LMDB then fills its pages.
            txn.put(column_key(number, column, chunk), value, db=databases.columns, append=True)
        header = header_to_bytes(replace(record.header, schema=SCHEMA))
        txn.put(struct.pack(">Q", number), header, db=databases.headers, append=True)
        self._num_episodes += 1
        self._num_values += len(record.values)

    def _counters(self) -> list[tuple[bytes, bytes]]:
        """All counters and notes, except those of episodes that are left out."""
        databases = self._source.database.parts
        with self._source.database.transaction() as txn:
            if databases.keys is not None:
                self._num_whole_keys = txn.stat(databases.keys)["entries"]
            return [
                (bytes(name), bytes(value))
                for name, value in txn.cursor(db=databases.counters)
                if not bytes(name).startswith(DAMAGED)
            ]

    def check(self) -> None:
        """Open the copy and compare episodes, values, streams and counters. Raises OSError if they
        differ."""
        copy = EpisodeStore(
            self._draft,
            capacity_bytes=0,
            map_bytes=2 * self._before_bytes + HEADROOM_BYTES,
            read_only=True,
        )
        try:
            left_out = {fault.number for fault in self._left_out}
            expected = {
                n: replace(h, schema=SCHEMA)
                for n, h in self._source.episodes.items()
                if n not in left_out
            }
            same = (
                copy.episodes == expected
                and len(copy.episodes) == self._num_episodes
                and not copy.damaged
            )
            with copy.database.transaction() as txn:
                same = same and txn.stat(copy.database.parts.columns)["entries"] == self._num_values
                counters = [
                    (bytes(name), bytes(value))
                    for name, value in txn.cursor(db=copy.database.parts.counters)
                ]
            before, after = streams_of(self._source)[0], streams_of(copy)[0]
            same = same and counters == self._counters() and before.keys() == after.keys()
            if not (
                same
                and all(after[name].to_bytes() == seen.to_bytes() for name, seen in before.items())
            ):
                raise OSError(
                    errno.EIO,
                    f"the copy in {self._draft} is not what was copied; nothing was changed",
                )
        finally:
            copy.close()

    def swap(self) -> Compacted:
        """Replace the store by the copy.

        Raises:
            ValueError: if another process reads the store, or wrote to it; then nothing is changed.
        """
        self._source.close()
        file, copy = self._folder / FILE, self._draft / FILE
        after_bytes = _disk_bytes(copy)
        alone = FolderLock(self._folder, OPEN, wait_s=self._swap_wait_s)
        try:
            require_closed(self._folder)
            if _written(file) != self._written:
                raise ValueError(
                    f"{self._folder} was written to while it was copied; nothing was changed, try"
                    " again"
                )
            match_owner(file, copy)
            os.replace(copy, file)
            sync_folder(self._folder)
        finally:
            alone.release()
        return Compacted(
            num_episodes=self._num_episodes,
            left_out=tuple(self._left_out),
            before_bytes=self._before_bytes,
            after_bytes=after_bytes,
            num_whole_keys=self._num_whole_keys,
        )


def _disk_bytes(file: Path) -> int:
    return file.stat().st_blocks * 512


def _written(file: Path) -> tuple[int, int]:
    """When it was written, and its length."""
    about = file.stat()
    return about.st_mtime_ns, about.st_size
