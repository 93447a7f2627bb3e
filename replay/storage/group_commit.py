"""Group commit: one transaction for all the records that came while the last one was written.

A thread that finds no other thread writing writes for all that wait; the others wait for one or two
commits. There is no timer: a lone writer never waits for others, and eight that come at once share
one write to the disk.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replay.storage.record import Record
from replay.storage.store import Outcome

MAX_GROUP = 1024
"""Records in one group."""
GROUP_BYTES = 64 << 20
"""Size at which a group is closed, so that a commit takes tens of milliseconds on a disk of a
GB/s."""

Write = Callable[[Sequence[tuple[Record, int]]], Sequence[Outcome]]


@dataclass(slots=True)
class _Ticket:
    record: Record
    tokens: int
    is_done: bool = False
    outcome: Outcome = None
    failure: BaseException | None = None

    @property
    def num_bytes(self) -> int:
        return sum(len(value) for value in self.record.values.values())


class GroupCommitter:
    """Hands the records of many threads to one writer at a time.

    committer = GroupCommitter(store.add_all, max_group=1024)
    outcome = committer.commit(record, tokens=15_000)      # returns when it is durable, or rejected
    """

    def __init__(self, write: Write, *, max_group: int) -> None:
        self._write = write
        self._max_group = max_group
        self._changed = threading.Condition()
        self._waiting: deque[_Ticket] = deque()
        self._is_writing = False

    def commit(self, record: Record, tokens: int) -> Outcome:
        """Write a record and wait for it. Returns what became of it.

        An exception of the writer is raised in every thread that it wrote for.
        """
        mine = _Ticket(record, tokens)
        with self._changed:
            self._waiting.append(mine)
        while True:
            with self._changed:
                # Either another thread wrote this record, or it is this thread's turn to write.
                self._changed.wait_for(lambda: mine.is_done or not self._is_writing)
                if mine.is_done:
                    break
                self._is_writing = True
                group = self._take_group()
            # Without the condition, so that further records can queue up meanwhile. The group may
            # not contain this thread's own record: then it waits again.
            self._write_group(group)
        if mine.failure is not None:
            raise mine.failure
        return mine.outcome

    def _take_group(self) -> list[_Ticket]:
        group: list[_Ticket] = []
        size = 0
        while self._waiting and len(group) < self._max_group and (not group or size < GROUP_BYTES):
            group.append(self._waiting.popleft())
            size += group[-1].num_bytes
        return group

    def _write_group(self, group: Sequence[_Ticket]) -> None:
        try:
            outcomes = self._write([(ticket.record, ticket.tokens) for ticket in group])
            for ticket, outcome in zip(group, outcomes, strict=True):
                ticket.outcome = outcome
        except BaseException as failure:  # each waiting thread raises it
            for ticket in group:
                ticket.failure = failure
        finally:
            with self._changed:
                self._is_writing = False
                for ticket in group:
                    ticket.is_done = True
                self._changed.notify_all()
