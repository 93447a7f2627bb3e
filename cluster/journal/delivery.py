"""The thread that keeps a run's Redis like the run's folder, and takes the words left there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final
from uuid import uuid4

import redis
from redis.exceptions import BusyLoadingError

from cluster.journal.journal import Control
from cluster.journal.redis_client import writing_client
from cluster.journal.redis_server import RedisServer
from cluster.journal.segment_writer import SegmentWriter
from cluster.journal.segments import SegmentReader
from cluster.journal.stream import Stream, Word

LOOK_EVERY_S = 0.2
"""How often words are looked for, and whether the server still has what it got."""
RETRY_S = (0.1, 2.0)
"""Wait before the first try again, and longest wait."""
SAY_AFTER_S = 2.0
"""A server that answers again by then is not worth a line."""
HUNG_AFTER_S = 10.0
"""A private server that lives and does not answer for so long is killed and started again."""
SYNC_EVERY_S = 1.0
CLOSE_WAIT_S = 5.0
"""How long the end of a run waits until Redis has the last records."""
BATCH_BYTES = 1 << 20
MAX_NONCES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStatus:
    """How far the journal's delivery to its Redis is."""

    waiting: int
    """Records that Redis has not got yet."""
    away_since_s: float | None
    """Wall-clock time since which Redis has not answered; None while it answers."""
    problem: str
    """What the last try said; empty while Redis answers."""
    unwritten: int
    """Records that the run's folder had no space for, until a record counts them."""

    def text(self) -> str:
        """The status in one line."""
        full = f"; {self.unwritten} records found no space on the disk" if self.unwritten else ""
        if self.away_since_s is None:
            return f"journal server answers, {self.waiting} records wait{full}"
        clock = time.strftime("%H:%M:%S", time.localtime(self.away_since_s))
        return (
            f"journal server away since {clock} ({self.problem}), {self.waiting} records wait{full}"
        )


@final
class Delivery:
    """Delivers the lines of a folder to Redis until it is closed."""

    def __init__(
        self,
        folder: Path,
        lines: SegmentWriter,
        run_id: str,
        *,
        server: RedisServer | str,
        epoch: int,
        say: Callable[[str, str], None],
        token: str | None = None,
    ) -> None:
        self._lines = lines
        self._reader = SegmentReader(folder)
        self._server = server if isinstance(server, RedisServer) else None
        self._client = writing_client(server.url if isinstance(server, RedisServer) else server)
        self._stream = Stream(self._client, run_id)
        self._say = say
        self._token = token or uuid4().hex
        self._epoch = epoch
        self._known_epoch = 0
        self._delivered = 0
        self._is_compared = False
        self._words: list[Control] = []
        self._taken: list[str] = []
        self._nonces: dict[str, None] = {}
        self._away_since_s: float | None = None
        self._is_said = False
        self._problem = ""
        self._failures = 0
        self._missed = 0
        self._look_due_s = 0.0
        self._close_by_s = 0.0
        self._answered_s = time.monotonic()
        self._synced_s = time.monotonic()
        self._synced_to = lines.last
        self._mutex = threading.Lock()
        self._tried = threading.Event()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to deliver."""
        if self._away_since_s is None:
            self._wake.set()

    def known_epoch(self, *, wait_s: float) -> int:
        """The highest epoch that Redis knows; 0 if it has not answered within `wait_s`."""
        self._tried.wait(wait_s)
        return self._known_epoch

    def tell_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self.wake()

    def take_control(self) -> list[Control]:
        with self._mutex:
            words, self._words = self._words, []
        return words

    def status(self, *, unwritten: int) -> JournalStatus:
        return JournalStatus(
            waiting=max(0, self._lines.last - self._delivered),
            away_since_s=self._away_since_s,
            problem=self._problem,
            unwritten=unwritten,
        )

    def close(self) -> None:
        self._close_by_s = time.monotonic() + CLOSE_WAIT_S
        self._closing.set()
        self._wake.set()
        self._thread.join(2 * CLOSE_WAIT_S)
        self._client.close()

    def _run(self) -> None:
        while True:
            is_last = self._closing.is_set()
            try:
                if is_last or self._is_look_due():
                    self._look()
                self._deliver()
                self._say_caught_up()
            except (redis.RedisError, OSError) as problem:
                self._fails(problem)
            self._tried.set()
            if is_last:
                self._reader.close()
                return
            self._wait()

    def _wait(self) -> None:
        if self._failures:
            first_s, longest_s = RETRY_S
            self._closing.wait(min(first_s * 2.0 ** min(self._failures - 1, 10), longest_s))
        else:
            self._wake.wait(max(0.0, self._look_due_s - time.monotonic()))
        self._wake.clear()

    def _is_look_due(self) -> bool:
        is_told = self._known_epoch >= self._epoch
        return self._failures > 0 or not is_told or time.monotonic() >= self._look_due_s

    def _look(self) -> None:
        """Say who listens, take words, and see where the stream ends."""
        if not self._is_compared:
            self._compare()
        poll = self._stream.poll(self._token, self._epoch, self._taken)
        self._taken = [word.id for word in poll.words]
        self._known_epoch = max(self._known_epoch, poll.epoch)
        for word in poll.words:
            self._take(word)
        if self._failures:
            self._missed = self._lines.last - poll.last
        self._reaches(poll.last)
        self._look_due_s = time.monotonic() + LOOK_EVERY_S

    def _take(self, word: Word) -> None:
        if word.to not in (self._token, "") or word.nonce in self._nonces:
            return
        self._nonces[word.nonce] = None
        if len(self._nonces) > MAX_NONCES:
            del self._nonces[next(iter(self._nonces))]
        with self._mutex:
            self._words.append(Control(word.word, word.value))

    def _compare(self) -> None:
        """Once, at the start: a stream with other records than the file's is of another file, such
        as one that was replaced by a backup."""
        newest = self._stream.last_entry()
        if newest is not None:
            kept = self._reader.read(newest.number - 1, count=1)
            is_dropped = newest.number < self._lines.first
            if not is_dropped and kept != [newest]:
                self._set_aside()
        self._is_compared = True

    def _set_aside(self) -> None:
        self._stream.set_aside()
        self._delivered = 0

    def _reaches(self, last: int) -> None:
        """The server has answered: its stream ends with record `last`."""
        self._answered_s = time.monotonic()
        self._failures, self._problem = 0, ""
        if last > self._lines.last:
            self._set_aside()
        else:
            self._delivered = last

    def _deliver(self) -> None:
        while self._delivered < (last := self._lines.last) and not self._is_late():
            lines = self._reader.read(self._delivered, max_bytes=BATCH_BYTES)
            if not lines:  # numbers whose lines are damaged or were never written
                self._delivered = last
                return
            self._sync()
            kept = self._lines.last - self._lines.first + 1
            self._reaches(self._stream.deliver(self._delivered, lines, max_entries=kept))

    def _is_late(self) -> bool:
        return self._closing.is_set() and time.monotonic() > self._close_by_s

    def _sync(self) -> None:
        last = self._lines.last
        if self._synced_to < last:
            self._lines.sync()
            self._synced_to, self._synced_s = last, time.monotonic()

    def _say_caught_up(self) -> None:
        away_since_s, self._away_since_s = self._away_since_s, None
        if away_since_s is not None and self._is_said:
            self._is_said = False
            self._say(
                "journal caught up",
                f"its server was away for {time.time() - away_since_s:.0f} s; the"
                f" {self._missed} records that waited are there",
            )

    def _fails(self, problem: redis.RedisError | OSError) -> None:
        self._failures += 1
        self._problem = " ".join(str(problem).split()) or type(problem).__name__
        if self._away_since_s is None:
            self._away_since_s = time.time() - (time.monotonic() - self._answered_s)
        if isinstance(problem, redis.ResponseError | BusyLoadingError):
            self._answered_s = time.monotonic()
        if not self._is_said and time.time() - self._away_since_s > SAY_AFTER_S:
            self._is_said = True
            self._say("journal away", f"{self._problem}; its records wait in the run's folder")
        if self._server is not None and not self._closing.is_set():
            self._repair(self._server)
        try:
            if time.monotonic() - self._synced_s > SYNC_EVERY_S:
                self._sync()
        except OSError as other:
            self._problem = str(other.strerror)

    def _repair(self, server: RedisServer) -> None:
        """Start a private server again that has died or hangs."""
        if server.is_alive() and time.monotonic() - self._answered_s < HUNG_AFTER_S:
            return
        try:
            server.restart()
            self._answered_s = time.monotonic()
        except (ValueError, OSError) as problem:
            self._problem = str(problem)
