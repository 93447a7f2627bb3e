"""The service: ingest, the gate, the store and the mixture put together."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from gato.metrics import ReplayStats
from gato.sequence import Batch, Window
from gato.task import Task
from gato.tokenizer import TokenLayout
from gato.version import Version
from replay.config import ReplayConfig
from replay.gate import Gate, seconds_until
from replay.ingest import Added, Ingest, Rejected
from replay.rate_limiter import LimiterConfig
from replay.sampling.candidates import best_returns
from replay.sampling.demonstrations import Demonstrations
from replay.sampling.held_out import held_out
from replay.sampling.left_out import left_out_by_task
from replay.sampling.mixture import Mixture
from replay.sampling.raw_windows import Windows
from replay.sampling.remover import SelectorRemover
from replay.sampling.sample_info import Sample
from replay.sampling.selector_names import by_priority
from replay.saved_state import SavedState
from replay.service_stats import stats_of
from replay.storage.eviction import ReplayDiskFull, ReplayFull
from replay.storage.group_commit import MAX_GROUP, GroupCommitter
from replay.storage.header import Header
from replay.storage.store import EpisodeStore

PREDECESSOR_WAIT_S = 60.0
"""How long a restarted replay waits for the killed one to release the store."""

Drawn = TypeVar("Drawn")


class ReplayService:
    """Replay in one process: all of it, or one shard. Safe to use from many threads.

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
        """Open or create the store in `folder`. `teacher_returns`: by task, for the return filters;
        `shard`: which of `config.num_shards` (`shard_of`). ValueError if settings do not fit."""
        self._tasks, self._config = tasks, config
        returns = teacher_returns or {}
        self._best = best_returns(tasks, returns)
        self._ingest = Ingest(
            tasks, max_episode_bytes=config.max_episode_bytes, shard=shard,
            num_shards=config.num_shards,
        )  # fmt: skip
        self._store = EpisodeStore(
            folder,
            capacity_bytes=config.capacity_bytes,
            durability=config.durability,
            num_shards=config.num_shards,
            lock_wait_s=PREDECESSOR_WAIT_S,
        )
        self._store.evicts_demonstrations = config.evict == "all"
        self._store.remover = SelectorRemover(
            config.remover, self._store.index, tasks, capacity_bytes=config.capacity_bytes,
            takes_demonstrations=config.evict == "all", seed=seed,
        )  # fmt: skip
        self._mixture = Mixture(
            self._store, tasks, layout, config.mix, seed=seed, teacher_returns=returns,
            cache_bytes=config.cache_bytes,
        )  # fmt: skip
        self._demonstrations = Demonstrations(
            self._store, tasks, layout, config.mix, seed=seed, teacher_returns=returns
        )
        saves_sampling = self._mixture.draws_by_state or by_priority(config.remover)
        self._saved = SavedState(self._store, saves_sampling=saves_sampling)
        self._sampling = threading.Lock()
        """Held while drawing. Lock order: `Gate.changed` before `_sampling`, never the reverse."""
        self._gate = Gate(
            self._saved.restore(config.limiter),
            batch_tokens=config.mix.rows * config.mix.row_tokens,
            can_sample=self._can_sample,
        )
        self._committer = GroupCommitter(
            self._store.add_all, max_group=1 if config.durability == "always" else MAX_GROUP
        )
        self._rejected: Counter[str] = Counter()
        """Episodes by reason."""
        self._num_duplicates = 0

    def _can_sample(self) -> bool:
        with self._sampling:
            return self._mixture.can_sample()

    def add(self, data: bytes, *, timeout_s: float, is_paced: bool = True) -> Added:
        """Insert an episode, as `record_to_bytes` packs it. Returns when it is durable, rejected,
        or writers are held back for `timeout_s`.

        `is_paced`: whether it is held back; if not, as for data that is there before any reader, it
        counts all the same.
        """
        # 1. Check it, without any lock: most of the work, and each writer has a thread.
        try:
            record = self._ingest.record(data)
        except Rejected as rejected:
            return self._reject(rejected.kind, str(rejected))
        # 2. A duplicate costs nothing, so it is not held back.
        with self._gate.changed:
            is_known = not self._gate.closed and self._store.known(record.header.key, record.key)
        if is_known:
            return self._duplicate()
        # 3. Wait until writers may go on.
        tokens = record.header.steps * self._mixture.layouts[record.header.task].tokens_per_step
        if reason := self._gate.enter_writer(tokens, timeout_s=timeout_s, is_paced=is_paced):
            return Added(status="wait", reason=reason)
        # 4. Commit it, together with those of other threads.
        outcome, is_full = None, None
        try:
            outcome = self._committer.commit(record, tokens)
            is_full = isinstance(outcome, ReplayDiskFull)
        finally:
            is_stored = isinstance(outcome, Header)
            self._gate.leave_writer(tokens, is_stored=is_stored, is_full=is_full)
        if outcome is None:
            return self._duplicate()
        if isinstance(outcome, ReplayDiskFull):
            kind = "replay full" if isinstance(outcome, ReplayFull) else "disk full"
            return self._reject(kind, str(outcome.strerror))
        return Added(status="stored")

    def _reject(self, kind: str, reason: str) -> Added:
        with self._gate.changed:
            self._rejected[kind] += 1
        return Added(status="rejected", reason=reason)

    def _duplicate(self) -> Added:
        with self._gate.changed:
            self._num_duplicates += 1
        return Added(status="duplicate")

    def next_batch(self, index: int, *, timeout_s: float) -> Batch | None:
        """Batch number `index`: ids [rows, row_tokens] and more (`Batch`). None if nothing can be
        read, or the limiter holds readers back, for `timeout_s` seconds."""
        return self._next(lambda: self._mixture.sample(index), lambda b: b.num_tokens, timeout_s)

    def next_batches(self, numbers: Sequence[int], *, timeout_s: float) -> list[Batch]:
        """As many of these batches, in order, as there are; only the first is waited for."""
        batches: list[Batch] = []
        for number in numbers:
            batch = self.next_batch(number, timeout_s=0.0 if batches else timeout_s)
            if batch is None:
                break
            batches.append(batch)
        return batches

    def next_sample(self, index: int, *, timeout_s: float) -> Sample | None:
        """The same batch, with key, probability, times sampled and age of each of its windows."""
        return self._next(
            lambda: self._mixture.sample_with_info(index), lambda s: s.batch.num_tokens, timeout_s
        )

    def next_windows(
        self,
        index: int,
        *,
        num_windows: int,
        steps: int,
        timeout_s: float,
        task_name: str | None = None,
        table: str | None = None,
    ) -> Windows | None:
        """Windows as they were stored, for learners that read no tokens; see `Mixture.windows`. The
        limiter counts the tokens that their steps would be."""
        step_tokens = self._mixture.only_layout(task_name).tokens_per_step
        return self._next(
            lambda: self._mixture.windows(
                index, num_windows=num_windows, steps=steps, task_name=task_name, table=table
            ),
            lambda windows: int(windows.length.sum()) * step_tokens,
            timeout_s,
        )

    def _next(
        self, draw: Callable[[], Drawn | None], tokens_of: Callable[[Drawn], int], timeout_s: float
    ) -> Drawn | None:
        """Wait until a reader may go ahead, draw, and count what was drawn."""
        deadline = time.monotonic() + timeout_s
        while True:
            reservation = self._gate.enter_reader(seconds_until(deadline))
            if reservation is None:
                return None
            change = self._store.index.change
            # Drawn without the condition, so that writers go on meanwhile.
            tokens, drawn = 0, None
            try:
                with self._sampling:
                    drawn = None if self._gate.closed else draw()
                tokens = 0 if drawn is None else tokens_of(drawn)
            finally:
                self._gate.leave_reader(reservation, tokens)
            if drawn is not None:
                self._save_counts()
                return drawn
            # Nothing may be drawn: look again once the store has changed.
            index = self._store.index
            self._gate.wait_for_change(partial(index.has_changed, change), seconds_until(deadline))
            if time.monotonic() >= deadline:
                return None

    def _save_counts(self) -> None:
        """Save the counts of the limiter now and then; it waits for the disk."""
        with self._gate.changed:
            state = self._saved.due(self._gate.limiter)
        if state is not None:
            with self._gate.using_store() as is_open:
                if is_open:
                    self._saved.write(state)

    def pause(self) -> None:
        """See `Gate.pause`."""
        self._gate.pause()

    def resume(self) -> None:
        """See `Gate.resume`."""
        self._gate.resume()

    def reconfigure(self, limiter: LimiterConfig) -> None:
        """See `Gate.reconfigure`."""
        self._gate.reconfigure(limiter)

    def update_priorities(self, priorities: Mapping[str, float]) -> int:
        """Set priorities (finite, at least 0, else ValueError) by key; returns how many exist."""
        num_found = self._store.index.set_priorities(priorities)
        self._gate.notify()
        return num_found

    def published(self, version: Version) -> None:
        """Note that a version of the weights was published: episodes of older ones age."""
        self._store.index.published(version)
        self._gate.notify()

    def demonstration(
        self, task_name: str, num_steps: int, *, draw: int = 0, source: str | None = None
    ) -> Window | None:
        """See `Demonstrations.window`; None also if replay is closed."""
        with self._sampling:
            if self._gate.closed:
                return None
            return self._demonstrations.window(task_name, num_steps, draw=draw, source=source)

    def held_out(self, task_name: str, most: int) -> Window | None:
        """See `replay.sampling.held_out.held_out`; None also if replay is closed."""
        with self._sampling:
            if self._gate.closed:
                return None
            return held_out(self._store, task_name, most)

    def demonstration_steps(self) -> dict[str, int]:
        """Stored steps of demonstrations (not the agent's own) of each task."""
        return self._store.index.demonstration_steps(self._tasks)

    def keys(self) -> list[str]:
        """Keys of all stored episodes, oldest first."""
        return [header.key for header in list(self._store.episodes.values())]

    def stats(self) -> ReplayStats:
        """The state of replay now."""
        left_out = left_out_by_task(self._store.index, self._tasks, self._config.mix, self._best)
        with self._gate.changed:
            return stats_of(
                self._store,
                self._gate,
                capacity_bytes=self._config.capacity_bytes,
                left_out=left_out,
                rejected=self._rejected,
                duplicates=self._num_duplicates,
            )

    def close(self) -> None:
        """Wake all waiting threads, which get None or `wait`; save the state; close the store."""
        if self._gate.close():
            with self._gate.changed, self._sampling:
                self._saved.write_all(self._gate.limiter)
                self._store.close()
