"""Demonstrations outside of a run: a task's teacher plays, its episodes are handed on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from actors.envs import make_envs
from actors.rollout import play
from actors.teachers import teacher_for
from gato.episode import Episode
from gato.task import Task


def demonstrate(task: Task, *, episodes: int, seed: int, num_envs: int = 4) -> Iterator[Episode]:
    """Episodes of the task's teacher on the seeds `seed`, `seed` + 1, ...; the same arguments give the same keys."""
    teacher = teacher_for(task)
    numbers = count(seed)
    envs = make_envs(task, min(num_envs, episodes))
    keys = (f"record:{task.name}:{teacher.name}:{number}" for number in numbers)
    try:
        yield from play(
            envs,
            teacher,
            range(seed, seed + episodes),
            source=f"teacher:{teacher.name}",
            new_key=lambda: next(keys),
            with_extras=teacher.needs_extras,
        )
    finally:
        envs.close()
