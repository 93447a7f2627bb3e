"""Shards: which one an episode belongs to, and what all of them hold together. Pure arithmetic."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from gato.metrics import Amount, ReplayStats
from replay.storage.dedup import SequenceKey, split_key


def shard_of(key: SequenceKey, num_shards: int) -> int:
    """The shard of an episode. One writer's episodes go to all shards in turn, and each writer
    starts with another one.

    So a shard gets every `num_shards`-th number of a writer, which `Deduplication` relies on.
    """
    return (zlib.crc32(key.stream.encode()) + key.number) % num_shards


def shard_folder(folder: Path, shard: int, num_shards: int) -> Path:
    """The folder of a shard; an only shard has the folder itself."""
    return folder if num_shards == 1 else folder / f"shard-{shard}"


def batch_number(index: int, rank: int, num_ranks: int) -> int:
    """The number of the `index`-th batch of a learner rank; no two ranks read the same number.

    Raises:
        ValueError: if there is no such rank.
    """
    if not 0 <= rank < num_ranks:
        raise ValueError(
            f"expected a rank from 0 to {num_ranks - 1}, got {rank}; ranks count from 0"
        )
    return index * num_ranks + rank


def priorities_by_shard(
    priorities: Mapping[str, float], num_shards: int
) -> dict[int, dict[str, float]]:
    """Priorities by key, grouped by the shard that has the key."""
    parts: dict[int, dict[str, float]] = {}
    for key, priority in priorities.items():
        parts.setdefault(shard_of(split_key(key), num_shards), {})[key] = priority
    return parts


def steps_of_all(answers: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Steps by task, summed over shards; all shards name the same tasks."""
    return {task: sum(answer[task] for answer in answers) for task in answers[0]}


def merged(stats: Sequence[ReplayStats]) -> ReplayStats:
    """The stats of all shards as those of one replay."""
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
        left_out=_amounts_of_all([one.left_out for one in stats]),
        sources=_amounts_of_all([one.sources for one in stats]),
        writers_waiting=sum(one.writers_waiting for one in stats),
        readers_waiting=sum(one.readers_waiting for one in stats),
        may_insert=all(one.may_insert for one in stats),
        paused=any(one.paused for one in stats),
        who_waits=(
            waits[0]
            if len(set(waits)) == 1
            else "; ".join(f"shard {i}: {text}" for i, text in enumerate(waits))
        ),
        owed_tokens=sum(one.owed_tokens for one in stats),
        incarnation=sum(one.incarnation for one in stats),
    )


def _amounts_of_all(
    stats: Sequence[Mapping[str, Mapping[str, Amount]]],
) -> dict[str, dict[str, Amount]]:
    """By task and reason, or source. Each shard filters by its own episodes, so a reason may name a
    different return in each."""
    out: dict[str, dict[str, Amount]] = {}
    for one in stats:
        for task, amounts in one.items():
            of_task = out.setdefault(task, {})
            for name, amount in amounts.items():
                of_task[name] = of_task[name] + amount if name in of_task else amount
    return out
