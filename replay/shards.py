"""Shards: where an episode goes, who is asked for a batch, and what all of them hold together. Pure
arithmetic."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gato.metrics import Amount, ReplayStats
from replay.storage.dedup import SequenceKey

PAUSE_S = 1.0
"""For how long a shard that did not answer is asked last."""


def shard_of(key: SequenceKey, num_shards: int) -> int:
    """Where an episode goes: one writer's episodes in turn to all shards, each writer beginning
    elsewhere.

    So what one shard sees of a writer are every `num_shards`-th numbers, which is what
    `EpisodeStore` counts on.
    """
    return (zlib.crc32(key.stream.encode()) + key.number) % num_shards


def shard_folder(folder: Path, shard: int, num_shards: int) -> Path:
    """Where a shard keeps its episodes; the only one of a run has the folder itself."""
    return folder if num_shards == 1 else folder / f"shard-{shard}"


def batch_number(index: int, rank: int, num_ranks: int) -> int:
    """The number of the `index`-th batch of one of several learner ranks: no two ranks ever read
    the same."""
    if not 0 <= rank < num_ranks:
        raise ValueError(f"rank {rank} is none of {num_ranks} ranks, which count from 0")
    return index * num_ranks + rank


class Rotation:
    """Which shards to ask for a batch, one after another: its home first, and those that failed
    lately last.

    Each number has the same home for ever, so with a frozen replay a number names the same batch
    for ever. A shard that is dead, has nothing, or whose readers are ahead of its writers, stops
    nobody while another can serve.
    """

    def __init__(self, num_shards: int) -> None:
        self._num_shards = num_shards
        self._failed_s = [float("-inf")] * num_shards

    def order(self, number: int, now_s: float) -> list[int]:
        turn = [(number + i) % self._num_shards for i in range(self._num_shards)]
        return sorted(turn, key=lambda shard: now_s - self._failed_s[shard] < PAUSE_S)

    def failed(self, shard: int, now_s: float) -> None:
        self._failed_s[shard] = now_s


def merged(stats: Sequence[ReplayStats]) -> ReplayStats:
    """All shards as one replay."""
    if len(stats) == 1:
        return stats[0]
    episodes, refused = Counter[str](), Counter[str]()
    for one in stats:
        episodes.update(one.episodes)
        refused.update(one.refused)
    waits = [one.who_waits for one in stats]
    return ReplayStats(
        episodes=dict(sorted(episodes.items())),
        steps=sum(one.steps for one in stats),
        inserted_tokens=sum(one.inserted_tokens for one in stats),
        read_tokens=sum(one.read_tokens for one in stats),
        stored_bytes=sum(one.stored_bytes for one in stats),
        capacity_bytes=sum(one.capacity_bytes for one in stats),
        refused=dict(refused),
        duplicates=sum(one.duplicates for one in stats),
        evicted=sum(one.evicted for one in stats),
        left_out=_left_out_of_all(stats),
        writers_waiting=sum(one.writers_waiting for one in stats),
        readers_waiting=sum(one.readers_waiting for one in stats),
        may_insert=all(one.may_insert for one in stats),
        paused=any(one.paused for one in stats),
        who_waits=(
            waits[0]
            if len(set(waits)) == 1
            else "; ".join(f"shard {i}: {text}" for i, text in enumerate(waits))
        ),
        incarnation=sum(one.incarnation for one in stats),
    )


def _left_out_of_all(stats: Sequence[ReplayStats]) -> dict[str, dict[str, Amount]]:
    """Each shard filters by the episodes that it has, so that a reason's return may differ between
    them."""
    out: dict[str, dict[str, Amount]] = {}
    for one in stats:
        for task, reasons in one.left_out.items():
            of_task = out.setdefault(task, {})
            for reason, amount in reasons.items():
                of_task[reason] = of_task[reason] + amount if reason in of_task else amount
    return out
