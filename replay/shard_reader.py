"""Choices of replay's clients: which shard is asked for a batch, how far to read ahead, and when to
try again. Plain classes, without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from gato.sequence import Batch
from replay.ingest import Added
from replay.shards import batch_number

CALL_WAIT_S = 5.0
"""How long one call may wait inside replay; clients ask again."""
TURN_S = 0.5
"""How long the last of several shards may wait before the first is asked again."""
ALIVE_S = 0.25
"""How long a shard may take for a batch, and then to answer that it is alive, before another is
asked: calls to a process that is being restarted are held back, so its death shows by silence."""
PAUSE_S = 1.0
"""For how long a shard that did not answer is asked last."""
RETRY_S = 0.2
"""Pause before a call to a process that is being restarted is made again."""

Request = TypeVar("Request")
"""A call that is under way."""
Answer = TypeVar("Answer")


class ShardGone(ConnectionError):
    """The process of a shard died, or did not answer in time."""


class BatchCalls(Protocol[Request]):
    """What a reader needs to call shards. `remote.py` has the one over Ray."""

    def ask(self, shard: int, number: int, wait_s: float) -> Request:
        """Ask a shard for batch `number`; it may wait `wait_s` for it. Returns at once."""
        ...

    def is_done(self, request: Request, timeout_s: float) -> bool:
        """Wait for an answer. Returns whether it has come, or the shard is gone."""
        ...

    def answer(self, request: Request) -> Batch | None:
        """The answer that has come. Raises ShardGone if the shard died before it."""
        ...

    def is_alive(self, shard: int, timeout_s: float) -> bool:
        """Whether a shard answers within the timeout."""
        ...


class Rotation:
    """The order in which shards are asked for a batch: its home first, and shards that failed
    lately last.

    Each number always has the same home, so with a frozen replay a number always names the same
    batch. A shard that is dead, has nothing to read, or whose readers are ahead of its writers,
    holds nobody back while another can serve.
    """

    def __init__(self, num_shards: int) -> None:
        self._num_shards = num_shards
        self._failed_s = [float("-inf")] * num_shards

    def order(self, number: int, now_s: float) -> list[int]:
        """All shards in the order in which they are asked for batch `number`."""
        turn = [(number + i) % self._num_shards for i in range(self._num_shards)]
        return sorted(turn, key=lambda shard: now_s - self._failed_s[shard] < PAUSE_S)

    def failed(self, shard: int, now_s: float) -> None:
        """Note that a shard did not answer."""
        self._failed_s[shard] = now_s


@dataclass(slots=True)
class _Asked(Generic[Request]):
    """A batch that was asked for, and which shards to ask next."""

    request: Request
    shard: int
    others: list[int] = field(default_factory=list[int])


class ShardReader(Generic[Request]):
    """Reads batches from several shards and asks for the next ones in advance. Each learner rank
    has a reader of its own.

    reader = ShardReader(calls, num_shards=2, prefetch=2)
    batch = reader.next_batch(0, timeout_s=5.0)
    """

    def __init__(
        self,
        calls: BatchCalls[Request],
        *,
        num_shards: int,
        prefetch: int,
        rank: int = 0,
        num_ranks: int = 1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`prefetch`: batches that are asked for at once. Raises ValueError if there is no such
        rank."""
        batch_number(0, rank, num_ranks)
        self._calls = calls
        self._num_shards = num_shards
        self._prefetch = prefetch
        self._rank, self._num_ranks = rank, num_ranks
        self._clock, self._sleep = clock, sleep
        self._rotation = Rotation(num_shards)
        self._asked: dict[int, _Asked[Request]] = {}
        """By index. Requests behind the reader, or too far ahead of it, are dropped."""

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        """This rank's batch number `index`; None if it does not come in time."""
        deadline = self._clock() + timeout_s
        ahead = range(index, index + self._prefetch)
        self._asked = {i: asked for i, asked in self._asked.items() if i in ahead}
        for i in ahead:
            if i not in self._asked:
                self._ask(i, self._order(i))
        while True:
            asked = self._asked[index]
            left_s = max(0.0, deadline - self._clock())
            # An only shard is waited for; of several each has a moment, so that another may serve.
            patience_s = left_s if self._num_shards == 1 else min(ALIVE_S, left_s)
            is_done = self._calls.is_done(asked.request, patience_s)
            if not is_done and self._clock() >= deadline:
                return None
            # A shard that draws may be slow. It is given up only if it is silent altogether.
            if not is_done and (
                self._num_shards == 1 or self._calls.is_alive(asked.shard, ALIVE_S)
            ):
                continue
            batch = self._answer_of(asked, is_done)
            if batch is not None:
                del self._asked[index]
                return batch
            self._ask(index, asked.others or self._order(index))
            if self._clock() >= deadline:
                return None

    def _answer_of(self, asked: _Asked[Request], is_done: bool) -> Batch | None:
        """The answer, if there is one; a shard that failed is asked last for a while."""
        if not is_done:
            self._rotation.failed(asked.shard, self._clock())
            return None
        try:
            return self._calls.answer(asked.request)
        except ShardGone:
            self._rotation.failed(asked.shard, self._clock())
            if not asked.others:  # nobody else to ask: do not spin while it is restarted
                self._sleep(RETRY_S)
            return None

    def _order(self, index: int) -> list[int]:
        return self._rotation.order(self._number(index), self._clock())

    def _number(self, index: int) -> int:
        return batch_number(index, self._rank, self._num_ranks)

    def _ask(self, index: int, order: Sequence[int]) -> None:
        """Ask the first shard. It answers at once, unless no other is left to ask."""
        shard, *others = order
        last_wait_s = CALL_WAIT_S if self._num_shards == 1 else TURN_S
        request = self._calls.ask(shard, self._number(index), 0.0 if others else last_wait_s)
        self._asked[index] = _Asked(request, shard, others)


def add_patiently(
    add: Callable[[], Added],
    *,
    patience_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Added:
    """Send an episode until replay answers. Sending it again is safe: its key makes it count once.

    Args:
        add: sends it once; raises ShardGone if there is no answer.
        patience_s: after this long the answer is `wait`.
    """
    deadline = clock() + patience_s
    while clock() < deadline:
        try:
            return add()
        except ShardGone:
            sleep(RETRY_S)
    return Added(status="wait", reason=f"replay did not answer for {patience_s:.0f} s")


def first_found(calls: Sequence[Callable[[], Answer | None]]) -> Answer | None:
    """The first answer of any shard that is not None; shards that are gone are passed over."""
    for call in calls:
        try:
            answer = call()
        except ShardGone:
            continue
        if answer is not None:
            return answer
    return None
