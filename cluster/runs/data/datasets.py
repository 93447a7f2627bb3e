"""Data sets of demonstrations: stores next to the runs, filled by `gato import` and `gato record`,
read by new runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from cluster.monitor.format import literal
from cluster.runs.folder import runs_root
from gato.files import damaged, read_json
from replay.sampling.return_filter import least_return
from replay.storage.header import DamagedEpisode, Header
from replay.storage.store import EpisodeStore

if TYPE_CHECKING:
    from actors.delivery import EpisodeSink

CAPACITY_BYTES = 64 << 30
MOST_REASONS = 5
UNNAMED = re.compile(r"episode \S+ of [^:]+: ")
"""In a reason, what names the one episode: without it equal reasons are counted together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A folder of demonstrations and what is in it."""

    name: str
    path: Path
    tasks: Mapping[str, Mapping[str, Any]]
    """Task to `episodes`, `steps`, `return_mean`, and `returns`, one for each episode."""
    is_complete: bool = True
    """Whether its source was read to the end."""
    refused: Mapping[str, int] = field(default_factory=dict[str, int])
    """Episodes of the source that were not taken, by reason."""
    left_out: tuple[str, ...] = ()
    """What the source holds beyond what was read."""
    warnings: tuple[str, ...] = ()
    """What an agent cannot see of it: clipped values, and values that share a token."""
    alphabets: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of tasks that write text, their characters and the longest text; see
    `cluster.runs.data.alphabet`."""

    @property
    def doubts(self) -> list[str]:
        """What a user who trains on it should know, a line each."""
        lines: list[str] = []
        if not self.is_complete:
            lines.append(
                "its source was not read to the end; run the same gato import again to go on"
            )
        if self.refused:
            lines.append(
                f"{sum(self.refused.values()):,} episodes of its source were refused:"
                f" {counted(self.refused)}"
            )
        return [*lines, *self.left_out, *self.warnings]


def root() -> Path:
    """Where data sets lie."""
    return runs_root() / "data"


def name_of(source: str) -> str:
    """The default name of a data set: the file's name, or the last words of an id."""
    words = [
        word
        for word in source.removeprefix("minari:").split("/")
        if word not in ("", "replay_logs")
    ]
    if not words:
        raise ValueError("nothing to import; name a file, a folder or minari:ID")
    stem = (
        words[-1]
        if words[-1].endswith((".hdf5", ".h5", ".parquet", ".txt", ".text"))
        else "-".join(words[-3:] if source.startswith("minari:") else words[-2:])
    )
    name = re.sub(
        r"[^A-Za-z0-9._-]+", "-", re.sub(r"\.(hdf5|h5|parquet|txt|text)$", "", stem)
    ).strip("-._")[:64]
    if not name:
        raise ValueError(
            f"no name for a data set can be made of {source!r}: it has no letters a to z or digits;"
            " give --name"
        )
    return name


def is_here(name: str) -> bool:
    """Whether there is a data set of this name."""
    return (root() / name / "about.json").is_file()


def find(name: str) -> DataSet:
    """The data set called `name`. ValueError suggests the nearest."""
    about = root() / name / "about.json"
    if not about.is_file():
        known = sorted(path.parent.name for path in root().glob("*/about.json"))
        near = get_close_matches(name, known, n=1, cutoff=0.4)
        hint = (
            f"did you mean {near[0]!r}?"
            if near
            else f"there are: {', '.join(known) or 'none yet; make one with gato import'}"
        )
        raise ValueError(f"no data set {name!r} in {root()}; {hint}")
    plain = read_about(about)
    if not plain.get("complete", True):
        plain["tasks"] = _stored_tasks(about.parent / "episodes") or plain["tasks"]
    if not plain["tasks"]:
        raise ValueError(
            f"data set {name} is empty: its import was stopped before its first episode; run it"
            " again"
        )
    return DataSet(
        name=name,
        path=about.parent,
        tasks=plain["tasks"],
        is_complete=bool(plain.get("complete", True)),
        refused=plain.get("refused", {}),
        left_out=tuple(plain.get("left_out", ())),
        warnings=tuple(plain.get("warnings", ())),
        alphabets=plain.get("alphabets", {}),
    )


def _stored_tasks(folder: Path) -> dict[str, dict[str, Any]]:
    """What lies in the store of a data set whose import was stopped: about.json may be older than
    its last episodes."""
    if not folder.is_dir():
        return {}
    store = EpisodeStore(folder, capacity_bytes=CAPACITY_BYTES, read_only=True)
    try:
        return tasks_in(store.episodes.values())
    finally:
        store.close()


def tasks_in(headers: Iterable[Header]) -> dict[str, dict[str, Any]]:
    """What `DataSet.tasks` says, of stored episodes."""
    returns: dict[str, list[float]] = {}
    steps: Counter[str] = Counter()
    for header in headers:
        returns.setdefault(header.task, []).append(header.episode_return)
        steps[header.task] += header.steps
    return {
        task: {
            "episodes": len(values),
            "steps": steps[task],
            "return_mean": float(np.mean(values)),
            "returns": [round(value, 3) for value in values],
        }
        for task, values in returns.items()
    }


def read_about(file: Path) -> dict[str, Any]:
    """What an about.json says. ValueError, with the file's name, if it is damaged."""
    fix = f"remove {file.parent} and import it again"
    plain = read_json(file, fix=fix)
    if "tasks" not in plain:
        raise damaged(file, "it says nothing of tasks", fix=fix)
    for name, is_valid, expected in PARTS:
        if name in plain and not is_valid(plain[name]):
            raise damaged(
                file, f"{name} is {type(plain[name]).__name__}, expected {expected}", fix=fix
            )
    return plain


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_tasks(value: Any) -> bool:
    """Older releases did not keep all returns, which `mean_returns` says."""
    return isinstance(value, dict) and all(
        isinstance(of_task, dict)
        and all(_is_number(of_task.get(name)) for name in ("episodes", "steps", "return_mean"))
        and isinstance(of_task.get("returns", []), list)
        and all(map(_is_number, of_task.get("returns", [])))
        for of_task in value.values()
    )


def _is_alphabets(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(known, dict)
        and isinstance(known.get("characters"), dict)
        and isinstance(known.get("longest"), str)
        for known in value.values()
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(line, str) for line in value)


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(count, int) for count in value.values())


PARTS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("tasks", _is_tasks, "episodes, steps and return_mean of each task"),
    ("origin", lambda value: isinstance(value, str), "a text"),
    ("source", lambda value: isinstance(value, str), "a text"),
    ("refused", _is_counts, "a number for each reason"),
    ("left_out", _is_texts, "a list of texts"),
    ("warnings", _is_texts, "a list of texts"),
    ("alphabets", _is_alphabets, "characters and the longest text of each task"),
    ("coverage", lambda value: isinstance(value, dict), "counts of each task"),
    ("covered", _is_counts, "a number for each task"),
)
"""What about.json may hold: how a part is checked, and what it must be. Older releases wrote fewer
parts."""


def mean_returns(sets: Sequence[DataSet], fraction: float | None) -> dict[str, float]:
    """Mean return of each task's demonstrations over all data sets: of those within `fraction` of
    the expert's (None: of all)."""
    returns: dict[str, list[float]] = {}
    for data in sets:
        for task, about in data.tasks.items():
            if "returns" not in about:
                raise ValueError(
                    f"data set {data.name} was made by an older version; remove {data.path} and"
                    " import it again"
                )
            returns.setdefault(task, []).extend(about["returns"])
    means: dict[str, float] = {}
    for task, values in returns.items():
        array = np.array(values)
        read = array if fraction is None else array[array >= least_return(array, fraction)]
        means[task] = float(read.mean())
    return means


def counted(reasons: Mapping[str, int]) -> str:
    """Reasons with how often each holds, the most frequent first."""
    most = sorted(reasons.items(), key=lambda item: -item[1])
    more = f", and {len(most) - MOST_REASONS} more reasons" if len(most) > MOST_REASONS else ""
    return ", ".join(f"{count:,} x {reason}" for reason, count in most[:MOST_REASONS]) + more


def hand_in(data: DataSet, sink: EpisodeSink, console: Console) -> None:
    """Give all episodes of a data set to a run's replay; those that it has already count once."""
    store = EpisodeStore(data.path / "episodes", capacity_bytes=CAPACITY_BYTES, read_only=True)
    refused: Counter[str] = Counter()
    try:
        with Progress(console=console, transient=True) as bar:
            for header in bar.track(
                list(store.episodes.values()), description=f"reading {literal(data.name)}"
            ):
                try:
                    episode = store.episode(header)
                except DamagedEpisode as damage:
                    refused[str(damage)] += 1
                    continue
                receipt = sink.add(episode)
                if receipt.status == "wait":
                    raise ValueError(
                        f"{data.name} could not be inserted whole: {receipt.reason}; start the run"
                        " again"
                    )
                if receipt.status == "rejected":
                    refused[UNNAMED.sub("", receipt.reason)] += 1
    finally:
        store.close()
    if refused:
        console.print(
            f"[yellow]{literal(data.name)}: not taken:[/yellow] {literal(counted(refused))}",
            highlight=False,
        )
