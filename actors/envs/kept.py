"""The environments that a worker has made, as many as memory allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from actors.envs.env import EnvFailedError
from actors.envs.vector import VectorEnv
from gato.memory import available_share
from gato.task import Task

LEAST_SHARE = 0.2
"""Of the machine's memory, to be left for others: four environments of a task of Meta-World take
100 MB, and a worker may have fifty tasks."""


class KeptEnvs:
    """Environments by task and number, made when they are first needed.

    envs = KeptEnvs(make_envs).of(task, 4)

    Where memory is short, those that were not used for longest are closed before others are made.
    """

    def __init__(
        self,
        make: Callable[[Task, int], VectorEnv],
        *,
        share_left: Callable[[], float] = available_share,
    ) -> None:
        """`share_left`: how much of the machine's memory is left, 0 to 1."""
        self._make = make
        self._share_left = share_left
        self._kept: OrderedDict[tuple[str, int], VectorEnv] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, task: Task, num_envs: int) -> VectorEnv:
        """Raises EnvFailedError if they cannot be made."""
        key = (task.name, num_envs)
        if key not in self._kept:
            if self._kept and self._share_left() < LEAST_SHARE:
                self._close(next(iter(self._kept)))
            try:
                self._kept[key] = self._make(task, num_envs)
            except ValueError as problem:
                raise EnvFailedError(f"{task.name} could not be made: {problem}") from problem
        self._kept.move_to_end(key)
        return self._kept[key]

    def drop(self, task: Task, num_envs: int) -> None:
        """Close those of a task, if there are any: others are made next time."""
        if (task.name, num_envs) in self._kept:
            self._close((task.name, num_envs))

    def _close(self, key: tuple[str, int]) -> None:
        with suppress(EnvFailedError):  # they may be broken
            self._kept.pop(key).close()
