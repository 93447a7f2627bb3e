"""Fleets of simulated workers against the real pool, scheduler, journal and weights store.

    python -m benchmarks.fleet                  # docs/results/fleet.json and the tables of
                                                # docs/scaling.md

A simulated worker is one of many in an asynchronous Ray actor: it takes real assignments by real
calls and reports after a while, but plays nothing and needs no process of its own.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray

from actors.assignment import Assignment, WorkerProgress
from actors.config import ActorsConfig
from benchmarks.machine import ROOT, about
from benchmarks.store_load import StoreRow, measure_store
from benchmarks.tables import table
from benchmarks.timing import milliseconds
from cluster.journal.journal_file import JournalFile
from cluster.journal.redis_server import RedisServer
from cluster.journal.writer import JournalWriter
from cluster.monitor.fold import read_summary
from cluster.nodes.connect import connect_ray
from cluster.supervision.launch import WorkerHandle
from cluster.supervision.scheduler import Scheduler
from cluster.supervision.supervisor import TICK_S
from cluster.supervision.worker_pool import WorkerPool
from gato.metrics import Evaluation, Mean, WorkerReport
from gato.version import Version

PAGE = ROOT / "docs" / "scaling.md"
RESULT = ROOT / "docs" / "results" / "fleet.json"
FLEETS = (10, 100, 1000)
NUM_TASKS = 50
ASSIGNMENT_S = 20.0
"""How long an assignment takes; of `clone` and `demo` they take 5 to 60 s."""
RUN_S = 45.0
SETTLE_S = 20.0
"""Time at the beginning that does not count: all workers start at once."""
GB = 1e9 / 8
"""Bytes a second of a link of one gigabit."""
LINK_SHARE = 0.94
"""Of a link's rate, what TCP leaves for data."""


class Fleet:
    """Workers that report after a while without having played."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._ended_s: dict[str, float] = {}
        self._waited_s: list[float] = []

    async def perform(
        self, name: str, assignment: Assignment
    ) -> tuple[WorkerReport, Evaluation | None]:
        now_s = time.monotonic()
        if name in self._ended_s:
            self._waited_s.append(now_s - self._ended_s[name])
        wall_s = ASSIGNMENT_S * (0.5 + (hash((name, assignment.seeds)) % 1000) / 1000)
        await asyncio.sleep(wall_s)
        report = WorkerReport(
            worker=name,
            role=assignment.role,
            task=assignment.task,
            version=self._version,
            episodes=len(assignment.seeds),
            env_steps=1000,
            wall_s=wall_s,
            returns=Mean(1.0, len(assignment.seeds)),
        )
        evaluation = None
        if assignment.role == "evaluate":
            evaluation = Evaluation(
                task=assignment.task,
                version=self._version,
                learner_step=100,
                returns=tuple(float(seed % 7) for seed in assignment.seeds),
                env_steps=1000,
                wall_s=wall_s,
            )
        self._ended_s[name] = time.monotonic()
        return report, evaluation

    async def progress(self, name: str) -> WorkerProgress:
        return WorkerProgress(assignment=None, episodes=0, steps=0, last_step_age_s=0.0)

    async def take_waits(self) -> list[float]:
        """Seconds from the end of an assignment to the next, since the last call."""
        waits, self._waited_s = self._waited_s, []
        return waits


class _Call:
    def __init__(self, method: Any, name: str) -> None:
        self._method, self._name = method, name

    def remote(self, *arguments: Any) -> Any:
        return self._method.remote(self._name, *arguments)


class SimulatedWorker:
    """The handle of one worker of a fleet."""

    def __init__(self, fleet: Any, name: str) -> None:
        self.perform = _Call(fleet.perform, name)
        self.progress = _Call(fleet.progress, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """What a fleet of one size asked of the supervisor."""

    workers: int
    assignments_per_s: float
    records_per_s: float
    """Of the journal."""
    tick_ms: float
    """Median time of one round over all workers."""
    tick_p99_ms: float
    supervisor_share: float
    """Of one core, for pool, scheduler, journal and the calls to Ray."""
    wait_ms: float
    """Median time of a worker between two assignments."""
    wait_p99_ms: float
    behind_s: float
    """How long Redis needed, when all ended, to have the last record."""
    watch_s: float
    """To read the whole journal, as `gato watch` does at its start."""
    journal_mb_per_h: float


def measure_fleet(num_workers: int, folder: Path) -> FleetRow:
    """Let a fleet of so many workers go on for a while."""
    config = ActorsConfig(num_envs=4, demonstration_steps=0, generate_share=1.0, clip_every_s=0.0)
    tasks = [f"mujoco/task-{i}" for i in range(NUM_TASKS)]
    scheduler = Scheduler(config, tasks, demonstration_steps={}, teachable=[], seed=0)
    version = Version(1, 1)
    fleet: Any = ray.remote(Fleet).options(num_cpus=0, max_concurrency=4 * num_workers)
    fleet = fleet.remote(version)
    ray.get(fleet.take_waits.remote())

    def new_worker(name: str) -> WorkerHandle:
        return cast(WorkerHandle, SimulatedWorker(fleet, name))

    with (
        RedisServer.start(folder / "redis") as redis,
        JournalWriter(folder / "journal", f"fleet{num_workers}", server=redis) as journal,
    ):
        pool = WorkerPool(new_worker, scheduler, journal, hung_after_s=150.0)
        scheduler.published(version)
        pool.scale(num_workers)
        ticks_s: list[float] = []
        begun_s = time.monotonic()
        counted_s, counted_records, cpu_s = 0.0, 0, 0.0
        while (now_s := time.monotonic()) < begun_s + SETTLE_S + RUN_S:
            if not counted_s and now_s > begun_s + SETTLE_S:
                counted_s, counted_records, cpu_s = now_s, journal.last_number, time.process_time()
                ray.get(fleet.take_waits.remote())
                version = Version(version.epoch, version.number + 1)
            pool.collect()
            pool.hand_out()
            if counted_s:
                ticks_s.append(time.monotonic() - now_s)
            time.sleep(TICK_S)
        took_s = time.monotonic() - counted_s
        share = (time.process_time() - cpu_s) / took_s
        records = journal.last_number - counted_records
        waits_s = ray.get(fleet.take_waits.remote())
        ended_s = time.monotonic()
    behind_s = time.monotonic() - ended_s
    size = sum(file.stat().st_size for file in (folder / "journal").glob("*.log"))
    begun_s = time.monotonic()
    read_summary(JournalFile(folder / "journal"), "fleet", {})
    watch_s = time.monotonic() - begun_s
    total = max(1, counted_records + records)
    ray.kill(fleet)
    return FleetRow(
        workers=num_workers,
        assignments_per_s=round(len(waits_s) / took_s, 1),
        records_per_s=round(records / took_s, 1),
        tick_ms=milliseconds(ticks_s, 50),
        tick_p99_ms=milliseconds(ticks_s, 99),
        supervisor_share=round(share, 3),
        wait_ms=milliseconds(waits_s, 50),
        wait_p99_ms=milliseconds(waits_s, 99),
        behind_s=round(behind_s, 2),
        watch_s=round(watch_s, 2),
        journal_mb_per_h=round(size / total * records / took_s * 3600 / 1e6, 1),
    )


def arithmetic() -> list[dict[str, float | str]]:
    """Seconds until all nodes have a new version, for the paper's sizes and links of 1 and 10 GbE.

    The home sends a copy to each node; Ray lets nodes that have one pass it on, which is not
    counted: these are upper bounds.
    """
    rows: list[dict[str, float | str]] = []
    for name, parameters in (("79m", 79e6), ("364m", 364e6), ("1.18b", 1.18e9)):
        size = 2 * parameters  # bfloat16
        row: dict[str, float | str] = {"model": name, "megabytes": round(size / 1e6)}
        for gigabits in (1, 10):
            for nodes in (1, 10, 100):
                seconds = nodes * size / (gigabits * GB * LINK_SHARE)
                row[f"{gigabits} GbE, {nodes} nodes"] = round(seconds, 1)
        rows.append(row)
    return rows


def main() -> None:
    """Measure everything, and write the tables."""
    with tempfile.TemporaryDirectory() as folder:
        connect_ray(None, namespace="fleet", num_cpus=2)
        fleets = []
        for workers in FLEETS:
            row = measure_fleet(workers, Path(folder) / str(workers))
            fleets.append({name: getattr(row, name) for name in FleetRow.__slots__})
            print(json.dumps(fleets[-1]), flush=True)
        stores = []
        for clients in (1, 10, 100):
            held = measure_store(clients, Path(folder))
            stores.append({name: getattr(held, name) for name in StoreRow.__slots__})
            print(json.dumps(stores[-1]), flush=True)
        ray.shutdown()
    found = {"fleets": fleets, "weights_store": stores, "arithmetic": arithmetic()}
    RESULT.write_text(json.dumps(about() | found, indent=1) + "\n")
    text = PAGE.read_text()
    for name, rows in found.items():
        begin, end = f"<!-- {name} -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{table(rows)}\n{end}{after}"
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
