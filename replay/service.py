"""The service: store, limiter and mix behind one condition. All waiting is here, it is bounded, and `close` ends it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gato.episode import BadEpisode, Episode, check_episode, episode_from_bytes
from gato.metrics import ReplayStats
from gato.sequence import Batch, Window
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.config import ReplayConfig
from replay.limiter import Limiter
from replay.mix import Mix
from replay.store import EpisodeStore, ReplayDiskFull, ReplayFull

SAVE_EVERY_S = 1.0
"""How often the count of read tokens goes to disk, unless a quarter of the slack was read earlier. What is read in between
is forgotten by a crash, and read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of an episode that was handed in."""

    status: Literal["stored", "duplicate", "refused", "wait"]
    """stored: durable. duplicate: it was already. refused: see `reason`. wait: writers are held back; hand it in again."""
    reason: str = ""


REASONS = {
    "not an episode": "damaged", "damaged": "damaged", "not finite": "not finite", "shape": "wrong shape",
    "dtype": "wrong dtype", "observes": "wrong observations", "outside": "values out of range",
}  # fmt: skip


def _short(problem: str) -> str:
    return next((short for word, short in REASONS.items() if word in problem), "bad episode")


class ReplayService:
    """Replay in one process.

    service = ReplayService(folder, tasks, layout, config, seed=0)
    service.add(episode_to_bytes(episode), timeout_s=1.0)      # Added(status="stored")
    batch = service.next_batch(0, timeout_s=1.0)               # None: not yet
    """

    def __init__(
        self,
        folder: Path,
        tasks: Mapping[str, Task],
        layout: TokenLayout,
        config: ReplayConfig,
        *,
        seed: int,
        teacher_returns: Mapping[str, float] | None = None,
    ) -> None:
        self._tasks = tasks
        self._config = config
        self._store = EpisodeStore(folder, capacity_bytes=config.capacity_bytes)
        self._mix = Mix(self._store, tasks, layout, config.mix, seed=seed, teacher_returns=teacher_returns or {})
        self._limiter = Limiter(
            config.limiter, inserted_tokens=self._store.inserted_tokens, read_tokens=self._store.counter("read_tokens")
        )
        self._changed = threading.Condition()
        self._closed = False
        self._refused: Counter[str] = Counter()
        self._duplicates = 0
        self._writers_waiting = 0
        self._readers_waiting = 0
        self._saved_s = 0.0
        self._saved_tokens = self._limiter.read_tokens

    def add(self, record: bytes, *, timeout_s: float) -> Added:
        """Take an episode. Returns when it is durable, or refused, or when writers are held back beyond the timeout."""
        try:
            episode = episode_from_bytes(record)
            task = self._tasks.get(episode.task)
            if task is None:
                return self._refuse("unknown task")
            check_episode(episode, task)
        except BadEpisode as problem:
            return self._refuse(_short(str(problem)), str(problem))
        return self._add(episode, timeout_s)

    def _refuse(self, short: str, reason: str = "") -> Added:
        with self._changed:
            self._refused[short] += 1
        return Added(status="refused", reason=f"{short}: {reason}" if reason else short)

    def _add(self, episode: Episode, timeout_s: float) -> Added:
        tokens = episode.num_steps * self._mix.layouts[episode.task].tokens_per_step
        with self._changed:
            if self._closed:
                return Added(status="wait", reason="replay is closed")
            if self._store.known(episode.key):
                self._duplicates += 1
                return Added(status="duplicate")
            self._writers_waiting += 1
            try:
                allowed = self._changed.wait_for(lambda: self._closed or self._may_insert(), timeout_s)
            finally:
                self._writers_waiting -= 1
            if not allowed or self._closed:
                return Added(status="wait", reason="replay is closed" if self._closed else "readers are behind")
            try:
                header = self._store.add(episode, tokens=tokens)
            except ReplayDiskFull as problem:
                self._refused["replay full" if isinstance(problem, ReplayFull) else "disk full"] += 1
                return Added(status="refused", reason=str(problem.strerror))
            if header is None:
                self._duplicates += 1
                return Added(status="duplicate")
            self._limiter.inserted(tokens)
            self._changed.notify_all()
            return Added(status="stored")

    def _may_insert(self) -> bool:
        """Readers who have nothing to read cannot catch up, so nobody waits for them."""
        return self._limiter.may_insert() or not self._mix.can_sample()

    def next_batch(self, index: int, *, timeout_s: float) -> Batch | None:
        """Batch number `index`; None where there is nothing to read, or readers are held back, beyond the timeout."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._readers_waiting += 1
            try:
                while not self._closed:
                    if self._limiter.may_read():
                        batch = self._mix.sample(index)
                        if batch is not None:
                            self._limiter.read(batch.num_tokens)
                            self._save_counters()
                            self._changed.notify_all()
                            return batch
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        return None
            finally:
                self._readers_waiting -= 1
        return None

    def _save_counters(self) -> None:
        now_s = time.monotonic()
        unsaved_tokens = self._limiter.read_tokens - self._saved_tokens
        if now_s - self._saved_s >= SAVE_EVERY_S or 4 * unsaved_tokens >= self._config.limiter.slack_tokens:
            self._saved_s, self._saved_tokens = now_s, self._limiter.read_tokens
            self._store.set_counters(read_tokens=self._limiter.read_tokens)

    def demonstration(
        self, task_name: str, num_steps: int, *, draw: int = 0, source: str | None = None
    ) -> Window | None:
        """See `Mix.demonstration`; None also where replay is closed."""
        with self._changed:
            return None if self._closed else self._mix.demonstration(task_name, num_steps, draw=draw, source=source)

    def demonstration_steps(self) -> dict[str, int]:
        """Steps of demonstrations (not the agent's own) kept of each task."""
        with self._changed:
            steps = dict.fromkeys(self._tasks, 0)
            for header in self._store.episodes.values():
                if not header.by_agent and header.task in steps:
                    steps[header.task] += header.steps
            return steps

    def keys(self) -> list[str]:
        """Keys of all episodes kept, oldest first."""
        with self._changed:
            return [header.key for header in self._store.episodes.values()]

    def stats(self) -> ReplayStats:
        """How replay stands."""
        with self._changed:
            episodes = Counter(header.task for header in self._store.episodes.values())
            refused = dict(self._refused)
            if self._store.damaged:
                refused["damaged on disk"] = len(self._store.damaged)
            return ReplayStats(
                episodes=dict(sorted(episodes.items())),
                steps=sum(header.steps for header in self._store.episodes.values()),
                inserted_tokens=self._limiter.inserted_tokens,
                read_tokens=self._limiter.read_tokens,
                stored_bytes=self._store.stored_bytes,
                capacity_bytes=self._config.capacity_bytes,
                refused=refused,
                duplicates=self._duplicates,
                writers_waiting=self._writers_waiting,
                readers_waiting=self._readers_waiting,
                may_insert=self._may_insert(),
                incarnation=self._store.incarnation,
            )

    def close(self) -> None:
        """Wake everyone who waits, with nothing, and close the store."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._store.set_counters(read_tokens=self._limiter.read_tokens)
            self._changed.notify_all()
            self._store.close()
