"""Data sets of demonstrations: stores beside the runs, filled by `gato import` and `gato record`, read by new runs."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from cluster.registry import NAME, runs_root
from gato.episode import BadEpisode, Episode, check_episode
from gato.task import Task
from replay.filter import least_return
from replay.importers.reading import Known, Reading, nothing_known
from replay.store import EpisodeStore

if TYPE_CHECKING:
    from actors.worker import EpisodeSink

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
    words = [word for word in source.removeprefix("minari:").split("/") if word not in ("", "replay_logs")]
    if not words:
        raise ValueError("nothing to import; name a file, a folder or minari:ID")
    stem = (
        words[-1]
        if words[-1].endswith((".hdf5", ".h5", ".parquet"))
        else "-".join(words[-3:] if source.startswith("minari:") else words[-2:])
    )
    return re.sub(r"[^A-Za-z0-9._-]+", "-", re.sub(r"\.(hdf5|h5|parquet)$", "", stem)).strip("-._")[:64]


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
    name: str, open_source: Callable[[Known], Reading], tasks: Mapping[str, Task], console: Console, *, origin: str
) -> DataSet:
    """Store episodes under a name; those that are there already are not read again, bad ones refused, counted and shown.

    make("mine", lambda known: read_source("hopper.hdf5", TASKS, known=known), TASKS, console, origin="hopper.hdf5")

    Ctrl-C, or a source that turns out to be damaged, leaves what was stored until then as a data set.
    """
    path = _root() / name
    _check_name(name, path, origin)
    folder = path / "episodes"
    store = EpisodeStore(folder, capacity_bytes=CAPACITY_BYTES) if folder.is_dir() else None
    try:
        reading = open_source(store.known if store else nothing_known)
        first = next(reading, None)  # before anything is made: a source that cannot be read leaves nothing behind
        if first is None and not reading.num_known:
            raise ValueError(f"{origin} holds no episodes")
        store = store or EpisodeStore(folder, capacity_bytes=CAPACITY_BYTES)
        filling = _Filling(store, tasks)
        try:
            with Progress(console=console, transient=True) as bar:
                entry = bar.add_task(origin, total=reading.total)
                for episode in chain([] if first is None else [first], reading):
                    filling.take(episode)
                    bar.update(
                        entry, completed=reading.num_passed, description=f"{name}: {filling.stored} new episodes"
                    )
        except KeyboardInterrupt:
            console.print(f"stopped: {filling.stored} new episodes are stored; run the same command again to go on")
            raise
        finally:
            about = _describe(path, store, origin)
    finally:
        if store is not None:
            store.close()
    if not about:
        shutil.rmtree(path)  # nothing lies there
        raise ValueError(f"no episode of {origin} was good enough to keep; refused: {_counted(filling.refused)}")
    there = filling.duplicates + reading.num_known
    for task, values in about.items():
        console.print(
            f"data set [bold]{name}[/bold]: {values['episodes']:,} episodes of {task}, {values['steps']:,} steps, mean return "
            f"{values['return_mean']:,.1f}" + (f" ({there} were there already)" if there else ""),
            highlight=False,
        )
    if filling.refused:
        console.print(f"[yellow]refused:[/yellow] {_counted(filling.refused)}", highlight=False)
    console.print(f"train on it: gato start clone --data {name}", highlight=False)
    return find(name)


def _check_name(name: str, path: Path, origin: str) -> None:
    """ValueError where a data set of `origin` may not be called so."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a data set; use letters, digits, dots, dashes and underscores, at most 64"
        )
    if (runs_root() / name / "run.json").is_file():
        raise ValueError(f"{name!r} is the name of a run here; choose another with --name")
    about = path / "about.json"
    before = json.loads(about.read_text())["origin"] if about.is_file() else Path(origin).name
    if before != Path(origin).name:
        raise ValueError(
            f"data set {name!r} was made of {before!r}, this is {Path(origin).name!r}; choose another --name, or remove {path}"
        )


class _Filling:
    """What became of the episodes that were read."""

    def __init__(self, store: EpisodeStore, tasks: Mapping[str, Task]) -> None:
        self._store = store
        self._tasks = tasks
        self.stored = 0
        self.duplicates = 0
        self.refused: Counter[str] = Counter()

    def take(self, episode: Episode) -> None:
        """Store an episode, or count why not."""
        try:
            check_episode(episode, self._tasks[episode.task])
        except BadEpisode as problem:
            self.refused[str(problem).partition(": ")[2] or str(problem)] += 1
            return
        added = self._store.add(episode, tokens=0)
        self.stored, self.duplicates = self.stored + (added is not None), self.duplicates + (added is None)


def _describe(path: Path, store: EpisodeStore, origin: str) -> Mapping[str, Mapping[str, Any]]:
    """What is in a data set, by task, kept in its about.json; nothing where it is empty."""
    returns: dict[str, list[float]] = {}
    steps: Counter[str] = Counter()
    for header in store.episodes.values():
        returns.setdefault(header.task, []).append(header.episode_return)
        steps[header.task] += header.steps
    about = {
        task: {
            "episodes": len(values),
            "steps": steps[task],
            "return_mean": float(np.mean(values)),
            "returns": [round(value, 3) for value in values],
        }
        for task, values in returns.items()
    }
    if about:
        draft = path / "about.json.draft"
        draft.write_text(json.dumps({"origin": Path(origin).name, "tasks": about}, indent=1, sort_keys=True))
        draft.rename(path / "about.json")
    return about


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
                if receipt.status == "wait":
                    raise ValueError(f"{data.name} could not be handed in whole: {receipt.reason}; start the run again")
                if receipt.status == "refused":
                    refused[receipt.reason] += 1
    finally:
        store.close()
    if refused:
        console.print(f"[yellow]{data.name}: refused by replay:[/yellow] {_counted(refused)}", highlight=False)
