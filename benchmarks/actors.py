"""Speed of playing: what a worker adds to environment and model, what a batch and more workers bring: `python -m benchmarks.actors`.

The demo's model with random weights, in episodes of at most 200 steps, on one thread. Times of one process are processor
times and taken by turns, so that a busy machine changes them little; those of several workers are wall times.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import ray
import torch

from actors.agent import GatoPlayers
from actors.envs import MAKERS
from actors.remote import RemoteWorker
from actors.tasks import TASKS
from actors.worker import Assignment, Receipt, WeightedPlayer, Worker
from benchmarks.machine import ROOT, about
from benchmarks.run import add_rows
from gato.acting import ActingConfig
from gato.episode import Episode
from gato.model import PRESETS, Gato
from gato.task import Task
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


def random_weights(preset: str = "small") -> Weights:
    torch.manual_seed(0)
    arrays = snapshot(Gato(acting_config(PRESETS[preset])))
    return Weights(version=Version(0, 1), learner_step=0, arrays=arrays)


@dataclass(frozen=True)
class Fixed:
    """One version, for ever."""

    weights: Weights

    def newer_than(self, version: Version | None) -> Weights | None:
        return self.weights if version is None else None


class NoSink:
    def add(self, episode: Episode) -> Receipt:
        raise AssertionError("evaluations are handed in to nobody")


@dataclass
class Recording:
    """A player, and what it was asked."""

    player: WeightedPlayer
    calls: list[Callable[[WeightedPlayer], object]]
    actions: list[np.ndarray]

    def load(self, weights: Weights) -> None:
        self.player.load(weights)

    def reset_rows(self, rows: np.ndarray, seeds: np.ndarray) -> None:
        rows, seeds = rows.copy(), seeds.copy()
        self.calls.append(lambda player: player.reset_rows(rows, seeds))
        self.player.reset_rows(rows, seeds)

    def act(
        self, observations: Mapping[str, np.ndarray], extras: Mapping[str, np.ndarray], rewards: np.ndarray
    ) -> np.ndarray:
        kept = {name: values.copy() for name, values in observations.items()}
        rewards = rewards.copy()
        self.calls.append(lambda player: player.act(kept, {}, rewards))
        self.actions.append(self.player.act(observations, extras, rewards))
        return self.actions[-1]


def worker_of(task: Task, players: Callable[[Task, int, str], WeightedPlayer], weights: Weights) -> Worker:
    return Worker("w", {task.name: task}, players, NoSink(), Fixed(weights))


def processor_s(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def by_turns_s(*works: Callable[[], object]) -> list[float]:
    """The median of each, after one turn that is not counted."""
    times = [[processor_s(work) for work in works] for _ in range(TURNS + 1)]
    return [statistics.median(column) for column in zip(*times[1:], strict=True)]


def overhead(name: str, num_envs: int) -> Row:
    """A worker's evaluation, against the same decisions and the same steps without it."""
    task, weights = task_named(name), random_weights()
    assignment = Assignment(role="evaluate", task=name, seeds=tuple(range(num_envs)))
    recording = Recording(players_of()(task, num_envs, "evaluate"), [], [])
    noted, _ = worker_of(task, lambda *_: recording, weights).perform(assignment)
    player = players_of()(task, num_envs, "evaluate")
    player.load(weights)
    envs = [MAKERS[task.family](task) for _ in range(num_envs)]

    def model_alone() -> None:
        for call in recording.calls:
            call(player)

    def environments_alone() -> None:
        for row, env in enumerate(envs):
            env.reset(row)
            for actions in recording.actions:
                _, _, terminated, truncated = env.step(actions[row])
                if terminated or truncated:
                    break

    worker = worker_of(task, players_of(), weights)
    worker_s, model_s, env_s = by_turns_s(lambda: worker.perform(assignment), model_alone, environments_alone)
    return {
        "path": f"worker, {name}, {num_envs} environments",
        "against": "environment and model alone",
        "ours_s": worker_s / noted.env_steps,
        "theirs_s": (model_s + env_s) / noted.env_steps,
        "model_share": round(model_s / worker_s, 3),
        "env_share": round(env_s / worker_s, 3),
        "steps_per_s": noted.env_steps / worker_s,
    }


def batched(name: str, num_envs: int) -> Row:
    """A worker with N environments, against one that plays the same seeds one after another."""
    task = task_named(name)
    worker = worker_of(task, players_of(), random_weights())
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


def on_ray(name: str, counts: tuple[int, ...] = (1, 2, 4), *, num_envs: int = 16, rounds: int = 4) -> Iterator[Row]:
    """Steps a second of W workers, against one worker's."""
    task, players, source = task_named(name), players_of(), Fixed(random_weights())
    ray.init(address="local", num_cpus=max(counts), include_dashboard=False, log_to_driver=False)
    try:
        workers = [
            RemoteWorker.options(num_cpus=1, max_concurrency=2).remote(
                f"w{i}", {name: task}, players, NoSink(), source, 0
            )
            for i in range(max(counts))
        ]
        assignment = Assignment(role="evaluate", task=name, seeds=tuple(range(num_envs)))
        ray.get([worker.perform.remote(assignment) for worker in workers])
        rates: dict[int, list[float]] = {count: [] for count in counts}
        for _, count in itertools.product(range(TURNS), counts):
            begun = time.perf_counter()
            done = ray.get([worker.perform.remote(assignment) for worker in workers[:count] for _ in range(rounds)])
            rates[count].append(sum(report.env_steps for report, _ in done) / (time.perf_counter() - begun))
        for count in counts:
            yield {
                "path": f"{count} workers on Ray, {name}, {num_envs} environments each",
                "against": "one of them",
                "ours_s": 1 / statistics.median(rates[count]),
                "theirs_s": 1 / statistics.median(rates[1]),
                "steps_per_s": statistics.median(rates[count]),
            }
    finally:
        ray.shutdown()


def measures() -> Iterator[Row]:
    """All rows, one after another."""
    for name, num_envs in itertools.product(NAMES, (4, 16)):
        yield overhead(name, num_envs)
    for name in NAMES:
        yield batched(name, 16)
    yield from on_ray("mujoco/hopper")


def main() -> None:
    """Measure, add the rows, write the table."""
    torch.set_num_threads(1)
    add_rows(measures(), about(), ROOT / "benchmarks" / "rows.jsonl")


if __name__ == "__main__":
    main()
