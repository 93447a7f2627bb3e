"""Filling a data set: episodes of a source into a store here, and what became of each of them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cluster.datasets import CAPACITY_BYTES, DataSet, counted, find, read_about, root
from cluster.registry import NAME, runs_root
from cluster.text import literal
from gato.coverage import Coverage
from gato.episode import Episode
from gato.metrics import Amount
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.changes import tally_of
from replay.config import MixConfig
from replay.contents import left_out_of
from replay.importers.reading import Known, Reading, Report, nothing_known
from replay.store import EpisodeStore

UNTOLD_MIX = MixConfig(rows=1, row_tokens=2)
"""What a run reads if it is told nothing else."""
UNFILTERED = "--set replay.mix.min_expert_fraction=null"


def make(
    name: str, open_source: Callable[[Known], Reading], tasks: Mapping[str, Task], console: Console, *, origin: str
) -> DataSet:
    """Store episodes under a name; those that are there already are not read again, bad ones refused, counted and shown.

    make("mine", lambda known: read_source("hopper.hdf5", TASKS, known=known), TASKS, console, origin="hopper.hdf5")

    Ctrl-C, or a source that turns out to be damaged, leaves what was stored until then as a data set that is marked as
    incomplete; the same call goes on with it.
    """
    path = root() / name
    _check_name(name, path, origin)
    folder = path / "episodes"
    store = EpisodeStore(folder, capacity_bytes=CAPACITY_BYTES) if folder.is_dir() else None
    try:
        reading = open_source(store.known if store else nothing_known)
        first = next(reading, None)  # before anything is made: a source that cannot be read leaves nothing behind
        if first is None and not reading.num_known:
            raise ValueError(f"no episode of {origin} was taken; {_why_none(reading.report)}")
        store = store or EpisodeStore(folder, capacity_bytes=CAPACITY_BYTES)
        about = _About(path, store, origin, tasks, reading.report)
        about.write(is_complete=False)  # so that a process that is killed leaves a mark
        filling = _Filling(store, about)
        is_complete = False
        try:
            with Progress(console=console, transient=True) as bar:
                entry = bar.add_task(literal(origin), total=reading.total)
                for episode in chain([] if first is None else [first], reading):
                    filling.take(episode)
                    bar.update(
                        entry,
                        completed=reading.num_passed,
                        description=f"{literal(name)}: {filling.stored} new episodes",
                    )
            is_complete = True
        except KeyboardInterrupt:
            console.print(f"stopped: {filling.stored} new episodes are stored; run the same command again to go on")
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
    _show(made, reading, there, changes, unread, console)
    return made


def _why_none(report: Report) -> str:
    return f"refused: {counted(report.refused)}" if report.refused else "it holds no episodes"


def _check_name(name: str, path: Path, origin: str) -> None:
    """ValueError where a data set of `origin` may not be called so."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a data set; use letters, digits, dots, dashes and underscores, at most 64"
        )
    if (runs_root() / name / "run.json").is_file():
        raise ValueError(f"{name!r} is the name of a run here; choose another with --name")
    about = path / "about.json"
    before = read_about(about).get("origin") if about.is_file() else Path(origin).name
    if before != Path(origin).name:
        raise ValueError(
            f"data set {name!r} was made of {before!r}, this is {Path(origin).name!r}; choose another --name, or remove {path}"
        )


class _About:
    """What is in a data set, kept in its about.json."""

    def __init__(self, path: Path, store: EpisodeStore, origin: str, tasks: Mapping[str, Task], report: Report) -> None:
        self._path = path
        self._store = store
        self._origin = Path(origin).name
        self._tasks = tasks
        self._report = report
        file = path / "about.json"
        self._before = read_about(file) if file.is_file() else {}
        self._coverage: dict[str, Coverage] = {}

    def saw(self, episode: Episode) -> None:
        """Count what an agent would see of an episode."""
        if episode.task not in self._coverage:
            self._coverage[episode.task] = self._stored_coverage(episode.task)
        self._coverage[episode.task].observe(episode.observations)

    def _stored_coverage(self, name: str) -> Coverage:
        """As far as an earlier import has counted."""
        specs, layout = self._tasks[name].observations, TokenLayout()
        before = self._before.get("coverage", {}).get(name)
        try:
            return Coverage.from_json(specs, layout, before) if before else Coverage(specs, layout)
        except (ValueError, LookupError, TypeError):  # of another release, or of other arrays
            return Coverage(specs, layout)

    def write(self, *, is_complete: bool) -> bool:
        """Write it anew; whether the data set holds anything."""
        returns: dict[str, list[float]] = {}
        steps: Counter[str] = Counter()
        for header in self._store.episodes.values():
            returns.setdefault(header.task, []).append(header.episode_return)
            steps[header.task] += header.steps
        coverage = {**self._before.get("coverage", {})}
        coverage |= {name: found.to_json() for name, found in self._coverage.items()}
        warnings = [f"{name}: {line}" for name in sorted(coverage) for line in self._warnings(name, coverage[name])]
        about: dict[str, Any] = {
            "origin": self._origin,
            "complete": is_complete,
            "refused": dict(self._report.refused),
            "left_out": self._report.left_out,
            "warnings": warnings,
            "coverage": coverage,
            "tasks": {
                task: {
                    "episodes": len(values),
                    "steps": steps[task],
                    "return_mean": float(np.mean(values)),
                    "returns": [round(value, 3) for value in values],
                }
                for task, values in returns.items()
            },
        }
        draft = self._path / "about.json.draft"
        draft.write_text(json.dumps(about, sort_keys=True))
        draft.rename(self._path / "about.json")
        return bool(returns)

    def _warnings(self, name: str, plain: Mapping[str, Any]) -> list[str]:
        if name in self._coverage:
            return self._coverage[name].warnings(name)
        return self._stored_coverage(name).warnings(name) if name in self._tasks and plain else []


class _Filling:
    """What became of the episodes that were read."""

    def __init__(self, store: EpisodeStore, about: _About) -> None:
        self._store = store
        self._about = about
        self.stored = 0
        self.duplicates = 0

    def take(self, episode: Episode) -> None:
        """Store an episode that passed the ingest check."""
        if self._store.add(episode, tokens=0) is None:
            self.duplicates += 1
            return
        self.stored += 1
        self._about.saw(episode)


def unread_lines(unread: Mapping[str, Mapping[str, Amount]], counts: Mapping[str, int]) -> list[str]:
    """A line for each reason for which stored episodes are not drawn."""
    return [
        f"{task}: {amount.episodes:,} of {counts.get(task, 0):,} episodes ({amount.steps:,} steps) are not read: {reason}"
        for task, reasons in unread.items()
        for reason, amount in reasons.items()
    ]


def _show(
    made: DataSet, reading: Reading, there: int, changes: Sequence[tuple[str, str]],
    unread: Mapping[str, Mapping[str, Amount]], console: Console,
) -> None:  # fmt: skip
    """What was taken, what was done to it, what was refused, and what of it will not be read."""
    for task, values in made.tasks.items():
        console.print(
            f"data set [bold]{literal(made.name)}[/bold]: {values['episodes']:,} episodes of {literal(task)}, {values['steps']:,} steps, "
            f"mean return {values['return_mean']:,.1f}" + (f" ({there} were there already)" if there else ""),
            highlight=False,
        )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    total = f" of {reading.total:,}" if reading.total is not None else ""
    table.add_row("taken", f"{sum(values['episodes'] for values in made.tasks.values()):,}{total}")
    for name, says in changes:
        table.add_row(name, literal(says))
    for reason, count in reading.report.refused.most_common():
        table.add_row("[yellow]refused[/yellow]", f"{count:,}: {literal(reason)}")
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
    console.print(f"train on it: gato start clone --data {literal(made.name)}", highlight=False)
