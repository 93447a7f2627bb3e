"""What writers, learners and evaluators call replay's actors with. The choices are in
`shard_reader`, the arithmetic in `shards`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import ray
from ray.actor import ActorProxy
from ray.exceptions import GetTimeoutError, RayActorError

from gato.episode import Episode
from gato.sequence import Batch, Window
from replay.ingest import Added
from replay.remote import ReplayActor, Shards
from replay.sampling.held_out import joined
from replay.shard_reader import CALL_WAIT_S, ShardGone, ShardReader, add_patiently, first_found
from replay.shards import shard_of
from replay.storage.record import pack, record_to_bytes

Answer = TypeVar("Answer")


def answer_of(reference: ray.ObjectRef[Answer], timeout_s: float | None = None) -> Answer:
    """The answer to a call. Raises ShardGone if the process died, or does not answer in time."""
    try:
        return ray.get(reference, timeout=timeout_s)
    except (RayActorError, GetTimeoutError) as problem:
        raise ShardGone(str(problem)) from problem


class RemoteEpisodeSink:
    """Inserts episodes, each until it is durable."""

    def __init__(
        self,
        shards: Shards,
        *,
        patience_s: float = 120.0,
        is_paced: bool = True,
        held_s: float = CALL_WAIT_S,
    ) -> None:
        """Args:
        patience_s: How long a replay that is away is tried.
        is_paced: Obey the limiter.
        held_s: How long a call waits in replay while the limiter holds writers back.
        """
        self._shards = shards
        self._is_paced = is_paced
        self._patience_s = patience_s
        self._held_s = held_s

    def add(self, episode: Episode) -> Added:
        """Returns when the episode is durable or rejected; `wait` if writers are held back, or
        replay does not answer."""
        record = pack(episode)
        actor = self._shards.actors[shard_of(record.key, len(self._shards.actors))]
        data = record_to_bytes(record)
        return add_patiently(
            lambda: answer_of(
                actor.add.remote(data, self._held_s, self._is_paced), self._patience_s
            ),
            patience_s=self._patience_s,
        )


class RemotePromptSource:
    """Demonstrations that acting starts from, and records that evaluations ask."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def demonstration(self, task_name: str, num_steps: int) -> Window | None:
        """The first steps of a successful demonstration; None if no shard that answers has one."""

        def ask(actor: ActorProxy[ReplayActor]) -> Window | None:
            return answer_of(actor.demonstration.remote(task_name, num_steps, 0))

        return first_found([partial(ask, actor) for actor in self._shards.actors])

    def held_out(self, task_name: str, most: int) -> Window | None:
        """Those of all shards; see `ReplayService.held_out`."""
        each = -(-most // len(self._shards.actors))
        asked = [actor.held_out.remote(task_name, each) for actor in self._shards.actors]
        return joined([answer_of(one, CALL_WAIT_S) for one in asked])


class _RayCalls:
    """Calls for a `ShardReader`."""

    def __init__(self, shards: Shards) -> None:
        self._actors = shards.actors

    def ask(self, shard: int, numbers: Sequence[int], wait_s: float) -> ray.ObjectRef[list[Batch]]:
        return self._actors[shard].next_batches.remote(numbers, wait_s)

    def is_done(self, request: ray.ObjectRef[list[Batch]], timeout_s: float) -> bool:
        return bool(ray.wait([request], timeout=timeout_s)[0])

    def answer(self, request: ray.ObjectRef[list[Batch]]) -> list[Batch]:
        return answer_of(request)

    def is_alive(self, shard: int, timeout_s: float) -> bool:
        try:
            return answer_of(self._actors[shard].ping.remote(), timeout_s) is None
        except ShardGone:
            return False


class RemoteBatchSource:
    """Reads batches, the next ones asked for in advance, several with one call if the learner waits
    for them. Each learner rank has one of its own."""

    def __init__(
        self, shards: Shards, *, prefetch: int = 2, rank: int = 0, num_ranks: int = 1
    ) -> None:
        self._reader = ShardReader(
            _RayCalls(shards), num_shards=len(shards.actors), prefetch=prefetch, rank=rank,
            num_ranks=num_ranks,
        )  # fmt: skip

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        """This rank's batch number `index`; None if it does not come in time."""
        return self._reader.next_batch(index, timeout_s)
