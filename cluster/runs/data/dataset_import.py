"""Filling a data set: episodes of a source into a store here, and what became of each of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.table import Table

from actors.tasks.recorded_table import is_recorded_name
from cluster.monitor.format import literal
from cluster.monitor.progress import Progressing
from cluster.runs.data.dataset_card import About, Observations
from cluster.runs.data.datasets import CAPACITY_BYTES, DataSet, counted, find, read_about, root
from cluster.runs.data.same_source import SourceCheck, absolute
from cluster.runs.folder import runs_root
from cluster.runs.folder_name import NAME
from gato.episode import Episode
from gato.metrics import Amount
from gato.task import Task
from replay.formats.reader import Known, Reading, Report
from replay.sampling.candidates import KEPT_FOR_EVALUATION
from replay.sampling.config import MixConfig
from replay.sampling.left_out import left_out_of
from replay.storage.changes import tally_of
from replay.storage.eviction import ReplayDiskFull
from replay.storage.header import Header
from replay.storage.record import Record, pack
from replay.storage.store import EpisodeStore

GROUP_EPISODES = 256
GROUP_BYTES = 16 << 20
GROUP_S = 1.0
"""Episodes are stored together up to so many, so many bytes and so many seconds: each write waits
for the disk."""
FIRST_WRITE = 1024
"""about.json is written again after so many new episodes, and whenever they have doubled."""
UNTOLD_MIX = MixConfig(rows=1, row_tokens=2)
"""What a run reads if it is told nothing else."""
UNFILTERED = "--set replay.mix.min_expert_fraction=null"


def make(
    name: str,
    open_source: Callable[[Known], Reading],
    tasks: Mapping[str, Task],
    console: Console,
    *,
    origin: str,
) -> DataSet:
    """Store episodes under a name; those that are there already are not read again, bad ones
    refused, counted and shown.

    make("mine", lambda known: read_source("hopper.hdf5", TASKS, known=known), TASKS, console,
    origin="hopper.hdf5")

    Ctrl-C, or a source that turns out to be damaged, leaves what was stored until then as a data
    set that is marked as incomplete; the same call goes on with it.
    """
    path, source = root() / name, absolute(origin)
    source_before = _check_name(name, path, origin)
    folder = path / "episodes"
    store = EpisodeStore(folder, capacity_bytes=CAPACITY_BYTES) if folder.is_dir() else None
    try:
        check = SourceCheck(name, path, source=source, source_before=source_before, store=store)
        reading = open_source(check.known)
        # before anything is made: a source that cannot be read leaves nothing behind
        first = next(reading, None)
        check.require(first, reading.report.task)
        if first is None and not reading.num_known:
            raise ValueError(f"no episode of {origin} was taken; {_why_none(reading.report)}")
        store = store or EpisodeStore(folder, capacity_bytes=CAPACITY_BYTES)
        about = About(
            path, store, origin=Path(origin).name, source=source, tasks=tasks, report=reading.report
        )
        about.recount()
        about.write(is_complete=False)  # so that a process that is killed leaves a mark
        filling = _Filling(store, about)
        is_complete = False
        try:
            with Progressing(name, total=reading.total, unit="episodes") as progress:
                try:
                    for episode in chain([] if first is None else [first], reading):
                        check.require(episode, reading.report.task)
                        filling.take(episode)
                        progress.update(
                            reading.num_passed, what=f"{name}: {filling.stored} new episodes"
                        )
                finally:
                    filling.flush()
            check.require(None, reading.report.task)
            is_complete = True
        except KeyboardInterrupt:
            console.print(
                f"stopped: {filling.stored} new episodes are stored; run the same command again to"
                " go on"
            )
            raise
        finally:
            is_empty = not about.write(is_complete=is_complete)
        there = filling.duplicates + reading.num_known
        unread = left_out_of([store], UNTOLD_MIX, tasks, {})
        changes = tally_of(store.episodes.values()).lines()
    finally:
        if store is not None:
            store.close()
    if is_empty:
        shutil.rmtree(path)  # nothing lies there
        raise ValueError(f"no episode of {origin} was taken; {_why_none(reading.report)}")
    made = find(name)
    _show(made, reading, filling.stored, there, changes, unread, console)
    return made


def _why_none(report: Report) -> str:
    if report.rejected:
        return f"refused: {counted(report.rejected)}"
    return "; ".join(report.left_out) or "it holds no episodes"


def _check_name(name: str, path: Path, origin: str) -> str | None:
    """The whole source that a data set of this name was made of, where one is here and says it.
    ValueError where a data set of `origin` may not be called so."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a data set; give --name letters, digits, dots, dashes and"
            " underscores, at most 64"
        )
    if (runs_root() / name / "run.json").is_file():
        raise ValueError(f"{name!r} is the name of a run here; choose another with --name")
    about = path / "about.json"
    plain = read_about(about) if about.is_file() else {}
    before = plain.get("origin", Path(origin).name)
    if before != Path(origin).name:
        raise ValueError(
            f"data set {name!r} was made of {before!r}, this is {Path(origin).name!r}; choose"
            f" another --name, or remove {path}"
        )
    return plain.get("source")


class _Filling:
    """Stores episodes in groups: a group is one write to the disk, and what is said to be stored is
    on it."""

    def __init__(self, store: EpisodeStore, about: About) -> None:
        self._store = store
        self._about = about
        self._group: list[tuple[Record, Observations]] = []
        self._group_bytes = 0
        self._stored_at_s = time.monotonic()
        self._next_write = FIRST_WRITE
        self.stored = 0
        self.duplicates = 0

    def take(self, episode: Episode) -> None:
        """Take an episode that passed the ingest check; it is stored now or with those that
        follow."""
        record = pack(episode)
        self._about.spelt(episode)
        self._group.append((record, self._about.counted(episode.observations, episode.task)))
        self._group_bytes += sum(map(len, record.values.values()))
        is_full = len(self._group) >= GROUP_EPISODES or self._group_bytes >= GROUP_BYTES
        if is_full or time.monotonic() - self._stored_at_s >= GROUP_S:
            self.flush()

    def flush(self) -> None:
        """Store what was taken. ReplayDiskFull if there is no room for it."""
        group, self._group, self._group_bytes = self._group, [], 0
        outcomes = self._store.add_all([(record, 0) for record, _ in group]) if group else []
        for (_, counted_observations), outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Header):
                self.stored += 1
                self._about.saw(outcome, counted_observations)
            elif outcome is None:
                self.duplicates += 1
        for outcome in outcomes:
            if isinstance(outcome, ReplayDiskFull):
                raise outcome
        if self.stored >= self._next_write:  # ever more rarely, as it grows with what is stored
            self._about.write(is_complete=False)
            self._next_write = 2 * self.stored
        self._stored_at_s = time.monotonic()


def unread_lines(
    unread: Mapping[str, Mapping[str, Amount]], counts: Mapping[str, int]
) -> list[str]:
    """A line for each reason for which stored episodes are not drawn; that they are held out for
    evaluations is none."""
    return [
        f"{task}: {amount.episodes:,} of {counts.get(task, 0):,} episodes ({amount.steps:,} steps)"
        f" are not read: {reason}"
        for task, reasons in unread.items()
        for reason, amount in reasons.items()
        if reason != KEPT_FOR_EVALUATION
    ]


def _show(
    made: DataSet, reading: Reading, stored: int, there: int, changes: Sequence[tuple[str, str]],
    unread: Mapping[str, Mapping[str, Amount]], console: Console,
) -> None:  # fmt: skip
    """What was taken, what was done to it, what was refused, and what of it will not be read."""
    for task, values in made.tasks.items():
        steps = (
            f"{values['steps']:,} records"
            if is_recorded_name(task)
            else f"{values['steps']:,} steps, mean return {values['return_mean']:,.1f}"
        )
        console.print(
            f"data set [bold]{literal(made.name)}[/bold]: {values['episodes']:,} episodes of"
            f" {literal(task)}, {steps}",
            highlight=False,
        )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    total = f" of {reading.total:,}" if reading.total is not None else ""
    already = f" ({there:,} were there already)" if there else ""
    table.add_row("taken", f"{stored + there:,}{total}{already}")
    for name, says in changes:
        table.add_row(name, literal(says))
    for reason, count in reading.report.rejected.most_common():
        table.add_row("[yellow]refused[/yellow]", f"{count:,}: {literal(reason)}")
    for reasons in unread.values():
        for reason, amount in reasons.items():
            if reason == KEPT_FOR_EVALUATION:
                table.add_row(
                    "held out", f"{amount.episodes:,} ({amount.steps:,} steps), for evaluations"
                )
    counts = {task: int(values["episodes"]) for task, values in made.tasks.items()}
    for line in unread_lines(unread, counts):
        table.add_row("[yellow]not read[/yellow]", f"{literal(line)} ({UNFILTERED} reads all)")
    for line in reading.report.left_out:
        table.add_row("[yellow]left out[/yellow]", literal(line))
    for line in reading.report.notes:
        table.add_row("note", literal(line))
    for line in made.warnings:
        table.add_row("[yellow]warning[/yellow]", literal(line))
    console.print(table, highlight=False)
    preset = "breadth" if any(map(is_recorded_name, made.tasks)) else "clone"
    console.print(f"train on it: gato start {preset} --data {literal(made.name)}", highlight=False)
