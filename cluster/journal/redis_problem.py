"""Why a Redis server cannot be used, in words that say how to fix it."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import redis

TLS = "rediss://USER:PASSWORD@HOST:PORT/0?ssl_ca_certs=/path/ca.pem"
PROBE_S = 1.0


def reason_of(
    url: str, error: redis.RedisError | OSError, what: str = "a journal", keys: str = "gato:*"
) -> str | None:
    """What is wrong with the server at `url`, after `error`, without any part of a password; None
    if nothing but its answer is missing. `what` it is to hold, with these `keys`."""
    import ssl

    from redis.exceptions import InvalidResponse, ResponseError

    said = " ".join(str(error).split())
    cause = _cause(error)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            f"has a certificate that is not trusted ({said}); name the file of the CA that signed"
            f" it: {TLS}, and the host as the certificate has it"
        )
    if isinstance(cause, FileNotFoundError) and url.startswith("rediss:"):
        return "was not asked: the file of ssl_ca_certs does not exist; name the CA's file"
    if isinstance(cause, ssl.SSLError) and "NO_CERTIFICATE" in said:
        return "was not asked: the file of ssl_ca_certs holds no certificate; name the CA's file"
    if isinstance(error, ResponseError) and not isinstance(error, InvalidResponse):
        return (
            f"cannot hold {what} ({said}); give its user the rights for keys {keys} and all"
            " commands, and name a server that is no replica, of Redis 5 or later"
        )
    if url.startswith("rediss:") and _answers_plainly(url):
        return "does not speak TLS on this port; write redis://, or the port that does"
    if url.startswith("redis:") and _answers_tls(url):
        return f"speaks TLS on this port; write {TLS}"
    return None


def _answers_plainly(url: str) -> bool:
    """True if the port takes Redis's commands without TLS."""
    with contextlib.suppress(OSError), _connection(url) as plain:
        plain.sendall(b"PING\r\n")
        return plain.recv(1) in (b"+", b"-")
    return False


def _answers_tls(url: str) -> bool:
    """True if the port takes part in a handshake of TLS. Nothing is sent, so nobody is trusted."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _connection(url) as plain, context.wrap_socket(plain):
            return True
    except ssl.SSLError as problem:  # it answers, and wants a certificate of ours
        return problem.reason not in (None, "WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING")
    except OSError:
        return False


def _connection(url: str) -> socket.socket:
    from redis.connection import parse_url

    parts = parse_url(url)
    where = (parts.get("host", "localhost"), parts.get("port", 6379))
    return socket.create_connection(where, PROBE_S)


def _cause(error: BaseException) -> BaseException:
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error
