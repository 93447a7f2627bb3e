"""Eviction: which episodes make room for new ones, and the errors when there is no room."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import lmdb

from replay.storage.database import DAMAGED, Parts, number_key
from replay.storage.header import Header

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_SPACE_TEXTS = ("No space", "too large", "quota", "Input/output")
"""Parts of LMDB's messages. It reports a write that was cut short by a full disk as an input/output
error."""

Remover = Callable[[int], list[int]]
"""Given a number of bytes, the numbers of episodes to evict in order, so that at least this many
are freed; fewer episodes if not enough may go."""


class ReplayDiskFull(OSError):
    """There is no space for an episode. Nothing was written, and reads go on."""


class ReplayFull(ReplayDiskFull):
    """The capacity is used up by episodes that may not be evicted."""


@contextmanager
def raising_disk_full() -> Generator[None]:
    """Raise `ReplayDiskFull` in place of the errors by which LMDB and the system report a full
    disk; others pass."""
    try:
        yield
    except (lmdb.MapFullError, lmdb.DiskError) as problem:
        raise ReplayDiskFull(errno.ENOSPC, f"disk full: {problem}") from problem
    except lmdb.Error as problem:
        if any(text in str(problem) for text in NO_SPACE_TEXTS):
            raise ReplayDiskFull(errno.ENOSPC, f"disk full: {problem}") from problem
        raise
    except OSError as problem:
        if problem.errno in NO_SPACE and not isinstance(problem, ReplayDiskFull):
            raise ReplayDiskFull(problem.errno, f"disk full: {problem}") from problem
        raise


def oldest_of_the_agent(episodes: Mapping[int, Header]) -> Remover:
    """The default remover: the agent's oldest episodes. Demonstrations are never evicted."""

    def remover(excess_bytes: int) -> list[int]:
        victims: list[int] = []
        for header in list(episodes.values()):
            if excess_bytes <= 0:
                break
            if header.by_agent:
                victims.append(header.number)
                excess_bytes -= header.stored_bytes
        return victims

    return remover


@dataclass(slots=True, kw_only=True)
class Eviction:
    """The episodes that make room within one transaction. The caller takes them out of memory once
    the transaction is committed."""

    episodes: Mapping[int, Header]
    """Episodes that may be read, by number."""
    taken_out: Mapping[int, Header]
    """Damaged episodes, by number; they make room first."""
    remover: Remover
    takes_demonstrations: bool
    """Whether damaged demonstrations may go. Which others may is up to the remover."""
    capacity_bytes: int
    victims: dict[int, Header] = field(default_factory=dict[int, Header])

    def make_room(self, missing_bytes: int, header: Header) -> Collection[Header]:
        """Choose the episodes that free `missing_bytes` for the episode of `header`.

        Returns:
            The episodes chosen by this call; `victims` has those of all calls.

        Raises:
            ReplayFull: if not enough may be evicted.
        """
        # Damaged episodes are of no use to anyone, so they go first.
        chosen = [victim for victim in list(self.taken_out.values()) if self._may_go(victim)]
        freed_bytes = sum(victim.stored_bytes for victim in chosen)
        if freed_bytes < missing_bytes:
            # The remover sees the store as it was before this transaction, so it names the
            # earlier victims again: ask for their bytes on top.
            already_bytes = sum(
                victim.stored_bytes
                for victim in self.victims.values()
                if victim.number in self.episodes
            )
            numbers = self.remover(missing_bytes - freed_bytes + already_bytes)
            named = [self.episodes.get(number) for number in numbers]
            chosen += [
                victim
                for victim in named
                if victim is not None and victim.number not in self.victims
            ]
            freed_bytes = sum(victim.stored_bytes for victim in chosen)
        if freed_bytes < missing_bytes:
            raise ReplayFull(
                errno.ENOSPC,
                f"replay full: the episode takes {header.stored_bytes} bytes and"
                f" {self.capacity_bytes} are used up by what is never evicted (demonstrations);"
                " raise capacity_bytes",
            )
        self.victims.update({victim.number: victim for victim in chosen})
        return chosen

    def _may_go(self, damaged: Header) -> bool:
        return damaged.number not in self.victims and (
            damaged.by_agent or self.takes_demonstrations
        )


def delete_episode(txn: lmdb.Transaction, parts: Parts, header: Header) -> None:
    """Delete the columns, the header and the damage note of an episode; its key stays known."""
    prefix = number_key(header.number)
    cursor = txn.cursor(db=parts.columns)
    while cursor.set_range(prefix) and bytes(cursor.key())[:8] == prefix:
        cursor.delete()
    txn.delete(prefix, db=parts.headers)
    txn.delete(DAMAGED + str(header.number).encode(), db=parts.counters)
