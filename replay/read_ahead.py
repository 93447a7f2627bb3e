"""Read-ahead: how many batches a reader asks for in advance, and how many of them with one call.
Arithmetic; it never waits."""

from __future__ import annotations

MAX_GROUP = 8
"""Batches that one call may ask for."""
MAX_AHEAD_BYTES = 64 << 20
"""Bytes of the batches asked for in advance, unless the reader was told to ask for more."""


class ReadAhead:
    """Grows while the reader has to wait for batches that it asked for in advance, and shrinks
    while it does not: for a slow reader nothing is drawn earlier than it was told.

    ahead = ReadAhead(prefetch=2, num_shards=1)
    ahead.answered(was_waited_for=True, is_whole=True, batch_bytes=1 << 20)
    ahead.num_batches, ahead.group      # 4, 2
    """

    def __init__(self, *, prefetch: int, num_shards: int) -> None:
        """`prefetch`: batches that are asked for in advance, or up to a group fewer."""
        self._least = prefetch
        self._num_shards = num_shards
        self._most_group = 1  # until the size of a batch is known
        self.num_batches = prefetch
        """That are asked for in advance."""

    @property
    def group(self) -> int:
        """Batches a call, so that each shard has two calls: it answers one while the reader uses
        up the other."""
        return max(1, min(self._most_group, self.num_batches // (2 * self._num_shards)))

    def answered(self, *, was_waited_for: bool, is_whole: bool, batch_bytes: int) -> None:
        """Note the answer to a call.

        Args:
            was_waited_for: Whether its first batch was wanted before it was there.
            is_whole: Whether it has all batches that were asked for. If not, replay has no more, or
                the rate limiter holds readers back: larger calls would not help.
            batch_bytes: Size of one of its batches.
        """
        calls = 2 * self._num_shards
        most = min(calls * MAX_GROUP, MAX_AHEAD_BYTES // batch_bytes)
        self._most_group = min(MAX_GROUP, MAX_AHEAD_BYTES // (calls * batch_bytes))
        if was_waited_for and is_whole and self.num_batches <= most:
            self.num_batches = min(2 * self.num_batches, most)
        elif self.num_batches > self._least:
            # One fewer for each call: a batch that was asked for is never beyond the reader's view.
            self.num_batches -= 1
