"""Clients of a Redis server, and its URL as it may be shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import uuid4

from cluster.journal.redis_problem import reason_of

if TYPE_CHECKING:  # `redis` takes half a second to import: only if there is a server to ask
    import redis
    from redis.retry import Retry

URL = re.compile(
    r"(?P<scheme>rediss?)://(?P<user>[^/?#\s]*@)?(?P<where>([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/\d*)?)(\?[^#@\s]*)?"
    r"|(?P<unix>unix)://([^/?#\s]*@)?/[^?#@\s]*(\?[^#@\s]*)?"
)
ENCODED = "each @ # / ? % of the password percent-encoded (%40 %23 %2F %3F %25)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a server is for, for the texts of errors."""

    what: str
    """What it is to hold."""
    keys: str
    """Of its keys."""
    password: str
    """Where the right password is."""
    away: str
    """What to look at if it does not answer."""


JOURNAL = Use(
    what="a journal",
    keys="gato:*",
    password="take the whole URL from the run's redis.json",
    away="is the run still up, and the URL right?",
)


class RedisAway(ValueError):
    """The server does not answer, which may be different in a moment."""


class PasswordFileError(ValueError):
    """The file that a URL names for its password is of no use."""


PASSWORD_FILE = "password_file"
ANSWER_S = 4.0
"""A reader gives a server that is frozen up after this long."""
WRITER_ANSWER_S = 3.0
CHECK = """
redis.call('XADD', KEYS[1], '1-0', 'entry', '')
redis.call('XINFO', 'STREAM', KEYS[1])
return redis.call('DEL', KEYS[1])
"""


def connect(url: str) -> redis.Redis:
    """A client of the server at `url` that has answered once, and that rides over a restart of the
    server.

    Raises:
        RedisAway: It does not answer.
        ValueError: It refuses, or the URL is wrong; the text says how to fix that.
    """
    import redis
    from redis.backoff import ExponentialBackoff
    from redis.retry import Retry

    explain(url, ping)
    # A server that is frozen is not waited for again and again, one that is being restarted is.
    retry = Retry(ExponentialBackoff(cap=0.5, base=0.02), 8, (redis.ConnectionError,))
    return _client(url, retry, ANSWER_S)


def writing_client(url: str) -> redis.Redis:
    """A client that says at once, and within a few seconds, that its server is away."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return _client(url, Retry(NoBackoff(), 0), WRITER_ANSWER_S)


def require_redis(url: str) -> None:
    """Check that a run can keep its journal at `url`: that it answers and may be written.

    Raises:
        RedisAway: It does not answer.
        ValueError: It refuses, or the URL is wrong; the text says how to fix that.
    """

    def write(url: str) -> None:
        with writing_client(url) as probe:
            probe.eval(CHECK, 1, f"gato:check:{uuid4().hex}")

    explain(url, write)


def _client(url: str, retry: Retry, answer_s: float) -> redis.Redis:
    import redis

    url, password = password_of(url)
    return redis.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
        url,
        password=password,
        decode_responses=True,
        encoding_errors="replace",
        protocol=2,
        socket_connect_timeout=2.0,
        socket_timeout=answer_s,
        retry=retry,
    )


def password_of(url: str) -> tuple[str, str | None]:
    """`url` without ?password_file=FILE, and the password that the file holds on this machine, so
    that it is on no command line and in no folder of a run.

    Raises:
        PasswordFileError: The file cannot be read, is empty, or the URL has a password, too.
    """
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    file = dict(options).get(PASSWORD_FILE)
    if file is None:
        return url, None
    if ":" in parts.netloc.rpartition("@")[0]:
        raise PasswordFileError(f"{PASSWORD_FILE} stands for the password; leave that out")
    try:
        password = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise PasswordFileError(f"cannot read the password in {file} ({problem})") from problem
    if not password:
        raise PasswordFileError(f"{file} is empty; write the password of the Redis into it")
    kept = urlencode([pair for pair in options if pair[0] != PASSWORD_FILE], safe="/")
    return urlunsplit(parts._replace(query=kept)), password


def ping(url: str) -> None:
    with writing_client(url) as probe:
        probe.ping()  # pyright: ignore[reportUnknownMemberType]


def explain(url: str, attempt: Callable[[str], None], use: Use = JOURNAL) -> None:
    """Do `attempt` with `url`; of what can go wrong there, say how to fix it.

    Raises:
        RedisAway: The server does not answer.
        ValueError: It refuses, or the URL is wrong.
    """
    import redis

    shown = without_password(url)
    if shown is None:
        raise ValueError(
            f"this is not a Redis URL; write redis://:PASSWORD@HOST:PORT/0, with {ENCODED}"
        )
    try:
        attempt(url)
    except redis.AuthenticationError as error:
        raise ValueError(
            f"Redis at {shown} refuses the password; {use.password}, with {ENCODED}, and the user"
            " before the colon if it has one"
        ) from error
    except (redis.RedisError, OSError) as error:
        if reason := reason_of(url, error, use.what, use.keys):
            raise ValueError(f"Redis at {shown} {reason}") from error
        raise RedisAway(f"Redis at {shown} does not answer ({error}); {use.away}") from error
    except TypeError:  # whose text may hold a part of the password
        raise ValueError(
            f"the URL of Redis at {shown} has an option after its ? that is not known; the file of"
            " a CA is ssl_ca_certs=/path/ca.pem, that of a password password_file=/path"
        ) from None
    except PasswordFileError:
        raise
    except ValueError:
        raise ValueError(
            f"{shown} is not a Redis URL; write redis://:PASSWORD@HOST:PORT/0, with {ENCODED}"
        ) from None


def without_password(url: str) -> str | None:
    """`url` as it may be shown: without user, password and options.

    None where it is not certain which part of it is the password, so that no part may be shown: one
    that holds / ? or # ends the host's part too early, and what follows would be taken for the
    host.
    """
    found = URL.fullmatch(url)
    if found is None:
        return None
    if found["unix"]:
        return "unix://***"
    return f"{found['scheme']}://{'***@' if found['user'] else ''}{found['where']}"
