"""The rows of a batch that each rank computes, and how they get there."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch.distributed as dist

from gato.network.share import Share
from gato.sequence import Batch
from learner.parallel.ranks import Ranks
from learner.prefetch import BatchSource, Prefetcher
from learner.staging import Staged

Part = tuple[Batch, Share]


def part_of(batch: Batch, rank: int, size: int) -> Part:
    """Every `size`-th row of a batch from row `rank` on, with its patches; their leaders still
    count the patches of the whole batch.

    Raises:
        ValueError: The batch has fewer rows than there are ranks.
    """
    num_rows, row_tokens = batch.ids.shape
    if num_rows < size:
        raise ValueError(
            f"a batch of {num_rows} rows is not enough for {size} learners; lower"
            " learner.num_learners or raise replay.mix.rows"
        )
    row_P, column_P = np.divmod(batch.patch_at, row_tokens)
    mine_P = row_P % size == rank
    has_past = batch.segment[:, 1:] == batch.segment[:, :-1]
    share = Share(
        rank=rank,
        size=size,
        num_rows=num_rows,
        num_patches=len(batch.patches),
        num_targets=int(np.count_nonzero(batch.is_target[:, 1:] & has_past)),
        num_tokens=batch.num_tokens,
    )
    rows = share.rows
    part = Batch(
        ids=batch.ids[rows],
        place=batch.place[rows],
        segment=batch.segment[rows],
        is_target=batch.is_target[rows],
        patches=batch.patches[mine_P],
        patch_at=row_P[mine_P] // size * row_tokens + column_P[mine_P],
        patch_intervals=batch.patch_intervals[mine_P],
        patch_leaders=batch.patch_leaders[mine_P],
        task_index=batch.task_index[rows],
        episode_keys=batch.episode_keys,
    )
    return part, share


class Feed:
    """A source of each rank's part of every batch. Rank 0 reads the batches, and sends the parts
    from its prefetcher's thread.

    feed = Feed(ranks, source)
    prefetcher = Prefetcher(feed, ...)
    batch = feed.next(prefetcher)          # on all ranks a part of the same batch, or None
    prefetcher.close()
    feed.close()
    """

    def __init__(self, ranks: Ranks, source: BatchSource) -> None:
        """`source`: read by rank 0 alone."""
        self._ranks = ranks
        self._source = source
        self._shares: deque[Share] = deque()
        self._has_ended = False

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        """This rank's part of batch number `index`. Ranks other than 0 wait for it without a limit;
        None: there are no more."""
        parts: list[Part | None] | None = None
        if self._ranks.is_first:
            batch = self._source.next_batch(index, timeout_s)
            if batch is None:
                return None
            size = self._ranks.size
            parts = [part_of(batch, rank, size) for rank in range(size)]
        elif self._has_ended:
            return None
        part = self._receive(parts)
        if part is None:
            return None
        self._shares.append(part[1])
        return part[0]

    def next(self, prefetcher: Prefetcher) -> Staged | None:
        """The next part, on the device; on all ranks None if rank 0 has none within a second."""
        batch = prefetcher.next(timeout_s=1.0) if self._ranks.is_first else None
        if not self._ranks.agreed(batch is not None):
            return None
        while batch is None:
            batch = prefetcher.next(timeout_s=1.0)
        share = self._shares.popleft()
        return Staged.of_share(batch, share)

    def close(self) -> None:
        """Tell all ranks that there are no more batches. The prefetcher must have been closed; a
        part that nobody took is dropped."""
        if self._ranks.is_first:
            ends: list[Part | None] = [None] * self._ranks.size
            self._receive(ends)
        while not self._has_ended:
            self._receive(None)

    def _receive(self, parts: list[Part | None] | None) -> Part | None:
        received: list[Part | None] = [None]
        dist.scatter_object_list(received, parts, src=0, group=self._ranks.feed)
        self._has_ended = received[0] is None
        return received[0]
