"""The journal of a run: one Redis stream of typed records that everyone may append to and read from
any entry on."""

from __future__ import annotations

import threading
import time
from typing import Literal, NamedTuple, cast
from uuid import uuid4

import redis

from cluster.journal.codec import decode, encode
from cluster.journal.records import Event, Record

START = "0-0"
"""The id before the first entry."""
MAX_BLOCK_S = 5.0
"""Longest that one read waits; below the client's socket timeout."""
MAX_ENTRIES = 500_000
"""About a quarter of a gigabyte; the oldest entries go first."""
DEDUPLICATE_S = 120
"""How long the server remembers an append, so that one that is sent again after a lost answer
counts once."""

APPEND_ONCE = """
if redis.call('SET', KEYS[2], 1, 'NX', 'EX', ARGV[2]) then
    return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'entry', ARGV[1])
end
return ''
"""


class Entry(NamedTuple):
    """A record with its place in the stream and the wall-clock time of its writer."""

    id: str
    time_s: float
    record: Record


class Control(NamedTuple):
    """A word to the supervisor. Whoever may write to the server may say it: the password is the
    token."""

    id: str
    word: str
    value: str


ControlWord = Literal["stop", "scale", "roles", "replay-pause", "replay-resume", "replay-limit"]
"""What a supervisor can be asked to do."""


class Journal:
    """What happened in one run, and what people ask of it.

    journal = Journal(connect(url), "demo")
    journal.append(Event(kind="started", text="with 2 workers"))
    for entry in journal.read(block_s=1.0):
        summary = fold(summary, *entry)
    """

    def __init__(self, client: redis.Redis, run: str) -> None:
        self.run = run
        self._client = client
        self._stream = f"gato:{run}:journal"
        self._control = f"gato:{run}:control"
        self._closed = threading.Event()

    def append(self, record: Record) -> None:
        """Add `record`; on return it is on disk, once, even if the server was restarted
        meanwhile."""
        seen = f"gato:{self.run}:seen:{uuid4().hex}"
        text = encode(record, time_s=record.time_s if isinstance(record, Event) else time.time())
        self._client.eval(APPEND_ONCE, 2, self._stream, seen, text, DEDUPLICATE_S, MAX_ENTRIES)

    def read(
        self, after_id: str = START, *, block_s: float = 0.0, count: int = 1000
    ) -> list[Entry]:
        """Up to `count` entries after `after_id`, in order; if there are none, wait for one up to
        `block_s`.

        Records of a kind that this version does not know are left out.
        """
        deadline_s = time.monotonic() + block_s
        while True:
            rows = self._rows(
                self._stream, after_id, block_s=deadline_s - time.monotonic(), count=count
            )
            known = [
                Entry(row_id, *found)
                for row_id, row in rows
                if (found := decode(row.get("entry", ""))) is not None
            ]
            if known or self._closed.is_set() or (not rows and time.monotonic() >= deadline_s):
                return known
            after_id = rows[-1][0] if rows else after_id

    def close(self) -> None:
        """End a `read` that waits, within five seconds."""
        self._closed.set()

    def next_epoch(self) -> int:
        """1 for the run's first learner, 2 for the second...: never the same number twice."""
        return self._client.incr(f"gato:{self.run}:epoch")

    def post_control(self, word: ControlWord, value: str | int = "") -> None:
        """Ask the supervisor to do something."""
        self._client.xadd(self._control, {"word": word, "value": str(value)})

    def read_control(self, after_id: str = START, *, block_s: float = 0.0) -> list[Control]:
        """Control words after `after_id`; if there are none, wait for one up to `block_s`."""
        rows = self._rows(self._control, after_id, block_s=block_s, count=100)
        return [Control(row_id, row.get("word", ""), row.get("value", "")) for row_id, row in rows]

    def last_control_id(self) -> str:
        """Where a supervisor starts to listen, so that it does not obey words to the one before
        it."""
        rows = cast(list[tuple[str, object]], self._client.xrevrange(self._control, count=1))
        return rows[0][0] if rows else START

    def _rows(
        self, stream: str, after_id: str, *, block_s: float, count: int
    ) -> list[tuple[str, dict[str, str]]]:
        # A block of 0 ms would never end.
        block_ms = int(1000 * min(block_s, MAX_BLOCK_S)) or None if block_s > 0 else None
        answer = self._client.xread({stream: after_id}, count=count, block=block_ms)
        streams = cast(list[tuple[str, list[tuple[str, dict[str, str]]]]], answer)
        return streams[0][1] if streams else []
