"""What is in a data set, kept in its about.json: where it came from, its episodes, and what an
agent would see of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from cluster.runs.data.alphabet import Alphabets
from cluster.runs.data.datasets import read_about, tasks_in
from gato.array_spec import Kind
from gato.compatibility.coverage import Coverage
from gato.episode import Episode
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.formats.reader import Report
from replay.storage.header import DamagedEpisode, Header
from replay.storage.store import EpisodeStore

COUNTED_KINDS = (Kind.CONTINUOUS, Kind.TEXT)
"""Observations that the coverage counts."""
COUNTED_STEPS = 16_384
"""About how many steps are counted at once: one call costs as much as hundreds of steps."""

Observations = Mapping[str, Shaped[np.ndarray, "T ..."]]


class About:
    """Counts what is stored, and writes it.

    about = About(path, store, origin="hopper.hdf5", source="/data/hopper.hdf5", tasks=TASKS,
    report=reading.report)
    about.recount()                  # what a process that was killed stored, but did not count
    about.saw(header, about.counted(episode.observations, episode.task))
    about.write(is_complete=True)
    """

    def __init__(
        self,
        path: Path,
        store: EpisodeStore,
        *,
        origin: str,
        source: str,
        tasks: Mapping[str, Task],
        report: Report,
    ) -> None:
        self._path = path
        self._store = store
        self._origin = origin
        self._source = source
        self._tasks = tasks
        self._report = report
        file = path / "about.json"
        before = read_about(file) if file.is_file() else {}
        self._plain: dict[str, Any] = dict(before.get("coverage", {}))
        """Coverage of each task as JSON: what was read, as far as it is not counted again."""
        self._covered: dict[str, int] = {
            task: number
            for task, number in before.get("covered", {}).items()
            if task in self._plain
        }
        """Of each task, one more than the number of the last episode in its coverage."""
        self._alphabets = Alphabets(before.get("alphabets", {}))
        self._coverage: dict[str, Coverage] = {}
        self._waiting: dict[str, list[Observations]] = {}
        self._waiting_steps = 0
        for name in {header.task for header in store.episodes.values()} & tasks.keys():
            self._open(name)

    def _open(self, name: str) -> Coverage:
        """The coverage of a task: as far as an earlier import has counted, else empty."""
        if name not in self._coverage:
            specs, layout = self._tasks[name].observations, TokenLayout()
            try:
                # written by an older release, which did not say what it had counted
                if name not in self._covered:
                    raise LookupError(name)
                self._coverage[name] = Coverage.from_json(specs, layout, self._plain[name])
            except (
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
            ):  # of another release, or of other arrays
                self._coverage[name] = Coverage(specs, layout)
                self._covered[name] = 0
        return self._coverage[name]

    def spelt(self, episode: Episode) -> None:
        """Count the characters of an episode of a task that writes text."""
        self._alphabets.add(episode, self._tasks[episode.task])

    def counted(self, observations: Observations, task: str) -> Observations:
        """The observations that are counted."""
        specs = self._tasks[task].observations
        return {
            name: values
            for name, values in observations.items()
            if specs[name].kind in COUNTED_KINDS
        }

    def saw(self, header: Header, counted: Observations) -> None:
        """Count what an agent would see of a stored episode."""
        self._open(header.task)
        self._waiting.setdefault(header.task, []).append(counted)
        self._covered[header.task] = max(self._covered[header.task], header.number + 1)
        self._waiting_steps += header.steps
        if self._waiting_steps >= COUNTED_STEPS:
            self._count()

    def _count(self) -> None:
        for task, parts in self._waiting.items():
            self._coverage[task].observe(
                {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            )
        self._waiting, self._waiting_steps = {}, 0

    def recount(self) -> None:
        """Count stored episodes that no coverage counts: their import was killed, or was of an
        older release."""
        for header in self._not_covered():
            specs = self._tasks[header.task].observations
            names = [name for name, spec in specs.items() if spec.kind in COUNTED_KINDS]
            try:
                counted = {
                    name: self._store.column(header, f"o/{name}", 0, header.steps) for name in names
                }
            except (DamagedEpisode, LookupError):
                continue  # `gato replay verify` names it
            self.saw(header, counted)

    def _not_covered(self) -> Sequence[Header]:
        return [
            header
            for header in self._store.episodes.values()
            if header.task in self._coverage and header.number >= self._covered[header.task]
        ]

    def write(self, *, is_complete: bool) -> bool:
        """Write it again. Returns whether the data set holds anything."""
        self._count()
        self._plain |= {name: found.to_json() for name, found in self._coverage.items()}
        tasks = tasks_in(self._store.episodes.values())
        about: dict[str, Any] = {
            "origin": self._origin,
            "source": self._source,
            "complete": is_complete,
            "refused": dict(self._report.rejected),
            "left_out": self._report.left_out,
            "warnings": list(self._warnings()),
            "coverage": self._plain,
            "covered": self._covered,
            "alphabets": self._alphabets.to_json(),
            "tasks": tasks,
        }
        draft = self._path / "about.json.draft"
        draft.write_text(json.dumps(about, sort_keys=True))
        draft.rename(self._path / "about.json")
        return bool(tasks)

    def _warnings(self) -> Iterable[str]:
        for name in sorted(self._plain):
            if name in self._tasks:
                yield from (f"{name}: {line}" for line in self._open(name).warnings(name))
