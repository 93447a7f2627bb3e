"""Replay as Ray actors, one a shard, and its clients: one hands episodes in until they are durable,
one reads ahead."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import ray
from ray.actor import ActorClass, ActorProxy
from ray.exceptions import GetTimeoutError, RayActorError

from gato.episode import Episode
from gato.metrics import ReplayStats
from gato.sequence import Batch, Window
from gato.task import Task
from gato.tokenizer import TokenLayout
from gato.version import Version
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.sampling.raw_windows import Windows
from replay.sampling.sample_info import Sample
from replay.service import Added, ReplayService
from replay.shards import Rotation, batch_number, merged, shard_folder, shard_of
from replay.storage.dedup import split_key
from replay.storage.record import pack, record_to_bytes

WAIT_S = 5.0
"""How long one call may wait inside replay; clients ask again."""
TURN_S = 0.5
"""How long the last of several shards may wait before the first is asked again."""
ALIVE_S = 0.25
"""How long a shard may take to a batch, and then to say that it lives, before another is asked: Ray
holds back calls to a process that is being started again, so its death shows by silence."""
THREADS = {"write": 8, "read": 4}
"""Writers that are held back keep their threads, so readers, who let them go on, have threads of
their own."""


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
        shard: int,
    ) -> None:
        self._service = ReplayService(
            folder, tasks, layout, config, seed=seed, teacher_returns=teacher_returns, shard=shard
        )

    @ray.method(concurrency_group="write")
    def add(self, record: bytes, timeout_s: float, is_paced: bool) -> Added:
        return self._service.add(record, timeout_s=timeout_s, is_paced=is_paced)

    # Not made again where the process died meanwhile: the client asks another shard.
    @ray.method(concurrency_group="read", max_task_retries=0)
    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        return self._service.next_batch(index, timeout_s=timeout_s)

    @ray.method(concurrency_group="read", max_task_retries=0)
    def next_sample(self, index: int, timeout_s: float) -> Sample | None:
        return self._service.next_sample(index, timeout_s=timeout_s)

    @ray.method(concurrency_group="read", max_task_retries=0)
    def next_windows(
        self,
        index: int,
        num_windows: int,
        steps: int,
        timeout_s: float,
        task_name: str | None,
        table: str | None,
    ) -> Windows | None:
        return self._service.next_windows(
            index,
            num_windows=num_windows,
            steps=steps,
            timeout_s=timeout_s,
            task_name=task_name,
            table=table,
        )

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
        """Answers at once, also while a batch is drawn."""

    @ray.method
    def pid(self) -> int:
        """Of replay's process, which tests kill."""
        return os.getpid()

    @ray.method
    def close(self) -> None:
        self._service.close()


# Ray's types know no concurrency groups in `ray.remote`, and its `options` do not take them.
RemoteReplay = cast(
    "ActorClass[ReplayActor]", cast(Any, ray.remote)(concurrency_groups=THREADS)(ReplayActor)
)


@dataclass(frozen=True, slots=True)
class Shards:
    """Handles of all shards; what is asked of each of them."""

    actors: tuple[ActorProxy[ReplayActor], ...]
    names: tuple[str, ...] = ()
    """Under which Ray finds them, in the same namespace; empty for actors without a name."""

    def borrowed(self) -> Shards:
        """Handles to give to the constructor of another actor.

        They do not keep the actors alive; the caller must keep `self`. A handle that does is an
        object in Ray's store: an actor whose constructor got one cannot be restarted after that
        object is lost.

        Raises:
            ValueError: an actor has no name, or has ended.
        """
        if len(self.names) != len(self.actors):
            raise ValueError(
                f"{len(self.actors)} replay actors have {len(self.names)} names; use start_replay"
            )
        return Shards(tuple(ray.get_actor(name) for name in self.names), self.names)

    def ask_stats(self) -> list[ray.ObjectRef[ReplayStats]]:
        """Answers to come, for `merged`."""
        return [actor.stats.remote() for actor in self.actors]

    def stats(self) -> ReplayStats:
        return merged(ray.get(self.ask_stats()))

    def demonstration_steps(self) -> dict[str, int]:
        """Of each task, over all shards."""
        answers = ray.get([actor.demonstration_steps.remote() for actor in self.actors])
        return {task: sum(answer[task] for answer in answers) for task in answers[0]}

    def keys(self) -> list[str]:
        return [
            key for keys in ray.get([actor.keys.remote() for actor in self.actors]) for key in keys
        ]

    def published(self, version: Version) -> None:
        """Tell that a version is out. Nobody waits for it."""
        for actor in self.actors:
            actor.published.remote(version)

    def update_priorities(self, priorities: Mapping[str, float]) -> int:
        """Set priorities by key; how many were there."""
        parts: list[dict[str, float]] = [{} for _ in self.actors]
        for key, priority in priorities.items():
            parts[shard_of(split_key(key), len(parts))][key] = priority
        return sum(
            ray.get(
                [
                    a.update_priorities.remote(p)
                    for a, p in zip(self.actors, parts, strict=True)
                    if p
                ]
            )
        )

    def reconfigure(self, config: ReplayConfig) -> None:
        """Other settings of the limiter, for all shards together."""
        limiter = config.of_one_shard().limiter
        ray.get([actor.reconfigure.remote(limiter) for actor in self.actors], timeout=WAIT_S)

    def pause(self) -> None:
        """Hold nobody back, as for an offline fill, until `resume`."""
        ray.get([actor.pause.remote() for actor in self.actors], timeout=WAIT_S)

    def resume(self) -> None:
        ray.get([actor.resume.remote() for actor in self.actors], timeout=WAIT_S)

    def close(self, *, timeout_s: float = 30.0) -> None:
        ray.get([actor.close.remote() for actor in self.actors], timeout=timeout_s)


def start_replay(
    *,
    folder: Path,
    tasks: Mapping[str, Task],
    layout: TokenLayout,
    config: ReplayConfig,
    seed: int,
    teacher_returns: Mapping[str, float],
    scheduling_strategy: Any = None,
) -> Shards:
    """Replay actors that come back where their processes die; episodes in flight are handed in
    again."""
    count, one = config.num_shards, config.of_one_shard()
    launched = uuid4().hex
    names = tuple(f"replay-{launched}-{shard}" for shard in range(count))
    return Shards(
        tuple(
            RemoteReplay.options(
                name=name, num_cpus=0, max_restarts=-1, max_task_retries=-1, max_concurrency=4,
                scheduling_strategy=scheduling_strategy,
            ).remote(shard_folder(folder, shard, count), tasks, layout, one, seed, teacher_returns, shard)
            for shard, name in enumerate(names)
        ),
        names,
    )  # fmt: skip


class RemoteEpisodeSink:
    """Hands episodes in. A call that was lost with replay's process is made again: the key makes it
    count once."""

    def __init__(self, shards: Shards, *, patience_s: float = 120.0, is_paced: bool = True) -> None:
        """What is not paced is not held back by the limiter, as for data that is there before
        anybody reads."""
        self._shards = shards
        self._is_paced = is_paced
        self._patience_s = patience_s

    def add(self, episode: Episode) -> Added:
        """Returns when the episode is durable or refused; `wait` where writers are held back, or
        replay does not answer."""
        packed = pack(episode)
        actor = self._shards.actors[shard_of(packed.key, len(self._shards.actors))]
        record = record_to_bytes(packed)
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline:
            try:
                return ray.get(
                    actor.add.remote(record, WAIT_S, self._is_paced), timeout=self._patience_s
                )
            except (RayActorError, GetTimeoutError):
                time.sleep(0.2)
        return Added(status="wait", reason=f"replay did not answer for {self._patience_s:.0f} s")


class RemotePromptSource:
    """Demonstrations to prompt actors with."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def demonstration(self, task_name: str, num_steps: int) -> Window | None:
        """The first steps of a successful demonstration; None where there is none, or replay is
        being started again."""
        for actor in self._shards.actors:
            try:
                window = ray.get(actor.demonstration.remote(task_name, num_steps, 0))
            except RayActorError:
                continue
            if window is not None:
                return window
        return None


@dataclass(slots=True)
class _Asked:
    """A batch that was asked for, and whom else to ask."""

    reference: ray.ObjectRef[Batch | None]
    shard: int
    others: list[int] = field(default_factory=list[int])


class RemoteBatchSource:
    """Reads batches, with the next ones already asked for; of several ranks each has one of its
    own."""

    def __init__(
        self, shards: Shards, *, prefetch: int = 2, rank: int = 0, num_ranks: int = 1
    ) -> None:
        batch_number(0, rank, num_ranks)
        self._actors = shards.actors
        self._prefetch = prefetch
        self._rank, self._num_ranks = rank, num_ranks
        self._rotation = Rotation(len(shards.actors))
        self._asked: dict[int, _Asked] = {}

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        """This rank's batch number `index`, or None where there is none in time."""
        deadline = time.monotonic() + timeout_s
        self._asked = {
            i: asked for i, asked in self._asked.items() if index <= i < index + self._prefetch
        }
        for i in range(index, index + self._prefetch):
            if i not in self._asked:
                self._asked[i] = self._ask(
                    i, self._rotation.order(self._number(i), time.monotonic())
                )
        while True:
            asked = self._asked[index]
            left_s = max(0.0, deadline - time.monotonic())
            done, _ = ray.wait(
                [asked.reference],
                timeout=left_s if len(self._actors) == 1 else min(ALIVE_S, left_s),
            )
            if not done and time.monotonic() >= deadline:
                return None
            if not done and (len(self._actors) == 1 or self._is_alive(asked.shard)):
                continue
            try:
                batch = ray.get(asked.reference) if done else None
                if not done:
                    self._rotation.failed(asked.shard, time.monotonic())
            except RayActorError:  # the shard is being started again
                self._rotation.failed(asked.shard, time.monotonic())
                batch = None
                if not asked.others:
                    time.sleep(0.2)
            if batch is not None:
                del self._asked[index]
                return batch
            order = asked.others or self._rotation.order(self._number(index), time.monotonic())
            self._asked[index] = self._ask(index, order)
            if time.monotonic() >= deadline:
                return None

    def _is_alive(self, shard: int) -> bool:
        done, _ = ray.wait([answer := self._actors[shard].ping.remote()], timeout=ALIVE_S)
        try:
            return bool(done) and ray.get(answer) is None
        except RayActorError:
            return False

    def _number(self, index: int) -> int:
        return batch_number(index, self._rank, self._num_ranks)

    def _ask(self, index: int, order: list[int]) -> _Asked:
        """Ask the first; it answers at once unless it is the last."""
        shard, *others = order
        wait_s = 0.0 if others else WAIT_S if len(self._actors) == 1 else TURN_S
        return _Asked(
            self._actors[shard].next_batch.remote(self._number(index), wait_s), shard, others
        )
