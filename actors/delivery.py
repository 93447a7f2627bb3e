"""Delivery: episodes go to replay, which may reject them or ask to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from gato.episode import BadEpisode, Episode, check_episode
from gato.task import Task


@runtime_checkable
class Receipt(Protocol):
    """What became of an episode that was handed in."""

    @property
    def status(self) -> str:
        """stored, duplicate, refused or wait."""
        ...

    @property
    def reason(self) -> str: ...


@runtime_checkable
class EpisodeSink(Protocol):
    """Where episodes go. `add` returns when the episode is durable or refused, or says `wait` when
    it gave up waiting."""

    def add(self, episode: Episode) -> Receipt: ...


class Delivery:
    """Sends the episodes of one assignment, and counts what became of them.

    delivery = Delivery(sink, patience_s=30.0)
    delivery.send(episode, task)
    delivery.wait_s, delivery.refused
    """

    def __init__(
        self,
        sink: EpisodeSink,
        *,
        patience_s: float,
        on_answer: Callable[[], None] = lambda: None,
    ) -> None:
        """`patience_s`: how long one episode may wait for replay, in seconds. `on_answer` is called
        when replay has answered."""
        self._sink = sink
        self._patience_s = patience_s
        self._on_answer = on_answer
        self.wait_s = 0.0
        """Seconds spent in `send`."""
        self.refused: dict[str, int] = {}
        """Episodes that were not stored, by the reason."""

    def send(self, episode: Episode, task: Task) -> None:
        """Send an episode; while replay says wait, try again, for as long as patience lasts."""
        begun_s = time.monotonic()
        try:
            check_episode(episode, task)  # the check that replay makes: what is bad is not sent
        except BadEpisode as problem:
            self._refuse(str(problem))
            return
        receipt = self._sink.add(episode)
        while receipt.status == "wait" and time.monotonic() - begun_s < self._patience_s:
            receipt = self._sink.add(episode)
        self._on_answer()
        self.wait_s += time.monotonic() - begun_s
        if receipt.status in ("refused", "wait"):
            self._refuse(receipt.reason or receipt.status)

    def _refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1
