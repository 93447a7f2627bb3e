"""Episodes of random numbers for the benchmarks of replay, and stores filled with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actors.tasks.catalog import TASKS
from gato.episode import Episode
from gato.sequence import Batch
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.sampling.config import MixConfig
from replay.storage.record import pack
from replay.storage.store import EpisodeStore

HOPPER, PONG = TASKS["mujoco/hopper"], TASKS["atari/pong"]
LAYOUT = TokenLayout()
ROW_TOKENS = 1024
SPECKS = 26


def hopper_episode(number: int, rng: np.random.Generator, steps: int = 1000) -> Episode:
    """As long and wide as Hopper's, of random numbers."""
    return Episode(
        key=f"bench.h.{number}", task=HOPPER.name, source="teacher:t", terminated=False,
        truncated=True, seed=number,
        observations={"state": rng.normal(size=(steps, 11)).astype(np.float32)},
        actions=rng.uniform(-1, 1, (steps, 3)).astype(np.float32),
        rewards=np.ones(steps, np.float32),
    )  # fmt: skip


def pong_episode(number: int, rng: np.random.Generator, steps: int = 1000) -> Episode:
    """Frames with a still background, a ball and two paddles, and specks, which compress about as
    well as the game's own (51 times)."""
    frames = np.full((steps, 64, 80, 3), (144, 72, 17), np.uint8)
    frames[:, :10] = (87, 87, 87)
    at = np.stack(
        [
            10 + rng.integers(0, 4, (3, steps)).cumsum(axis=1) % 48,
            rng.integers(0, 4, (3, steps)).cumsum(axis=1) % 70,
        ]
    )
    for step in range(steps):
        for thing, (left, high, wide) in enumerate(((None, 2, 2), (8, 6, 2), (70, 6, 2))):
            row, col = int(at[0, thing, step]), int(at[1, thing, step]) if left is None else left
            frames[step, row : row + high, col : col + wide] = 236
    specks = rng.integers(0, 64, (2, steps, SPECKS))
    frames[np.arange(steps)[:, None], specks[0], specks[1]] = 200
    return Episode(
        key=f"bench.p.{number}", task=PONG.name, source="teacher:t", terminated=True,
        truncated=False, seed=number,
        observations={"image": frames}, actions=rng.integers(0, 18, steps),
        rewards=np.zeros(steps, np.float32),
    )  # fmt: skip


MAKE: dict[str, Callable[..., Episode]] = {HOPPER.name: hopper_episode, PONG.name: pong_episode}
EPISODES = {HOPPER.name: 100, PONG.name: 24}


def settings(rows: int, **changes: Any) -> ReplayConfig:
    """The settings of a replay whose limiter never waits."""
    plain: dict[str, Any] = {
        "capacity_bytes": 64 << 30,
        "limiter": LimiterConfig(warmup_tokens=0),
        "mix": MixConfig(rows=rows, row_tokens=ROW_TOKENS, min_expert_fraction=None),
        "cache_bytes": 2 << 30,
    }
    return ReplayConfig(**(plain | changes))


def filled(folder: Path, task: Task) -> list[Episode]:
    """Episodes in a store, and themselves."""
    rng = np.random.default_rng(0)
    episodes = [MAKE[task.name](number, rng) for number in range(EPISODES[task.name])]
    store = EpisodeStore(folder, capacity_bytes=64 << 30, durability="none")
    store.add_all([(pack(episode), 1) for episode in episodes])
    store.close()
    return episodes


def drop_from_memory(folder: Path) -> None:
    """Ask the operating system to drop a closed store's file from memory."""
    descriptor = os.open(folder / "data.mdb", os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def num_bytes(batch: Batch) -> int:
    return sum(array.nbytes for array in batch.arrays().values())
