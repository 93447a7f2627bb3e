"""Clients of a Redis server, and its URL as it may be shown."""

from __future__ import annotations

import re

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

URL = re.compile(
    r"(?P<scheme>rediss?)://(?P<user>[^/?#\s]*@)?(?P<where>([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/\d*)?)(\?[^#@\s]*)?"
    r"|(?P<unix>unix)://([^/?#\s]*@)?/[^?#@\s]*(\?[^#@\s]*)?"
)
ENCODED = "each @ # / ? % of the password percent-encoded (%40 %23 %2F %3F %25)"


def connect(url: str) -> redis.Redis:
    """A client of the server at `url` that has answered once, and that rides over a restart of the
    server."""
    shown = without_password(url)
    if shown is None:
        raise ValueError(
            f"this is not a Redis URL; write redis://:PASSWORD@HOST:PORT/0, with {ENCODED}"
        )
    try:
        ping(url)
    except redis.AuthenticationError as error:
        raise ValueError(
            f"Redis at {shown} refuses the password; take the whole URL from the run's redis.json,"
            f" with {ENCODED}"
        ) from error
    except redis.RedisError as error:
        raise ValueError(
            f"Redis at {shown} does not answer ({error}); is the run still up, and the URL right?"
        ) from error
    except ValueError:
        raise ValueError(
            f"{shown} is not a Redis URL; write redis://:PASSWORD@HOST:PORT/0, with {ENCODED}"
        ) from None
    return _client(url, Retry(ExponentialBackoff(cap=0.5, base=0.02), 8))


def _client(url: str, retry: Retry) -> redis.Redis:
    return redis.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
        url,
        decode_responses=True,
        protocol=2,
        socket_connect_timeout=2.0,
        socket_timeout=10.0,
        retry=retry,
    )


def ping(url: str) -> None:
    with _client(url, Retry(NoBackoff(), 0)) as probe:
        probe.ping()  # pyright: ignore[reportUnknownMemberType]


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
