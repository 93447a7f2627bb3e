"""Speed of playing: what a worker adds to environment and model, what a batch and more workers
bring: `python -m benchmarks.actors`.

The demo's model with random weights, in episodes of at most 200 steps, on one thread. Times of one
process are processor times and taken by turns, so that a busy machine changes them little; those of
several workers are wall times.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from actors.assignment import Assignment
from actors.envs.factory import MAKERS
from actors.players.player import TimeStep
from actors.worker import WeightedPlayer
from benchmarks.actors.players import (
    NAMES,
    TURNS,
    players_of,
    random_weights,
    task_named,
    worker_of,
)
from benchmarks.actors.ray import on_ray, shared
from benchmarks.machine import ROOT, about
from benchmarks.rows import Row, add_rows
from gato.threads import use_threads
from gato.weights import Weights


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
