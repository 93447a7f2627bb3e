"""The store: episodes in LMDB, durable when `add` returns, each column checked by a checksum when it is read.

Databases: `headers` (episode number to JSON), `columns` (number, column, chunk to bytes), `keys` (episode key to number,
which outlives eviction), `counters`. Images are kept in compressed chunks, so that a window costs only what it shows.
"""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import lmdb
import lz4.block
import numpy as np

from gato.episode import Episode
from gato.sequence import Window
from replay.header import DamagedEpisode, Header, disk_bytes, header_from_bytes, header_to_bytes

CHUNK_STEPS = 8
"""Steps of images in one compressed chunk."""
IMAGE_BYTES = 4096
"""A column with at least this many bytes a step is kept in chunks."""
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
HEADROOM_BYTES = 64 << 20


DAMAGED = b"damaged/"
"""Before the number of an episode that was taken out, among the counters."""


class ReplayDiskFull(OSError):
    """There is no space for an episode; nothing was written and reads go on."""


class ReplayFull(ReplayDiskFull):
    """The capacity is used up by what may not be evicted."""


def _column_key(number: int, column: int, chunk: int) -> bytes:
    return struct.pack(">QHI", number, column, chunk)


class EpisodeStore:
    """Episodes in one folder. One process writes; `add` has the episode on disk when it returns.

    store = EpisodeStore(folder, capacity_bytes=1 << 30)
    header = store.add(episode, tokens=15_000)     # None: its key was seen before
    window = store.read(header, 10, 14)
    """

    def __init__(self, folder: Path, *, capacity_bytes: int, map_bytes: int | None = None) -> None:
        """`map_bytes` is the most that LMDB's file may take (default: twice the capacity; what is unused takes no disk)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.capacity_bytes = capacity_bytes
        try:
            self._env = lmdb.open(
                str(folder),
                map_size=map_bytes or 2 * capacity_bytes + HEADROOM_BYTES,
                max_dbs=4,
                readahead=False,
            )
            names = (b"headers", b"columns", b"keys", b"counters")
            self._headers, self._columns, self._keys, self._counters = (self._env.open_db(name) for name in names)
        except lmdb.Error as problem:
            raise ValueError(f"cannot open the replay store in {folder}: {problem}") from problem
        self.episodes: dict[int, Header] = {}
        """Headers of what is kept, by number, oldest first."""
        self.damaged: dict[int, str] = {}
        """Why an episode was taken out of what is read, by number."""
        self._taken_out: dict[int, Header] = {}
        self.stored_bytes = 0
        self._open_headers()
        self.inserted_tokens = self.counter("inserted_tokens")
        self.incarnation = self.counter("incarnation") + 1
        self._next = self.counter("next")
        self.set_counters(incarnation=self.incarnation)

    def _open_headers(self) -> None:
        with self._env.begin() as txn:
            for name, reason in txn.cursor(db=self._counters):
                if name.startswith(DAMAGED):
                    self.damaged[int(name[len(DAMAGED) :])] = reason.decode()
            for number, value in txn.cursor(db=self._headers):
                try:
                    header = header_from_bytes(value)
                except DamagedEpisode as problem:
                    self.damaged[struct.unpack(">Q", number)[0]] = str(problem)
                    continue
                self.stored_bytes += header.stored_bytes
                (self._taken_out if header.number in self.damaged else self.episodes)[header.number] = header

    def counter(self, name: str) -> int:
        with self._env.begin(db=self._counters) as txn:
            value = txn.get(name.encode())
        return int(value) if value else 0

    def set_counters(self, **values: int) -> None:
        """Write counters, in one transaction. Where the disk is full they stay as they were."""
        self._note({name.encode(): str(value) for name, value in values.items()})

    def _note(self, notes: dict[bytes, str]) -> None:
        try:
            with self._env.begin(db=self._counters, write=True) as txn:
                for name, text in notes.items():
                    txn.put(name, text.encode())
        except (lmdb.Error, OSError):
            pass

    def known(self, key: str) -> bool:
        """Whether an episode of this key was ever stored."""
        with self._env.begin(db=self._keys) as txn:
            return txn.get(key.encode()) is not None

    def add(self, episode: Episode, *, tokens: int) -> Header | None:
        """Store an episode; None where its key was seen before. ReplayDiskFull where there is no room for it."""
        if self.known(episode.key):
            return None
        values, columns = self._encode(episode)
        number = self._next
        header = Header(
            number=number,
            key=episode.key,
            task=episode.task,
            source=episode.source,
            steps=episode.num_steps,
            episode_return=episode.episode_return,
            seed=episode.seed,
            terminated=episode.terminated,
            truncated=episode.truncated,
            version=episode.version,
            info=dict(episode.info),
            columns=columns,
            stored_bytes=0,
            tokens=tokens,
        )
        size = sum(disk_bytes(len(value)) for value in values.values()) + disk_bytes(len(header_to_bytes(header)) + 20)
        header = replace(header, stored_bytes=size)
        victims = self._make_room(size)
        try:
            with self._env.begin(write=True) as txn:
                for victim in victims:
                    self._delete(txn, victim)
                for (column, chunk), value in values.items():
                    txn.put(_column_key(number, column, chunk), value, db=self._columns)
                txn.put(struct.pack(">Q", number), header_to_bytes(header), db=self._headers)
                txn.put(episode.key.encode(), str(number).encode(), db=self._keys)
                txn.put(b"next", str(number + 1).encode(), db=self._counters)
                txn.put(b"inserted_tokens", str(self.inserted_tokens + tokens).encode(), db=self._counters)
        except (lmdb.MapFullError, lmdb.DiskError) as problem:
            raise ReplayDiskFull(errno.ENOSPC, f"disk full: {problem}") from problem
        except lmdb.Error as problem:
            # A write that was cut short for want of space is an input/output error to LMDB.
            if any(words in str(problem) for words in ("No space", "too large", "quota", "Input/output")):
                raise ReplayDiskFull(errno.ENOSPC, f"disk full: {problem}") from problem
            raise
        except OSError as problem:
            if problem.errno in NO_SPACE:
                raise ReplayDiskFull(problem.errno, f"disk full: {problem}") from problem
            raise
        for victim in victims:
            self.stored_bytes -= victim.stored_bytes
            for kept in (self.episodes, self._taken_out, self.damaged):
                kept.pop(victim.number, None)
        self._next = number + 1
        self.inserted_tokens += tokens
        self.stored_bytes += size
        self.episodes[number] = header
        return header

    def _encode(self, episode: Episode) -> tuple[dict[tuple[int, int], bytes], dict[str, tuple[str, tuple[int, ...]]]]:
        """Values by (column, chunk), and the columns' dtypes and shapes."""
        arrays = {f"o/{name}": array for name, array in sorted(episode.observations.items())}
        arrays |= {"actions": episode.actions, "rewards": episode.rewards}
        if episode.labels is not None:
            arrays["labels"] = episode.labels
        values: dict[tuple[int, int], bytes] = {}
        columns: dict[str, tuple[str, tuple[int, ...]]] = {}
        for column, (name, array) in enumerate(arrays.items()):
            array = np.ascontiguousarray(array)
            columns[name] = (array.dtype.str, array.shape[1:])
            chunked = array.nbytes // len(array) >= IMAGE_BYTES
            steps = CHUNK_STEPS if chunked else len(array)
            for chunk, start in enumerate(range(0, len(array), steps)):
                raw = array[start : start + steps].tobytes()
                packed = lz4.block.compress(raw, store_size=False) if chunked else raw
                values[column, chunk] = zlib.crc32(packed).to_bytes(4, "little") + packed
        return values, columns

    def _make_room(self, size: int) -> list[Header]:
        """The agent's episodes that must go for `size` more bytes: damaged ones, then the oldest."""
        missing = self.stored_bytes + size - self.capacity_bytes
        victims: list[Header] = []
        for header in chain(self._taken_out.values(), self.episodes.values()):
            if missing <= 0:
                break
            if header.by_agent:
                victims.append(header)
                missing -= header.stored_bytes
        if missing > 0:
            kept = self.stored_bytes - sum(victim.stored_bytes for victim in victims)
            raise ReplayFull(
                errno.ENOSPC,
                f"replay full: the episode takes {size} bytes, {kept} of {self.capacity_bytes} hold demonstrations, "
                "which are never evicted; raise capacity_bytes",
            )
        return victims

    def _delete(self, txn: lmdb.Transaction, header: Header) -> None:
        prefix = struct.pack(">Q", header.number)
        cursor = txn.cursor(db=self._columns)
        while cursor.set_range(prefix) and bytes(cursor.key())[:8] == prefix:
            cursor.delete()
        txn.delete(prefix, db=self._headers)
        txn.delete(DAMAGED + str(header.number).encode(), db=self._counters)

    def column(self, header: Header, name: str, start: int, stop: int) -> np.ndarray:
        """Steps [start, stop) of one column. DamagedEpisode where a checksum is wrong."""
        dtype, shape = header.columns[name]
        index = list(header.columns).index(name)
        step_bytes = int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))
        chunked = step_bytes >= IMAGE_BYTES
        steps = CHUNK_STEPS if chunked else header.steps
        parts: list[np.ndarray] = []
        with self._env.begin(db=self._columns, buffers=True) as txn:
            for chunk in range(start // steps, -(-stop // steps)):
                try:
                    value = txn.get(_column_key(header.number, index, chunk))
                except (lmdb.CorruptedError, lmdb.PageNotFoundError) as problem:
                    raise DamagedEpisode(f"episode {header.key}: column {name} is damaged: {problem}") from problem
                if value is None or zlib.crc32(value[4:]) != int.from_bytes(value[:4], "little"):
                    raise DamagedEpisode(f"episode {header.key}: column {name} is damaged")
                in_chunk = min(steps, header.steps - chunk * steps)
                raw = (
                    lz4.block.decompress(value[4:], uncompressed_size=in_chunk * step_bytes)
                    if chunked
                    else bytes(value[4:])
                )
                array = np.frombuffer(raw, dtype).reshape(in_chunk, *shape)
                parts.append(array[max(0, start - chunk * steps) : stop - chunk * steps])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def read(self, header: Header, start: int, stop: int) -> Window:
        """Steps [start, stop) as a window. DamagedEpisode where a checksum is wrong."""
        observed = [name for name in header.columns if name.startswith("o/")]
        return Window(
            observations={name[2:]: self.column(header, name, start, stop) for name in observed},
            actions=self.column(header, "actions", start, stop),
        )

    def episode(self, header: Header) -> Episode:
        """A whole episode, as it was handed in."""
        window = self.read(header, 0, header.steps)
        return Episode(
            key=header.key,
            task=header.task,
            source=header.source,
            observations=window.observations,
            actions=window.actions,
            rewards=self.column(header, "rewards", 0, header.steps),
            labels=self.column(header, "labels", 0, header.steps) if "labels" in header.columns else None,
            terminated=header.terminated,
            truncated=header.truncated,
            seed=header.seed,
            version=header.version,
            info=header.info,
        )

    def all_episodes(self) -> Iterator[Episode]:
        """Every kept episode, oldest first."""
        for header in list(self.episodes.values()):
            yield self.episode(header)

    def quarantine(self, header: Header, reason: str) -> None:
        """Take a damaged episode out of what is read, for good; it stays on disk, while there is room."""
        if self.episodes.pop(header.number, None) is not None:
            self.damaged[header.number] = reason
            self._taken_out[header.number] = header
            self._note({DAMAGED + str(header.number).encode(): reason})

    def close(self) -> None:
        self._env.close()
