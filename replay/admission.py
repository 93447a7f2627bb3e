"""Admission: whether a writer or a reader may go ahead now. Pure arithmetic; it never waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from replay.rate_limiter import Limiter


@dataclass(frozen=True, slots=True)
class Reservation:
    """Tokens that were counted as read before the batch was drawn."""

    tokens: int
    uncoupled: bool
    """Whether they count in the total only, and not against the ratio."""


class Admission:
    """The limiter, and what it must not wait for: writers without room, readers without data.

    Tokens are counted before the work is done, so that those who come next are judged with them,
    and corrected afterwards.

    admission = Admission(limiter, batch_tokens=65_536)
    if admission.may_read():
        reserved = admission.reserve_read()
        ...
        admission.settle_read(reserved, tokens=batch.num_tokens)
    """

    def __init__(self, limiter: Limiter, *, batch_tokens: int) -> None:
        """`batch_tokens`: tokens of a batch, until one was read."""
        self.limiter = limiter
        self.is_full = False
        """Whether the last insert found no room."""
        self._batch_tokens = batch_tokens

    def may_insert(self, can_sample: Callable[[], bool]) -> bool:
        """Whether a writer may go ahead. Readers with nothing to read cannot catch up, so writers
        do not wait for them."""
        return self.limiter.may_insert() or not can_sample()

    def may_read(self) -> bool:
        """Whether a reader may go ahead. Writers who find no room cannot catch up, so readers do
        not wait for them."""
        return self.limiter.may_read() or (self.is_full and self.limiter.inserted_tokens > 0)

    def insert(self, tokens: int) -> None:
        """Count tokens as inserted; negative ones take an insert back."""
        self.limiter.inserted(tokens)

    def reserve_read(self) -> Reservation:
        """Count a batch of the usual size as read."""
        # Reads beyond what writers without room can match must not be held against them later.
        reservation = Reservation(
            self._batch_tokens, uncoupled=self.is_full and not self.limiter.paused
        )
        self._count(reservation.tokens, reservation.uncoupled)
        return reservation

    def settle_read(self, reservation: Reservation, tokens: int) -> None:
        """Correct the count to the tokens that were read; 0: nothing was."""
        self._count(tokens - reservation.tokens, reservation.uncoupled)
        if tokens:
            self._batch_tokens = tokens

    def _count(self, tokens: int, uncoupled: bool) -> None:
        was_paused = self.limiter.paused
        if uncoupled:  # what is read during a pause counts in the total only
            self.limiter.pause()
        self.limiter.read(tokens)
        if not was_paused:
            self.limiter.resume()
