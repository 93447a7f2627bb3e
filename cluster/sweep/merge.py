"""Several data sets as one store in the sweep's folder, as a run has its replay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from cluster.runs.config import RunConfig
from cluster.runs.data import datasets
from cluster.runs.resolve import layout_of, tasks_of
from gato.episode import Episode
from replay.ingest import Added
from replay.service import ReplayService
from replay.storage.record import pack, record_to_bytes

ADD_TIMEOUT_S = 60.0


class _LocalSink:
    def __init__(self, service: ReplayService) -> None:
        self._service = service

    def add(self, episode: Episode) -> Added:
        added = self._service.add(
            record_to_bytes(pack(episode)), timeout_s=ADD_TIMEOUT_S, is_paced=False
        )
        if added.status == "rejected" and "full" in added.reason.partition(":")[0]:
            raise ValueError(f"the sweep's data sets do not fit into one store: {added.reason}")
        return added


def merge_data(config: RunConfig, folder: Path, console: Console) -> Path:
    """Put the run's data sets into one store. What is there already counts once, so that a merge
    that was killed goes on.

    Returns:
        The store's folder.

    Raises:
        ValueError: An episode has no room.
    """
    tasks = tasks_of(config)
    # One shard of any size: what a run would spread or leave out is all here.
    settings = replace(config.replay, num_shards=1, capacity_bytes=datasets.CAPACITY_BYTES)
    service = ReplayService(
        folder, tasks, layout_of(config, tasks, None), settings, seed=config.seed
    )
    try:
        for name in config.data:
            datasets.hand_in(datasets.find(name), _LocalSink(service), console)
    finally:
        service.close()
    return folder
