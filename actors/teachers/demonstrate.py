"""Demonstrations outside of a run: yields episodes of a task's teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from actors.envs.factory import WorkerEnvs
from actors.rollout import play
from actors.teachers.resolve import teacher_for
from gato.episode import Episode
from gato.task import Task
from gato.threads import use_threads


def demonstrate(
    task: Task,
    *,
    episodes: int,
    seed: int,
    num_envs: int = 4,
    teacher_spec: str | Callable[..., Any] = "",
    noise: float = 0.3,
) -> Iterator[Episode]:
    """Play the task's teacher on the seeds `seed`, `seed` + 1, ...; yield each episode as it ends.

    The same arguments yield episodes with the same keys.

    Args:
        num_envs: Environments stepped together, at most `episodes`.
        teacher_spec: As in `teacher_for`.
        noise: As in `teacher_for`.

    Raises:
        ValueError: if there is no such teacher, or it does not fit the task.
        EnvFailedError: at the first episode whose environment breaks.
    """
    use_threads()  # a teacher may be a PyTorch network
    teacher = teacher_for(task, teacher_spec, noise=noise)
    envs = WorkerEnvs()(task, min(num_envs, episodes))
    try:
        played = play(
            envs,
            teacher,
            range(seed, seed + episodes),
            source=f"teacher:{teacher.name}",
            new_key=lambda: "unnamed",
            with_extras=teacher.needs_extras,
            labels_of=teacher.labels,
            notes=teacher.notes,
        )
        for episode in played:
            yield replace(episode, key=f"record:{task.name}:{teacher.name}:{episode.seed}")
    finally:
        envs.close()
