"""Episodes of three qualities: D4RL's files, or made here where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np

from actors.envs.factory import WorkerEnvs
from actors.players.player import TimeStep
from actors.rollout import play
from actors.tasks.catalog import TASKS
from actors.teachers.resolve import teacher_for
from gato.episode import Episode
from gato.task import Task
from replay.formats.detect import read_source

LEVELS = ("random", "medium", "expert")
RANDOM_SHARES = {"random": 1.0, "medium": 0.15, "expert": 0.0}
"""Share of the steps with a uniform action, of data that are made here."""
MADE_STEPS = 30_000
"""Of each quality."""


def d4rl_files(folder: Path, robot: str, levels: Sequence[str]) -> list[Path]:
    """The D4RL files of a robot. Raises ValueError if one is not there."""
    files = [folder / f"{robot}_{level}-v5.hdf5" for level in levels]
    for file in files:
        if not file.is_file():
            raise ValueError(f"there is no {file}; name the folder of D4RL files with --data")
    return files


def episodes_of(folder: Path | None, task: Task, levels: Sequence[str]) -> list[Episode]:
    """All episodes of some qualities. `folder`: of D4RL files; None: they are made here.

    Raises:
        ValueError: if a file is not there.
    """
    if folder is None:
        return [episode for level in levels for episode in _made(task, level)]
    files = d4rl_files(folder, task.name.partition("/")[2], levels)
    return [episode for file in files for episode in read_source(str(file), TASKS, task)]


class _Careless:
    """A task's teacher that takes a uniform action in a share of its steps."""

    def __init__(self, task: Task, *, random_share: float) -> None:
        low, high = task.action.low, task.action.high
        assert low is not None  # of robots they are known
        assert high is not None
        self._low, self._high = np.asarray(low), np.asarray(high)
        self._teacher = teacher_for(task, noise=0.0)
        self._share, self._rng = random_share, np.random.default_rng(0)

    def act(self, step: TimeStep) -> np.ndarray:
        """Actions [N, A]."""
        wanted_NA = np.asarray(self._teacher.act(step))
        random_NA = self._rng.uniform(self._low, self._high, wanted_NA.shape)
        is_random_N = self._rng.random(len(wanted_NA)) < self._share
        return np.where(is_random_N[:, None], random_NA, wanted_NA)


def _made(task: Task, level: str) -> list[Episode]:
    """Whole episodes of `MADE_STEPS` steps or somewhat more, the same at every call."""
    envs, numbers = WorkerEnvs()(task, 4), count()
    episodes: list[Episode] = []
    try:
        played = play(
            envs,
            _Careless(task, random_share=RANDOM_SHARES[level]),
            range(1_000_000, 2_000_000),
            source=f"teacher:{level}",
            new_key=lambda: f"{task.name}.{level}.{next(numbers)}",
        )
        num_steps = 0
        while num_steps < MADE_STEPS:
            episodes.append(next(played))
            num_steps += len(episodes[-1].rewards)
    finally:
        envs.close()
    return episodes
