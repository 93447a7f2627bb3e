"""The index: the facts that selectors read, as columns in memory, one row for each stored episode,
oldest first.

Shape letter: N stored episodes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import isfinite

import numpy as np
from jaxtyping import Bool, Float64, Int64

from gato.version import Version
from replay.storage.header import Header

FIRST_ROWS = 1024
NO_VERSION = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeFacts:
    """Facts on n episodes. For one that was evicted, `steps` is 0 and the key empty."""

    key: list[str]
    steps: Int64[np.ndarray, " n"]
    terminated: Bool[np.ndarray, " n"]
    version: Int64[np.ndarray, " n"]
    times_sampled: Int64[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The columns at one moment."""

    number: Int64[np.ndarray, " N"]
    steps: Int64[np.ndarray, " N"]
    task: Int64[np.ndarray, " N"]
    source: Int64[np.ndarray, " N"]
    """A code of the source; `Index.sources` has the names."""
    episode_return: Float64[np.ndarray, " N"]
    by_agent: Bool[np.ndarray, " N"]
    held_out: Bool[np.ndarray, " N"]
    """Whether it is kept for evaluations."""
    labelled: Bool[np.ndarray, " N"]
    """Whether it has labels."""
    version: Int64[np.ndarray, " N"]
    """Publication number of the weights that played it; -1 if it has no version."""
    priority: Float64[np.ndarray, " N"]
    times_sampled: Int64[np.ndarray, " N"]
    stored_bytes: Int64[np.ndarray, " N"]
    terminated: Bool[np.ndarray, " N"]
    change: int
    """The state of the index that this is; see `Index.change`."""


_DTYPES = {
    "number": np.int64,
    "steps": np.int64,
    "task": np.int64,
    "source": np.int64,
    "episode_return": np.float64,
    "by_agent": np.bool_,
    "held_out": np.bool_,
    "labelled": np.bool_,
    "version": np.int64,
    "priority": np.float64,
    "times_sampled": np.int64,
    "stored_bytes": np.int64,
    "terminated": np.bool_,
}


class Index:
    """Columns that grow and shrink with the store. Safe to use from several threads.

    index = Index(); index.add([header]); index.snapshot().steps
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._columns = {name: np.zeros(FIRST_ROWS, dtype) for name, dtype in _DTYPES.items()}
        self._alive = np.zeros(FIRST_ROWS, np.bool_)
        self._key = np.full(FIRST_ROWS, "", object)
        self._used = 0
        self._num_alive = 0
        self._row_of: dict[int, int] = {}
        self._number_of: dict[str, int] = {}
        """Key to number, for priorities."""
        self.tasks: dict[str, int] = {}
        """Task to code. Replaced, never changed, so that readers without the lock see one state of
        it."""
        self.sources: dict[str, int] = {}
        self.newest_version = NO_VERSION
        """The newest version that played an episode here, or was published."""
        self.change = 0
        """Counts inserts, evictions and changes of priorities and of the newest version, but not
        draws."""
        self._snapshot: Snapshot | None = None

    def __len__(self) -> int:
        return self._num_alive

    def add(self, headers: Iterable[Header]) -> None:
        """Add episodes, each with priority 1."""
        with self._lock:
            for header in headers:
                self._append(header)
            self.change += 1

    def _append(self, header: Header) -> None:
        if self._used == len(self._alive):
            self._make_room()
        row, self._used = self._used, self._used + 1
        if header.task not in self.tasks:
            self.tasks = self.tasks | {header.task: len(self.tasks)}
        version = NO_VERSION if header.version is None else header.version.number
        values = (
            header.number,
            header.steps,
            self.tasks[header.task],
            self.sources.setdefault(header.source, len(self.sources)),
            header.episode_return,
            header.by_agent,
            header.held_out,
            "labels" in header.columns,
            version,
            1.0,
            0,
            header.stored_bytes,
            header.terminated,
        )
        for column, value in zip(self._columns.values(), values, strict=True):
            column[row] = value
        self._alive[row], self._key[row] = True, header.key
        self._num_alive += 1
        self._row_of[header.number] = row
        self._number_of[header.key] = header.number
        self.newest_version = max(self.newest_version, version)

    def _make_room(self) -> None:
        """Close the gaps that removals left; double the columns if that is not enough."""
        rows = np.flatnonzero(self._alive[: self._used])
        size = max(FIRST_ROWS, 2 * len(rows))
        for name, column in self._columns.items():
            grown = np.zeros(size, column.dtype)
            grown[: len(rows)] = column[rows]
            self._columns[name] = grown
        self._alive = np.arange(size) < len(rows)
        keys = self._key[rows]
        self._key = np.full(size, "", object)
        self._key[: len(rows)] = keys
        self._used = len(rows)
        self._row_of = {
            int(number): row for row, number in enumerate(self._columns["number"][: len(rows)])
        }

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove episodes; numbers that are not here are ignored."""
        with self._lock:
            for number in numbers:
                row = self._row_of.pop(number, None)
                if row is not None:
                    self._alive[row] = False
                    self._num_alive -= 1
                    self._number_of.pop(self._key[row], None)
            self.change += 1

    def snapshot(self, *, fresh: bool = False) -> Snapshot:
        """The columns now; the same object until `change` counts. Only a fresh one has the current
        `times_sampled`."""
        with self._lock:
            if fresh or self._snapshot is None or self._snapshot.change != self.change:
                rows = np.flatnonzero(self._alive[: self._used])
                self._snapshot = Snapshot(
                    change=self.change,
                    **{name: column[rows] for name, column in self._columns.items()},
                )
            return self._snapshot

    def sampled(self, numbers: Int64[np.ndarray, " n"]) -> None:
        """Count a draw of each of these episodes; evicted ones are ignored."""
        with self._lock:
            rows = self._rows(numbers)
            np.add.at(self._columns["times_sampled"], rows[rows >= 0], 1)

    def look_up(self, numbers: Int64[np.ndarray, " n"]) -> EpisodeFacts:
        """The facts on some episodes."""
        with self._lock:
            rows = self._rows(numbers)
            found = {
                name: self._columns[name][rows]
                for name in ("steps", "terminated", "version", "times_sampled")
            }
            keys = self._key[rows]
        gone = rows < 0
        if gone.any():
            keys[gone] = ""
            for name, nothing in (
                ("steps", 0),
                ("terminated", False),
                ("version", NO_VERSION),
                ("times_sampled", 0),
            ):
                found[name][gone] = nothing
        return EpisodeFacts(key=keys.tolist(), **found)

    def keys_of(self, numbers: Int64[np.ndarray, " n"]) -> tuple[str, ...]:
        """The keys of some episodes; without those that were evicted."""
        with self._lock:
            rows = self._rows(numbers)
            return tuple(self._key[rows[rows >= 0]].tolist())

    def _rows(self, numbers: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Rows of episodes; -1 for evicted ones."""
        return np.fromiter(
            map(self._row_of.get, numbers.tolist(), repeat(-1)), np.int64, len(numbers)
        )

    def episodes_by_task(self, snapshot: Snapshot) -> dict[str, int]:
        """Number of episodes of each task that has any, by name."""
        counts = {
            name: int((snapshot.task == code).sum()) for name, code in sorted(self.tasks.items())
        }
        return {name: count for name, count in counts.items() if count}

    def demonstration_steps(self, tasks: Iterable[str]) -> dict[str, int]:
        """Steps of demonstrations (not the agent's own, nor held out) of each of these tasks."""
        snapshot = self.snapshot()
        shown = ~snapshot.by_agent & ~snapshot.held_out
        return {
            name: int(snapshot.steps[shown & (snapshot.task == self.tasks.get(name, -1))].sum())
            for name in tasks
        }

    def set_priorities(self, priorities: Mapping[str, float]) -> int:
        """Set priorities by key. Keys of episodes that are gone are ignored.

        Returns:
            How many keys were found.

        Raises:
            ValueError: if a priority is not finite or is below 0; then nothing is changed.
        """
        for key, priority in priorities.items():
            if not (isfinite(priority) and priority >= 0):
                raise ValueError(
                    f"priority {priority} of {key!r} must be finite and at least 0; nothing was"
                    " changed"
                )
        with self._lock:
            known = 0
            for key, priority in priorities.items():
                number = self._number_of.get(key)
                if number is not None:
                    self._columns["priority"][self._row_of[number]] = priority
                    known += 1
            self.change += known > 0
            return known

    def published(self, version: Version) -> None:
        """Note that a version of the weights was published: episodes of older ones age."""
        with self._lock:
            if version.number > self.newest_version:
                self.newest_version = version.number
                self.change += 1

    def has_changed(self, since: int) -> bool:
        """Whether `change` is not `since` any more."""
        return self.change != since

    def state(self) -> dict[str, tuple[float, int]]:
        """Priority and times sampled by key, of episodes that differ from a new one: what draws
        depend on besides the episodes."""
        with self._lock:
            rows = np.flatnonzero(self._alive[: self._used])
            priority, times = self._columns["priority"][rows], self._columns["times_sampled"][rows]
            changed = np.flatnonzero((priority != 1.0) | (times != 0))
            keys = self._key[rows]
            return {keys[i]: (float(priority[i]), int(times[i])) for i in changed.tolist()}

    def load(self, state: Mapping[str, tuple[float, int]]) -> None:
        """The inverse of `state`. Other episodes become as new ones; keys that are not here are
        ignored."""
        with self._lock:
            self._columns["priority"][: self._used] = 1.0
            self._columns["times_sampled"][: self._used] = 0
            for key, (priority, times) in state.items():
                number = self._number_of.get(key)
                if number is not None:
                    row = self._row_of[number]
                    self._columns["priority"][row], self._columns["times_sampled"][row] = (
                        priority,
                        times,
                    )
            self.change += 1
