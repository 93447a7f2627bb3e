"""Reading: columns of stored episodes, each value checked against its checksum."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable
from contextlib import contextmanager

import lmdb
import numpy as np
from jaxtyping import Shaped

from gato.episode import Episode
from gato.sequence import Window
from replay.storage.database import Database, column_key, number_key
from replay.storage.header import DamagedEpisode, Header
from replay.storage.record import (
    IMAGE_BYTES,
    Record,
    chunk_steps,
    episode_of,
    open_value,
    record_of,
    step_bytes,
)


class EpisodeGone(LookupError):
    """An episode was evicted before it was read.

    Attributes:
        numbers: Of the evicted episodes.
    """

    def __init__(self, message: str, numbers: Iterable[int]) -> None:
        super().__init__(message)
        self.numbers = tuple(numbers)


class ColumnReader:
    """Reads the columns of episodes in a database. Safe to use from several threads.

    reader = ColumnReader(database)
    actions = reader.column(header, "actions", 10, 14)

    All methods raise:
        DamagedEpisode: if a value is missing or does not match its checksum.
        EpisodeGone: if the episode was evicted.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def views(
        self, header: Header, names: Iterable[str], start: int, stop: int
    ) -> Generator[dict[str, Shaped[np.ndarray, "T ..."]]]:
        """Steps [start, stop) of some columns, by name. Columns that are not compressed are views
        of LMDB's own memory, valid until the block ends."""
        with self._database.env.begin(db=self._database.parts.columns, buffers=True) as txn:
            yield {name: self._view(txn, header, name, start, stop) for name in names}

    def _view(
        self, txn: lmdb.Transaction, header: Header, name: str, start: int, stop: int
    ) -> Shaped[np.ndarray, "T ..."]:
        dtype, shape = header.columns[name]
        index = list(header.columns).index(name)
        each = chunk_steps(dtype, shape, header.steps)
        parts: list[np.ndarray] = []
        for chunk in range(start // each, -(-stop // each)):
            try:
                value = txn.get(column_key(header.number, index, chunk))
                if value is None:
                    headers = self._database.parts.headers
                    if txn.get(number_key(header.number), db=headers) is None:
                        raise EpisodeGone(f"episode {header.key} was evicted", [header.number])
                    raise DamagedEpisode("it is missing")
                opened = open_value(value, dtype, shape, min(each, header.steps - chunk * each))
            except (DamagedEpisode, lmdb.CorruptedError, lmdb.PageNotFoundError) as problem:
                raise DamagedEpisode(
                    f"episode {header.key}: column {name} is damaged: {problem}"
                ) from problem
            parts.append(opened[max(0, start - chunk * each) : stop - chunk * each])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def column(
        self, header: Header, name: str, start: int, stop: int
    ) -> Shaped[np.ndarray, "T ..."]:
        """Steps [start, stop) of one column, in memory of its own."""
        with self.views(header, [name], start, stop) as opened:
            array = opened[name]
            return array.copy() if step_bytes(*header.columns[name]) < IMAGE_BYTES else array

    def window(self, header: Header, start: int, stop: int) -> Window:
        """Observations and actions of steps [start, stop)."""
        observed = [name for name in header.columns if name.startswith("o/")]
        return Window(
            observations={name[2:]: self.column(header, name, start, stop) for name in observed},
            actions=self.column(header, "actions", start, stop),
        )

    def episode(self, header: Header) -> Episode:
        """A whole episode, as it was inserted."""
        return episode_of(
            header, {name: self.column(header, name, 0, header.steps) for name in header.columns}
        )


def read_record(database: Database, header: Header) -> Record:
    """An episode as it is stored; checksums are not compared."""
    prefix = number_key(header.number)
    values: dict[tuple[int, int], bytes | memoryview] = {}
    with database.env.begin(db=database.parts.columns) as txn:
        cursor = txn.cursor()
        more = cursor.set_range(prefix)
        while more and cursor.key()[:8] == prefix:
            _, column, chunk = struct.unpack(">QHI", cursor.key())
            values[column, chunk] = cursor.value()
            more = cursor.next()
    return record_of(header, values)
