"""Replay as a Ray actor, and its two clients: one that hands episodes in until they are durable, one that reads ahead."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import ray
from ray.actor import ActorClass, ActorProxy
from ray.exceptions import GetTimeoutError, RayActorError

from gato.episode import Episode, episode_to_bytes
from gato.metrics import ReplayStats
from gato.sequence import Batch, Window
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.config import ReplayConfig
from replay.service import Added, ReplayService

WAIT_S = 5.0
"""How long one call may wait inside replay; clients ask again."""
THREADS = {"write": 8, "read": 4}
"""Writers that are held back keep their threads, so readers, who let them go on, have threads of their own."""


class ReplayActor:
    """Holds a `ReplayService` in a process of its own, which Ray starts again where it dies."""

    def __init__(
        self,
        folder: Path,
        tasks: Mapping[str, Task],
        layout: TokenLayout,
        config: ReplayConfig,
        seed: int,
        teacher_returns: Mapping[str, float],
    ) -> None:
        self._service = ReplayService(folder, tasks, layout, config, seed=seed, teacher_returns=teacher_returns)

    @ray.method(concurrency_group="write")
    def add(self, record: bytes, timeout_s: float) -> Added:
        return self._service.add(record, timeout_s=timeout_s)

    @ray.method(concurrency_group="read")
    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        return self._service.next_batch(index, timeout_s=timeout_s)

    @ray.method
    def demonstration(self, task_name: str, num_steps: int, draw: int) -> Window | None:
        return self._service.demonstration(task_name, num_steps, draw=draw)

    @ray.method
    def stats(self) -> ReplayStats:
        return self._service.stats()

    @ray.method
    def demonstration_steps(self) -> dict[str, int]:
        return self._service.demonstration_steps()

    @ray.method
    def keys(self) -> list[str]:
        return self._service.keys()

    @ray.method
    def pid(self) -> int:
        """Of replay's process, which tests kill."""
        return os.getpid()

    @ray.method
    def close(self) -> None:
        self._service.close()


# Ray's types know no concurrency groups in `ray.remote`, and its `options` do not take them.
RemoteReplay = cast("ActorClass[ReplayActor]", cast(Any, ray.remote)(concurrency_groups=THREADS)(ReplayActor))


def start_replay(
    *,
    folder: Path,
    tasks: Mapping[str, Task],
    layout: TokenLayout,
    config: ReplayConfig,
    seed: int,
    teacher_returns: Mapping[str, float],
    scheduling_strategy: Any = None,
) -> ActorProxy[ReplayActor]:
    """A replay actor that comes back where its process dies; calls in flight are made again."""
    return RemoteReplay.options(
        num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=4, scheduling_strategy=scheduling_strategy
    ).remote(folder, tasks, layout, config, seed, teacher_returns)


class RemoteEpisodeSink:
    """Hands episodes in. A call that was lost with replay's process is made again: the key makes it count once."""

    def __init__(self, replay: ActorProxy[ReplayActor], *, patience_s: float = 120.0) -> None:
        self._replay = replay
        self._patience_s = patience_s

    def add(self, episode: Episode) -> Added:
        """Returns when the episode is durable or refused; `wait` where writers are held back, or replay does not answer."""
        record = episode_to_bytes(episode)
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline:
            try:
                return ray.get(self._replay.add.remote(record, WAIT_S), timeout=self._patience_s)
            except (RayActorError, GetTimeoutError):
                time.sleep(0.2)
        return Added(status="wait", reason=f"replay did not answer for {self._patience_s:.0f} s")


class RemotePromptSource:
    """Demonstrations to prompt actors with."""

    def __init__(self, replay: ActorProxy[ReplayActor]) -> None:
        self._replay = replay

    def demonstration(self, task_name: str, num_steps: int) -> Window | None:
        """The first steps of a successful demonstration; None where there is none, or replay is being started again."""
        try:
            return ray.get(self._replay.demonstration.remote(task_name, num_steps, 0))
        except RayActorError:
            return None


class RemoteBatchSource:
    """Reads batches, with the next ones already asked for."""

    def __init__(self, replay: ActorProxy[ReplayActor], *, ahead: int = 2) -> None:
        self._replay = replay
        self._ahead = ahead
        self._asked: dict[int, ray.ObjectRef[Batch | None]] = {}

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        """Batch number `index`, or None where there is none in time."""
        self._asked = {i: reference for i, reference in self._asked.items() if index <= i <= index + self._ahead}
        for i in range(index, index + self._ahead):
            if i not in self._asked:
                self._asked[i] = self._replay.next_batch.remote(i, WAIT_S)
        try:
            done, _ = ray.wait([self._asked[index]], timeout=timeout_s)
            return ray.get(self._asked.pop(index)) if done else None
        except RayActorError:  # replay is being started again
            self._asked.clear()
            time.sleep(0.2)
            return None
