"""What more workers bring: several on Ray, alone or with one inference process on their node."""

from __future__ import annotations

import itertools
import logging
import statistics
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.actor import ActorProxy

from actors.assignment import Assignment
from actors.envs.factory import WorkerEnvs
from actors.remote import INFERENCE, RemoteWorker, WorkerActor
from actors.teachers.resolve import Teachers
from benchmarks.actors.players import TURNS, NoSink, RandomSource, players_of, task_named
from benchmarks.rows import Row


def on_ray(name: str, counts: tuple[int, ...] = (1, 2, 4), *, num_envs: int = 16) -> Iterator[Row]:
    """Steps a second of W workers, against one worker's."""
    with ray_of(max(counts)):
        workers = remote_workers(name, max(counts), "small", shares_inference=False)
        assignment = Assignment(role="evaluate", task=name, seeds=tuple(range(num_envs)))
        for worker in workers:
            ray.get(worker.perform.remote(assignment))
        times = [
            [seconds_a_step(workers[:count], assignment) for count in counts] for _ in range(TURNS)
        ]
        steps_s = [statistics.median(column) for column in zip(*times, strict=True)]
        for count, step_s in zip(counts, steps_s, strict=True):
            yield {
                "path": f"{count} workers on Ray, {name}, {num_envs} environments each",
                "against": "one of them",
                "ours_s": step_s,
                "theirs_s": steps_s[0],
                "steps_per_s": 1 / step_s,
            }


def shared(name: str, preset: str, *, num_workers: int = 2, num_envs: int = 4) -> Row:
    """Workers whose node has one inference process, against workers that hold the weights
    themselves."""
    with ray_of(num_workers):
        assignment = Assignment(role="evaluate", task=name, seeds=tuple(range(num_envs)))
        both = [
            remote_workers(name, num_workers, preset, shares_inference=shares)
            for shares in (True, False)
        ]
        for worker in itertools.chain(*both):
            ray.get(worker.perform.remote(assignment))
        times = [
            [seconds_a_step(workers, assignment, rounds=1) for workers in both]
            for _ in range(TURNS)
        ]
        served_s, own_s = (statistics.median(column) for column in zip(*times, strict=True))
        served, own = (ray.get([worker.pid.remote() for worker in workers]) for workers in both)
        server = ray.get_actor(
            next(n for n in ray.util.list_named_actors() if n.startswith(INFERENCE))
        )
        served_mb, own_mb = private_mb([*served, *ray.get([server.pid.remote()])]), private_mb(own)
        return {
            "path": (
                f"{num_workers} workers, one inference process, {preset}, {name}, {num_envs}"
                " environments each"
            ),
            "against": "each with its own weights",
            "ours_s": served_s,
            "theirs_s": own_s,
            "ours_mb": served_mb,
            "theirs_mb": own_mb,
            "steps_per_s": 1 / served_s,
        }


@contextmanager
def ray_of(num_cpus: int) -> Generator[None]:
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        namespace="benchmark",
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


def remote_workers(
    name: str, count: int, preset: str, *, shares_inference: bool
) -> list[ActorProxy[WorkerActor]]:
    make, source = RemoteWorker.options(num_cpus=0, max_concurrency=2), RandomSource(preset)
    return [
        make.remote(
            f"w{i}",
            {name: task_named(name)},
            players_of(preset),
            NoSink(),
            source,
            Teachers(),
            WorkerEnvs(),
            0,
            shares_inference,
            "benchmark",
        )
        for i in range(count)
    ]


def seconds_a_step(
    workers: list[ActorProxy[WorkerActor]], assignment: Assignment, *, rounds: int = 4
) -> float:
    """Wall seconds for an environment's step when these workers play the assignment a few times
    each."""
    begun = time.perf_counter()
    # One at a time for each worker, as the worker pool assigns them.
    done = [
        ray.get([worker.perform.remote(assignment) for worker in workers]) for _ in range(rounds)
    ]
    return (time.perf_counter() - begun) / sum(
        report.env_steps for together in done for report, _ in together
    )


def private_mb(pids: list[int]) -> float:
    """Memory that is these processes' own, in megabytes."""
    lines = (
        line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    )
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6
