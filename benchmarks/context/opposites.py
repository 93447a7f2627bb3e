"""Two tasks that only a prompt tells apart: the same observations and actions, opposite rewards.

A point on a line moves by its action. In one task it is paid for what it moves to the right, in the
other for what it moves to the left. Nothing that it sees says which task it is in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from actors.envs.vector import VectorEnv
from actors.players.player import Player, TimeStep
from actors.rollout import play
from benchmarks.in_process import MOST_ENVS
from gato.array_spec import ArraySpec, Kind
from gato.episode import Episode
from gato.task import References, Task

STEPS = 20
"""Of an episode."""
STRIDE = 0.1
"""What the largest action moves the point by."""


def _task(name: str) -> Task:
    return Task(
        name=name,
        env_id=f"Opposites-{name}",
        family="gymnasium",
        observations={"position": ArraySpec(kind=Kind.CONTINUOUS, shape=(1,))},
        action=ArraySpec(kind=Kind.CONTINUOUS, shape=(1,), low=-1.0, high=1.0),
        references=References(random=0.0, expert=STEPS * STRIDE * 0.8, source="by construction"),
        max_steps=STEPS,
    )


RIGHT, LEFT = _task("opposites/right"), _task("opposites/left")
SIGNS: Mapping[str, float] = {RIGHT.name: 1.0, LEFT.name: -1.0}


class Line:
    """The environment of one of the tasks; its episodes begin anywhere in [-1, 1]."""

    def __init__(self, task: Task) -> None:
        self._sign = SIGNS[task.name]
        self._position, self._count = 0.0, 0

    def _shown(self) -> dict[str, np.ndarray]:
        return {"position": np.array([self._position], np.float32)}

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self._position, self._count = float(np.random.default_rng(seed).uniform(-1.0, 1.0)), 0
        return self._shown()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        moved = STRIDE * float(np.clip(action[0], -1.0, 1.0))
        self._position += moved
        self._count += 1
        return self._shown(), self._sign * moved, False, self._count >= STEPS

    def extras(self) -> dict[str, np.ndarray]:
        return {}

    def close(self) -> None: ...


def lines(task: Task, num_envs: int) -> VectorEnv:
    """N environments of a task."""
    return VectorEnv(task, [Line(task) for _ in range(num_envs)])


class Teacher:
    """Moves at `slowest` to 1 of the largest stride in its task's direction, each episode at
    one."""

    def __init__(self, task: Task, *, slowest: float) -> None:
        self._sign, self._slowest = SIGNS[task.name], slowest

    def act(self, step: TimeStep) -> np.ndarray:
        """Actions [N, 1]."""
        rngs = [np.random.default_rng([int(seed), 1]) for seed in step.seeds]
        speed_N = [rng.uniform(self._slowest, 1.0) for rng in rngs]
        return (self._sign * np.array(speed_N, np.float32))[:, None]


def demonstrations(
    task: Task, episodes: int, *, slowest: float = 0.6, first_seed: int = 1_000_000
) -> Iterator[Episode]:
    """Episodes of the teacher, under keys that tell task and seed."""
    numbers = iter(range(episodes))
    yield from play(
        lines(task, 10), Teacher(task, slowest=slowest), range(first_seed, first_seed + episodes),
        source="teacher:opposites", new_key=lambda: f"{task.name}.1.{next(numbers) + 1}",
    )  # fmt: skip


def returns_of(player: Player, task: Task, episodes: int, *, first_seed: int = 0) -> list[float]:
    """Returns by seed, in at most `MOST_ENVS` environments; the player has a row for each."""
    num_envs = min(MOST_ENVS, episodes)
    played = play(lines(task, num_envs), player, range(first_seed, first_seed + episodes))
    by_seed = {episode.seed: episode.episode_return for episode in played}
    return [by_seed[seed] for seed in sorted(by_seed)]
