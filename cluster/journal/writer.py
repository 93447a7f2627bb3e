"""The writing side of a run's journal: records go to the run's folder first, and from there to
Redis whenever it answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import final

from cluster.journal.codec import encode
from cluster.journal.delivery import Delivery, JournalStatus
from cluster.journal.epoch_file import read_epoch, write_epoch
from cluster.journal.journal import Control
from cluster.journal.journal_file import JournalFile
from cluster.journal.records import Event, Record
from cluster.journal.redis_server import RedisServer
from cluster.journal.segment_writer import SegmentWriter

FIRST_ANSWER_S = 5.0
"""How long the first epoch waits to hear what Redis knows of earlier ones."""


@final
class JournalWriter:
    """The journal as its only writer, the supervisor, has it.

    with JournalWriter(folder, run_id, server=url) as journal:
        journal.append(Event(kind="started", text="with 2 workers"))
        epoch = journal.next_epoch()
        for control in journal.take_control():
            ...

    Nothing here waits for Redis or raises because of it. A thread delivers what the stream lacks,
    in order and once: after a restart, a failover to a replica that is behind, or a wipe, it
    delivers again from where the stream ends. It journals itself when the server is away
    (`journal away`) and when all is delivered (`journal caught up`).

    What `append` has returned from outlives kill -9 of this process. The thread puts it on the
    disk itself before Redis gets it, and every second while Redis is away: a power cut costs at
    most what was appended in about a second, and never leaves Redis with records that the file
    lacks. A sync in each `append` would make the supervisor's tick wait for the disk.

    A full disk does not end a run, whose journal is not its result: records that cannot be written
    are counted, and the count is the next record once there is space.
    """

    def __init__(
        self, folder: Path, run_id: str, *, server: RedisServer | str, token: str | None = None
    ) -> None:
        """Go on with the journal in `folder`, and begin to deliver.

        Args:
            folder: The run's folder for its journal.
            run_id: As `run.json` has it; names the keys in Redis.
            server: A private server, which is started again when it dies or hangs, or the URL of
                another.
            token: Names those for whom words are that are left from now on: of a supervisor that
                takes over, the one of its predecessor. Default: a new one.

        Raises:
            ValueError: Another process writes here, or the folder cannot be written.
        """
        self._folder = folder
        self._lines = SegmentWriter(folder)
        self._mutex = threading.Lock()
        self._unwritten = 0
        self._unwritten_since_s = 0.0
        self._problem = ""
        try:
            self._epoch = read_epoch(folder)
            self._claim: Callable[[int], int] = int
            self._delivery = Delivery(
                folder,
                self._lines,
                run_id,
                server=server,
                epoch=self._epoch,
                say=self._say,
                token=token,
            )
        except ValueError:
            self._lines.close()
            raise

    @property
    def last_number(self) -> int:
        """How many records the run has ever written."""
        return self._lines.last

    def append(self, record: Record) -> None:
        """Add `record` to the run's folder; Redis gets it soon."""
        time_s = record.time_s if isinstance(record, Event) else time.time()
        text = encode(record, time_s=time_s)
        with self._mutex:
            try:
                if self._unwritten:
                    self._lines.append(self._count_of_unwritten())
                    self._unwritten = 0
                self._lines.append(text)
            except OSError as problem:
                if not self._unwritten:
                    self._unwritten_since_s = time_s
                self._unwritten += 1
                self._problem = str(problem.strerror or problem)
        self._delivery.wake()

    def next_epoch(self) -> int:
        """1 for the run's first learner, 2 for the second...: never the same number twice, also if
        Redis is away or was wiped.

        Raises:
            ValueError: The run's folder cannot keep it.
        """
        known = self._delivery.known_epoch(wait_s=FIRST_ANSWER_S)
        self._epoch = self._claim(max(self._epoch, known) + 1)
        write_epoch(self._folder, self._epoch)
        self._delivery.tell_epoch(self._epoch)
        return self._epoch

    def claim_epochs(self, claim: Callable[[int], int]) -> None:
        """Have `claim` give the next epochs: it is called with the lowest that it may be, and may
        raise ValueError."""
        self._claim = claim

    def take_control(self) -> list[Control]:
        """The control words that came since the last call, each once; never waits."""
        return self._delivery.take_control()

    def status(self) -> JournalStatus:
        """How far the delivery to Redis is."""
        return self._delivery.status(unwritten=self._unwritten)

    def reader(self) -> JournalFile:
        """What this journal holds and will hold, read from the folder."""
        return JournalFile(self._folder)

    def close(self) -> None:
        """Deliver the rest, if Redis answers, and end. What it has not got it gets when the run is
        resumed."""
        self._delivery.close()
        self._lines.close()

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _say(self, kind: str, text: str) -> None:
        self.append(Event(kind=kind, text=text))

    def _count_of_unwritten(self) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(self._unwritten_since_s))
        text = f"{self._unwritten} records since {clock} could not be written ({self._problem})"
        event = Event(kind="journal lost", text=text)
        return encode(event, time_s=event.time_s)
