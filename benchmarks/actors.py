"""Speed of playing: what a worker adds to environment and model, what a batch and more workers
bring: `python -m benchmarks.actors`.

The demo's model with random weights, in episodes of at most 200 steps, on one thread. Times of one
process are processor times and taken by turns, so that a busy machine changes them little; those of
several workers are wall times.
"""

from __future__ import annotations

import itertools
import logging
import statistics
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import ray
import torch
from ray.actor import ActorProxy

from actors.assignment import Assignment
from actors.delivery import Receipt
from actors.envs.factory import MAKERS, WorkerEnvs
from actors.players.gato_player import GatoPlayers
from actors.players.player import TimeStep
from actors.remote import INFERENCE, RemoteWorker, WorkerActor
from actors.tasks.catalog import TASKS
from actors.teachers.resolve import Teachers
from actors.worker import WeightedPlayer, Worker
from benchmarks.machine import ROOT, about
from benchmarks.run import add_rows
from gato.config import PRESETS, ActingConfig
from gato.episode import Episode
from gato.network.model import Gato
from gato.task import Task
from gato.threads import use_threads
from gato.version import Version
from gato.weights import Weights, acting_config, snapshot

MAX_STEPS = 200
TURNS = 7
NAMES = ("mujoco/hopper", "atari/pong", "atari/freeway")
Row = dict[str, float | str]


def task_named(name: str) -> Task:
    task = TASKS[name]
    return replace(task, max_steps=min(task.max_steps, MAX_STEPS), env_kwargs=dict(task.env_kwargs))


def players_of(preset: str = "small") -> GatoPlayers:
    acting = {name: ActingConfig(window_steps=1) for name in NAMES}
    return GatoPlayers(model=PRESETS[preset], evaluate=acting, generate=acting, seed=0)


def random_weights(preset: str) -> Weights:
    torch.manual_seed(0)
    arrays = snapshot(Gato(acting_config(PRESETS[preset])))
    return Weights(version=Version(0, 1), learner_step=0, arrays=arrays)


@dataclass(frozen=True)
class RandomSource:
    """One version, for ever, made where it is asked for."""

    preset: str

    def newer_than(self, version: Version | None) -> Weights | None:
        return random_weights(self.preset) if version is None else None


class NoSink:
    def add(self, episode: Episode) -> Receipt:
        raise AssertionError("evaluations are handed in to nobody")


@dataclass
class Recording:
    """A player, and what it was asked."""

    player: WeightedPlayer
    calls: list[tuple[Callable[[WeightedPlayer], object], np.ndarray]]
    """Each with the actions that it answered."""

    def load(self, weights: Weights) -> None:
        self.player.load(weights)

    def act(self, step: TimeStep) -> np.ndarray:
        actions = self.player.act(step)
        self.calls.append((lambda player: player.act(step), actions))
        return actions


def worker_of(task: Task, players: Callable[[Task, int, str], WeightedPlayer]) -> Worker:
    return Worker("w", {task.name: task}, players, NoSink(), RandomSource("small"))


def processor_s(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def by_turns_s(*works: Callable[[], object]) -> list[float]:
    """The median of each, after one turn that is not counted."""
    times = [[processor_s(work) for work in works] for _ in range(TURNS + 1)]
    return [statistics.median(column) for column in zip(*times[1:], strict=True)]


def overhead(name: str, num_envs: int) -> Row:
    """A worker's evaluation, against the same decisions and the same steps in the same order, and
    nothing else.

    Apart from each other, model and environments take less: each then has the processor's caches to
    itself.
    """
    task = task_named(name)
    assignment = Assignment(role="evaluate", task=name, seeds=tuple(range(num_envs)))
    recording = Recording(players_of()(task, num_envs, "evaluate"), [])
    noted, _ = worker_of(task, lambda *_: recording).perform(assignment)
    player = players_of()(task, num_envs, "evaluate")
    player.load(random_weights("small"))
    envs = [MAKERS[task.family](task) for _ in range(num_envs)]

    def bare(*, act: bool = True, step: bool = True) -> None:
        playing = [True] * num_envs
        for row, env in enumerate(envs):
            env.reset(row)
        for call, actions in recording.calls:
            if act:
                call(player)
            if not step:
                continue
            for row, env in enumerate(envs):
                if playing[row]:
                    _, _, terminated, truncated = env.step(actions[row])
                    playing[row] = not (terminated or truncated)

    worker = worker_of(task, players_of())
    worker_s, bare_s, model_s, env_s = by_turns_s(
        lambda: worker.perform(assignment), bare, lambda: bare(step=False), lambda: bare(act=False)
    )
    return {
        "path": f"worker, {name}, {num_envs} environments",
        "against": "environment and model in turn, and nothing else",
        "ours_s": worker_s / noted.env_steps,
        "theirs_s": bare_s / noted.env_steps,
        "model_alone_share": round(model_s / worker_s, 3),
        "env_alone_share": round(env_s / worker_s, 3),
        "steps_per_s": noted.env_steps / worker_s,
    }


def batched(name: str, num_envs: int) -> Row:
    """A worker with N environments, against one that plays the same seeds one after another."""
    task = task_named(name)
    worker = worker_of(task, players_of())
    seeds = tuple(range(num_envs))
    steps = worker.perform(Assignment(role="evaluate", task=name, seeds=seeds))[0].env_steps

    def one_by_one() -> None:
        for seed in seeds:
            worker.perform(Assignment(role="evaluate", task=name, seeds=(seed,)))

    together_s, alone_s = by_turns_s(
        lambda: worker.perform(Assignment(role="evaluate", task=name, seeds=seeds)), one_by_one
    )
    return {
        "path": f"{num_envs} environments together, {name}",
        "against": "one after another",
        "ours_s": together_s / steps,
        "theirs_s": alone_s / steps,
        "steps_per_s": steps / together_s,
    }


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
        address="local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, namespace="benchmark",
        logging_level=logging.ERROR,
    )  # fmt: skip
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
    # One at a time for each worker, as the pool gives them.
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


def measures() -> Iterator[Row]:
    """All rows, one after another."""
    for name, num_envs in itertools.product(NAMES, (4, 16)):
        yield overhead(name, num_envs)
    for name in NAMES:
        yield batched(name, 16)
    yield from on_ray("mujoco/hopper")
    for preset in ("small", "79m"):
        yield shared("mujoco/hopper", preset)


def main() -> None:
    """Measure, add the rows, write the table."""
    use_threads(1)
    add_rows(measures(), about(), ROOT / "benchmarks" / "rows.jsonl")


if __name__ == "__main__":
    main()
