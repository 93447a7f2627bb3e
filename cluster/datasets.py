"""Data sets of demonstrations: stores beside the runs, filled by `gato import` and `gato record`, read by new runs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from actors.worker import EpisodeSink
from cluster.registry import runs_root
from gato.episode import BadEpisode, Episode, check_episode
from gato.task import Task
from replay.filter import least_return
from replay.store import EpisodeStore

CAPACITY_BYTES = 64 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A folder of demonstrations and what is in it."""

    name: str
    path: Path
    tasks: Mapping[str, Mapping[str, Any]]
    """Task to `episodes`, `steps`, `return_mean`, and `returns`, one for each episode."""


def _root() -> Path:
    return runs_root() / "data"


def name_of(source: str) -> str:
    """What a data set is called where nobody says: the file's name, or the last words of an id."""
    words = source.removeprefix("minari:").rstrip("/").split("/")
    stem = (
        words[-1]
        if words[-1].endswith((".hdf5", ".h5"))
        else "-".join(words[-3:] if source.startswith("minari:") else words[-2:])
    )
    return re.sub(r"[^A-Za-z0-9._-]+", "-", re.sub(r"\.(hdf5|h5)$", "", stem))


def find(name: str) -> DataSet:
    """The data set called `name`. ValueError suggests the nearest."""
    about = _root() / name / "about.json"
    if not about.is_file():
        known = sorted(path.parent.name for path in _root().glob("*/about.json"))
        near = get_close_matches(name, known, n=1, cutoff=0.4)
        hint = (
            f"did you mean {near[0]!r}?"
            if near
            else f"there are: {', '.join(known) or 'none yet; make one with gato import'}"
        )
        raise ValueError(f"no data set {name!r} in {_root()}; {hint}")
    return DataSet(name=name, path=about.parent, tasks=json.loads(about.read_text())["tasks"])


def mean_returns(sets: Sequence[DataSet], fraction: float | None) -> dict[str, float]:
    """Mean return of each task's demonstrations over all data sets: of those within `fraction` of the expert's (None: of all)."""
    returns: dict[str, list[float]] = {}
    for data in sets:
        for task, about in data.tasks.items():
            if "returns" not in about:
                raise ValueError(
                    f"data set {data.name} was made by an older version; remove {data.path} and import it again"
                )
            returns.setdefault(task, []).extend(about["returns"])
    means: dict[str, float] = {}
    for task, values in returns.items():
        array = np.array(values)
        read = array if fraction is None else array[array >= least_return(array, fraction)]
        means[task] = float(read.mean())
    return means


def make(
    name: str,
    episodes: Iterable[Episode],
    tasks: Mapping[str, Task],
    console: Console,
    *,
    origin: str,
    total: int | None = None,
) -> DataSet:
    """Store episodes under a name; those that are there already are left alone, bad ones refused, counted and shown."""
    path = _root() / name
    refused: Counter[str] = Counter()
    duplicates = stored = 0
    source = iter(episodes)
    first = next(source, None)  # before anything is made: a source that cannot be read leaves nothing behind
    if first is None:
        raise ValueError(f"{origin} holds no episodes")
    store = EpisodeStore(path / "episodes", capacity_bytes=CAPACITY_BYTES)
    try:
        with Progress(console=console, transient=True) as bar:
            entry = bar.add_task(f"{origin}", total=total)
            for episode in _chain(first, source):
                try:
                    check_episode(episode, tasks[episode.task])
                except BadEpisode as problem:
                    refused[str(problem).partition(": ")[2] or str(problem)] += 1
                else:
                    added = store.add(episode, tokens=0)
                    stored, duplicates = stored + (added is not None), duplicates + (added is None)
                bar.update(entry, advance=1, description=f"{name}: {stored} episodes")
        returns: dict[str, list[float]] = {}
        steps: Counter[str] = Counter()
        for header in store.episodes.values():
            returns.setdefault(header.task, []).append(header.episode_return)
            steps[header.task] += header.steps
    finally:
        store.close()
    if not returns:
        raise ValueError(f"no episode of {origin} was good enough to keep; refused: {_counted(refused)}")
    about = {
        task: {
            "episodes": len(values),
            "steps": steps[task],
            "return_mean": float(np.mean(values)),
            "returns": [round(value, 3) for value in values],
        }
        for task, values in returns.items()
    }
    (path / "about.json").write_text(
        json.dumps({"origin": Path(origin).name, "tasks": about}, indent=1, sort_keys=True)
    )
    for task, values in about.items():
        console.print(
            f"data set [bold]{name}[/bold]: {values['episodes']:,} episodes of {task}, {values['steps']:,} steps, mean return "
            f"{values['return_mean']:,.1f}" + (f" ({duplicates} were there already)" if duplicates else ""),
            highlight=False,
        )
    if refused:
        console.print(f"[yellow]refused:[/yellow] {_counted(refused)}", highlight=False)
    console.print(f"train on it: gato start clone --data {name}", highlight=False)
    return find(name)


def _chain(first: Episode, others: Iterator[Episode]) -> Iterator[Episode]:
    yield first
    yield from others


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common(5))


def hand_in(data: DataSet, sink: EpisodeSink, console: Console) -> None:
    """Give all episodes of a data set to a run's replay; those that it has already count once."""
    store = EpisodeStore(data.path / "episodes", capacity_bytes=CAPACITY_BYTES, read_only=True)
    refused: Counter[str] = Counter()
    try:
        with Progress(console=console, transient=True) as bar:
            for episode in bar.track(
                store.all_episodes(), total=len(store.episodes), description=f"reading {data.name}"
            ):
                receipt = sink.add(episode)
                if receipt.status in ("refused", "wait"):
                    refused[receipt.reason] += 1
    finally:
        store.close()
    if refused:
        console.print(f"[yellow]{data.name}: refused by replay:[/yellow] {_counted(refused)}", highlight=False)
