"""The run decision-transformer beside a plain Decision Transformer: the same episodes, updates and
evaluation.

    python -m benchmarks.decision_transformer --data /data/d4rl    # 3 seeds: days
    python -m benchmarks.decision_transformer --size short    # minutes: that the command works
    python -m benchmarks.decision_transformer draw

The folder holds hopper_medium-v5.hdf5 and the like. What is measured is kept in
docs/results/decision-transformer.json (of other sizes in the folder of runs) after each
training, trainings themselves under GATO_RUNS: a command that was ended goes on where it was.
Returns are of the last update, never the best.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from actors.tasks.catalog import TASKS
from benchmarks.decision_transformer.data import LEVELS, episodes_of
from benchmarks.decision_transformer.page import write_page
from benchmarks.decision_transformer.plain import DTConfig, DTPlayer, Trajectories, train
from benchmarks.in_process import MOST_ENVS, Kept, Training, gato_returns, returns_of, summary
from benchmarks.learning import RESULTS
from benchmarks.machine import about
from cluster.control.build_run import make_config
from cluster.runs.config import RunConfig
from gato.episode import Episode
from gato.task import Task
from gato.threads import use_threads

TARGETS = {"mujoco/halfcheetah": 6000.0, "mujoco/hopper": 3600.0, "mujoco/walker2d": 5000.0}
"""Returns that are aimed for, of the paper's experiments."""
CURVE = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25)
"""Target returns on the data of mixed quality: 0 is random play, 1 D4RL's expert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done."""

    name: str
    """Of its files."""
    robots: tuple[str, ...] = ("hopper",)
    seeds: tuple[int, ...] = (0,)
    data: tuple[tuple[str, ...], ...] = (("medium",), LEVELS)
    """Qualities, of each data set."""
    updates: int
    windows: int = 64
    """Of `CONTEXT_STEPS` steps, in an update; the paper's number."""
    episodes: int


SIZES = {
    "long": Size(
        name="decision-transformer",
        robots=("hopper", "halfcheetah", "walker2d"),
        seeds=(0, 1, 2),
        updates=20_000,
        episodes=20,
    ),
    "short": Size(name="decision-transformer-short", updates=150, windows=16, episodes=4),
}


def config_of(size: Size, task: Task, seed: int) -> RunConfig:
    """The run decision-transformer on a task."""
    settings = (
        f"learner.num_updates={size.updates}", f"replay.mix.rows={size.windows}", f"seed={seed}"
    )  # fmt: skip
    return make_config(
        "decision-transformer", name=None, tasks=[task.name], data=[], settings=settings
    )


class Measured:
    """Both models of one data set and seed, trained when they are first asked for."""

    def __init__(
        self,
        size: Size,
        folder: Path,
        task: Task,
        find_episodes: Callable[[], Sequence[Episode]],
        seed: int,
    ) -> None:
        self._size, self._task, self._seed = size, task, seed
        self._folder, self._find_episodes = folder, find_episodes

    @cached_property
    def episodes(self) -> Sequence[Episode]:
        """Of the data set."""
        return self._find_episodes()

    def ours(self, targets: Sequence[float]) -> dict[float, list[float]]:
        """Returns at target returns, in the environment's own units."""
        references = self._task.references
        assert references is not None
        config = config_of(self._size, self._task, self._seed)
        with Training(config, self._folder, episodes=lambda: self.episodes) as training:
            model = training.run()
        acting = replace(config.actors.evaluate, window_steps=None)
        return {
            target: gato_returns(
                model,
                self._task,
                replace(acting, target_return=self._task.normalise(target)),
                self._size.episodes,
            )
            for target in targets
        }

    def plain(self, targets: Sequence[float]) -> dict[float, list[float]]:
        """The same of the plain model."""
        data = Trajectories(self.episodes)
        config = DTConfig(
            num_observations=self._task.observations["state"].size,
            num_actions=self._task.action.size,
            max_steps=self._task.max_steps,
            windows=self._size.windows,
            # The paper's share: 10,000 of 100,000.
            warmup_updates=max(1, self._size.updates // 10),
        )
        model = train(
            config,
            data,
            updates=self._size.updates,
            seed=self._seed,
            file=self._folder / "plain.pt",
        )
        num_envs = min(MOST_ENVS, self._size.episodes)
        return {
            target: returns_of(
                DTPlayer(model, data, num_envs=num_envs, target_return=target),
                self._task,
                self._size.episodes,
            )
            for target in targets
        }


def measure(size: Size, data: Path | None, folder: Path, kept: Kept) -> None:
    """Measure what is not kept yet. `data`: the folder of D4RL files; None: data are made."""
    for seed in size.seeds:
        for robot in size.robots:
            task = TASKS[f"mujoco/{robot}"]
            assert task.references is not None
            span = task.references.expert - task.references.random
            curve = [round(task.references.random + share * span, 1) for share in CURVE]
            for levels in size.data:
                targets = curve if levels == LEVELS else [TARGETS[task.name]]
                source = "made here" if data is None else "D4RL"
                path = folder / f"{robot}-{'-'.join(levels)}-{source.split()[0]}-{seed}"
                path = path.with_name(f"{path.name}-{size.updates}-{size.windows}")
                both = Measured(size, path, task, partial(episodes_of, data, task, levels), seed)
                for model, play in (("gato", both.ours), ("plain", both.plain)):
                    label = {
                        "task": task.name,
                        "data": "+".join(levels),
                        "source": source,
                        "model": model,
                        "seed": seed,
                        "updates": size.updates,
                        "windows": size.windows,
                    }
                    kept.get_or(label, partial(_entry, task, both, play, targets))


def _entry(task: Task, both: Measured, play: Any, targets: Sequence[float]) -> Any:
    of_data = [episode.episode_return for episode in both.episodes]
    played: dict[float, list[float]] = play(targets)
    points = [
        {
            "target": target,
            "normalised": round(100 * task.normalise(float(np.mean(returns))), 2),
            **summary(returns),
        }
        for target, returns in played.items()
    ]
    return {
        "mean": points[0]["mean"],
        "points": points,
        "data_mean": round(float(np.mean(of_data)), 2),
        "data_normalised": round(100 * task.normalise(float(np.mean(of_data))), 2),
        "machine": about(),
    }


def main() -> None:
    """Measure what is missing, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("word", nargs="?", default="run", choices=["run", "draw"])
    parser.add_argument("--data", type=Path, help="folder of D4RL files; without: data are made")
    parser.add_argument("--size", default="long", choices=list(SIZES))
    parser.add_argument("--updates", type=int, default=None, help="of both models")
    parser.add_argument("--windows", type=int, default=None, help="of an update, of both models")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--robots", nargs="+", help="such as hopper")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    size = SIZES[arguments.size]
    if arguments.size == "long" and arguments.data is None and arguments.word == "run":
        parser.error("name the folder of D4RL files with --data, or take --size short")
    folder = Path(os.environ.get("GATO_RUNS", "runs")).absolute() / size.name
    results = RESULTS if arguments.size == "long" else folder
    kept = Kept(results / f"{size.name}.json")
    if arguments.word == "run":
        size = replace(
            size,
            updates=arguments.updates or size.updates,
            windows=arguments.windows or size.windows,
            seeds=tuple(arguments.seeds or size.seeds),
            robots=tuple(arguments.robots or size.robots),
        )
        measure(size, arguments.data, folder, kept)
    write_page(kept.entries, results, size.name)


if __name__ == "__main__":
    main()
