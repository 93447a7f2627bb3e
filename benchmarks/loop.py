"""Whether the loop helps: the same model and number of updates on demonstrations alone, with its
own episodes, and with its episodes relabelled.

    python -m benchmarks.loop run    # every task, arm and seed that is missing: hours
    python -m benchmarks.loop run --tasks mujoco/hopper --arms relabel --seeds 0
    python -m benchmarks.loop draw   # docs/results/loop.png and loop.md

Learner, replay and worker are those of a run, here in one process and in turn: so many updates,
then so many episodes. The result does not depend on the speed of the machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.assignment import Assignment, Role
from actors.players.gato_player import GatoPlayers
from actors.tasks.catalog import TASKS
from actors.teachers.demonstrate import demonstrate
from actors.teachers.resolve import Teachers, teacher_return
from actors.worker import Worker
from benchmarks.loop_page import FOLDER, LAST_EPISODES, draw
from benchmarks.machine import about
from cluster.runs.config import RunConfig
from cluster.runs.overrides import with_tasks
from cluster.runs.presets import RUNS
from cluster.runs.resolve import acting_configs
from cluster.supervision.scheduler import EVALUATION_SEED
from gato.episode import Episode
from gato.task import Task
from gato.threads import use_threads
from gato.version import Version
from gato.weights import Weights
from learner.loop import Learner
from replay.ingest import Added
from replay.service import ReplayService
from replay.storage.record import pack, record_to_bytes

ROLES: tuple[Role | None, ...] = (None, "generate", "relabel", "relabel", None)
ARMS: Mapping[str, Role | None] = dict(
    zip(("demonstrations", "generate", "relabel", "early", "more"), ROLES, strict=True)
)
"""What the agent's own play is used for, between two publications. early: from the first version
on, whatever the plan says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one task is learned."""

    demonstrations: int
    """Episodes of the teacher."""
    num_updates: int
    publish_every: int
    rows: int
    play_episodes: int
    """After each publication but the last, where the agent's play is used."""
    play_from: int = 0
    """The update of the first publication after which it is."""
    evaluation_episodes: int


PLANS: Mapping[str, Plan] = {
    "mujoco/hopper": Plan(
        demonstrations=10,
        num_updates=1000,
        publish_every=50,
        rows=120,
        play_episodes=16,
        evaluation_episodes=4,
    ),
    # A novice only goes up, for whole games, and being told what to do there holds it there
    # (docs/log.md).
    "atari/freeway": Plan(
        demonstrations=1,
        num_updates=1500,
        publish_every=100,
        rows=60,
        play_episodes=2,
        play_from=400,
        evaluation_episodes=2,
    ),
}


class Store:
    """Replay as the worker's sink and the learner's source."""

    def __init__(self, service: ReplayService) -> None:
        self._service = service
        self.labels = 0
        """Steps for which a teacher said what to do."""

    def add(self, episode: Episode) -> Added:
        added = self._service.add(record_to_bytes(pack(episode)), timeout_s=60.0)
        assert added.status == "stored", added
        self.labels += (
            episode.num_steps if episode.labels is not None or episode.version is None else 0
        )
        return added

    def next_batch(self, index: int, timeout_s: float) -> Any:
        return self._service.next_batch(index, timeout_s=timeout_s)


class Playground:
    """Takes each version that the learner publishes: evaluates it and, but for the last, lets it
    play."""

    def __init__(self, task: Task, plan: Plan, role: Role | None, seed: int) -> None:
        self.worker: Worker | None = None
        self.curve: list[dict[str, float]] = []
        self.env_steps = 0
        self._task, self._plan = task, plan
        self._role: Role | None = role
        self._next_seed = 1_000_000 * (1 + seed) + 500_000
        self._weights: Weights | None = None

    def newer_than(self, version: Version | None) -> Weights | None:
        newest = self._weights
        return None if newest is None or newest.version == version else newest

    def evaluate(self, episodes: int) -> tuple[float, ...]:
        assert self.worker is not None
        seeds = tuple(EVALUATION_SEED + i for i in range(episodes))
        _, evaluation = self.worker.perform(
            Assignment(
                role="evaluate", task=self._task.name, seeds=seeds, num_envs=min(episodes, 4)
            )
        )
        assert evaluation is not None
        assert evaluation.failed is None, evaluation.failed
        return evaluation.returns

    def publish(self, weights: Weights) -> bool:
        self._weights = weights
        step, plan = weights.learner_step, self._plan
        returns = self.evaluate(plan.evaluation_episodes)
        self.curve.append({"step": step, "return": round(float(np.mean(returns)), 2)})
        if self._role is not None and plan.play_from <= step < plan.num_updates:
            assert self.worker is not None
            seeds = tuple(range(self._next_seed, self._next_seed + plan.play_episodes))
            self._next_seed += plan.play_episodes
            report, _ = self.worker.perform(
                Assignment(role=self._role, task=self._task.name, seeds=seeds)
            )
            assert report.failed is None, report.failed
            self.env_steps += report.env_steps
        return True


def settings_of(task: Task, plan: Plan, seed: int) -> RunConfig:
    """The demo's, on one task, in this plan's measure."""
    demo = with_tasks(RUNS["demo"], [task.name])
    learner = replace(
        demo.learner,
        num_updates=plan.num_updates,
        publish_every=plan.publish_every,
        checkpoint_every=10**9,
    )
    mix = replace(demo.replay.mix, rows=plan.rows)
    limiter = replace(demo.replay.limiter, warmup_tokens=1, reads_per_inserted_token=None)
    return replace(
        demo, seed=seed, learner=learner, replay=replace(demo.replay, mix=mix, limiter=limiter)
    )


def train(name: str, arm: str, seed: int, *, demonstrations: int | None = None) -> dict[str, Any]:
    """One training; what it did."""
    use_threads(1)
    begun_s = time.monotonic()
    task, plan = TASKS[name], PLANS[name]
    if arm == "early":
        plan = replace(plan, play_from=0)
    config = settings_of(task, plan, seed)
    top = teacher_return(task)
    assert top is not None
    tasks = {name: task}
    with tempfile.TemporaryDirectory() as folder:
        service = ReplayService(
            Path(folder) / "replay",
            tasks,
            config.model.layout,
            config.replay,
            seed=seed,
            teacher_returns={name: top},
        )
        store = Store(service)
        for episode in demonstrate(
            task,
            episodes=demonstrations or plan.demonstrations,
            seed=1_000_000 * (1 + seed),
            num_envs=4,
        ):
            store.add(episode)
        shown = store.labels
        ground = Playground(task, plan, ARMS[arm], seed)
        players = GatoPlayers(
            model=config.model,
            evaluate=acting_configs(config, "evaluate"),
            generate=acting_configs(config, "generate"),
            seed=seed,
        )
        ground.worker = Worker(
            "w0",
            tasks,
            players,
            store,
            ground,
            teachers=Teachers(noise=config.actors.demonstration_noise),
        )
        learner = Learner(
            config.learner, config.model, store, ground, Path(folder) / "checkpoints", epoch=1,
            task_names=[name], seed=seed, in_background=False
        )  # fmt: skip
        for _ in learner.run():
            pass
        last = ground.evaluate(LAST_EPISODES)
        service.close()
    assert task.references is not None
    random = task.references.random
    return {
        "task": name,
        "arm": arm,
        "seed": seed,
        "plan": asdict(plan) | ({"demonstrations": demonstrations} if demonstrations else {}),
        "random_return": random,
        "teacher_return": top,
        "return": round(float(np.mean(last)), 2),
        "return_std": round(float(np.std(last)), 2),
        "normalised": round((float(np.mean(last)) - random) / (top - random), 4),
        "returns": [round(value, 2) for value in last],
        "labels_of_demonstrations": shown,
        "labels": store.labels,
        "own_steps": ground.env_steps,
        "curve": ground.curve,
        "wall_s": round(time.monotonic() - begun_s, 1),
        "machine": about(),
    }


def run(names: list[str], arms: list[str], seeds: list[int]) -> None:
    """Train what is not kept yet."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for name in names:
            for arm in arms:
                path = FOLDER / f"{name.replace('/', '-')}-{arm}-seed{seed}.json"
                if path.exists() or (arm == "early" and not PLANS[name].play_from):
                    continue
                more = None
                # as many labels as the relabelled one had, from its teacher's own play
                if arm == "more":
                    before = FOLDER / path.name.replace("-more-", "-relabel-")
                    if not before.exists():
                        raise SystemExit(
                            f"{arm} needs the labels of relabel; train {name} relabel seed {seed}"
                            " first"
                        )
                    told = json.loads(before.read_text())
                    per_episode = told["labels_of_demonstrations"] / PLANS[name].demonstrations
                    more = round(told["labels"] / per_episode)
                made = train(name, arm, seed, demonstrations=more)
                path.write_text(json.dumps(made, indent=1) + "\n")
                print(
                    f"{name} {arm} seed {seed}: {made['return']} ± {made['return_std']},"
                    f" {made['wall_s']} s",
                    flush=True,
                )


def main() -> None:
    """Train what is missing, or draw what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("word", choices=["run", "draw"])
    parser.add_argument("--tasks", nargs="+", default=list(PLANS))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.word == "run":
        run(arguments.tasks, arguments.arms, arguments.seeds)
    draw(list(PLANS))


if __name__ == "__main__":
    main()
