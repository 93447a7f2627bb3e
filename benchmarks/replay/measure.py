"""Speeds of replay: taking episodes in, drawing batches and windows, coming back after a restart.

`python -m benchmarks.replay` measures only these. The comparison with TorchRL is made where it is
installed (`pip install torchrl==0.14.1`); nothing else of the project needs it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.machine import ROOT, about
from benchmarks.replay.against import batches_against_dataloader, windows_against_torchrl
from benchmarks.replay.episodes import (
    EPISODES,
    HOPPER,
    LAYOUT,
    MAKE,
    PONG,
    drop_from_memory,
    filled,
    num_bytes,
    settings,
)
from benchmarks.replay.open import open_100k, restart_with_10_gb
from benchmarks.rows import Row, add_rows
from benchmarks.timing import median_s, paired_s
from gato.sequence import Batch
from gato.task import Task
from gato.threads import use_threads
from replay.service import ReplayService
from replay.storage.durability import Durability
from replay.storage.record import pack, record_to_bytes


def insert(task: Task, durability: Durability) -> Row:
    """Eight writers, each waiting for its acknowledgement, against writing the same bytes to one
    file as durably."""
    rng = np.random.default_rng(0)
    count = {HOPPER.name: 800, PONG.name: 160}[task.name]
    few = [MAKE[task.name](number, rng, 500) for number in range(16)]
    data = [record_to_bytes(pack(replace(few[i % 16], key=f"w.{i}"))) for i in range(count)]
    raw = (
        sum(v.nbytes for v in few[0].observations.values())
        + few[0].actions.nbytes
        + few[0].rewards.nbytes
    )
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        service = ReplayService(
            Path(name), {task.name: task}, LAYOUT, settings(1, durability=durability), seed=0
        )

        def write(mine: Sequence[bytes]) -> None:
            for record in mine:
                assert service.add(record, timeout_s=60).status == "stored"

        writers = [threading.Thread(target=write, args=(data[i::8],)) for i in range(8)]
        begun = time.perf_counter()
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        ours_s = time.perf_counter() - begun
        service.close()
        with (Path(name) / "plain").open("wb") as file:
            begun = time.perf_counter()
            for i, record in enumerate(data):
                file.write(record)
                if durability == "always" or (durability == "group" and i % 8 == 7):
                    file.flush()
                    os.fsync(file.fileno())
            theirs_s = time.perf_counter() - begun
    return {
        "path": f"insert, {task.name}, {durability}",
        "against": "the same bytes to one file, as durably",
        "ours_s": ours_s / count,
        "theirs_s": theirs_s / count,
        "inserts_per_s": count / ours_s,
        "mb_per_s": count * raw / ours_s / 1e6,
    }


def sample(folder: Path, task: Task, rows: int, *, warm: bool) -> Row:
    """A batch of rows x 1,024 tokens, a quarter of the rows prompted, against a copy of its bytes
    in memory."""
    service_of = partial(ReplayService, folder, {task.name: task}, LAYOUT, settings(rows), seed=0)
    if warm:
        service = service_of()
        for index in range(40 if rows > 100 else 300):  # until all that will be drawn is warm
            service.next_batch(index, timeout_s=60)
        batch = service.next_batch(0, timeout_s=60)
        assert batch is not None
        arrays = list(batch.arrays().values())
        counter = iter(range(10**9))
        ours_s, theirs_s = paired_s(
            lambda: service.next_batch(next(counter) % 40, timeout_s=60),
            lambda: [array.copy() for array in arrays],
        )
        service.close()
    else:
        times: list[float] = []
        batch = None
        for index in range(5):
            drop_from_memory(folder)
            service = service_of()
            begun = time.perf_counter()
            batch = service.next_batch(index, timeout_s=60)
            times.append(time.perf_counter() - begun)
            service.close()
        ours_s = sorted(times)[len(times) // 2]
        assert batch is not None
        arrays = list(batch.arrays().values())
        theirs_s = median_s(lambda: [array.copy() for array in arrays], repeats=41)
    return {
        "path": f"sample {rows}x1024, {task.name}, {'warm' if warm else 'cold'}",
        "against": "memcpy of its bytes",
        "ours_s": ours_s, "theirs_s": theirs_s, "batches_per_s": 1 / ours_s,
        "gb_per_s": num_bytes(batch) / ours_s / 1e9,
    }  # fmt: skip


def sample_remote(task: Task, rows: int, num_shards: int) -> Row:
    """Batches as the learner gets them, from replay actors on Ray, against a copy of their bytes in
    memory."""
    import ray

    from replay.clients import RemoteBatchSource, RemoteEpisodeSink
    from replay.remote import start_replay

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        config = settings(rows, num_shards=num_shards)
        shards = start_replay(
            folder=Path(name),
            tasks={task.name: task},
            layout=LAYOUT,
            config=config,
            seed=0,
            teacher_returns={},
        )
        sink, source = RemoteEpisodeSink(shards), RemoteBatchSource(shards, prefetch=2 * num_shards)
        for number in range(EPISODES[task.name]):
            sink.add(MAKE[task.name](number, rng))
        counter = iter(range(10**9))

        def read() -> Batch:
            while True:
                batch = source.next_batch(next(counter), timeout_s=60)
                if batch is not None:
                    return batch

        for _ in range(80):  # until as many are asked for in advance as it takes
            read()
        ours_s = median_s(lambda: [read() for _ in range(40)], repeats=5) / 40
        batch = read()
        arrays = list(batch.arrays().values())
        theirs_s = median_s(lambda: [array.copy() for array in arrays], repeats=41)
        size = num_bytes(batch)
        shards.close()
        for actor in shards.actors:
            ray.kill(cast(Any, actor))
    plural = "s" if num_shards > 1 else ""
    return {
        "path": f"sample {rows}x1024, {task.name}, warm, {num_shards} shard{plural} on Ray",
        "against": "memcpy of its bytes",
        "ours_s": ours_s, "theirs_s": theirs_s, "batches_per_s": 1 / ours_s,
        "gb_per_s": size / ours_s / 1e9,
    }  # fmt: skip


def measures(*, large: bool = True) -> Iterator[Row]:
    """All rows of replay."""
    for task in (HOPPER, PONG):
        for durability in ("always", "group", "none"):
            yield insert(task, durability)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        for task, sizes in ((HOPPER, (64, 512)), (PONG, (16, 64))):
            folder = Path(name) / task.name.replace("/", "-")
            episodes = filled(folder, task)
            for rows in sizes:
                yield sample(folder, task, rows, warm=True)
                yield sample(folder, task, rows, warm=False)
            yield batches_against_dataloader(folder, task, episodes, sizes[0])
            if find_spec("torchrl") is not None:
                yield windows_against_torchrl(folder, task, episodes)
    yield from remote_measures()
    yield open_100k()
    if large and shutil.disk_usage(Path.cwd()).free > 30 << 30:
        yield restart_with_10_gb()


def remote_measures() -> Iterator[Row]:
    import ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for task, rows in ((HOPPER, 64), (HOPPER, 512), (PONG, 16)):
            for num_shards in (1, 2):
                yield sample_remote(task, rows, num_shards)
    finally:
        ray.shutdown()


def main() -> None:
    """Measure replay alone, add the rows, write the table."""
    use_threads(1)
    add_rows(measures(), about(), ROOT / "benchmarks" / "rows.jsonl")


if __name__ == "__main__":
    main()
