"""Twenty kills of a learner: is a batch skipped, or learned from twice? `python -m
benchmarks.kills`.

A learner in a process of its own, with a real replay service in this one, is killed with SIGKILL at
random moments, and started again each time. It notes each update it has made with the number and
the episodes of its batch. What led to the last weights is then known: of each process the updates
up to the checkpoint from which the next one went on.

*live*: episodes are inserted all the time. *frozen*: none are; then the last weights are compared
with those of a learner that was never killed. Results: docs/results/kills.json.
"""

from __future__ import annotations

import hashlib
import json
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.tasks.catalog import TASKS
from benchmarks.learner_page import write_tables
from benchmarks.machine import ROOT, about
from benchmarks.replay.episodes import hopper_episode
from gato.config import PRESETS
from gato.sequence import Batch
from gato.weights import Weights
from learner.checkpoints.files import list_checkpoints
from learner.config import LearnerConfig
from learner.loop import Learner
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.sampling.config import MixConfig
from replay.service import ReplayService
from replay.storage.record import pack, record_to_bytes

RESULT = ROOT / "docs" / "results" / "kills.json"
TASK = TASKS["mujoco/hopper"]
MODEL = PRESETS["tiny"]
FORKS = get_context("forkserver")
KILLS = 20
LAST_UPDATES = 50
"""That the last process makes."""
CONFIG = LearnerConfig(
    num_updates=100_000, warmup_updates=10, publish_every=5, checkpoint_every=10, report_every=1,
    bf16=False, num_threads=1,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Update:
    """One update that a process has made."""

    step: int
    number: int
    """Of its batch."""
    keys: tuple[str, ...]


class _Source:
    """Replay, asked over a socket; each batch has its number before its episodes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        self._connection.send((index, timeout_s))
        return self._connection.recv()


class _NoSink:
    def publish(self, weights: Weights) -> bool:
        return True


def learn(address: str, folder: Path, log: Path, stop_at: int) -> None:
    """The learner's process: note its first step, then each update it has made, in one line."""
    learner = Learner(
        CONFIG, MODEL, _Source(Client(address, authkey=b"kills")), _NoSink(), folder,
        epoch=1, task_names=[TASK.name], seed=0, device=torch.device("cpu"),
    )  # fmt: skip
    keys: list[tuple[str, ...]] = []
    with log.open("ab", buffering=0) as out:

        def note(*_: object) -> None:
            out.write(json.dumps([learner.progress.step, keys.pop()]).encode() + b"\n")

        out.write(json.dumps([learner.progress.step]).encode() + b"\n")
        learner.model.register_forward_pre_hook(lambda _, given: keys.append(given[0].episode_keys))
        learner.optimiser.register_step_post_hook(note)
        last = stop_at or learner.progress.step + LAST_UPDATES
        for report in learner.run():
            if report.step >= last:
                learner.stop()


class _Served:
    """A replay service behind a socket, with or without inserts."""

    def __init__(self, folder: Path, *, is_live: bool) -> None:
        config = ReplayConfig(
            capacity_bytes=1 << 30,
            limiter=LimiterConfig(warmup_tokens=0),
            mix=MixConfig(rows=4, row_tokens=45, min_expert_fraction=None),
        )
        self._service = ReplayService(folder, {TASK.name: TASK}, MODEL.layout, config, seed=0)
        self._rng, self._num_episodes = np.random.default_rng(0), 0
        for _ in range(20):
            self._insert()
        self._ended = threading.Event()
        self._listener = Listener(str(folder / "socket"), authkey=b"kills")
        self.address = str(self._listener.address)
        threading.Thread(target=self._accept, daemon=True).start()
        if is_live:
            threading.Thread(target=self._play, daemon=True).start()

    def _insert(self) -> None:
        episode = hopper_episode(self._num_episodes, self._rng, steps=50)
        self._service.add(record_to_bytes(pack(episode)), timeout_s=10.0)
        self._num_episodes += 1

    def _play(self) -> None:
        while not self._ended.wait(0.02):
            self._insert()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        with suppress(EOFError, ConnectionError):  # the learner was killed
            while True:
                index, timeout_s = connection.recv()
                batch = self._service.next_batch(index, timeout_s=timeout_s)
                if batch is not None:
                    batch = _numbered(batch, index)
                connection.send(batch)

    def close(self) -> None:
        self._ended.set()
        self._listener.close()
        self._service.close()


def _numbered(batch: Batch, index: int) -> Batch:
    return Batch(**batch.arrays(), episode_keys=(f"#{index}", *batch.episode_keys))


def _start(served: _Served, folder: Path, log: Path, stop_at: int = 0) -> ForkServerProcess:
    """A process of its own, forked from one that has imported everything and does nothing."""
    process = FORKS.Process(target=learn, args=(served.address, folder, log, stop_at), daemon=True)
    process.start()
    return process


def _ended(process: ForkServerProcess) -> int | None:
    process.join()
    return process.exitcode


def _lines(log: Path) -> list[Any]:
    return [json.loads(line) for line in log.read_bytes().splitlines()] if log.exists() else []


def lineage(logs: Sequence[Sequence[Any]]) -> tuple[list[Update], list[tuple[Update, Update]]]:
    """The updates that led to the last weights, and those made again: before, and after the kill.

    Args:
        logs: of each process what it noted: the step it went on from, then its updates.
    """
    kept: list[Update] = []
    again: list[tuple[Update, Update]] = []
    for (first, *_), *noted in logs:
        lost = {update.step: update for update in kept[first:]}
        kept = kept[:first]
        for step, (number, *keys) in noted:
            kept.append(Update(step, int(number.removeprefix("#")), tuple(keys)))
            if step in lost:
                again.append((lost[step], kept[-1]))
    return kept, again


def measure(folder: Path, *, is_live: bool) -> dict[str, Any]:
    """Kill a learner `KILLS` times, and count."""
    rng = np.random.default_rng(1)
    (folder / "replay").mkdir(parents=True)
    served = _Served(folder / "replay", is_live=is_live)
    logs = [folder / f"updates-{number}.log" for number in range(KILLS + 1)]
    drafts = 0
    for log in logs[:-1]:
        process = _start(served, folder / "checkpoints", log)
        while len(_lines(log)) < 3:
            assert process.is_alive(), "the learner ended by itself"
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0.0, 1.0)))
        process.kill()
        assert _ended(process) == -signal.SIGKILL
        drafts += len(list((folder / "checkpoints").glob(".draft-*")))
    assert _ended(_start(served, folder / "checkpoints", logs[-1])) == 0
    kept, again = lineage([_lines(log) for log in logs])
    numbers = [update.number for update in kept]
    found: dict[str, Any] = {
        "kills": KILLS,
        "in_a_checkpoint": drafts,
        "updates": len(kept),
        "skipped": len(set(range(len(kept))) - set(numbers)),
        "twice": len(numbers) - len(set(numbers)),
        "in_order": numbers == list(range(len(kept))),
        "made_again": len(again),
        "again_with_the_same_episodes": sum(a.keys == b.keys for a, b in again),
    }
    if not is_live:
        end = len(kept)
        unbroken = folder / "unbroken"
        assert _ended(_start(served, unbroken, folder / "unbroken.log", end)) == 0
        found["equal_to_unbroken"] = _weights(folder / "checkpoints") == _weights(unbroken)
    served.close()
    return found


def _weights(checkpoints: Path) -> tuple[str, ...]:
    """Hashes of the last weights and of the optimiser's state."""
    last = list_checkpoints(checkpoints)[-1]
    files = ("model.safetensors", "optimiser.safetensors")
    return (last.name, *(hashlib.sha256((last / f).read_bytes()).hexdigest() for f in files))


def main() -> None:
    # PyTorch imports its compiler at the first step of an optimiser, which takes seconds.
    FORKS.set_forkserver_preload(
        ["torch._dynamo", "learner.loop", "replay.service", "benchmarks.replay.episodes"]
    )
    found: dict[str, Any] = {}
    for name in ("frozen", "live"):
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(Path(folder), is_live=name == "live")
        print(name, json.dumps(found[name]), flush=True)
    measured = about()
    RESULT.write_text(json.dumps(measured | found, indent=1) + "\n")
    shown = ("kills", "in_a_checkpoint", "updates", "skipped", "twice", "made_again")
    rows = [{"replay": name} | {key: of[key] for key in shown} for name, of in found.items()]
    write_tables({"kills": rows}, measured)


if __name__ == "__main__":
    main()
