"""Follows a run by its journal, while it goes on or afterwards, and hands on what it finds. The run
knows nothing of it and cannot be harmed by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import final

from cluster.control.run_journal import journal_of
from cluster.exporters.series import Sample, Series
from cluster.exporters.sink import Feed
from cluster.journal.journal import JournalReader
from cluster.journal.redis_client import RedisAway
from cluster.monitor.curves import entries_of
from cluster.monitor.fold import fold, killed
from cluster.monitor.scores import read_scales
from cluster.monitor.summary import Summary
from cluster.monitor.terminal.watch import ENDED
from cluster.runs.folder import RunFolder

LOOK_EVERY_S = 1.0
BATCH = 1000
"""Entries that are read at once; as many as that mean that the reader is behind."""
AWAY_S = 20.0
"""A journal that is away for longer is opened again: its server may have another port by then."""


def samples_of(folder: RunFolder, redis_url: str | None = None) -> Iterator[Sample]:
    """All samples of a run as they stand. Raises ValueError if it has no journal."""
    series = Series(read_scales(folder.path))
    with journal_of(folder, redis_url) as journal:
        for entry in entries_of(journal):
            yield from series.samples(entry)


@final
class Follower:
    """Reads a run's journal once, for all that are to hear of it.

    follower = Follower(folder, feeds=[...], look=lambda summary, now_s: ...)
    follower.follow(stays=False)     # until the run has ended; stop() from another thread ends it
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        feeds: Sequence[Feed] = (),
        look: Callable[[Summary, float], None] | None = None,
        redis_url: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Args:
        folder: The run's, or its view on this machine.
        feeds: Get the samples.
        look: Gets the status about every second, with the wall-clock time, from the moment on at
            which the journal has been read to its end.
        redis_url: A Redis to read from instead.
        say: Takes a line for the user.
        """
        self._folder, self._redis_url = folder, redis_url
        self._feeds, self._look, self._say = feeds, look, say
        scales = read_scales(folder.path)
        self.summary = Summary(run=folder.name, scales=scales)
        self._series = Series(scales)
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def follow(self, *, stays: bool) -> None:
        """Until the run has ended and all is handed on, or `stop`; if it `stays`, until `stop`
        alone, also through a resume of the run.

        Raises:
            ValueError: The run has no journal.
        """
        while not self._stopped.is_set():
            try:
                with journal_of(self._folder, self._redis_url) as journal:
                    if self._follow(journal, stays=stays):
                        return
            except RedisAway as problem:
                if not self._folder.info().is_active and not stays:
                    raise
                if self._say is not None:
                    self._say(f"{problem} It is asked again.")
                self._stopped.wait(LOOK_EVERY_S)

    def _follow(self, journal: JournalReader, *, stays: bool) -> bool:
        """Whether it is over; else the journal is to be opened again."""
        heard_s, is_up_to_date = time.monotonic(), False
        while not self._stopped.is_set():
            block_s = LOOK_EVERY_S if is_up_to_date else 0.0
            try:
                fresh = journal.read(self.summary.last_id, block_s=block_s, count=BATCH)
                heard_s = time.monotonic()
                # A status from the middle of the journal is old: its alerts would be false.
                is_up_to_date = not fresh or (is_up_to_date and len(fresh) < BATCH)
            except RedisAway:
                fresh = []
                if time.monotonic() - heard_s > AWAY_S:
                    raise
                self._stopped.wait(LOOK_EVERY_S)
            for entry in fresh:
                self.summary = fold(self.summary, *entry)
                samples = self._series.samples(entry)
                for feed in self._feeds:
                    feed.take(int(entry.id.partition("-")[0]), samples)
            for feed in self._feeds:
                feed.keep()
            is_dead = self._folder.home is None and self._folder.info().state == "dead"
            if self._look is not None and is_up_to_date:
                shown = killed(self.summary) if is_dead else self.summary
                self._look(shown, time.time())
            if not fresh and not stays and (is_dead or self.summary.state in ENDED):
                return True
        return True
