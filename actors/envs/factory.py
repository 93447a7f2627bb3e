"""Makes the environments of a task: by its family, and by the backend that they run in."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, Literal

from actors.envs.atari import AtariEnv
from actors.envs.env import Backend, Env
from actors.envs.gymnasium_env import GymnasiumEnv
from actors.envs.mujoco import MujocoEnv
from actors.envs.packages import OUTSIDE_ID, require_package
from actors.envs.process_env import ProcessEnv
from actors.envs.provenance import versions_of
from actors.envs.vector import VectorEnv
from gato.task import Task

MAKERS: Mapping[str, type[MujocoEnv] | type[AtariEnv] | type[GymnasiumEnv]] = {
    "mujoco": MujocoEnv,
    "atari": AtariEnv,
    "gymnasium": GymnasiumEnv,
    "metaworld": GymnasiumEnv,
    "dm-control": GymnasiumEnv,
}
"""The class of environments, by the task's family."""


def make_env(task: Task) -> Env:
    """Make one environment of a task, in this process.

    Raises:
        ValueError: if its family is unknown, or its environment cannot be made.
    """
    if task.family not in MAKERS:
        raise ValueError(
            f"task {task.name} is of family {task.family!r}; known families: {', '.join(MAKERS)}"
        )
    require_package(task, env_python=str(task.env_kwargs.get("python", "")))
    return MAKERS[task.family](task)


def make_envs(
    task: Task,
    num_envs: int,
    *,
    backend: Backend = "loop",
    step_timeout_s: float = 60.0,
    log: IO[bytes] | None = None,
) -> VectorEnv:
    """Make N environments of a task, which are stepped together.

    envs = make_envs(resolve_task("hopper"), 4)

    Args:
        backend: `loop`: in this process, one after another. `process`: each in a process of its
            own. `envpool`: Atari games, each in a thread of EnvPool. All play the same episodes.
        step_timeout_s: Seconds after which a process that does not answer is killed.
        log: File that the processes print to; then problems at their end are raised as well (see
            `ProcessEnv`).

    Raises:
        ValueError: if one cannot be made.
    """
    if backend == "process":
        made = _make_in_processes(task, num_envs, step_timeout_s, log)
        return VectorEnv(
            task,
            [*made],
            make=lambda: _make_in_processes(task, 1, step_timeout_s, log)[0],
            begin=ProcessEnv.begin,
        )
    if backend == "envpool":
        # EnvPool is an extra, and slow to import.
        from actors.envs.envpool_env import EnvPoolGame, envpool_versions

        games = [EnvPoolGame(task) for _ in range(num_envs)]
        versions = versions_of(task) | envpool_versions()
        return VectorEnv(
            task,
            [*games],
            make=lambda: EnvPoolGame(task),
            begin=EnvPoolGame.begin,
            versions=versions,
        )
    return VectorEnv(task, [make_env(task) for _ in range(num_envs)], make=lambda: make_env(task))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnvs:
    """Makes environments for workers, and for teachers that demonstrate.

    With `auto`, the environments of this package run in the worker itself, and a user's own in
    processes: one that hangs or crashes must not end the worker and all of its episodes. A process
    costs 0.1 to 0.2 ms of processor time a step, where acting takes 1.5 to 4 ms
    (benchmarks/README.md), and 46 MB. `envpool` applies to Atari games; other tasks are made as
    with `auto`.
    """

    backend: Backend | Literal["auto"] = "auto"
    step_timeout_s: float = 60.0
    env_python: str = ""
    """The interpreter of tasks named `outside:ID`; empty: that of GATO_ENV_PYTHON."""

    def __call__(self, task: Task, num_envs: int) -> VectorEnv:
        if self.env_python and task.env_id.endswith(OUTSIDE_ID):
            task = replace(task, env_kwargs={"python": self.env_python, **task.env_kwargs})
        of_family: Backend = "process" if task.family == "gymnasium" else "loop"
        chosen = of_family if self.backend == "auto" else self.backend
        if chosen == "envpool" and task.family != "atari":
            chosen = of_family
        return make_envs(task, num_envs, backend=chosen, step_timeout_s=self.step_timeout_s)


def _make_in_processes(
    task: Task, num_envs: int, step_timeout_s: float, log: IO[bytes] | None = None
) -> list[ProcessEnv]:
    """N environments in processes, which start at the same time."""
    envs = [ProcessEnv(task, step_timeout_s=step_timeout_s, log=log) for _ in range(num_envs)]
    try:
        for env in envs:
            env.wait_until_made()
    except ValueError:
        for env in envs:
            with suppress(RuntimeError):  # the first problem is raised
                env.close()
        raise
    return envs
