"""The database: an LMDB file in a folder, locked for one writer, verified when it is opened, with
counters and notes.

Parts: `headers` (episode number to JSON), `columns` (number, column, chunk to bytes), `streams`
    (keys
that were ever stored, `replay.storage.dedup`), `keys` (whole keys, in stores of schema 1),
`counters` (numbers, notes, why episodes were taken out).
"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from replay.storage.checksum import (
    HOW_TO_FIX,
    check_structure,
    number_from_bytes,
    number_to_bytes,
    reserve_lock_file,
)
from replay.storage.lock import OPEN, WRITING, FolderLock

FILE = "data.mdb"
HEADROOM_BYTES = 64 << 20
DAMAGED = b"damaged/"
"""Prefix of the number of an episode that was taken out, among the counters."""
DRAFT = "compact.draft"
"""Folder of an unfinished compact copy (`replay.storage.compact`)."""
LOCK_WAIT_S = 5.0
"""How long to wait for another writer to end, such as a killed one."""
SWAP_WAIT_S = 10.0


def number_key(number: int) -> bytes:
    return struct.pack(">Q", number)


def column_key(number: int, column: int, chunk: int) -> bytes:
    return struct.pack(">QHI", number, column, chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """LMDB's handles. None: a store of an earlier release without this part, opened to read."""

    headers: Any
    columns: Any
    keys: Any
    counters: Any
    streams: Any


def open_parts(env: lmdb.Environment, *, read_only: bool) -> Parts:
    """All parts of a store; created, unless it is read-only."""
    opened: dict[str, Any] = {}
    for name in ("headers", "columns", "keys", "counters", "streams"):
        try:
            opened[name] = env.open_db(name.encode())
        except (lmdb.ReadonlyError, lmdb.NotFoundError):
            if not read_only:
                raise
            opened[name] = None
    return Parts(**opened)


class Database:
    """A store's file. One process writes; others may open it to read at the same time.

    database = Database(folder, map_bytes=1 << 30, sync=True, read_only=False, lock_wait_s=5.0)
    with database.transaction(write=True) as txn:
        txn.put(key, value, db=database.parts.columns)
    """

    def __init__(
        self,
        folder: Path,
        *,
        map_bytes: int,
        sync: bool,
        read_only: bool,
        lock_wait_s: float,
        trusts_counters: bool = True,
    ) -> None:
        """
        Args:
            sync: whether a commit waits for the disk.
            lock_wait_s: how long to wait for another writer to end.
            trusts_counters: whether a damaged counter is an error.

        Raises:
            ValueError: if it cannot be opened, or another process writes to it. It says how to fix
                it.
        """
        self.folder = folder
        self.read_only = read_only
        self._trusts_counters = trusts_counters and not read_only
        self._locks: list[FolderLock] = []
        self.env: Any = None
        if read_only and not (folder / FILE).is_file():
            raise ValueError(f"there is no replay store in {folder}")
        try:
            if not read_only:
                folder.mkdir(parents=True, exist_ok=True)
                self._locks.append(FolderLock(folder, WRITING, wait_s=lock_wait_s))
                shutil.rmtree(folder / DRAFT, ignore_errors=True)  # of a process that was killed
                reserve_lock_file(folder)
            self._locks.append(FolderLock(folder, OPEN, shared=True, wait_s=SWAP_WAIT_S))
            if not read_only:
                check_structure(folder)  # the locks keep writers out meanwhile
            self.env = self._open(map_bytes, sync)
            self.parts = open_parts(self.env, read_only=read_only)
            if (
                self.parts.headers is None
                or self.parts.columns is None
                or self.parts.counters is None
            ):
                raise ValueError(
                    f"{folder} holds an LMDB file that is not a replay store, or a store that was"
                    " never written to"
                )
        except BaseException as problem:
            self.close()
            if isinstance(problem, (lmdb.Error, OSError)):
                raise ValueError(
                    f"cannot open the replay store in {folder}: {problem}; {HOW_TO_FIX}"
                ) from problem
            raise

    def _open(self, map_bytes: int, sync: bool) -> Any:
        settings: dict[str, Any] = {
            "map_size": map_bytes,
            "max_dbs": 5,
            "readahead": False,
            "sync": sync,
            "readonly": self.read_only,
            "create": not self.read_only,
        }
        try:
            return lmdb.open(str(self.folder), **settings)
        except (lmdb.Error, OSError) as problem:
            # A folder without write permission has no place for LMDB's table of readers. No process
            # writes there, so none is needed.
            unwritable = any(
                words in str(problem)
                for words in ("Permission denied", "Read-only", "not permitted")
            )
            if not (self.read_only and unwritable):
                raise
            return lmdb.open(str(self.folder), lock=False, **settings)

    @contextmanager
    def transaction(self, *, write: bool = False) -> Generator[lmdb.Transaction]:
        """A transaction over all parts. Raises OSError for LMDB's errors."""
        try:
            with self.env.begin(write=write) as txn:
                yield txn
        except lmdb.Error as problem:
            raise OSError(f"the replay store in {self.folder}: {problem}") from problem

    def counter(self, name: str) -> int:
        """A stored number; 0 if there is none.

        Raises:
            ValueError: if it is damaged, unless the store is read-only or being repaired.
        """
        with self.env.begin(db=self.parts.counters) as txn:
            value = txn.get(name.encode())
        try:
            return number_from_bytes(value) if value else 0
        except ValueError as problem:
            if not self._trusts_counters:
                return 0
            raise self.damaged_counter(name, str(problem)) from problem

    def damaged_counter(self, name: str, problem: str) -> ValueError:
        return ValueError(
            f"counter {name} of the replay store in {self.folder} is damaged: {problem};"
            f" {HOW_TO_FIX}"
        )

    def set_counters(self, **values: int) -> None:
        """Write counters in one transaction. If the disk is full, they stay as they were."""
        self.put(
            {name.encode(): number_to_bytes(value) for name, value in values.items()},
            self.parts.counters,
        )

    def note(self, name: str, value: bytes) -> None:
        """Store some bytes under a name. If the disk is full, they stay as they were."""
        self.put(
            {b"note/" + name.encode(): zlib.crc32(value).to_bytes(4, "little") + value},
            self.parts.counters,
        )

    def noted(self, name: str) -> bytes | None:
        """The bytes that were stored under a name; None if there are none, or they are damaged."""
        with self.env.begin(db=self.parts.counters) as txn:
            value = txn.get(b"note/" + name.encode())
        if (
            value is None
            or len(value) < 4
            or zlib.crc32(value[4:]) != int.from_bytes(value[:4], "little")
        ):
            return None
        return bytes(value[4:])

    def put(self, values: Mapping[bytes, bytes], part: Any) -> None:
        """Write some small values in one transaction. If the disk is full, they stay as they
        were."""
        try:
            with self.env.begin(db=part, write=True) as txn:
                for name, value in values.items():
                    txn.put(name, value)
        except (lmdb.Error, OSError):
            pass

    @property
    def file_bytes(self) -> int:
        """Disk space of the file."""
        return (self.folder / FILE).stat().st_blocks * 512

    def sync(self) -> None:
        """Write everything to the disk, whatever the durability."""
        if not self.read_only:
            self.env.sync(True)

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
        while self._locks:
            self._locks.pop().release()
