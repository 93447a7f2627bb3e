"""Teachers: who makes a task's demonstrations. Specialists play the robots, rules that read the RAM play the games."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from actors.ram_teachers import RECORDS, RULES
from actors.specialist_policy import SHIPPED, Specialist, load_specialist
from gato.task import Task, find_task

MEASURE_SEED = 20_000
"""Teachers are measured on the seeds 20,000, 20,001, ..."""


class SpecialistTeacher:
    """A specialist's play. Half of the episodes (odd seeds) are perturbed, so that a student sees how to come back.

    In those, noise of `noise` times the specialist's own standard deviation is added to each action.
    """

    needs_extras = False

    def __init__(self, task: Task, *, noise: float, specialist: Specialist, perturb_all: bool = False) -> None:
        self._specialist = specialist
        self._noise = noise
        self._perturb_all = perturb_all
        self._scale = np.zeros(0, np.float32)
        self._labels: Shaped[np.ndarray, "N ..."] | None = None
        self._rngs: list[np.random.Generator] = []
        self.name = f"specialist:{task.name}"
        self.record: Mapping[str, Any] = self._specialist.record

    def reset_rows(self, rows: Bool[np.ndarray, " N"], seeds: Shaped[np.ndarray, " N"]) -> None:
        if len(self._scale) != len(rows):
            self._scale = np.zeros(len(rows), np.float32)
            self._rngs = [np.random.default_rng(0) for _ in rows]
        for row in np.flatnonzero(rows):
            self._scale[row] = self._noise if self._perturb_all else self._noise * (int(seeds[row]) % 2)
            self._rngs[row] = np.random.default_rng([int(seeds[row]), 1])

    def act(
        self,
        observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
        extras: Mapping[str, Shaped[np.ndarray, "N ..."]],
        rewards: Float[np.ndarray, " N"],
    ) -> Shaped[np.ndarray, "N ..."]:
        mean = self._specialist.mean(observations["state"])
        self._labels = mean
        noise = np.stack([rng.standard_normal(mean.shape[1]) for rng in self._rngs])
        return self._specialist.clip(mean + self._scale[:, None] * self._specialist.action_std * noise)

    def labels(self) -> Shaped[np.ndarray, "N ..."] | None:
        """What it would have done at the last observations without noise: what a student is to learn."""
        return self._labels


class RuleTeacher:
    """A scripted rule that reads the game's RAM."""

    needs_extras = True

    def __init__(self, task: Task) -> None:
        self._rule = RULES[task.name]
        self.name = f"rule:{task.name}"
        self.record: Mapping[str, Any] = RECORDS[task.name]

    def reset_rows(self, rows: Bool[np.ndarray, " N"], seeds: Shaped[np.ndarray, " N"]) -> None:
        """A rule sees the present frame alone: it has nothing to forget."""

    def act(
        self,
        observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
        extras: Mapping[str, Shaped[np.ndarray, "N ..."]],
        rewards: Float[np.ndarray, " N"],
    ) -> Shaped[np.ndarray, "N ..."]:
        return self._rule(extras["ram"])

    def labels(self) -> None:
        """A rule does what it wants to do."""


Teacher = SpecialistTeacher | RuleTeacher


def has_teacher(task: Task, folder: Path = SHIPPED) -> bool:
    """Whether anyone can demonstrate this task."""
    record = folder / f"{task.name.split('/')[-1]}.json"
    return task.name in RULES or (record.is_file() and json.loads(record.read_text())["task"] == task.name)


def teacher_for(task: Task, *, noise: float = 0.3, folder: Path = SHIPPED) -> Teacher:
    """The task's teacher. ValueError where there is none."""
    if task.family == "atari" and task.name not in RULES:
        raise ValueError(
            f"no teacher for {task.name}; there are rules for {', '.join(RULES)}, and recorded play comes in by `gato import`"
        )
    if task.name in RULES:
        return RuleTeacher(task)
    return SpecialistTeacher(task, noise=noise, specialist=load_specialist(task.name, folder))


@dataclass(frozen=True, slots=True, kw_only=True)
class Teachers:
    """Makes a task's teacher for a role: with `noise` to teach, without it to relabel."""

    noise: float = 0.3

    def __call__(self, task: Task, role: str) -> Teacher:
        return teacher_for(task, noise=self.noise if role == "teach" else 0.0)


def teacher_return(task: Task, folder: Path = SHIPPED) -> float | None:
    """The mean return that the task's teacher was measured at without noise, or None where there is no teacher."""
    if not has_teacher(task, folder):
        return None
    record = teacher_for(task, folder=folder).record
    return float(record["return_mean"]) if "return_mean" in record else None


def measure(task: Task, *, episodes: int, seed: int = MEASURE_SEED) -> dict[str, Any]:
    """The record of a task's teacher: returns over fresh episodes, played as it demonstrates."""
    from actors.demonstrate import demonstrate  # which needs this file first
    from actors.envs import versions_of

    played = list(demonstrate(task, episodes=episodes, seed=seed))
    returns = np.array([episode.episode_return for episode in played])
    return {
        "task": task.name,
        "command": f"python -m actors.teachers measure {task.name} --episodes {episodes} --seed {seed}",
        "measured_seeds": [seed, seed + episodes],
        "return_mean": round(float(returns.mean()), 2),
        "return_std": round(float(returns.std()), 2),
        "return_min": float(returns.min()),
        "steps_mean": round(float(np.mean([episode.num_steps for episode in played])), 1),
        "versions": versions_of(task),
    }


def main() -> None:
    """Measure a teacher from the command line."""
    from actors.tasks import TASKS

    parser = argparse.ArgumentParser(description="Measure the teacher of a task.")
    parser.add_argument("word", choices=["measure"])
    parser.add_argument("task")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=MEASURE_SEED)
    arguments = parser.parse_args()
    record = measure(find_task(arguments.task, TASKS), episodes=arguments.episodes, seed=arguments.seed)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
