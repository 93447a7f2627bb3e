"""The journal of a run as its Redis has it: one stream of typed records, to be read from any entry
on, and words to the supervisor."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, cast, runtime_checkable
from uuid import uuid4

from cluster.journal.codec import decode
from cluster.journal.records import Record
from cluster.journal.redis_client import RedisAway
from cluster.journal.stream import keys_of, post_word

if TYPE_CHECKING:
    import redis

START = "0-0"
"""The id before the first entry."""
MAX_BLOCK_S = 2.0
"""Longest that one read waits; below the client's socket timeout."""


class Entry(NamedTuple):
    """A record with its place in the journal and the wall-clock time of its writer."""

    id: str
    time_s: float
    record: Record


class Control(NamedTuple):
    """A word to the supervisor. Whoever may write to the server may say it: the password is the
    token."""

    word: str
    value: str


ControlWord = Literal["stop", "scale", "roles", "replay-pause", "replay-resume", "replay-limit"]
"""What a supervisor can be asked to do."""


@runtime_checkable
class JournalReader(Protocol):
    """A journal that can be read, from Redis or from the run's folder."""

    def read(
        self, after_id: str = START, *, block_s: float = 0.0, count: int = 1000
    ) -> list[Entry]: ...


class Journal:
    """What happened in one run, read from its Redis, and what people ask of it.

    journal = Journal(connect(url), run_id)
    for entry in journal.read(block_s=1.0):
        summary = fold(summary, *entry)
    journal.post_control("stop")

    Records are written by the run's supervisor alone, with `JournalWriter`.
    """

    def __init__(self, client: redis.Redis, run_id: str) -> None:
        """`run_id` as `run.json` has it, so that runs of one name share nothing."""
        self._client = client
        self._run_id = run_id
        self._closed = threading.Event()

    def read(
        self, after_id: str = START, *, block_s: float = 0.0, count: int = 1000
    ) -> list[Entry]:
        """Up to `count` entries after `after_id`, in order; if there are none, wait for one up to
        `block_s`.

        Records of a kind that this version does not know are left out.

        Raises:
            RedisAway: The server does not answer.
        """
        deadline_s = time.monotonic() + block_s
        while True:
            rows = self._rows(after_id, block_s=deadline_s - time.monotonic(), count=count)
            known = [
                Entry(row_id, *found)
                for row_id, row in rows
                if (found := decode(row.get("entry", ""))) is not None
            ]
            if known or self._closed.is_set() or (not rows and time.monotonic() >= deadline_s):
                return known
            after_id = rows[-1][0] if rows else after_id

    def close(self) -> None:
        """End a `read` that waits, within two seconds."""
        self._closed.set()

    def post_control(self, word: ControlWord, value: str | int = "") -> str:
        """Ask the supervisor that is running now, or who takes over from it, to do something. It
        obeys once, even if the server is restarted or wiped meanwhile. Returns the word's id."""
        return post_word(self._client, self._run_id, word, str(value), uuid4().hex)

    def waits(self, word_id: str) -> bool:
        """Whether no supervisor has taken a word yet."""
        return bool(self._client.xrange(keys_of(self._run_id).control, word_id, word_id))

    def _rows(
        self, after_id: str, *, block_s: float, count: int
    ) -> list[tuple[str, dict[str, str]]]:
        from redis.exceptions import ConnectionError, TimeoutError

        # A block of 0 ms would never end.
        block_ms = int(1000 * min(block_s, MAX_BLOCK_S)) or None if block_s > 0 else None
        try:
            answer = self._client.xread(
                {keys_of(self._run_id).stream: after_id}, count=count, block=block_ms
            )
        except (ConnectionError, TimeoutError) as problem:
            raise RedisAway(f"the journal's Redis does not answer ({problem})") from problem
        streams = cast(list[tuple[str, list[tuple[str, dict[str, str]]]]], answer)
        return streams[0][1] if streams else []
