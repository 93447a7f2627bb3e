"""Follows the journal of one run in a thread, and tells those who watch what changed."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, final

import redis

from cluster.control.run_journal import journal_of
from cluster.journal.journal import START, JournalReader
from cluster.monitor.curves import Curves
from cluster.monitor.fold import fold
from cluster.monitor.scores import read_scales
from cluster.monitor.summary import Summary
from cluster.runs.folder import RunFolder
from cluster.web.history import History, to_json_text
from cluster.web.kept import read_history, write_history
from cluster.web.now import now_of

MAX_RECENT = 4096
NOW_EVERY_S = 1.0
AGES_EVERY_S = 5.0
LOOK_EVERY_S = 2.0
SAVE_EVERY_S = 60.0
SAVE_SHARE = 0.01
"""Most of the time that is spent saving the history."""


class Changed(NamedTuple):
    """One entry of the journal and what it changed, as JSON."""

    number: int
    text: str


@final
class Follower:
    """The status of a run and its history, up to date.

    follower = Follower(folder)
    follower.start()
    follower.snapshot(points=200)
    changes = follower.since(number)      # None: too old, take another snapshot
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.used_s = time.monotonic()
        self.now_text = ""
        """How the run stands, as JSON; `now_count` grows with each."""
        self.now_count = 0
        self._lock = threading.Lock()
        self._summary = Summary(run=folder.name)
        self._history = History()
        self._recent: deque[Changed] = deque(maxlen=MAX_RECENT)
        self._dropped = 0
        """Number of the newest entry whose change is no longer, or was never, in `_recent`."""
        self._problem = "reading the journal"
        self._closed = threading.Event()
        self._listeners: set[Callable[[], None]] = set()
        self._thread = threading.Thread(
            target=self._follow, name=f"follow-{folder.name}", daemon=True
        )
        self._scales_s = self._looked_s = self._told_s = 0.0
        self._saved_s, self._saving_s, self._saved_id = time.monotonic(), 0.0, START
        self._told = ("", False)
        self._is_dead = self._caught_up = False

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread, and keep the history."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)
        self._save()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called, from the thread, when something is new, until what is returned is
        called."""
        with self._lock:
            self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def hurry(self) -> None:
        """Tell how the run stands at once, however short ago that was told."""
        self._told_s = 0.0

    @property
    def summary(self) -> Summary:
        """The run's status as of the newest entry."""
        return self._summary

    @property
    def last(self) -> int:
        """Number of the newest entry that was read."""
        return int(self._history.last_id.partition("-")[0])

    def since(self, number: int) -> tuple[int, list[Changed]] | None:
        """Number of the newest entry, and all changes after entry `number`; None if they are no
        longer known, or not known yet."""
        with self._lock:
            if number > self.last and not self._caught_up:
                return number, []  # the history is being read again
            if not self._dropped <= number <= self.last:
                return None
            changes: list[Changed] = []
            for changed in reversed(self._recent):
                if changed.number <= number:
                    break
                changes.append(changed)
            return self.last, changes[::-1]

    def snapshot(self, points: int) -> str:
        """All curves and events, as JSON; each curve has at most `points` points."""
        with self._lock:
            history = self._history
            since_s = history.first_s or 0.0
            return to_json_text(
                {
                    "run": self.folder.name,
                    "last": self.last,
                    "first_s": since_s,
                    "curves": {
                        task: curve.rows(points, since_s=since_s)
                        for task, curve in history.curves.items()
                    },
                    "names": {name: len(line) for name, line in sorted(history.lines.items())},
                    "events": [
                        {"kind": e.kind, "text": e.text, "time_s": e.time_s} for e in history.events
                    ],
                    "now": now_of(self._summary, self.folder, self._problem, self._is_dead),
                }
            )

    def lines(self, prefixes: Sequence[str], points: int) -> str:
        """The lines whose names are, or begin with, one of `prefixes`, as JSON, with the number of
        the newest entry: learner/loss also has learner/loss/mujoco/hopper."""
        with self._lock:
            history = self._history
            since_s = history.first_s or 0.0
            lines: dict[str, Any] = {
                name: line.columns(points, since_s=since_s)
                for name, line in history.lines.items()
                if any(name == prefix or name.startswith(f"{prefix}/") for prefix in prefixes)
            }
            return to_json_text({"run": self.folder.name, "last": self.last, "lines": lines})

    def curves(self, points: int) -> Curves:
        """The evaluations of each task, in at most `points` points."""
        with self._lock:
            since_s = self._history.first_s or 0.0
            return Curves(
                run=self.folder.name,
                tasks={
                    task: tuple(
                        point.compared(since_s, self._summary.scales.get(task))
                        for point in curve.points(points)
                    )
                    for task, curve in sorted(self._history.curves.items())
                    if len(curve)
                },
            )

    def _follow(self) -> None:
        try:
            kept = read_history(self._page_folder, self._run_id())
            self._look_first()  # before others see the history, which is read on their scales
            if kept is not None:
                self._history, self._dropped = kept, int(kept.last_id.partition("-")[0])
                self._saved_id = kept.last_id
            while not self._closed.is_set():
                self._read_until_closed()
        finally:
            if not self._closed.is_set():  # the error itself is on its way to the log
                self._problem = "the page cannot go on; see page/log.txt in the run's folder"
                self._tell(idle=True)

    def _read_until_closed(self) -> None:
        """Read the journal; also returns, after a second, when it cannot be read."""
        try:
            with journal_of(self.folder) as journal:
                while not self._closed.is_set():
                    self._read(journal)
        except (ValueError, OSError, redis.RedisError) as problem:
            self._problem = " ".join(str(problem).split())
            self._tell(idle=True)
            self._closed.wait(1.0)

    def _read(self, journal: JournalReader) -> None:
        entries = journal.read(self._summary.last_id, block_s=0.5, count=500)
        self._look()
        with self._lock:
            for entry in entries:
                self._summary = fold(self._summary, *entry)
                num_cuts = self._history.num_cuts
                change = self._history.add(entry, self._summary)
                number = int(entry.id.partition("-")[0])
                if self._history.num_cuts != num_cuts:
                    # Points were taken out, which no change tells: pages take another snapshot.
                    self._recent.clear()
                    self._dropped = number
                elif change is not None:
                    if len(self._recent) == MAX_RECENT:
                        self._dropped = self._recent[0].number
                    self._recent.append(Changed(number, to_json_text({"id": number, **change})))
            self._caught_up = self._caught_up or not entries
            if not entries and self._is_of_another():
                self._begin_again()
        self._problem = f"reading the journal: {self.last:,} records" if len(entries) == 500 else ""
        self._tell(idle=not entries)
        if not entries:
            self._save_if_due()

    def _is_of_another(self) -> bool:
        """Whether the history that was kept goes on after the journal ends: this is an older copy
        of the run."""
        return self.last > int(self._summary.last_id.partition("-")[0])

    def _begin_again(self) -> None:
        self._summary = Summary(run=self.folder.name, scales=self._summary.scales)
        self._history = History()
        self._recent.clear()
        self._dropped = 0

    def _look(self) -> None:
        """At what is not in the journal: scales, which may come late, and whether it is dead."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        file = self.folder.path / "scales.json"
        written_s = file.stat().st_mtime if file.is_file() else 0.0
        if written_s != self._scales_s:
            self._summary = replace(self._summary, scales=read_scales(self.folder.path))
            self._scales_s = written_s
        self._is_dead = self.folder.home is None and self.folder.info().state == "dead"

    def _look_first(self) -> None:
        try:
            self._look()
        except (ValueError, OSError):
            self._looked_s = 0.0  # it is looked at again, and then said

    def _tell(self, *, idle: bool) -> None:
        """Wake who listens; how the run stands is told once a second, or every five when nothing
        comes in."""
        now_s = time.monotonic()
        every_s = NOW_EVERY_S if self._caught_up and not idle else AGES_EVERY_S
        is_due = now_s - self._told_s >= every_s
        is_other = self._told != (self._problem, idle) and idle  # it has caught up, or it cannot
        if is_due or is_other:
            self._told_s, self._told = now_s, (self._problem, idle)
            now = now_of(self._summary, self.folder, self._problem, self._is_dead)
            self.now_text = to_json_text({"run": self.folder.name, "last": self.last, "now": now})
            self.now_count += 1
        for listener in tuple(self._listeners):
            listener()

    def _save_if_due(self) -> None:
        since_s = time.monotonic() - self._saved_s
        if since_s > max(SAVE_EVERY_S, self._saving_s / SAVE_SHARE):
            self._save()

    def _save(self) -> None:
        if self._history.last_id == self._saved_id:
            return
        begun_s = time.monotonic()
        try:
            with self._lock:
                write_history(self._page_folder, self._run_id(), self._history)
            self._saved_id = self._history.last_id
        except OSError as problem:
            self._problem = f"the page's history is not kept: {problem.strerror}"
        self._saved_s = time.monotonic()
        self._saving_s = self._saved_s - begun_s

    def _run_id(self) -> str:
        return self.folder.info().id or self.folder.name

    @property
    def _page_folder(self) -> Path:
        return page_folder(self.folder)


def page_folder(run: RunFolder) -> Path:
    """Where the page of a run keeps its history, its token and its address."""
    return run.path / "page"
