"""Prefetching: one thread puts the next batches on the device before they are needed."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Protocol, runtime_checkable

from gato.sequence import Batch
from learner.staging import Staged, Stager


@runtime_checkable
class BatchSource(Protocol):
    """What the learner needs of replay: batch number `index`, deterministic for a given state of
    replay."""

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        """The batch; None if there is none within `timeout_s` (nothing to read yet, or the limiter
        holds readers back)."""
        ...


class Prefetcher:
    """Batches in the order of their index; up to `ahead` are prepared while the learner computes.

    prefetcher = Prefetcher(source, Stager(torch.device("cpu")), first_index=0)
    batch = prefetcher.next(timeout_s=1.0)     # None: no batch yet
    prefetcher.close()
    """

    def __init__(
        self,
        source: BatchSource,
        stager: Stager,
        *,
        first_index: int,
        ahead: int = 2,
    ) -> None:
        """Start the thread.

        Args:
            source: Where batches come from.
            stager: Puts them on the device.
            first_index: Of the first batch; a resumed run goes on with its step.
            ahead: Batches that are prepared in advance.
        """
        self._source = source
        self._stager = stager
        self._ahead = ahead
        self._ready: deque[Staged] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(
            target=self._fill, args=(first_index,), name="prefetch", daemon=True
        )
        self._thread.start()

    def _fill(self, index: int) -> None:
        try:
            while not self._closed:
                batch = self._source.next_batch(index, timeout_s=1.0)
                if batch is None:
                    continue
                staged = self._stager.stage(batch)
                index += 1
                with self._changed:
                    self._ready.append(staged)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: len(self._ready) < self._ahead or self._closed)
        except BaseException as failure:  # raised by `next`, in the learner's thread
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def next(self, timeout_s: float) -> Staged | None:
        """The next batch; None if there is none within `timeout_s`. An error of the source is
        raised here."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._ready and not self._failure:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return None
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            assert self._failure is not None
            raise self._failure

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=5.0)
