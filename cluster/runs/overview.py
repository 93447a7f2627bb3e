"""What `gato runs` says of a run: how far it is, how good, and how large; in milliseconds, however
long its journal is."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.journal.tail import newest_entries
from cluster.monitor.fold import fold
from cluster.monitor.iqm import interquartile_mean_of
from cluster.monitor.scores import read_scales
from cluster.monitor.summary import Summary
from cluster.runs.config_text import read_plain
from cluster.runs.folder import RunFolder, RunInfo, ShownState, list_runs

FIRST_BYTES = 1 << 18
MOST_BYTES = 1 << 22
"""Of a journal's end, most that is read for the newest evaluation of each task."""

Order = Literal["started", "name", "state", "step", "iqm", "size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """One run."""

    name: str
    state: ShownState
    created_s: float
    """Wall-clock time."""
    tasks: tuple[str, ...] = ()
    """None if its settings are damaged."""
    step: int | None = None
    num_updates: int | None = None
    iqm: float | None = None
    """Interquartile mean of the newest normalised returns over tasks."""
    disk_bytes: int = 0
    is_local: bool = True


def overviews(root: Path, order: Order = "started") -> list[Overview]:
    """All runs in a folder; the newest, largest or best first, names and states by the alphabet."""
    found = [overview(RunFolder(root, info.name), info) for info in list_runs(root)]
    if order in ("name", "state"):
        return sorted(found, key=lambda run: (getattr(run, order), run.name))
    field = {"started": "created_s", "size": "disk_bytes"}.get(order, order)

    def value(run: Overview) -> float:
        number = getattr(run, field)
        return -math.inf if number is None else number

    return sorted(found, key=value, reverse=True)


def overview(run: RunFolder, info: RunInfo) -> Overview:
    """What the run's folder says of it."""
    summary = _newest(run)
    learner = summary.learner
    try:
        tasks = _task_names(run)
    except (ValueError, OSError):
        tasks = ()
    return Overview(
        name=info.name,
        state=info.state,
        created_s=info.created_s,
        tasks=tasks,
        step=learner.step if learner else None,
        num_updates=learner.num_updates if learner else None,
        iqm=newest_iqm(summary),
        disk_bytes=disk_bytes(run.path),
        is_local=run.home is None,
    )


def _task_names(run: RunFolder) -> tuple[str, ...]:
    """From the config, whose other settings are not looked at: checking them takes numpy."""
    if not run.config_file.is_file():
        return run.config().tasks
    names = read_plain(run.config_file).get("tasks")
    return tuple(map(str, names)) if isinstance(names, list) else run.config().tasks


def _newest(run: RunFolder) -> Summary:
    """The status by the end of the journal, as far back as the newest evaluations go."""
    try:
        scales = read_scales(run.path)
    except (ValueError, OSError):
        scales = {}
    max_bytes = FIRST_BYTES
    while True:
        summary = Summary(run=run.name, scales=scales)
        entries = newest_entries(run.path / "journal", max_bytes)
        for entry in entries:
            summary = fold(summary, *entry)
        is_whole = not entries or entries[0].id == "1-0"
        is_known = summary.learner is not None and scales.keys() <= summary.tasks.keys()
        if is_whole or is_known or max_bytes >= MOST_BYTES:
            return summary
        max_bytes *= 4


def newest_iqm(summary: Summary) -> float | None:
    """Over tasks with a scale, of each as many episodes as the task with the fewest has."""
    scored: list[Sequence[float]] = []
    for name, task in summary.tasks.items():
        scale = summary.scales.get(name)
        scores = [scale.normalise(value) for value in task.newest_returns] if scale else []
        if scores and all(map(math.isfinite, scores)):
            scored.append(scores)
    return interquartile_mean_of(scored)


def disk_bytes(folder: Path) -> int:
    """What the files of a folder take of the disk; sparse files no more than they hold."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += 512 * os.lstat(os.path.join(where, name)).st_blocks
            except OSError:  # deleted meanwhile
                continue
    return total
