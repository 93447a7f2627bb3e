"""The gate: writers and readers wait here, under one condition. Every wait has a timeout, and
`close` ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from replay.admission import Admission, Reservation
from replay.rate_limiter import Limiter, LimiterConfig


class Gate:
    """Lets writers and readers through as the limiter says. Safe to use from many threads.

    gate = Gate(limiter, batch_tokens=65_536, can_sample=mixture.can_sample)
    if gate.enter_writer(tokens, timeout_s=1.0, is_paced=True) is None:
        ...
        gate.leave_writer(tokens, is_stored=True, is_full=False)
    """

    def __init__(
        self, limiter: Limiter, *, batch_tokens: int, can_sample: Callable[[], bool]
    ) -> None:
        """`can_sample`: whether there is anything to read. It is called under the condition, so it
        must not wait for the gate."""
        self.changed = threading.Condition()
        """Guards the limiter and the fields below. Notified whenever a waiting thread may be able
        to go on."""
        self.limiter = limiter
        self.closed = False
        self.writers_waiting = 0
        self.readers_waiting = 0
        self._admission = Admission(limiter, batch_tokens=batch_tokens)
        self._can_sample = can_sample
        self._users = 0
        """Threads that use the store now; `close` waits for them."""

    def may_insert(self) -> bool:
        """Whether a writer may go ahead now; always, once it is closed. The caller holds
        `changed`."""
        return self.closed or self._admission.may_insert(self._can_sample)

    def enter_writer(self, tokens: int, *, timeout_s: float, is_paced: bool) -> str | None:
        """Wait until a writer may go ahead, and count its tokens as inserted.

        Args:
            is_paced: False: do not wait for readers.

        Returns:
            None: it may write, and must call `leave_writer`. Otherwise why it may not.
        """
        with self.changed:
            self.writers_waiting += 1
            try:
                allowed = self.changed.wait_for(
                    lambda: not is_paced or self.may_insert(), timeout_s
                )
            finally:
                self.writers_waiting -= 1
            if self.closed:
                return "replay is closed"
            if not allowed:
                return self.limiter.why()
            # Counted before it is stored, so that the writers who come next are judged with it.
            self._admission.insert(tokens)
            self._users += 1
            return None

    def leave_writer(self, tokens: int, *, is_stored: bool, is_full: bool | None) -> None:
        """Note how a write ended; tokens that were not stored are taken back.

        `is_full`: whether it found no room; None: it failed otherwise, so that nothing is known.
        """
        with self.changed:
            self._users -= 1
            if not is_stored:
                self._admission.insert(-tokens)
            if is_full is not None:
                self._admission.is_full = is_full
            self.changed.notify_all()

    def enter_reader(self, timeout_s: float) -> Reservation | None:
        """Wait until a reader may go ahead, and count a batch as read.

        Returns:
            What `leave_reader` needs; None: it may not read in time, or the gate is closed.
        """
        with self.changed:
            self.readers_waiting += 1
            try:
                allowed = self.changed.wait_for(
                    lambda: self.closed or self._admission.may_read(), timeout_s
                )
            finally:
                self.readers_waiting -= 1
            if not allowed or self.closed:
                return None
            self._users += 1  # `close` waits until the count is right
            return self._admission.reserve_read()

    def leave_reader(self, reservation: Reservation, tokens: int) -> None:
        """Correct the count to the tokens that were read; 0: nothing was."""
        with self.changed:
            self._users -= 1
            self._admission.settle_read(reservation, tokens)
            if tokens or self.closed:
                self.changed.notify_all()

    def wait_for_change(self, has_changed: Callable[[], bool], timeout_s: float) -> None:
        """Wait until something has changed, or the gate is closed."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or has_changed(), timeout_s)

    @contextmanager
    def using_store(self) -> Generator[bool]:
        """Keep the store open within the block. Yields False if it is closed already."""
        with self.changed:
            is_open = not self.closed
            self._users += is_open
        try:
            yield is_open
        finally:
            if is_open:
                with self.changed:
                    self._users -= 1
                    if self.closed:
                        self.changed.notify_all()

    def notify(self) -> None:
        """Have all waiting threads look again."""
        with self.changed:
            self.changed.notify_all()

    def pause(self) -> None:
        """Let the limiter hold nobody back, as for an offline fill, until `resume`."""
        with self.changed:
            self.limiter.pause()
            self.changed.notify_all()

    def resume(self) -> None:
        """End a pause. What came in between is not held against either side."""
        with self.changed:
            self.limiter.resume()
            self.changed.notify_all()

    def reconfigure(self, limiter: LimiterConfig) -> None:
        """Use other settings of the limiter from now on."""
        with self.changed:
            self.limiter.reconfigure(limiter)
            self.changed.notify_all()

    def close(self) -> bool:
        """Wake all waiting threads and wait until no thread uses the store. Returns False if the
        gate was closed before."""
        with self.changed:
            if self.closed:
                return False
            self.closed = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: not self._users)
            return True


def seconds_until(deadline: float) -> float:
    """Time left until a moment of `time.monotonic`; at least 0."""
    return max(0.0, deadline - time.monotonic())
