"""Replay actors on a local Ray, for tests: started, killed, read from."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import ray

from gato.sequence import Batch
from replay.clients import RemoteBatchSource
from replay.config import ReplayConfig
from replay.remote import Shards, start_replay
from tests.replay.episodes import LAYOUT, TASKS


def start(folder: Path, replay: ReplayConfig) -> Shards:
    return start_replay(
        folder=folder, tasks=TASKS, layout=LAYOUT, config=replay, seed=3, teacher_returns={}
    )


def kill(shards: Shards, shard: int = 0) -> None:
    os.kill(ray.get(shards.actors[shard].pid.remote()), signal.SIGKILL)


def keys_of(shards: Shards) -> list[str]:
    """Keys of all stored episodes, sorted."""
    return sorted(k for keys in ray.get([a.keys.remote() for a in shards.actors]) for k in keys)


def batch_from(source: RemoteBatchSource, index: int) -> Batch:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        batch = source.next_batch(index, timeout_s=5.0)
        if batch is not None:
            return batch
    raise AssertionError(f"no batch {index} within 60 s")
