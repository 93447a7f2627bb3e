"""Replay as Ray actors, one a shard, and handles to all of them. Only calls: the arithmetic is in
`shards`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import ray
from ray.actor import ActorClass, ActorProxy

from gato.metrics import ReplayStats
from gato.part_log import name_log
from gato.sequence import Batch, Window
from gato.task import Task
from gato.tokenizer import TokenLayout
from gato.version import Version
from replay.config import ReplayConfig
from replay.ingest import Added
from replay.rate_limiter import LimiterConfig
from replay.service import ReplayService
from replay.shard_reader import CALL_WAIT_S
from replay.shards import merged, priorities_by_shard, shard_folder, steps_of_all

THREADS = {"write": 8, "read": 4}
"""Threads of each concurrency group: writers that are held back never keep readers out."""


class ReplayActor:
    """A `ReplayService` in a process of its own."""

    def __init__(
        self,
        folder: Path,
        tasks: Mapping[str, Task],
        layout: TokenLayout,
        config: ReplayConfig,
        seed: int,
        teacher_returns: Mapping[str, float],
        shard: int,
    ) -> None:
        name_log(ray.get_runtime_context())
        self._service = ReplayService(
            folder, tasks, layout, config, seed=seed, teacher_returns=teacher_returns, shard=shard
        )

    @ray.method(concurrency_group="write")
    def add(self, record: bytes, timeout_s: float, is_paced: bool) -> Added:
        return self._service.add(record, timeout_s=timeout_s, is_paced=is_paced)

    # No retries if the process dies: the client asks another shard.
    @ray.method(concurrency_group="read", max_task_retries=0)
    def next_batches(self, numbers: Sequence[int], timeout_s: float) -> list[Batch]:
        return self._service.next_batches(numbers, timeout_s=timeout_s)

    @ray.method
    def update_priorities(self, priorities: Mapping[str, float]) -> int:
        return self._service.update_priorities(priorities)

    @ray.method
    def published(self, version: Version) -> None:
        self._service.published(version)

    @ray.method
    def reconfigure(self, limiter: LimiterConfig) -> None:
        self._service.reconfigure(limiter)

    @ray.method
    def pause(self) -> None:
        self._service.pause()

    @ray.method
    def resume(self) -> None:
        self._service.resume()

    @ray.method(max_task_retries=0)
    def demonstration(self, task_name: str, num_steps: int, draw: int) -> Window | None:
        return self._service.demonstration(task_name, num_steps, draw=draw)

    @ray.method(max_task_retries=0)
    def held_out(self, task_name: str, most: int) -> Window | None:
        return self._service.held_out(task_name, most)

    @ray.method
    def stats(self) -> ReplayStats:
        return self._service.stats()

    @ray.method
    def demonstration_steps(self) -> dict[str, int]:
        return self._service.demonstration_steps()

    @ray.method
    def keys(self) -> list[str]:
        return self._service.keys()

    @ray.method(max_task_retries=0)
    def ping(self) -> None:
        """Return at once, also while a batch is drawn."""

    @ray.method
    def pid(self) -> int:
        """The number of replay's process, for tests that kill it."""
        return os.getpid()

    @ray.method
    def close(self) -> None:
        self._service.close()


# Ray's types know no concurrency groups in `ray.remote`, and its `options` do not take them.
RemoteReplay = cast(
    "ActorClass[ReplayActor]", cast(Any, ray.remote)(concurrency_groups=THREADS)(ReplayActor)
)


def start_replay(
    *,
    folder: Path,
    tasks: Mapping[str, Task],
    layout: TokenLayout,
    config: ReplayConfig,
    seed: int,
    teacher_returns: Mapping[str, float],
    scheduling_strategy: Any = None,
    is_detached: bool = False,
) -> Shards:
    """Start replay's actors. Ray restarts them if they die, and repeats inserts under way.

    `is_detached`: they outlive the caller, and replay-0, replay-1... of before are taken over.
    """
    count, one = config.num_shards, config.of_one_shard()
    prefix = "replay" if is_detached else f"replay-{uuid4().hex}"
    names = tuple(f"{prefix}-{shard}" for shard in range(count))
    options: Any = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 4}
    options |= {"lifetime": "detached", "get_if_exists": True} if is_detached else {}
    return Shards(
        tuple(
            RemoteReplay.options(
                name=name, scheduling_strategy=scheduling_strategy, **options
            ).remote(
                shard_folder(folder, shard, count), tasks, layout, one, seed, teacher_returns, shard
            )
            for shard, name in enumerate(names)
        ),
        names,
    )


@dataclass(frozen=True, slots=True)
class Shards:
    """Handles of all shards, and calls to all of them."""

    actors: tuple[ActorProxy[ReplayActor], ...]
    names: tuple[str, ...] = ()
    """Names of the actors in Ray's namespace; empty for actors without a name."""

    def borrowed(self) -> Shards:
        """Handles to give to the constructor of another actor.

        They do not keep the actors alive; the caller must keep `self`. A handle that does is an
        object in Ray's store: an actor whose constructor got one cannot be restarted after that
        object is lost.

        Raises:
            ValueError: if an actor has no name, or has ended.
        """
        if len(self.names) != len(self.actors):
            raise ValueError(
                f"{len(self.actors)} replay actors have {len(self.names)} names; use start_replay"
            )
        return Shards(tuple(ray.get_actor(name) for name in self.names), self.names)

    def ask_stats(self) -> list[ray.ObjectRef[ReplayStats]]:
        """Ask all shards for their stats; `merged` combines the answers."""
        return [actor.stats.remote() for actor in self.actors]

    def stats(self) -> ReplayStats:
        """The stats of all shards together."""
        return merged(ray.get(self.ask_stats()))

    def demonstration_steps(self) -> dict[str, int]:
        """Stored steps of demonstrations of each task, over all shards."""
        return steps_of_all(ray.get([actor.demonstration_steps.remote() for actor in self.actors]))

    def published(self, version: Version) -> None:
        """Tell that a version was published, without waiting for an answer."""
        for actor in self.actors:
            actor.published.remote(version)

    def update_priorities(self, priorities: Mapping[str, float]) -> int:
        """Set priorities by key. Returns how many keys were found."""
        parts = priorities_by_shard(priorities, len(self.actors))
        calls = [self.actors[s].update_priorities.remote(part) for s, part in parts.items()]
        return sum(ray.get(calls))

    def reconfigure(self, config: ReplayConfig) -> None:
        """Use other settings of the limiter, for all shards together."""
        limiter = config.of_one_shard().limiter
        ray.get([actor.reconfigure.remote(limiter) for actor in self.actors], timeout=CALL_WAIT_S)

    def pause(self) -> None:
        """Hold nobody back, as for an offline fill, until `resume`."""
        ray.get([actor.pause.remote() for actor in self.actors], timeout=CALL_WAIT_S)

    def resume(self) -> None:
        """End a pause."""
        ray.get([actor.resume.remote() for actor in self.actors], timeout=CALL_WAIT_S)

    def close(self, *, timeout_s: float = 30.0) -> None:
        """Close all shards; waiting calls get None or `wait`."""
        ray.get([actor.close.remote() for actor in self.actors], timeout=timeout_s)
