"""The Redis side of a journal: its keys, and the scripts that keep its stream like the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cluster.journal.segments import Line

if TYPE_CHECKING:
    import redis

MAX_WORDS = 1000
"""Control words that wait where no supervisor takes them."""

# The number of a record is the first half of its id in the stream. Redis never accepts an id that
# is not above the last one, even if that was deleted.
LAST = """
local function last_number(stream)
    if redis.call('EXISTS', stream) == 0 then return 0 end
    local info = redis.call('XINFO', 'STREAM', stream)
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then
            return tonumber(string.match(info[i + 1], '^%d+'))
        end
    end
end
"""
# ARGV: number before the first of these lines, most entries to keep, then number, text, number,
# text... Lines that the stream has are passed over; if it lacks some before these, none is added.
DELIVER = (
    LAST
    + """
local last = last_number(KEYS[1])
if last >= tonumber(ARGV[1]) then
    for i = 3, #ARGV, 2 do
        if tonumber(ARGV[i]) > last then
            redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], ARGV[i] .. '-0',
                'entry', ARGV[i + 1])
            last = tonumber(ARGV[i])
        end
    end
end
return last
"""
)
# ARGV: the supervisor's token, the last epoch that it knows, ids of the words that it has taken.
POLL = (
    LAST
    + """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then redis.call('SET', KEYS[2], ARGV[1]) end
local epoch = tonumber(redis.call('GET', KEYS[3]) or '0')
if tonumber(ARGV[2]) > epoch then
    epoch = tonumber(ARGV[2])
    redis.call('SET', KEYS[3], ARGV[2])
end
for i = 3, #ARGV do redis.call('XDEL', KEYS[4], ARGV[i]) end
return {last_number(KEYS[1]), epoch, redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', 100)}
"""
)
# A word is for the supervisor of this moment, so that a later one does not obey it.
POST = """
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'word', ARGV[1], 'value', ARGV[2],
    'nonce', ARGV[3], 'to', redis.call('GET', KEYS[1]) or '')
"""


class Keys(NamedTuple):
    """Names of what a run keeps in Redis."""

    stream: str
    supervisor: str
    epoch: str
    control: str


class Word(NamedTuple):
    """A control word as it waits in Redis."""

    id: str
    word: str
    value: str
    nonce: str
    """Differs for each post, and is the same if one is sent again after a lost answer."""
    to: str
    """Token of the supervisor that it is for; empty if none had said its token."""


class Poll(NamedTuple):
    """What a supervisor learns of its server at one look."""

    last: int
    """Number of the last record in the stream."""
    epoch: int
    words: list[Word]


def keys_of(run_id: str) -> Keys:
    return Keys(
        *(f"gato:{run_id}:{part}" for part in ("journal", "supervisor", "epoch", "control"))
    )


class Stream:
    """What the supervisor does on the server. All raise redis.RedisError."""

    def __init__(self, client: redis.Redis, run_id: str) -> None:
        self._client = client
        self._keys = keys_of(run_id)

    def deliver(self, after: int, lines: Sequence[Line], *, max_entries: int) -> int:
        """Add what the stream lacks of `lines`, all lines of the file after number `after`.

        Returns:
            The number of the last record in the stream. It is below `after` if the stream lacks
            older lines, too; then nothing was added.
        """
        flat = [part for line in lines for part in (str(line.number), line.text)]
        arguments = [self._keys.stream, str(after), str(max_entries), *flat]
        return cast(int, self._client.eval(DELIVER, 1, *arguments))

    def poll(self, token: str, epoch: int, taken: Sequence[str]) -> Poll:
        """Say which supervisor listens and which epoch it gave out, delete the words in `taken`,
        and look."""
        answer: Any = self._client.eval(POLL, 4, *self._keys, token, str(epoch), *taken)
        last, known, rows = answer
        words: list[Word] = []
        for row_id, flat in rows:
            row = dict(zip(flat[::2], flat[1::2], strict=True))
            word, value, to = (row.get(name, "") for name in ("word", "value", "to"))
            words.append(Word(row_id, word, value, row.get("nonce", row_id), to))
        return Poll(last, known, words)

    def last_entry(self) -> Line | None:
        """The newest record in the stream."""
        rows = cast(
            list[tuple[str, dict[str, str]]], self._client.xrevrange(self._keys.stream, count=1)
        )
        if not rows:
            return None
        return Line(int(rows[0][0].partition("-")[0]), rows[0][1].get("entry", ""))

    def set_aside(self) -> None:
        """Rename the stream so that it is rebuilt; one that was renamed before is deleted."""
        self._client.rename(self._keys.stream, f"{self._keys.stream}:aside")


def post_word(client: redis.Redis, run_id: str, word: str, value: str, nonce: str) -> str:
    """Leave a control word for the supervisor; its id in Redis."""
    keys = keys_of(run_id)
    found: Any = client.eval(
        POST, 2, keys.supervisor, keys.control, word, value, nonce, str(MAX_WORDS)
    )
    return str(found)
