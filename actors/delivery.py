"""Delivery: sends episodes to replay, and keeps those that replay has no room for yet."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from gato.episode import BadEpisode, Episode, check_episode
from gato.task import Task

KEPT_BYTES = 256 << 20
"""Of the arrays of the episodes that a worker keeps. With more it waits for replay."""
HELD_S, PAUSE_S = 0.5, 2.0
"""How long a worker lets replay hold a call, and how long it then plays on before it asks again. It
waits a fifth of the time at most, and replay has its episodes soon after there is room."""


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


@dataclass(slots=True)
class Outbox:
    """Episodes that were played and that replay has not taken yet, oldest first. A worker keeps
    them from one assignment to the next."""

    capacity_bytes: int = KEPT_BYTES
    pause_s: float = PAUSE_S
    ask_again_s: float = float("-inf")
    """When replay is asked again, by `time.monotonic`."""
    episodes: deque[Episode] = field(default_factory=deque[Episode])
    stored_bytes: int = 0

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def is_full(self) -> bool:
        return self.stored_bytes > self.capacity_bytes

    def put(self, episode: Episode) -> None:
        """Keep an episode, behind the others."""
        self.episodes.append(episode)
        self.stored_bytes += _num_bytes(episode)

    def drop_first(self) -> None:
        """Forget the oldest one: replay has answered for it."""
        self.stored_bytes -= _num_bytes(self.episodes.popleft())


def _num_bytes(episode: Episode) -> int:
    return episode.actions.nbytes + sum(values.nbytes for values in episode.observations.values())


class Delivery:
    """Sends the episodes of one assignment, and counts those that were rejected.

    delivery = Delivery(sink, outbox)
    delivery.send(episode, task)
    delivery.hand_in()
    delivery.wait_s, delivery.rejected, delivery.kept

    No episode is dropped because replay holds writers back: it stays in the outbox, and is sent
    again with the next one, or at the next `hand_in`. `send` waits only while the outbox is full,
    which is the back-pressure.
    """

    def __init__(
        self,
        sink: EpisodeSink,
        outbox: Outbox,
        *,
        on_answer: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        outbox: What earlier assignments have left, which is sent first.
        on_answer: Called when replay has answered, which may take long.
        """
        self._sink = sink
        self._outbox = outbox
        self._on_answer = on_answer
        self.wait_s = 0.0
        """Seconds spent in `send` and `hand_in`."""
        self.rejected: dict[str, int] = {}
        """Number of episodes that were not stored, by the reason."""

    @property
    def kept(self) -> int:
        """Episodes that are still to be handed in."""
        return len(self._outbox)

    def send(self, episode: Episode, task: Task) -> None:
        """Send an episode, after those that were kept; keep it if replay answers `wait`."""
        try:
            check_episode(episode, task)  # the check that replay makes too
        except BadEpisode as problem:
            self._reject(str(problem))
            return
        self._outbox.put(episode)
        self.hand_in()

    def hand_in(self) -> None:
        """Send what is kept, until replay answers `wait`; go on while the outbox is full."""
        begun_s = time.monotonic()
        if begun_s < self._outbox.ask_again_s and not self._outbox.is_full:
            return
        while self._outbox:
            receipt = self._sink.add(self._outbox.episodes[0])  # may be held inside replay
            self._on_answer()
            if receipt.status == "wait":
                self._outbox.ask_again_s = time.monotonic() + self._outbox.pause_s
                if self._outbox.is_full:
                    continue
                break
            self._outbox.drop_first()
            if receipt.status not in ("stored", "duplicate"):
                self._reject(receipt.reason or receipt.status)
        self.wait_s += time.monotonic() - begun_s

    def _reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
