"""Play a task step by step: its environment, and a policy that was trained on it."""

from __future__ import annotations

from types import TracebackType

import numpy as np
from jaxtyping import Shaped, UInt8

from actors.envs.env import Backend
from actors.envs.factory import make_envs
from actors.envs.vector import VectorEnv
from actors.players.player import Player, TimeStep
from actors.tasks.resolve import resolve_task
from cluster.control.evaluation.evaluate import load_player, locate
from gato.task import Task


class TaskEnv:
    """One environment of a task, in the manner of dm_env: each step shows what a player acts on.

    env = make_env("mujoco/hopper")
    step = env.reset(seed=0)
    while not env.is_over:
        step = env.step(policy.act(step))
    print(env.episode_return)
    """

    def __init__(self, envs: VectorEnv) -> None:
        """Step the only row of `envs`."""
        self._envs = envs
        self._seed = 0
        self.episode_return = 0.0
        """Sum of the rewards since `reset`."""
        self.num_steps = 0
        """Environment steps since `reset`."""
        self.is_over = True
        """Whether the episode has ended, or none was begun."""
        self.is_terminated = False
        """Whether it ended by itself rather than by the task's limit of steps."""

    @property
    def task(self) -> Task:
        return self._envs.task

    def reset(self, *, seed: int) -> TimeStep:
        """Begin an episode. The same seed begins the same one.

        Raises:
            EnvFailedError: The environment raised.
        """
        self._envs.reset_row(0, seed)
        self._seed, self.episode_return, self.num_steps = seed, 0.0, 0
        self.is_over = self.is_terminated = False
        return TimeStep.first(self._observations(), seeds=[seed], extras=self._envs.extras())

    def step(self, actions: Shaped[np.ndarray, "1 ..."]) -> TimeStep:
        """Take one action.

        Args:
            actions: [1, *shape of the action], as a player of one row returns it.

        Returns:
            The next time step of one row: observations [1, *shape] by name, rewards [1].

        Raises:
            EnvFailedError: The environment raised.
            ValueError: The episode is over.
        """
        if self.is_over:
            raise ValueError(f"no episode of {self.task.name} is going on; call reset(seed=...)")
        rewards, terminated, truncated = self._envs.step(actions, np.ones(1, np.bool_))
        self.episode_return += float(rewards[0])
        self.num_steps += 1
        self.is_terminated = bool(terminated[0])
        self.is_over = bool(terminated[0] or truncated[0])
        return TimeStep(
            observations=self._observations(),
            rewards=rewards,
            active=np.ones(1, np.bool_),
            is_first=np.zeros(1, np.bool_),
            seeds=np.asarray([self._seed], np.int64),
            extras=self._envs.extras(),
        )

    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """What the environment looks like now. Raises NoPictureError if it cannot be drawn."""
        return self._envs.picture(0)

    def close(self) -> None:
        """Free what the environment holds. Harmless if it was closed before."""
        self._envs.close()

    def _observations(self) -> dict[str, np.ndarray]:
        return {name: values.copy() for name, values in self._envs.observations.items()}

    def __enter__(self) -> TaskEnv:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def make_env(task: str, *, backend: Backend = "loop") -> TaskEnv:
    """One environment of a task, by any of its names: `mujoco/hopper`, `Hopper-v5`, `pkg:Env-v0`.

    Args:
        task: The name.
        backend: `loop`: in this process. `process`: in one of its own, so that a crash raises.

    Raises:
        ValueError: There is no such task, or its environment cannot be made.
    """
    return TaskEnv(make_envs(resolve_task(task), 1, backend=backend))


def load_policy(
    what: str, task: str | None = None, *, num_envs: int = 1, seed: int | None = None
) -> Player:
    """The policy of a run's last checkpoint, as its evaluations play it.

    PyTorch computes with one thread from then on, or with as many as OMP_NUM_THREADS says.

    Args:
        what: A run's name, or a checkpoint's folder.
        task: A task of the run; may be left out if it has only one.
        num_envs: Rows that the policy acts for at once.
        seed: Of the generator that actions are sampled with. Default: the run's.

    Raises:
        ValueError: There is no such run, checkpoint or task, or a file is damaged.
    """
    found = locate(what)
    names = list(found.config.tasks)
    if task is None and len(names) > 1:
        raise ValueError(f"run {found.config.name} has {', '.join(names)}; name one of them")
    name = names[0] if task is None else resolve_task(task).name
    return load_player(found, name, num_envs=num_envs, seed=seed)
