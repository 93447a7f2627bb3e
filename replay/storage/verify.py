"""Verification: reads every value of a store, compares its counts, keys and streams, and repairs
it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from replay.storage.checksum import number_to_bytes
from replay.storage.column_reader import EpisodeGone
from replay.storage.database import DAMAGED
from replay.storage.dedup import Intervals, split_key
from replay.storage.header import DamagedEpisode, Header
from replay.storage.record import IMAGE_BYTES, Record, chunk_steps, crc_matches, step_bytes
from replay.storage.store import EpisodeStore

IMAGE_STEPS = 512
"""Steps of an image column in memory at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with one episode."""

    number: int
    key: str
    """Empty if its header cannot be read."""
    column: str
    """Empty if it is the header."""
    reason: str


def faults_of(store: EpisodeStore, header: Header) -> list[Fault]:
    """Read every column of an episode. Returns the damaged ones; none if it was evicted."""
    faults: list[Fault] = []
    for name, (dtype, shape) in header.columns.items():
        each = IMAGE_STEPS if step_bytes(dtype, shape) >= IMAGE_BYTES else header.steps
        try:
            for start in range(0, header.steps, each):
                with store.views(header, [name], start, min(start + each, header.steps)):
                    pass
        except EpisodeGone:
            return []
        except DamagedEpisode as problem:
            reason = str(problem).rpartition("is damaged: ")[2]
            faults.append(Fault(number=header.number, key=header.key, column=name, reason=reason))
    return faults


def header_faults(store: EpisodeStore) -> list[Fault]:
    """Headers that cannot be read and were not taken out permanently."""
    with store.database.transaction() as txn:
        return [
            Fault(number=number, key="", column="", reason=reason)
            for number, reason in store.damaged.items()
            if number not in store.taken_out
            and txn.get(DAMAGED + str(number).encode(), db=store.database.parts.counters) is None
        ]


def damage_of(record: Record) -> Fault | None:
    """The first value of a record that is missing or has a wrong checksum; nothing is
    decompressed."""
    header = record.header
    for index, (name, (dtype, shape)) in enumerate(header.columns.items()):
        for chunk in range(-(-header.steps // chunk_steps(dtype, shape, header.steps))):
            value = record.values.get((index, chunk))
            if value is None or not crc_matches(value):
                reason = "it is missing" if value is None else "does not match its checksum"
                return Fault(number=header.number, key=header.key, column=name, reason=reason)
    return None


def disagreements(store: EpisodeStore) -> list[str]:
    """Contradictions of counts, keys and streams, a sentence each."""
    problems: list[str] = []
    streams, damaged = streams_of(store)
    problems += [
        f"the intervals of stream {stream!r} do not match their checksum" for stream in damaged
    ]
    kept = list(chain(store.episodes.values(), store.taken_out.values()))
    # only episodes that may be read: the key of one that was taken out may be forgotten
    for header in store.episodes.values():
        stream, number = split_key(header.key)
        intervals = streams.get(stream)
        if stream not in damaged and (
            intervals is None or number // store.num_shards not in intervals
        ):
            problems.append(
                f"episode {header.number} is kept, but its key {header.key!r} is not among the"
                " known ones"
            )
    problems += [f"episode {number} {reason}" for number, reason in _twice(store).items()]
    newest = max((header.number for header in kept), default=-1)
    if newest >= store.database.counter("next"):
        problems.append(
            f"episode {newest} is kept, but the next one to be stored is"
            f" {store.database.counter('next')}"
        )
    tokens = sum(header.tokens for header in kept)
    if tokens > store.database.counter("inserted_tokens"):
        problems.append(
            f"{tokens:,} tokens are kept, but only {store.database.counter('inserted_tokens'):,}"
            " were inserted"
        )
    return problems


def _twice(store: EpisodeStore) -> dict[int, str]:
    """Episodes whose key an older one has, by number, with that one named."""
    first: dict[str, int] = {}
    return {
        header.number: f"has the key {header.key!r} of episode {first[header.key]}"
        for header in store.episodes.values()
        if first.setdefault(header.key, header.number) != header.number
    }


def streams_of(store: EpisodeStore) -> tuple[dict[str, Intervals], list[str]]:
    """The keys that were ever stored, by stream, with whole keys of schema 1; and the damaged
    streams.

    A damaged stream has the keys of the stored episodes.
    """
    streams: dict[str, Intervals] = {}
    damaged: list[str] = []
    with store.database.transaction() as txn:
        if store.database.parts.streams is not None:
            for name, value in txn.cursor(db=store.database.parts.streams):
                stream = bytes(name).decode()
                streams[stream] = store.stream_intervals(stream, bytes(value))
                if not Intervals.is_whole(bytes(value)):
                    damaged.append(stream)
        if store.database.parts.keys is not None:
            for key in txn.cursor(db=store.database.parts.keys).iternext(values=False):
                stream, number = split_key(bytes(key).decode())
                streams.setdefault(stream, Intervals()).add(number // store.num_shards)
    return streams, damaged


def repair(store: EpisodeStore, faults: Sequence[Fault]) -> None:
    """Take damaged episodes out permanently, and resolve all contradictions. Open the store again
    afterwards.

    The key of a damaged episode is forgotten, so that it may be inserted again.
    """
    streams, _ = streams_of(store)
    kept = list(chain(store.episodes.values(), store.taken_out.values()))
    for header in kept:
        stream, number = split_key(header.key)
        streams.setdefault(stream, Intervals()).add(number // store.num_shards)
    damaged = {fault.number for fault in faults} | store.damaged.keys()
    whole = {header.key for header in store.episodes.values() if header.number not in damaged}
    forgotten = [
        header.key for header in kept if header.number in damaged and header.key not in whole
    ]
    for key in forgotten:
        stream, number = split_key(key)
        streams[stream].discard(number // store.num_shards)
    reasons = _twice(store) | {
        fault.number: f"column {fault.column} {fault.reason}" if fault.column else fault.reason
        for fault in faults
    }
    least = {
        "next": max((header.number for header in kept), default=-1) + 1,
        "inserted_tokens": sum(header.tokens for header in kept),
    }
    counters = {name: max(store.database.counter(name), value) for name, value in least.items()}
    with store.database.transaction(write=True) as txn:
        for key in forgotten:
            txn.delete(key.encode(), db=store.database.parts.keys)  # of schema 1
        for number, reason in reasons.items():
            txn.put(
                DAMAGED + str(number).encode(), reason.encode(), db=store.database.parts.counters
            )
        for name, value in counters.items():
            txn.put(name.encode(), number_to_bytes(value), db=store.database.parts.counters)
        for stream, intervals in streams.items():
            txn.put(stream.encode(), intervals.to_bytes(), db=store.database.parts.streams)
