"""How long replay takes to come back after a restart: a large file, many episodes."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.replay.episodes import (
    HOPPER,
    LAYOUT,
    PONG,
    drop_from_memory,
    hopper_episode,
    pong_episode,
    settings,
)
from benchmarks.rows import Row
from benchmarks.timing import median_s
from replay.service import ReplayService
from replay.storage.record import Record, pack
from replay.storage.store import EpisodeStore


def restart_with_10_gb() -> Row:
    """From opening a store of 10 GB, of which the operating system has nothing in memory, to the
    first batch; against reading the file once, which a replay that keeps everything in memory has
    to do."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1000, 64, 80, 3), dtype=np.uint8)  # cannot be compressed
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        store = EpisodeStore(folder, capacity_bytes=64 << 30, durability="none")
        plain = replace(pong_episode(0, rng), observations={"image": noise})
        record = pack(plain)
        number = 0
        while store.stored_bytes < 10 << 30:
            group: list[tuple[Record, int]] = []
            for _ in range(8):
                group.append((replace(record, header=replace(record.header, key=f"r.{number}")), 1))
                number += 1
            store.add_all(group)
        size = store.database.file_bytes
        store.close()
        drop_from_memory(folder)
        begun = time.perf_counter()
        service = ReplayService(folder, {PONG.name: PONG}, LAYOUT, settings(64), seed=0)
        assert service.next_batch(0, timeout_s=60) is not None
        ours_s = time.perf_counter() - begun
        service.close()
        drop_from_memory(folder)
        begun = time.perf_counter()
        with (folder / "data.mdb").open("rb", buffering=0) as file:
            block = bytearray(16 << 20)
            while file.readinto(block):
                pass
        theirs_s = time.perf_counter() - begun
    return {
        "path": "restart with 10 GB stored, to the first batch of 64x1024",
        "against": "reading the file once",
        "ours_s": ours_s, "theirs_s": theirs_s, "stored_gb": size / 1e9,
    }  # fmt: skip


def open_100k() -> Row:
    """Opening a store of 100,000 episodes and the first batch, against reading the same headers as
    a JSON list."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        store = EpisodeStore(folder, capacity_bytes=64 << 30, durability="none")
        record = pack(hopper_episode(0, rng, 20))
        for first in range(0, 100_000, 10_000):
            keys = range(first, first + 10_000)
            store.add_all(
                [
                    (replace(record, header=replace(record.header, key=f"w.{key}")), 1)
                    for key in keys
                ]
            )
        plain = json.dumps([repr(header) for header in store.episodes.values()])
        store.close()
        begun = time.perf_counter()
        service = ReplayService(folder, {HOPPER.name: HOPPER}, LAYOUT, settings(64), seed=0)
        opened_s = time.perf_counter() - begun
        assert service.next_batch(0, timeout_s=60) is not None
        ours_s = time.perf_counter() - begun
        service.close()
        theirs_s = median_s(lambda: json.loads(plain), repeats=5)
    return {
        "path": "open 100,000 episodes, to the first batch of 64x1024",
        "against": "parsing their headers as one JSON text",
        "ours_s": ours_s, "theirs_s": theirs_s, "opened_s": opened_s,
    }  # fmt: skip
