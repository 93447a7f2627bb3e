"""Makes the environments of a task: which kind plays it, and where it runs.

Atari: see `actors.envs.atari`. MuJoCo: Gymnasium's v5 environments as they are. Any other Gymnasium
environment: as it is, see `actors.envs.gymnasium_env`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Literal

from actors.envs.atari import AtariEnv
from actors.envs.env import Backend, Env
from actors.envs.gymnasium_env import GymnasiumEnv
from actors.envs.mujoco import MujocoEnv
from actors.envs.process_env import ProcessEnv
from actors.envs.provenance import versions_of
from actors.envs.vector import VectorEnv
from gato.task import Task

MAKERS: Mapping[str, type[MujocoEnv] | type[AtariEnv] | type[GymnasiumEnv]] = {
    "mujoco": MujocoEnv,
    "atari": AtariEnv,
    "gymnasium": GymnasiumEnv,
}


def make_env(task: Task) -> Env:
    """One environment of a task. ValueError where its family or its environment is unknown here."""
    if task.family not in MAKERS:
        raise ValueError(
            f"task {task.name} is of family {task.family!r}; known families: {', '.join(MAKERS)}"
        )
    return MAKERS[task.family](task)


def make_envs(
    task: Task,
    num_envs: int,
    *,
    backend: Backend = "loop",
    step_timeout_s: float = 60.0,
    log: IO[bytes] | None = None,
) -> VectorEnv:
    """N environments of a task: in this process one after another (`loop`), each in a process of
    its own that is killed where it does not answer in `step_timeout_s` (`process`), or EnvPool's,
    each in a thread (`envpool`). All play the same. `log`: where those in processes print, which
    are then checked (see `ProcessEnv`). ValueError where one cannot be made."""
    if backend == "process":
        made = _made_apart(task, num_envs, step_timeout_s, log)
        return VectorEnv(
            task,
            [*made],
            make=lambda: _made_apart(task, 1, step_timeout_s, log)[0],
            begin=ProcessEnv.begin,
        )
    if backend == "envpool":
        # an extra, and slow to import
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
    """Makes the environments of whoever plays a task that a user named: workers, and teachers that
    demonstrate.

    With `auto`, ours are in the worker itself and users' own in processes, since only their authors
    know whether they hang or crash, and one that does would take the worker and all of its episodes
    along. That costs 0.1 to 0.2 ms of processor a step, where acting takes 1.5 to 4
    (benchmarks/README.md), and 46 MB an environment. `envpool` is for games; other tasks are made
    as with `auto`.
    """

    backend: Backend | Literal["auto"] = "auto"
    step_timeout_s: float = 60.0

    def __call__(self, task: Task, num_envs: int) -> VectorEnv:
        of_family: Backend = "process" if task.family == "gymnasium" else "loop"
        chosen = of_family if self.backend == "auto" else self.backend
        if chosen == "envpool" and task.family != "atari":
            chosen = of_family
        return make_envs(task, num_envs, backend=chosen, step_timeout_s=self.step_timeout_s)


def _made_apart(
    task: Task, num_envs: int, step_timeout_s: float, log: IO[bytes] | None = None
) -> list[ProcessEnv]:
    """They start beside each other."""
    envs = [ProcessEnv(task, step_timeout_s=step_timeout_s, log=log) for _ in range(num_envs)]
    try:
        for env in envs:
            env.wait_until_made()
    except ValueError:
        for env in envs:
            with suppress(RuntimeError):  # one problem is said
                env.close()
        raise
    return envs
