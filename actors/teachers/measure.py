"""Measures the teacher of a task: `python -m actors.teachers.measure TASK`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.envs.env import EnvFailedError
from actors.envs.provenance import versions_of
from actors.tasks.resolve import resolve_task
from actors.teachers.demonstrate import demonstrate
from actors.teachers.resolve import SPECS, teacher_for
from gato.episode import Episode
from gato.task import Task

MEASURE_SEED = 20_000
"""Teachers are measured on the seeds 20,000, 20,001, ..."""


def measure(
    task: Task, *, episodes: int, seed: int = MEASURE_SEED, spec: str = "", noise: float = 0.3
) -> dict[str, Any]:
    """Measure a task's teacher over fresh episodes, played as it demonstrates.

    Returns:
        Its record: command, seeds, statistics of the returns, and versions.

    Raises:
        ValueError: if there is no such teacher.
        EnvFailedError: if an environment breaks.
    """
    played = list(demonstrate(task, episodes=episodes, seed=seed, teacher_spec=spec, noise=noise))
    returns = np.array([episode.episode_return for episode in played])
    options = (f" --teacher {spec}" if spec else "") + (
        f" --noise {noise:g}" if noise != 0.3 else ""
    )
    return {
        "task": task.name,
        "command": (
            f"python -m actors.teachers.measure {task.name} --episodes {episodes} --seed"
            f" {seed}{options}"
        ),
        "measured_seeds": [seed, seed + episodes],
        "return_mean": round(float(returns.mean()), 2),
        "return_std": round(float(returns.std()), 2),
        "return_min": float(returns.min()),
        **_success(played),
        "steps_mean": round(float(np.mean([episode.num_steps for episode in played])), 1),
        "versions": versions_of(task),
    }


def _success(played: Sequence[Episode]) -> dict[str, float]:
    """The share of episodes that solved the task, if its environment says so."""
    solved = [episode.success for episode in played if episode.success is not None]
    return {"success": round(sum(solved) / len(solved), 2)} if solved else {}


def main() -> None:
    """Measure a teacher from the command line."""
    parser = argparse.ArgumentParser(description="Measure the teacher of a task.")
    parser.add_argument("task")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=MEASURE_SEED)
    parser.add_argument(
        "--teacher", default="", help=f"Default: the teacher that ships; or one of {SPECS}."
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=0.3,
        help="Noise of continuous actions in half of the episodes, in the teacher's standard"
        " deviations.",
    )
    arguments = parser.parse_args()
    if arguments.episodes < 1 or arguments.seed < 0:
        parser.error("--episodes must be at least 1 and --seed at least 0")
    try:
        task = resolve_task(arguments.task)
        for note in teacher_for(task, arguments.teacher).notes:
            print(f"note: {note.removeprefix('noted: ')}", file=sys.stderr)
        record = measure(
            task,
            episodes=arguments.episodes,
            seed=arguments.seed,
            spec=arguments.teacher,
            noise=arguments.noise,
        )
    except (ValueError, EnvFailedError) as problem:
        parser.error(str(problem))
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
