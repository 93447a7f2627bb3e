"""The tasks, players and workers that the benchmarks of playing measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from actors.delivery import Receipt
from actors.players.gato_player import GatoPlayers
from actors.tasks.catalog import TASKS
from actors.worker import WeightedPlayer, Worker
from gato.acting.config import ActingConfig
from gato.config import PRESETS
from gato.episode import Episode
from gato.network.model import Gato
from gato.task import Task
from gato.version import Version
from gato.weights import Weights, acting_config, snapshot

MAX_STEPS = 200
TURNS = 7
NAMES = ("mujoco/hopper", "atari/pong", "atari/freeway")


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
    """One version that never changes, built when it is asked for."""

    preset: str

    def newer_than(self, version: Version | None) -> Weights | None:
        return random_weights(self.preset) if version is None else None


class NoSink:
    def add(self, episode: Episode) -> Receipt:
        raise AssertionError("evaluations are not sent to replay")


def worker_of(task: Task, players: Callable[[Task, int, str], WeightedPlayer]) -> Worker:
    return Worker("w", {task.name: task}, players, NoSink(), RandomSource("small"))
