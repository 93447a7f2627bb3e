"""The state of replay at one moment, from its store and its gate."""

from __future__ import annotations

from collections.abc import Mapping

from gato.metrics import Amount, ReplayStats
from replay.gate import Gate
from replay.storage.sources import amounts_by_source
from replay.storage.store import EpisodeStore


def stats_of(
    store: EpisodeStore,
    gate: Gate,
    *,
    capacity_bytes: int,
    left_out: Mapping[str, Mapping[str, Amount]],
    rejected: Mapping[str, int],
    duplicates: int,
) -> ReplayStats:
    """The stats; the caller holds `gate.changed`.

    Args:
        left_out: Stored episodes that are not drawn, by task and reason.
        rejected: Episodes that were rejected at ingest, by reason; damaged ones on disk are added.
        duplicates: Episodes that were delivered again.
    """
    snapshot, limiter = store.index.snapshot(), gate.limiter
    damaged = {
        "damaged on disk": len(store.damaged),
        "streams of keys damaged on disk": len(store.damaged_streams),
    }
    return ReplayStats(
        episodes=store.index.episodes_by_task(snapshot),
        sources=amounts_by_source(store.index, snapshot),
        steps=int(snapshot.steps.sum()),
        inserted_tokens=limiter.inserted_tokens,
        read_tokens=limiter.read_tokens,
        stored_bytes=store.stored_bytes,
        capacity_bytes=capacity_bytes,
        refused=dict(rejected) | {why: number for why, number in damaged.items() if number},
        duplicates=duplicates,
        evicted=store.num_evicted,
        left_out=left_out,
        writers_waiting=gate.writers_waiting,
        readers_waiting=gate.readers_waiting,
        may_insert=gate.may_insert(),
        paused=limiter.paused,
        who_waits=limiter.why(),
        owed_tokens=limiter.owed_tokens,
        incarnation=store.incarnation,
    )
