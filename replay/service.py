"""The service: store, limiter and mix behind one condition. All waiting is here, it is bounded, and
`close` ends it."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from gato.metrics import ReplayStats
from gato.sequence import Batch, Window
from gato.task import Task
from gato.tokenizer import TokenLayout
from gato.version import Version
from replay.config import ReplayConfig
from replay.ingest import Ingest, Rejected
from replay.rate_limiter import Limiter, LimiterConfig
from replay.sampling.candidates import items_of, scores
from replay.sampling.mixture import Mix, by_priority
from replay.sampling.raw_windows import Windows
from replay.sampling.sample_info import Sample
from replay.sampling.sampler import victims
from replay.sampling.selector_names import selector_from_name
from replay.storage.eviction import ReplayDiskFull, ReplayFull
from replay.storage.group_commit import Committer
from replay.storage.record import Record
from replay.storage.store import EpisodeStore

SAVE_EVERY_S = 1.0
"""How often the count of read tokens goes to disk, unless a quarter of the slack was read earlier.
What is read in between is forgotten by a crash, and read again."""
SAVE_SAMPLING_S = 30.0
"""How often priorities and times sampled go to disk, where the tables draw by them."""
MAX_GROUP = 1024
PREDECESSOR_WAIT_S = 60.0
"""For a killed replay to be gone from its store; whoever is refused there is not started again."""
REMOVER_ROLE = 5
ROOM_FRACTION = 1 / 256
"""Of the capacity that is freed at once, so that not every episode makes the remover look at all
others."""

Drawn = TypeVar("Drawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of an episode that was handed in."""

    status: Literal["stored", "duplicate", "refused", "wait"]
    """stored: durable, as the durability says. duplicate: it was already. refused: see `reason`.
    wait: writers are held back; hand it in again."""
    reason: str = ""


class ReplayService:
    """Replay in one process: all of it, or one shard.

    service = ReplayService(folder, tasks, layout, config, seed=0)
    service.add(record_to_bytes(pack(episode)), timeout_s=1.0)      # Added(status="stored")
    batch = service.next_batch(0, timeout_s=1.0)                    # None: not yet
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
        shard: int = 0,
    ) -> None:
        """`shard`: which of `config.num_shards` this is; `replay.shards.shard_of` says which
        episodes are its own."""
        self._tasks = tasks
        self._ingest = Ingest(
            tasks,
            max_episode_bytes=config.max_episode_bytes,
            shard=shard,
            num_shards=config.num_shards,
        )
        self._config = config
        self._seed = seed
        self._store = EpisodeStore(
            folder,
            capacity_bytes=config.capacity_bytes,
            durability=config.durability,
            num_shards=config.num_shards,
            lock_wait_s=PREDECESSOR_WAIT_S,
        )
        self._store.remover = self._victims
        self._store.evicts_demonstrations = config.evict == "all"
        self._mix = Mix(
            self._store, tasks, layout, config.mix, seed=seed, teacher_returns=teacher_returns or {},
            cache_bytes=config.cache_bytes,
        )  # fmt: skip
        self._draws_by_state = self._mix.draws_by_state or by_priority(config.remover)
        self._limiter = self._restored_limiter()
        self._restore_sampling()
        self._committer = Committer(
            self._store.add_all, max_group=1 if config.durability == "always" else MAX_GROUP
        )
        self._changed = threading.Condition()
        self._sampling = threading.Lock()
        """Held while a batch is drawn, never together with the condition but by whoever has the
        condition first."""
        self._closed = False
        self._refused: Counter[str] = Counter()
        self._duplicates = 0
        self._is_full = False
        """Whether the last episode found no room: then readers are not held back for writers who
        cannot write."""
        self._writers_waiting = 0
        self._readers_waiting = 0
        self._using_store = 0
        """Threads that were let in to write something; `close` waits for them."""
        self._batch_tokens = config.mix.rows * config.mix.row_tokens
        self._saved_s = self._saved_sampling_s = 0.0
        self._saved_tokens = self._limiter.read_tokens

    def _restored_limiter(self) -> Limiter:
        """As it was when it was last saved; what was stored since is known from the store."""
        saved = self._store.database.noted("limiter")
        if saved is None:
            inserted, read = (
                self._store.inserted_tokens,
                self._store.database.counter("read_tokens"),
            )
            return Limiter(self._config.limiter, inserted_tokens=inserted, read_tokens=read)
        limiter = Limiter.load(self._config.limiter, json.loads(saved))
        limiter.inserted(self._store.inserted_tokens - limiter.inserted_tokens)
        return limiter

    def _restore_sampling(self) -> None:
        saved = self._store.database.noted("sampling")
        if saved is not None:
            state = json.loads(saved)
            self._store.index.published(Version(0, int(state["newest_version"])))
            self._store.index.load(
                {key: (float(p), int(n)) for key, (p, n) in state["episodes"].items()}
            )

    def _sampling_note(self) -> bytes:
        index = self._store.index
        return json.dumps(
            {"newest_version": index.newest_version, "episodes": index.state()}
        ).encode()

    def add(self, data: bytes, *, timeout_s: float, is_paced: bool = True) -> Added:
        """Take an episode. Returns when it is durable, or refused, or when writers are held back
        beyond the timeout.

        What is not paced is not held back, as for data that is there before anybody reads; it
        counts all the same.
        """
        try:
            record = self._ingest.record(data)
        except Rejected as rejected:
            with self._changed:
                self._refused[rejected.kind] += 1
            return Added(status="refused", reason=str(rejected))
        return self._add(record, timeout_s, is_paced)

    def _add(self, record: Record, timeout_s: float, is_paced: bool) -> Added:
        tokens = record.header.steps * self._mix.layouts[record.header.task].tokens_per_step
        with self._changed:
            if not self._closed and self._store.known(record.header.key, record.key):
                self._duplicates += 1
                return Added(status="duplicate")
            self._writers_waiting += 1
            try:
                allowed = self._changed.wait_for(
                    lambda: self._closed or not is_paced or self._may_insert(), timeout_s
                )
            finally:
                self._writers_waiting -= 1
            if self._closed or not allowed:
                return Added(
                    status="wait",
                    reason="replay is closed" if self._closed else self._limiter.why(),
                )
            # Counted now, so that those who come next are judged with it; taken back where it is
            # not stored.
            self._limiter.inserted(tokens)
            self._using_store += 1
        try:
            outcome = self._committer.commit(record, tokens)
        except BaseException:
            with self._changed:
                self._limiter.inserted(-tokens)
                self._using_store -= 1
                self._changed.notify_all()
            raise
        with self._changed:
            self._using_store -= 1
            if outcome is None or isinstance(outcome, ReplayDiskFull):
                self._limiter.inserted(-tokens)
            self._is_full = isinstance(outcome, ReplayDiskFull)
            self._changed.notify_all()
            if outcome is None:
                self._duplicates += 1
                return Added(status="duplicate")
            if isinstance(outcome, ReplayDiskFull):
                self._refused[
                    "replay full" if isinstance(outcome, ReplayFull) else "disk full"
                ] += 1
                return Added(status="refused", reason=str(outcome.strerror))
            return Added(status="stored")

    def _may_insert(self) -> bool:
        """Readers who have nothing to read cannot catch up, so nobody waits for them."""
        return self._limiter.may_insert() or not self._can_sample()

    def _can_sample(self) -> bool:
        with self._sampling:
            return self._mix.can_sample()

    def _victims(self, excess_bytes: int) -> list[int]:
        """What makes room: of the agent's episodes, or of all, those that the remover takes
        first."""
        index = self._store.index
        snapshot = index.snapshot(fresh=True)
        may_go = np.flatnonzero(snapshot.by_agent | (self._config.evict == "all"))
        score = scores(snapshot, index.tasks, self._tasks)
        items = items_of(snapshot, may_go, score, index.newest_version)
        rng = np.random.default_rng([self._seed, REMOVER_ROLE, index.change])
        wanted = max(excess_bytes, int(self._config.capacity_bytes * ROOM_FRACTION))
        chosen = victims(
            selector_from_name(self._config.remover),
            items,
            wanted,
            snapshot.stored_bytes[may_go],
            rng,
        )
        return items.number[chosen].tolist()

    def next_batch(self, index: int, *, timeout_s: float) -> Batch | None:
        """Batch number `index`; None where there is nothing to read, or readers are held back,
        beyond the timeout."""
        return self._next(
            lambda: self._mix.sample(index), lambda batch: batch.num_tokens, timeout_s
        )

    def next_sample(self, index: int, *, timeout_s: float) -> Sample | None:
        """The same batch, with key, probability, times sampled and age of each of its windows."""
        return self._next(
            lambda: self._mix.sample_with_info(index),
            lambda sample: sample.batch.num_tokens,
            timeout_s,
        )

    def next_windows(
        self, index: int, *, num_windows: int, steps: int, timeout_s: float, task_name: str | None = None,
        table: str | None = None,
    ) -> Windows | None:  # fmt: skip
        """Windows as they were stored, for learners that read no tokens; see `Mix.windows`. The
        limiter counts the tokens that their steps would be."""

        def draw() -> Windows | None:
            return self._mix.windows(
                index, num_windows=num_windows, steps=steps, task_name=task_name, table=table
            )

        each = self._mix.only_layout(task_name).tokens_per_step
        return self._next(draw, lambda windows: int(windows.length.sum()) * each, timeout_s)

    def _next(
        self, draw: Callable[[], Drawn | None], tokens_of: Callable[[Drawn], int], timeout_s: float
    ) -> Drawn | None:
        deadline = time.monotonic() + timeout_s
        while True:
            with self._changed:
                self._readers_waiting += 1
                try:
                    self._changed.wait_for(
                        lambda: self._closed or self._may_read(),
                        max(0.0, deadline - time.monotonic()),
                    )
                finally:
                    self._readers_waiting -= 1
                if self._closed or not self._may_read():
                    return None
                # Counted before it is drawn, so that other readers are judged with it; set right
                # afterwards.
                reserved, beyond = self._batch_tokens, self._is_full and not self._limiter.paused
                self._read(reserved, beyond)
                stored = self._store.index.change
            try:
                with self._sampling:
                    drawn = None if self._closed else draw()
            except BaseException:
                with self._changed:
                    self._read(-reserved, beyond)
                raise
            with self._changed:
                tokens = 0 if drawn is None else tokens_of(drawn)
                self._read(tokens - reserved, beyond)
                if drawn is not None:
                    self._batch_tokens = tokens
                    self._changed.notify_all()
                    unsaved = self._limiter.read_tokens - self._saved_tokens
                else:  # nothing may be read: until something comes
                    left = deadline - time.monotonic()
                    self._changed.wait_for(self._has_changed_since(stored), max(0.0, left))
                    if time.monotonic() >= deadline:
                        return None
                    continue
            self._save_counters(unsaved)
            return drawn

    def _has_changed_since(self, change: int) -> Callable[[], bool]:
        return lambda: self._closed or self._store.index.change != change

    def _may_read(self) -> bool:
        """Writers who find no room cannot catch up, so nobody waits for them."""
        return self._limiter.may_read() or (self._is_full and self._limiter.inserted_tokens > 0)

    def _read(self, tokens: int, beyond: bool) -> None:
        """Count tokens; what is `beyond`, as writers who find no room cannot match it, counts in
        the total but not against the ratio."""
        was_paused = self._limiter.paused
        if beyond:
            self._limiter.pause()
        self._limiter.read(tokens)
        if not was_paused:
            self._limiter.resume()

    def _save_counters(self, unsaved_tokens: int) -> None:
        now_s, limiter = time.monotonic(), self._limiter.config
        is_coupled = limiter.reads_per_inserted_token is not None
        if now_s - self._saved_s >= SAVE_EVERY_S or (
            is_coupled and 4 * unsaved_tokens >= limiter.slack_tokens
        ):
            with self._changed:
                if self._closed:
                    return
                self._saved_s, self._saved_tokens = now_s, self._limiter.read_tokens
                state = json.dumps(self._limiter.state()).encode()
                self._using_store += 1
            try:
                self._store.database.note("limiter", state)
                if self._draws_by_state and now_s - self._saved_sampling_s >= SAVE_SAMPLING_S:
                    self._saved_sampling_s = now_s
                    self._store.database.note("sampling", self._sampling_note())
            finally:
                with self._changed:
                    self._using_store -= 1
                    self._changed.notify_all()

    def pause(self) -> None:
        """Let the limiter hold nobody back, as for an offline fill, until `resume`."""
        with self._changed:
            self._limiter.pause()
            self._changed.notify_all()

    def resume(self) -> None:
        """End a pause: what came in between is not held against either side."""
        with self._changed:
            self._limiter.resume()
            self._changed.notify_all()

    def reconfigure(self, limiter: LimiterConfig) -> None:
        """Other settings of the limiter, from now on."""
        with self._changed:
            self._limiter.reconfigure(limiter)
            self._changed.notify_all()

    def update_priorities(self, priorities: Mapping[str, float]) -> int:
        """Set priorities by key; how many were there. Keys of episodes that are gone are ignored.
        ValueError for what is none."""
        for key, priority in priorities.items():
            if not (isfinite(priority) and priority >= 0):
                raise ValueError(
                    f"priority {priority} of {key!r} must be finite and at least 0; nothing was"
                    " changed"
                )
        known = self._store.index.set_priorities(priorities)
        with self._changed:
            self._changed.notify_all()
        return known

    def published(self, version: Version) -> None:
        """A version of the weights is out: what older ones played ages."""
        self._store.index.published(version)
        with self._changed:
            self._changed.notify_all()

    def sampling_state(self) -> dict[str, tuple[float, int]]:
        """Priority and times sampled by key: with the store, all that batches depend on.
        `load_sampling_state` takes it back."""
        return self._store.index.state()

    def load_sampling_state(self, state: Mapping[str, tuple[float, int]]) -> None:
        self._store.index.load(state)
        with self._changed:
            self._changed.notify_all()

    def demonstration(
        self, task_name: str, num_steps: int, *, draw: int = 0, source: str | None = None
    ) -> Window | None:
        """See `Mix.demonstration`; None also where replay is closed."""
        with self._sampling:
            return (
                None
                if self._closed
                else self._mix.demonstration(task_name, num_steps, draw=draw, source=source)
            )

    def demonstration_steps(self) -> dict[str, int]:
        """Steps of demonstrations (not the agent's own) kept of each task."""
        index = self._store.index
        snapshot = index.snapshot()
        shown = ~snapshot.by_agent
        return {
            name: int(snapshot.steps[shown & (snapshot.task == index.tasks.get(name, -1))].sum())
            for name in self._tasks
        }

    def keys(self) -> list[str]:
        """Keys of all episodes kept, oldest first."""
        return [header.key for header in list(self._store.episodes.values())]

    def stats(self) -> ReplayStats:
        """How replay stands."""
        index = self._store.index
        snapshot = index.snapshot()
        episodes = {
            name: int((snapshot.task == code).sum()) for name, code in sorted(index.tasks.items())
        }
        left_out = self._mix.left_out()
        with self._changed:
            refused = dict(self._refused)
            if self._store.damaged:
                refused["damaged on disk"] = len(self._store.damaged)
            if self._store.damaged_streams:
                refused["streams of keys damaged on disk"] = len(self._store.damaged_streams)
            return ReplayStats(
                episodes={name: count for name, count in episodes.items() if count},
                steps=int(snapshot.steps.sum()),
                inserted_tokens=self._limiter.inserted_tokens,
                read_tokens=self._limiter.read_tokens,
                stored_bytes=self._store.stored_bytes,
                capacity_bytes=self._config.capacity_bytes,
                refused=refused,
                duplicates=self._duplicates,
                evicted=self._store.num_evicted,
                left_out=left_out,
                writers_waiting=self._writers_waiting,
                readers_waiting=self._readers_waiting,
                may_insert=self._closed or self._may_insert(),
                paused=self._limiter.paused,
                who_waits=self._limiter.why(),
                incarnation=self._store.incarnation,
            )

    def close(self) -> None:
        """Wake everyone who waits, with nothing, save what sampling depends on, and close the
        store."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._using_store)
        with self._sampling, self._changed:
            self._store.database.note("limiter", json.dumps(self._limiter.state()).encode())
            self._store.database.note("sampling", self._sampling_note())
            self._store.close()
