"""Choices of replay's clients: which shard is asked for a batch, how far to read ahead, and when to
try again. Plain classes, without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from gato.sequence import Batch
from replay.ingest import Added
from replay.read_ahead import ReadAhead
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
    """What a reader needs to call shards. `clients.py` has the one over Ray."""

    def ask(self, shard: int, numbers: Sequence[int], wait_s: float) -> Request:
        """Ask a shard for batches. It may wait `wait_s` for the first, and for no other. Returns at
        once."""
        ...

    def is_done(self, request: Request, timeout_s: float) -> bool:
        """Wait for an answer. Returns whether it has come, or the shard is gone."""
        ...

    def answer(self, request: Request) -> Sequence[Batch]:
        """The answer that has come: the first so many of the batches that were asked for. Raises
        ShardGone if the shard died before it."""
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
class _Call(Generic[Request]):
    """A call for batches of one shard, and which shards to ask next."""

    request: Request
    shard: int
    indices: Sequence[int]
    others: Sequence[int]
    is_in_advance: bool
    """Whether it was made before its first batch was wanted."""
    was_waited_for: bool = False


class ShardReader(Generic[Request]):
    """Reads batches from several shards and asks for the next ones in advance, several with one
    call if it has to wait for them. Each learner rank has a reader of its own.

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
        """`prefetch`: batches that are asked for in advance at least; see `ReadAhead`. Raises
        ValueError if there is no such rank."""
        batch_number(0, rank, num_ranks)
        self._calls = calls
        self._num_shards = num_shards
        self._rank, self._num_ranks = rank, num_ranks
        self._clock, self._sleep = clock, sleep
        self._rotation = Rotation(num_shards)
        self._ahead = ReadAhead(prefetch=prefetch, num_shards=num_shards)
        # By index. What is behind the reader, or too far ahead of it, is dropped.
        self._asked: dict[int, _Call[Request]] = {}
        self._ready: dict[int, Batch] = {}

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        """This rank's batch number `index`; None if it does not come in time."""
        deadline = self._clock() + timeout_s
        ahead = range(index, index + self._ahead.num_batches)
        self._asked = {i: call for i, call in self._asked.items() if i in ahead}
        self._ready = {i: batch for i, batch in self._ready.items() if i in ahead}
        while True:
            self._ask_ahead(index)
            if index in self._ready:
                return self._ready.pop(index)
            call = self._asked[index]
            is_done = self._is_done(call, deadline)
            if not is_done and self._clock() >= deadline:
                return None
            # A shard that draws may be slow. It is given up only if it is silent altogether.
            if not is_done and (self._num_shards == 1 or self._calls.is_alive(call.shard, ALIVE_S)):
                continue
            self._end(call, is_done)
            if index not in self._ready:
                if call.others:
                    self._ask([index], call.others, is_in_advance=False)
                if self._clock() >= deadline:
                    return None

    def _is_done(self, call: _Call[Request], deadline: float) -> bool:
        """Wait a while for the answer to a call."""
        if self._calls.is_done(call.request, 0.0):
            return True
        call.was_waited_for = call.is_in_advance
        left_s = max(0.0, deadline - self._clock())
        # An only shard is waited for; of several each has a moment, so that another may serve.
        patience_s = left_s if self._num_shards == 1 else min(ALIVE_S, left_s)
        return self._calls.is_done(call.request, patience_s)

    def _end(self, call: _Call[Request], is_done: bool) -> None:
        """Take the answer to a call. What it lacks is asked for again; a shard that failed is asked
        last for a while."""
        self._asked = {i: other for i, other in self._asked.items() if other is not call}
        if not is_done:
            self._rotation.failed(call.shard, self._clock())
            return
        try:
            batches = self._calls.answer(call.request)
        except ShardGone:
            self._rotation.failed(call.shard, self._clock())
            if not call.others:  # nobody else to ask: do not spin while it is restarted
                self._sleep(RETRY_S)
            return
        self._ready.update(zip(call.indices, batches, strict=False))
        if batches:
            self._ahead.answered(
                was_waited_for=call.was_waited_for,
                is_whole=len(batches) == len(call.indices),
                batch_bytes=sum(array.nbytes for array in batches[0].arrays().values()),
            )

    def _ask_ahead(self, index: int) -> None:
        """Ask for what is missing: at once for batch `index`, for those after it once a whole group
        of a shard is missing."""
        missing: dict[int, list[int]] = {}
        for i in range(index, index + self._ahead.num_batches):
            if i in self._asked or i in self._ready:
                continue
            home = self._number(i) % self._num_shards
            group = missing.setdefault(home, [])
            group.append(i)
            if len(group) == self._ahead.group:
                self._ask_home(missing.pop(home), index)
        for group in missing.values():
            if group[0] == index:
                self._ask_home(group, index)

    def _ask_home(self, indices: Sequence[int], wanted: int) -> None:
        order = self._rotation.order(self._number(indices[0]), self._clock())
        self._ask(indices, order, is_in_advance=indices[0] != wanted)

    def _number(self, index: int) -> int:
        return batch_number(index, self._rank, self._num_ranks)

    def _ask(self, indices: Sequence[int], order: Sequence[int], *, is_in_advance: bool) -> None:
        """Ask the first shard. It answers at once, unless no other is left to ask."""
        shard, *others = order
        last_wait_s = CALL_WAIT_S if self._num_shards == 1 else TURN_S
        numbers = [self._number(index) for index in indices]
        request = self._calls.ask(shard, numbers, 0.0 if others else last_wait_s)
        call = _Call(request, shard, indices, others, is_in_advance)
        self._asked.update(dict.fromkeys(indices, call))


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
