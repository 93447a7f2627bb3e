"""Replay without Ray and without torch: episodes in, batches of tokens and windows out.

python examples/replay_alone.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from gato.episode import Episode
from gato.task import ArraySpec, Kind, Task
from gato.tokenizer import TokenLayout
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.sampling.config import MixConfig, TableConfig
from replay.service import ReplayService
from replay.storage.record import pack, record_to_bytes

STEPS = 40
TASK = Task(
    name="mine/point",
    env_id="",
    family="gymnasium",
    max_steps=STEPS,
    observations={"state": ArraySpec(kind=Kind.CONTINUOUS, shape=(3,), low=-1.0, high=1.0)},
    action=ArraySpec(kind=Kind.CONTINUOUS, shape=(1,), low=-1.0, high=1.0),
    references=None,
)
CONFIG = ReplayConfig(
    capacity_bytes=1 << 26,
    limiter=LimiterConfig(warmup_tokens=1_000),
    mix=MixConfig(
        rows=8,
        row_tokens=60,
        min_expert_fraction=None,  # reads every demonstration, whatever it returned
        tables={
            "any": TableConfig(share=3.0),
            "newest": TableConfig(share=1.0, selector="recency:20"),
        },
    ),
)


def episode(number: int) -> Episode:
    """Made up: your own data comes here."""
    rng = np.random.default_rng(number)
    return Episode(
        key=f"example.{number}",  # a second episode of this key is not stored again
        task=TASK.name,
        source="file:example",
        seed=number,
        terminated=False,
        truncated=True,
        observations={"state": rng.uniform(-1, 1, (STEPS, 3)).astype(np.float32)},
        actions=rng.uniform(-1, 1, (STEPS, 1)).astype(np.float32),
        rewards=np.ones(STEPS, np.float32),
    )


def main(folder: Path) -> None:
    replay = ReplayService(folder, {TASK.name: TASK}, TokenLayout(), CONFIG, seed=0)
    try:
        for number in range(50):
            added = replay.add(record_to_bytes(pack(episode(number))), timeout_s=5.0)
            assert added.status == "stored", added.reason
        print(f"{len(replay.keys())} episodes are on the disk")

        batch = replay.next_batch(0, timeout_s=5.0)  # batch number 0, the same in each process
        assert batch is not None
        print(f"a batch of {batch.num_tokens} tokens")
        for name, array in batch.arrays().items():
            print(f"  {name}: {array.dtype}{list(array.shape)}")

        windows = replay.next_windows(0, num_windows=4, steps=16, table="any", timeout_s=5.0)
        assert windows is not None
        print(f"windows: states {list(windows.observations['state'].shape)}")
        print(f"         actions {list(windows.actions.shape)}")
    finally:
        replay.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
