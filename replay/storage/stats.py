"""Contents of a store from its headers alone: episodes, steps and returns by task and source,
bytes, keys."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from replay.storage.header import Header
from replay.storage.store import EpisodeStore
from replay.storage.verify import streams_of


@dataclass(slots=True)
class Tally:
    """Sums over episodes of one kind, which add up over sources and shards."""

    episodes: int = 0
    steps: int = 0
    return_sum: float = 0.0
    return_min: float = math.inf
    return_max: float = -math.inf
    stored_bytes: int = 0

    def count(self, header: Header) -> None:
        self.episodes += 1
        self.steps += header.steps
        self.return_sum += header.episode_return
        self.return_min = min(self.return_min, header.episode_return)
        self.return_max = max(self.return_max, header.episode_return)
        self.stored_bytes += header.stored_bytes

    def add(self, other: Tally) -> None:
        self.episodes += other.episodes
        self.steps += other.steps
        self.return_sum += other.return_sum
        self.return_min = min(self.return_min, other.return_min)
        self.return_max = max(self.return_max, other.return_max)
        self.stored_bytes += other.stored_bytes

    @property
    def return_mean(self) -> float:
        return self.return_sum / self.episodes if self.episodes else math.nan


@dataclass(slots=True, kw_only=True)
class Contents:
    """The contents of all shards of a store."""

    tallies: dict[str, dict[str, Tally]] = field(default_factory=dict[str, dict[str, Tally]])
    """By task and source."""
    stored_bytes: int = 0
    """As episodes are counted against the capacity."""
    file_bytes: int = 0
    """Disk space, with freed pages."""
    inserted_tokens: int = 0
    read_tokens: int = 0
    damaged: dict[str, str] = field(default_factory=dict[str, str])
    """Name of an episode that was taken out, and why."""
    num_streams: int = 0
    num_intervals: int = 0
    damaged_streams: list[str] = field(default_factory=list[str])
    num_whole_keys: int = 0
    """Of schema 1."""
    schemas: set[int] = field(default_factory=set[int])
    num_shards: int = 1
    """As the store was written."""

    def by_task(self) -> dict[str, Tally]:
        """All sources of each task."""
        out: dict[str, Tally] = {}
        for task, sources in sorted(self.tallies.items()):
            out[task] = Tally()
            for tally in sources.values():
                out[task].add(tally)
        return out


def contents_of(stores: Sequence[EpisodeStore]) -> Contents:
    """The contents of some shards together; no column is read."""
    found = Contents()
    for shard, store in enumerate(stores):
        for header in store.episodes.values():
            found.tallies.setdefault(header.task, {}).setdefault(header.source, Tally()).count(
                header
            )
            found.schemas.add(header.schema)
        found.stored_bytes += store.stored_bytes
        found.file_bytes += store.database.file_bytes
        found.inserted_tokens += store.inserted_tokens
        found.read_tokens += _read_tokens(store)
        for number, reason in sorted(store.damaged.items()):
            header = store.taken_out.get(number)
            place = f"{shard}/{number}" if len(stores) > 1 else str(number)
            found.damaged[f"{place} {header.key}" if header else place] = reason
        streams, damaged = streams_of(store)
        found.num_streams += len(streams)
        found.num_intervals += sum(map(len, streams.values()))
        found.damaged_streams += damaged
        found.num_shards = max(found.num_shards, store.num_shards)
        if store.database.parts.keys is not None:
            with store.database.transaction() as txn:
                found.num_whole_keys += txn.stat(store.database.parts.keys)["entries"]
    return found


def _read_tokens(store: EpisodeStore) -> int:
    saved = store.database.noted("limiter")
    return (
        store.database.counter("read_tokens")
        if saved is None
        else int(json.loads(saved)["read_tokens"])
    )
