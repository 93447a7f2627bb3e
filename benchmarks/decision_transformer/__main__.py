"""The run decision-transformer beside a plain Decision Transformer: the same D4RL files, updates
and evaluation.

    python -m benchmarks.decision_transformer --data /data/d4rl    # 3 seeds: days
    python -m benchmarks.decision_transformer --data /data/d4rl --short    # minutes
    python -m benchmarks.decision_transformer draw [--short]

The folder holds hopper_medium-v5.hdf5 and the like. What is measured is kept in
docs/results/decision-transformer.json (of the short form in the folder of runs) after each
training, trainings themselves under GATO_RUNS: a command that was ended goes on where it was.
Returns are of the last update, never the best.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from actors.tasks.catalog import TASKS
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
from replay.formats.detect import read_source

TARGETS = {"mujoco/halfcheetah": 6000.0, "mujoco/hopper": 3600.0, "mujoco/walker2d": 5000.0}
"""Returns that are aimed for, of the paper's experiments."""
MIXED = ("random", "medium", "expert")
CURVE = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25)
"""Wished returns on the data of mixed quality: 0 is random play, 1 D4RL's expert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done."""

    name: str
    """Of its files."""
    robots: tuple[str, ...]
    seeds: tuple[int, ...]
    updates: int
    episodes: int
    warmup_updates: int
    """Of the plain model."""
    settings: tuple[str, ...] = ()
    """Of the run, beside `num_updates`."""


LONG = Size(
    name="decision-transformer",
    robots=("halfcheetah", "hopper", "walker2d"),
    seeds=(0, 1, 2),
    updates=20_000,
    episodes=20,
    warmup_updates=10_000,
)
SHORT = Size(
    name="decision-transformer-short",
    robots=("hopper",),
    seeds=(0,),
    updates=150,
    episodes=4,
    warmup_updates=50,
    settings=("replay.mix.rows=16",),
)


def files_of(folder: Path, robot: str, levels: Sequence[str]) -> list[Path]:
    """The D4RL files of a robot. Raises ValueError if one is not there."""
    files = [folder / f"{robot}_{level}-v5.hdf5" for level in levels]
    for file in files:
        if not file.is_file():
            raise ValueError(f"there is no {file}; name the folder of D4RL files with --data")
    return files


def episodes_of(files: Iterable[Path], task: Task) -> list[Episode]:
    """All episodes of some files, of one task."""
    return [episode for file in files for episode in read_source(str(file), TASKS, task)]


def config_of(size: Size, task: Task, seed: int) -> RunConfig:
    """The run decision-transformer on a task."""
    settings = (f"learner.num_updates={size.updates}", f"seed={seed}", *size.settings)
    return make_config(
        "decision-transformer", name=None, tasks=[task.name], data=[], settings=settings
    )


class Measured:
    """Both models of one data set and seed, trained when they are first asked for."""

    def __init__(
        self, size: Size, folder: Path, task: Task, files: Sequence[Path], seed: int
    ) -> None:
        self._size, self._task, self._seed = size, task, seed
        self._folder = folder / f"{files[0].stem}-{len(files)}-{seed}"
        self._files = files

    def ours(self, targets: Sequence[float]) -> dict[float, list[float]]:
        """Returns at target returns, in the environment's own units."""
        references = self._task.references
        assert references is not None
        config = config_of(self._size, self._task, self._seed)
        with Training(
            config, self._folder, episodes=partial(episodes_of, self._files, self._task)
        ) as training:
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
        data = Trajectories(episodes_of(self._files, self._task))
        config = DTConfig(
            num_observations=self._task.observations["state"].size,
            num_actions=self._task.action.size,
            max_steps=self._task.max_steps,
            warmup_updates=self._size.warmup_updates,
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


def measure(size: Size, data: Path, folder: Path, kept: Kept) -> None:
    """Measure what is not kept yet."""
    for seed in size.seeds:
        for robot in size.robots:
            task = TASKS[f"mujoco/{robot}"]
            assert task.references is not None
            span = task.references.expert - task.references.random
            curve = [round(task.references.random + wish * span, 1) for wish in CURVE]
            for levels, targets in ((("medium",), [TARGETS[task.name]]), (MIXED, curve)):
                files = files_of(data, robot, levels)
                both = Measured(size, folder, task, files, seed)
                of_data = [episode.episode_return for episode in episodes_of(files, task)]
                for model, play in (("gato", both.ours), ("plain", both.plain)):
                    label = {
                        "task": task.name,
                        "data": "+".join(levels),
                        "model": model,
                        "seed": seed,
                        "updates": size.updates,
                    }
                    kept.get_or(label, partial(_entry, task, of_data, play, targets))


def _entry(task: Task, of_data: Sequence[float], play: Any, targets: Sequence[float]) -> Any:
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
    parser.add_argument("--data", type=Path, default=Path("d4rl"))
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--updates", type=int, default=None, help="of both models")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    size = SHORT if arguments.short else LONG
    size = replace(size, updates=arguments.updates or size.updates)
    folder = Path(os.environ.get("GATO_RUNS", "runs")).absolute() / size.name
    results = folder if arguments.short else RESULTS
    kept = Kept(results / f"{size.name}.json")
    if arguments.word == "run":
        measure(size, arguments.data, folder, kept)
    write_page(kept.entries, results, size.name)


if __name__ == "__main__":
    main()
