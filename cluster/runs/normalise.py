"""Mean and standard deviation of recorded observations, which a run's observations are normalised
by (`--normalise`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from actors.tasks.resolve import resolve_task, resolve_tasks
from cluster.runs.config import RunConfig
from cluster.runs.data import datasets
from gato.array_spec import Kind
from gato.statistics import Statistics
from gato.task import Task, normalised
from replay.storage.header import DamagedEpisode
from replay.storage.store import EpisodeStore

ALL = "all"
LEAST_RELATIVE_STD = 1e-7
"""An element whose standard deviation is a smaller share of its mean is a constant with rounding
errors: its std counts as 1."""
LEAST_STD = 1e-12


class Moments:
    """Mean and standard deviation of each element, over parts that come one after another (Chan et
    al. 1983)."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self._mean = np.zeros(size)
        self._squares = np.zeros(size)

    def add(self, values: Float[np.ndarray, "T n"]) -> None:
        values = values.astype(np.float64)
        count, mean = len(values), values.mean(axis=0)
        apart, total = mean - self._mean, self.count + count
        self._squares += ((values - mean) ** 2).sum(axis=0) + apart**2 * (
            self.count * count / total
        )
        self._mean += apart * (count / total)
        self.count = total

    @property
    def statistics(self) -> Statistics:
        std = np.sqrt(self._squares / self.count)
        std = np.where(
            std <= np.maximum(LEAST_STD, LEAST_RELATIVE_STD * np.abs(self._mean)), 1.0, std
        )
        return Statistics(mean=tuple(self._mean.tolist()), std=tuple(std.tolist()))


def with_statistics(config: RunConfig, names: Sequence[str]) -> RunConfig:
    """The run with statistics of its data sets for the tasks in `names` ("all": each that shows
    continuous values).

    ValueError if a task is not the run's, shows nothing continuous, or has no episode in the run's
    data sets.
    """
    tasks = resolve_tasks(*config.tasks)
    if ALL in names:
        chosen = [name for name, task in tasks.items() if _continuous(task)]
        if not chosen:
            raise ValueError(
                "--normalise all: no task of this run shows continuous values; leave it out"
            )
    else:
        chosen = [resolve_task(name).name for name in names]
    for name in chosen:
        if name not in tasks:
            raise ValueError(
                f"--normalise {name}: the run has no such task; it has {', '.join(tasks)}"
            )
        if not _continuous(tasks[name]):
            raise ValueError(
                f"--normalise {name}: it shows nothing continuous, so nothing can be normalised;"
                " leave it out"
            )
    found = {name: _statistics(tasks[name], config.data) for name in chosen}
    return replace(
        config, model=replace(config.model, normalise={**config.model.normalise, **found})
    )


def normalised_tasks(tasks: Mapping[str, Task], config: RunConfig) -> dict[str, Task]:
    """The tasks with the statistics that the run's model keeps of them."""
    return {
        name: normalised(task, config.model.normalise.get(name, {})) for name, task in tasks.items()
    }


def _continuous(task: Task) -> list[str]:
    return [name for name, spec in task.observations.items() if spec.kind is Kind.CONTINUOUS]


def _statistics(task: Task, data: Sequence[str]) -> dict[str, Statistics]:
    """Of all stored episodes of a task, by array."""
    moments = {name: Moments(task.observations[name].size) for name in _continuous(task)}
    for name in data:
        store = EpisodeStore(
            datasets.find(name).path / "episodes",
            capacity_bytes=datasets.CAPACITY_BYTES,
            read_only=True,
        )
        try:
            for header in [
                header for header in store.episodes.values() if header.task == task.name
            ]:
                try:
                    parts = {
                        key: store.column(header, f"o/{key}", 0, header.steps) for key in moments
                    }
                except DamagedEpisode:
                    continue  # `gato replay verify` names it; here it is one of many
                for key, values in parts.items():
                    moments[key].add(values.reshape(len(values), -1))
        finally:
            store.close()
    if not all(part.count for part in moments.values()):
        raise ValueError(
            f"--normalise {task.name} needs recorded episodes to take its mean and standard"
            " deviation from, and "
            + (
                f"the data sets {', '.join(data)} have none of it"
                if data
                else "the run has no data set"
            )
            + f"; make one with gato record {task.name} or gato import, and give --data NAME"
        )
    return {name: part.statistics for name, part in moments.items()}
