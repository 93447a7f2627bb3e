"""Packs: the episodes of a store as bytes, for a copy elsewhere, and a store made of them again.

A pack holds some episodes as they are stored, and never changes. A state says which of them were
kept at one moment, with the keys ever stored and the counters of that moment.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from replay.storage.database import (
    FILE,
    HEADROOM_BYTES,
    Database,
    number_key,
    open_parts,
)
from replay.storage.dedup import Intervals

PACK_BYTES = 64 << 20
"""A pack is ended when it has grown to this."""
PART = struct.Struct(">BII")
"""Kind of an entry, and the lengths of its key and value."""
HEADER, COLUMN, KEPT, STREAM, KEY, COUNTER = range(6)
PARTS = {STREAM: "streams", KEY: "keys", COUNTER: "counters"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Episodes with the numbers `first` to `last`; some may be left out."""

    first: int
    last: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a store held at one moment."""

    kept: tuple[int, ...]
    """Numbers of its episodes."""
    pack: Pack | None
    """The episodes that were asked for; None: there are none."""
    state: bytes | None
    """None: the pack was full before it held all that were asked for."""


@contextmanager
def opened_to_copy(folder: Path) -> Generator[Database]:
    """A store while its run writes to it. Raises ValueError if there is none, or it is damaged."""
    file = folder / FILE
    length = file.stat().st_size if file.is_file() else 0
    # A map that is shorter than the file is made longer by LMDB; the file grows meanwhile.
    database = Database(
        folder, map_bytes=4 * length + HEADROOM_BYTES, sync=False, read_only=True, lock_wait_s=0.0
    )
    try:
        yield database
    finally:
        database.close()


def look(database: Database, *, first: int, max_bytes: int = PACK_BYTES) -> Look:
    """The episodes from number `first` on, and the state if they are all in the pack.

    Raises:
        OSError: LMDB cannot read it.
    """
    parts = database.parts
    with database.transaction() as txn:
        kept = tuple(
            int.from_bytes(bytes(key), "big")
            for key in txn.cursor(db=parts.headers).iternext(values=False)
        )
        wanted = [number for number in kept if number >= first]
        out = bytearray()
        taken: list[int] = []
        for number in wanted:
            if taken and len(out) >= max_bytes:
                break
            _add_episode(txn, parts, number, out)
            taken.append(number)
        pack = Pack(first=taken[0], last=taken[-1], data=bytes(out)) if taken else None
        state = _state(txn, parts, kept) if len(taken) == len(wanted) else None
        return Look(kept=kept, pack=pack, state=state)


def _add_episode(txn: lmdb.Transaction, parts: Any, number: int, out: bytearray) -> None:
    prefix = number_key(number)
    _add(out, HEADER, prefix, bytes(txn.get(prefix, db=parts.headers) or b""))
    cursor = txn.cursor(db=parts.columns)
    more = cursor.set_range(prefix)
    while more and bytes(cursor.key())[:8] == prefix:
        _add(out, COLUMN, bytes(cursor.key()), bytes(cursor.value()))
        more = cursor.next()


def _state(txn: lmdb.Transaction, parts: Any, kept: Iterable[int]) -> bytes:
    out = bytearray()
    numbers = Intervals()
    for number in kept:
        numbers.add(number)
    _add(out, KEPT, b"", numbers.to_bytes())
    for kind, name in PARTS.items():
        part = getattr(parts, name)
        if part is not None:
            for key, value in txn.cursor(db=part):
                _add(out, kind, bytes(key), bytes(value))
    return bytes(out)


def _add(out: bytearray, kind: int, key: bytes, value: bytes) -> None:
    out += PART.pack(kind, len(key), len(value))
    out += key
    out += value


def _entries(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    at = 0
    while at < len(data):
        kind, key_bytes, value_bytes = PART.unpack_from(data, at)
        at += PART.size
        yield kind, data[at : at + key_bytes], data[at + key_bytes : at + key_bytes + value_bytes]
        at += key_bytes + value_bytes


def restore_store(folder: Path, state: bytes, packs: Iterable[bytes], *, total_bytes: int) -> int:
    """Make the store in `folder`, where there is none, of a state and its packs.

    Args:
        folder: Of the store.
        state: Of the copy.
        packs: With all episodes that the state keeps, in order; others are left out.
        total_bytes: Of all packs together.

    Returns:
        The number of episodes.

    Raises:
        ValueError: Episodes that the state keeps are in none of the packs.
        OSError: The disk is full.
    """
    entries = list(_entries(state))
    kept = Intervals.from_bytes(next(value for kind, _, value in entries if kind == KEPT))
    folder.mkdir(parents=True, exist_ok=True)
    # Values take whole pages, of which they may use a little more than a half.
    map_bytes = 4 * (total_bytes + len(state)) + HEADROOM_BYTES
    found: set[int] = set()
    try:
        env = lmdb.open(str(folder), map_size=map_bytes, max_dbs=5, sync=False)
        try:
            parts = open_parts(env, read_only=False)
            for data in packs:
                with env.begin(write=True) as txn:
                    _put_episodes(txn, parts, data, kept, found)
            with env.begin(write=True) as txn:
                for kind, key, value in entries:
                    if kind != KEPT:
                        txn.put(key, value, db=getattr(parts, PARTS[kind]))
            env.sync(True)
        finally:
            env.close()
    except lmdb.Error as problem:
        raise OSError(f"cannot write the store in {folder}: {problem}") from problem
    wanted = kept.count()
    if len(found) != wanted:
        raise ValueError(f"the copy holds {len(found)} of {wanted} episodes of {folder.name}")
    return len(found)


def _put_episodes(
    txn: lmdb.Transaction, parts: Any, data: bytes, kept: Intervals, found: set[int]
) -> None:
    for kind, key, value in _entries(data):
        number = int.from_bytes(key[:8], "big")
        if number not in kept:
            continue
        if kind == HEADER:
            found.add(number)
            txn.put(key, value, db=parts.headers)
        else:
            txn.put(key, value, db=parts.columns)
