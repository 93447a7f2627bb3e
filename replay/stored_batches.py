"""Batches of episodes that are stored already, read in this process; nobody writes or waits."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from gato.sequence import Batch, Window
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.config import ReplayConfig
from replay.sampling.demonstrations import Demonstrations
from replay.sampling.held_out import held_out, joined
from replay.sampling.mixture import Mixture
from replay.saved_state import SavedState
from replay.storage.store import EpisodeStore


class StoredBatches:
    """Reads one store, or one for each shard. Several processes may read the same stores.

    batches = StoredBatches(stores, tasks, layout, config, seed=0, teacher_returns={})
    batch = batches.next_batch(0, timeout_s=1.0)      # the same in each process
    """

    def __init__(
        self,
        stores: Sequence[EpisodeStore],
        tasks: Mapping[str, Task],
        layout: TokenLayout,
        config: ReplayConfig,
        *,
        seed: int,
        teacher_returns: Mapping[str, float],
    ) -> None:
        """
        Args:
            stores: opened to read, in the order of their shards. The caller closes them.
            teacher_returns: return of each task's teacher, which counts as score 1.

        Raises:
            ValueError: if the settings do not fit the tasks, count draws (which a process that
                goes on with a training would not know), or let nothing of the stores be drawn.
        """
        if config.mix.counts_draws:
            raise ValueError(
                "a table of replay.mix has max_times_sampled, and draws of stored episodes are not"
                " counted; set it to null"
            )
        self._stores = stores
        self._drawing = threading.Lock()
        for store in stores:  # priorities, and which version of the weights was the newest
            SavedState(store, saves_sampling=False).restore(config.limiter)
        self._mixtures = [
            Mixture(
                store, tasks, layout, config.mix, seed=seed, teacher_returns=teacher_returns,
                cache_bytes=max(1 << 20, config.cache_bytes // len(stores)),
            )
            for store in stores
        ]  # fmt: skip
        self._demonstrations = [
            Demonstrations(
                store, tasks, layout, config.mix, seed=seed, teacher_returns=teacher_returns
            )
            for store in stores
        ]
        if not any(mixture.can_sample() for mixture in self._mixtures):
            raise ValueError(
                f"no stored episode of {', '.join(tasks)} may be drawn: the filters of replay.mix"
                " let none through; lower min_expert_fraction, min_agent_score or"
                " min_demonstration_score, or set them to null"
            )

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        """Batch number `index`, from the shard whose turn it is or the next that has one; nothing
        is waited for.

        Raises:
            ValueError: if nothing can be drawn any longer: the last episode was damaged.
        """
        with self._drawing:
            for turn in range(len(self._mixtures)):
                batch = self._mixtures[(index + turn) % len(self._mixtures)].sample(index)
                if batch is not None:
                    return batch
        raise ValueError(
            "all stored episodes that may be drawn are damaged, or their run has evicted them;"
            " gato replay verify says more"
        )

    def demonstration(self, task_name: str, num_steps: int) -> Window | None:
        """The first steps of a successful demonstration; None if no shard has one."""
        with self._drawing:
            found = (each.window(task_name, num_steps) for each in self._demonstrations)
            return next((window for window in found if window is not None), None)

    def held_out(self, task_name: str, most: int) -> Window | None:
        """At most `most` records of a task that were held out of training; None if there are
        none."""
        share = -(-most // len(self._stores))
        with self._drawing:
            return joined([held_out(store, task_name, share) for store in self._stores])
