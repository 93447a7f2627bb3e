"""Demonstrations of a run's own replay, to begin episodes with."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from actors.players.gato_player import PromptSource
from actors.records.source import RecordSource
from cluster.runs.config import RunConfig
from cluster.runs.resolve import layout_of, tasks_of
from gato.sequence import Window
from replay.sampling.demonstrations import Demonstrations
from replay.sampling.held_out import held_out, joined
from replay.shards import shard_folder
from replay.storage.store import EpisodeStore


class StoredSource(PromptSource, RecordSource, Protocol):
    """Source of demonstrations and of held-out records."""


class StoredPrompts:
    """Demonstrations of the run's own replay."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self._folder = folder
        self._config = config

    def held_out(self, task_name: str, most: int) -> Window | None:
        """At most `most` records of a task that were held out of training; None if there are
        none."""
        config = self._config
        count = config.replay.num_shards
        found: list[Window | None] = []
        for shard in range(count if self._folder.is_dir() else 0):
            store = EpisodeStore(
                shard_folder(self._folder, shard, count),
                capacity_bytes=config.replay.capacity_bytes,
                read_only=True,
            )
            try:
                found.append(held_out(store, task_name, -(-most // count)))
            finally:
                store.close()
        return joined(found)

    def demonstration(self, task_name: str, num_steps: int) -> Window | None:
        """The first steps of a successful one, as the run's workers are given. ValueError where
        there is none."""
        config = self._config
        if task_name not in config.tasks or not self._folder.is_dir():
            raise ValueError(
                f"no demonstration of {task_name} in {self._folder} to prompt with; set"
                " prompt_steps=0"
            )
        tasks = tasks_of(config)
        layout, count = layout_of(config, tasks, self._folder.parent), config.replay.num_shards
        for shard in range(count):
            folder = shard_folder(self._folder, shard, count)
            store = EpisodeStore(
                folder, capacity_bytes=config.replay.capacity_bytes, read_only=True
            )
            try:
                window = Demonstrations(
                    store, tasks, layout, config.replay.mix, seed=config.seed, teacher_returns={}
                ).window(task_name, num_steps)
            finally:
                store.close()
            if window is not None:
                return window
        return None
