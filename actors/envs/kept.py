"""The environments that a worker has made, as many as memory allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from actors.envs.env import EnvFailedError
from actors.envs.vector import VectorEnv
from gato.memory import is_short
from gato.task import Task

memory_is_short = partial(is_short, share=0.2, most_bytes=4 << 30)
"""Four environments of a task of Meta-World take 100 MB, and a worker may have fifty tasks."""


class KeptEnvs:
    """Environments by task and number, made when they are first needed.

    envs = KeptEnvs(make_envs).of(task, 4)

    Where memory is short, those that were not used for longest are closed, one set at each use of
    another.
    """

    def __init__(
        self,
        make: Callable[[Task, int], VectorEnv],
        *,
        memory_is_short: Callable[[], bool] = memory_is_short,
    ) -> None:
        self._make = make
        self._memory_is_short = memory_is_short
        self._kept: OrderedDict[tuple[str, int], VectorEnv] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, task: Task, num_envs: int) -> VectorEnv:
        """Raises EnvFailedError if they cannot be made."""
        key = (task.name, num_envs)
        oldest = next((other for other in self._kept if other != key), None)
        if oldest is not None and self._memory_is_short():
            self._close(oldest)
        if key not in self._kept:
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
