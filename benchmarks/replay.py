"""Speeds of replay: taking episodes in, drawing batches and windows, coming back after a restart.

`python -m benchmarks.replay` measures only these. The comparison with TorchRL is made where it is
installed (`pip install torchrl==0.14.1`); nothing else of the project needs it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from actors.tasks.catalog import TASKS
from benchmarks.machine import ROOT, about
from benchmarks.timing import median_s, paired_s
from gato.episode import Episode
from gato.sequence import Batch, StepLayout
from gato.task import Task
from gato.threads import use_threads
from gato.tokenizer import TokenLayout
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.sampling.config import MixConfig
from replay.service import ReplayService
from replay.storage.record import Record, pack, record_to_bytes
from replay.storage.store import Durability, EpisodeStore

HOPPER, PONG = TASKS["mujoco/hopper"], TASKS["atari/pong"]
LAYOUT = TokenLayout()
ROW_TOKENS = 1024
SPECKS = 26
Row = dict[str, float | str]


def hopper_episode(number: int, rng: np.random.Generator, steps: int = 1000) -> Episode:
    """As long and wide as Hopper's, of random numbers."""
    return Episode(
        key=f"bench.h.{number}", task=HOPPER.name, source="teacher:t", terminated=False, truncated=True, seed=number,
        observations={"state": rng.normal(size=(steps, 11)).astype(np.float32)},
        actions=rng.uniform(-1, 1, (steps, 3)).astype(np.float32), rewards=np.ones(steps, np.float32),
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
        key=f"bench.p.{number}", task=PONG.name, source="teacher:t", terminated=True, truncated=False, seed=number,
        observations={"image": frames}, actions=rng.integers(0, 18, steps), rewards=np.zeros(steps, np.float32),
    )  # fmt: skip


MAKE: dict[str, Callable[..., Episode]] = {HOPPER.name: hopper_episode, PONG.name: pong_episode}
EPISODES = {HOPPER.name: 100, PONG.name: 24}


def settings(rows: int, **changes: Any) -> ReplayConfig:
    """Of a replay that holds nobody back."""
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
    """Have the operating system forget a closed store's file, as far as it listens."""
    descriptor = os.open(folder / "data.mdb", os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def num_bytes(batch: Batch) -> int:
    return sum(array.nbytes for array in batch.arrays().values())


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
        "path": f"insert, {task.name}, {durability}", "against": "the same bytes to one file, as durably",
        "ours_s": ours_s / count, "theirs_s": theirs_s / count, "inserts_per_s": count / ours_s,
        "mb_per_s": count * raw / ours_s / 1e6,
    }  # fmt: skip


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
        "path": f"sample {rows}x1024, {task.name}, {'warm' if warm else 'cold'}", "against": "memcpy of its bytes",
        "ours_s": ours_s, "theirs_s": theirs_s, "batches_per_s": 1 / ours_s, "gb_per_s": num_bytes(batch) / ours_s / 1e9,
    }  # fmt: skip


def sample_remote(task: Task, rows: int, num_shards: int) -> Row:
    """Batches as the learner gets them, from replay actors on Ray, against a copy of their bytes in
    memory."""
    import ray

    from replay.remote import RemoteBatchSource, RemoteEpisodeSink, start_replay

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

        for _ in range(40):
            read()
        begun = time.perf_counter()
        for _ in range(40):
            read()
        ours_s = (time.perf_counter() - begun) / 40
        batch = read()
        arrays = list(batch.arrays().values())
        theirs_s = median_s(lambda: [array.copy() for array in arrays], repeats=41)
        size = num_bytes(batch)
        shards.close()
        for actor in shards.actors:
            ray.kill(cast(Any, actor))
    plural = "s" if num_shards > 1 else ""
    return {
        "path": f"sample {rows}x1024, {task.name}, warm, {num_shards} shard{plural} on Ray", "against": "memcpy of its bytes",
        "ours_s": ours_s, "theirs_s": theirs_s, "batches_per_s": 1 / ours_s, "gb_per_s": size / ours_s / 1e9,
    }  # fmt: skip


def windows_against_torchrl(folder: Path, task: Task, episodes: Sequence[Episode]) -> Row:
    """256 windows of 64 steps as they were stored, against TorchRL's slice sampler over the same
    episodes in memory."""
    # by name: it is no dependency, so no type checker knows it
    data = import_module("torchrl.data")
    samplers, tensordict = (
        import_module("torchrl.data.replay_buffers.samplers"),
        import_module("tensordict"),
    )

    num_windows, steps = (256, 64) if task is HOPPER else (32, 64)
    total = sum(episode.num_steps for episode in episodes)
    buffer = data.TensorDictReplayBuffer(
        storage=data.LazyTensorStorage(total),
        sampler=samplers.SliceSampler(slice_len=steps, traj_key="episode", cache_values=True),
        batch_size=num_windows * steps,
    )
    for number, episode in enumerate(episodes):
        columns = {name: torch.from_numpy(values) for name, values in episode.observations.items()}
        columns |= {
            "action": torch.from_numpy(episode.actions),
            "reward": torch.from_numpy(episode.rewards),
        }
        columns["episode"] = torch.full((episode.num_steps,), number)
        buffer.extend(tensordict.TensorDict(columns, batch_size=[episode.num_steps]))
    service = ReplayService(folder, {task.name: task}, LAYOUT, settings(1), seed=0)
    counter = iter(range(10**9))

    def ours() -> object:
        return service.next_windows(
            next(counter) % 100, num_windows=num_windows, steps=steps, timeout_s=60
        )

    for _ in range(300):
        ours()
    ours_s, theirs_s = paired_s(ours, lambda: buffer.sample())
    service.close()
    return {
        "path": f"windows {num_windows}x64 steps, {task.name}, warm", "against": "TorchRL 0.14 SliceSampler, in memory",
        "ours_s": ours_s, "theirs_s": theirs_s, "windows_per_s": num_windows / ours_s,
    }  # fmt: skip


class TokenRows(Dataset[dict[str, torch.Tensor]]):
    """What one would write without a replay: a random window of a random episode in memory,
    tokenised when it is read."""

    def __init__(self, task: Task, episodes: Sequence[Episode]) -> None:
        self._layout = StepLayout(task, LAYOUT)
        self._episodes = episodes
        self._steps = ROW_TOKENS // self._layout.tokens_per_step
        self._rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        episode = self._episodes[int(self._rng.integers(len(self._episodes)))]
        start = int(self._rng.integers(episode.num_steps - self._steps + 1))
        steps = slice(start, start + self._steps)
        seen = {name: values[steps] for name, values in episode.observations.items()}
        ids = self._layout.step_ids(seen, episode.actions[steps])
        row = {
            "ids": torch.from_numpy(ids.reshape(-1)),
            "place": torch.from_numpy(np.tile(self._layout.place_S, self._steps)),
        }
        if self._layout.num_patches:
            row["patches"] = torch.from_numpy(self._layout.patches(seen))
        return row


def batches_against_dataloader(
    folder: Path, task: Task, episodes: Sequence[Episode], rows: int
) -> Row:
    """A batch of tokens, against a plain PyTorch DataLoader (no workers: one core each) over the
    same episodes in memory."""
    loader = iter(DataLoader(TokenRows(task, episodes), batch_size=rows))
    mix = replace(settings(rows).mix, prompt_fraction=0.0)
    service = ReplayService(folder, {task.name: task}, LAYOUT, settings(rows, mix=mix), seed=0)
    counter = iter(range(10**9))
    for _ in range(300):
        service.next_batch(next(counter), timeout_s=60)
    ours_s, theirs_s = paired_s(
        lambda: service.next_batch(next(counter) % 40, timeout_s=60),
        lambda: next(loader),
        block_s=0.1,
        blocks=7,
    )
    service.close()
    return {
        "path": f"batch {rows}x1024, {task.name}, warm", "against": "PyTorch DataLoader over episodes in memory",
        "ours_s": ours_s, "theirs_s": theirs_s, "batches_per_s": 1 / ours_s,
    }  # fmt: skip


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
        "path": "restart with 10 GB stored, to the first batch of 64x1024", "against": "reading the file once",
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
        "path": "open 100,000 episodes, to the first batch of 64x1024", "against": "parsing their headers as one JSON text",
        "ours_s": ours_s, "theirs_s": theirs_s, "opened_s": opened_s,
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
    from benchmarks.run import add_rows

    use_threads(1)
    add_rows(measures(), about(), ROOT / "benchmarks" / "rows.jsonl")


if __name__ == "__main__":
    main()
