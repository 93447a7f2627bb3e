"""A run is copied while it goes on: a thread that never stops the run, unless the run has moved."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import final

from cluster.journal.epoch_file import read_epoch
from cluster.storage.claims import (
    Epochs,
    RunMoved,
    Tenure,
    claim_tenure,
    moved,
    newest_tenure,
    read_tenure,
)
from cluster.storage.copier import Copier
from cluster.storage.place import Place, PlaceAway

UNKNOWN = (
    "it is not known whether another home has the run: try again when the storage answers, or go on"
    " without it: --storage off"
)
AHEAD = 4
"""Epochs that the run can go on to without the place; less than a block."""
CLOSE_S = 120.0
"""How long the last copy may take when the run has ended."""


def begin_tenure(place: Place, folder: Path, where: str, *, is_known: bool) -> Tenure:
    """The tenure of the run in `folder`, claimed if it has none.

    Args:
        place: Of the run.
        folder: The run's.
        where: This home, for people.
        is_known: Whether it went on here a moment ago, so that a place that is away does not
            matter.

    Raises:
        RunMoved: Another home has the run.
        PlaceAway: The place cannot be read or written.
    """
    mine = read_tenure(folder)
    try:
        newest = newest_tenure(place)
    except PlaceAway as problem:
        if mine is not None and is_known:
            return mine
        raise PlaceAway(f"{problem}; {UNKNOWN}") from problem
    if newest is None:
        return claim_tenure(place, folder, where)
    if mine is None or mine.token != newest.token:
        raise moved(newest)
    return mine


@final
class Copying:
    """Copies a run every few seconds, and once more at the end.

    with Copying(folder, place, tenure, every_s=30.0, say=say, stop=stop) as copying:
        journal.claim_epochs(copying.claim_epoch)
        ...
    """

    def __init__(
        self,
        folder: Path,
        place: Place,
        tenure: Tenure,
        *,
        every_s: float,
        say: Callable[[str, str], None],
        stop: Callable[[str], None],
    ) -> None:
        """`say`: an event of the run; `stop`: ends the run and says why: another home has it."""
        self._folder = folder
        self._every_s = every_s
        self._say, self._stop = say, stop
        self._copier = Copier(folder, place, tenure)
        self._epochs = Epochs(place, tenure)
        self._copied_s: float | None = None
        self._problem = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="storage", daemon=True)

    def claim_epoch(self, at_least: int) -> int:
        """See `Epochs.claim`."""
        return self._epochs.claim(at_least)

    def __enter__(self) -> Copying:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(CLOSE_S)

    def _work(self) -> None:
        while True:
            is_last = self._ended.is_set()
            try:
                self._copied_s = self._copier.copy()
                # Ahead, for learners that die while the place is away.
                epoch = read_epoch(self._folder / "journal")
                for ahead in (1, AHEAD):
                    self._epochs.claim(epoch + ahead)
            except RunMoved as problem:
                self._stop(str(problem))
                return
            except Exception as problem:  # whatever it is: the next copy may succeed
                self._name(problem)
            else:
                if self._problem:
                    self._problem = ""
                    self._say("storage caught up", "the copy of the run is up to date again")
            if is_last:
                return
            self._ended.wait(self._every_s)

    def _name(self, problem: Exception) -> None:
        """Say once that the run is not copied."""
        if not self._problem:
            clock = self._copied_s and time.strftime("%H:%M:%S", time.localtime(self._copied_s))
            since = f"since {clock}" if clock else "yet"
            self._say("problem", f"not copied {since}, the run goes on: {problem}")
        self._problem = str(problem)
