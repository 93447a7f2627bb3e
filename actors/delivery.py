"""Delivery: sends episodes to replay, which may reject them or ask to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from gato.episode import BadEpisode, Episode, check_episode
from gato.task import Task


@runtime_checkable
class Receipt(Protocol):
    """Replay's answer to an episode."""

    @property
    def status(self) -> str:
        """`stored`, `duplicate`, `wait`, or else it was rejected."""
        ...

    @property
    def reason(self) -> str: ...


@runtime_checkable
class EpisodeSink(Protocol):
    """Where episodes are sent. `add` returns when the episode is durable or rejected, or with
    `wait` if replay had no room for it in time."""

    def add(self, episode: Episode) -> Receipt: ...


class Delivery:
    """Sends the episodes of one assignment, and counts those that were not stored.

    delivery = Delivery(sink, patience_s=30.0)
    delivery.send(episode, task)
    delivery.wait_s, delivery.rejected
    """

    def __init__(
        self,
        sink: EpisodeSink,
        *,
        patience_s: float,
        on_answer: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        patience_s: Seconds that one episode may wait for replay.
        on_answer: Called when replay has answered, which may take long.
        """
        self._sink = sink
        self._patience_s = patience_s
        self._on_answer = on_answer
        self.wait_s = 0.0
        """Seconds spent in `send`."""
        self.rejected: dict[str, int] = {}
        """Number of episodes that were not stored, by the reason."""

    def send(self, episode: Episode, task: Task) -> None:
        """Send an episode; while replay answers `wait`, send it again until patience ends."""
        begun_s = time.monotonic()
        try:
            check_episode(episode, task)  # the check that replay makes too
        except BadEpisode as problem:
            self._reject(str(problem))
            return
        receipt = self._sink.add(episode)
        while receipt.status == "wait" and time.monotonic() - begun_s < self._patience_s:
            receipt = self._sink.add(episode)
        self._on_answer()
        self.wait_s += time.monotonic() - begun_s
        if receipt.status not in ("stored", "duplicate"):
            self._reject(receipt.reason or receipt.status)

    def _reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
