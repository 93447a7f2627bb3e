"""A small HTTP server that Prometheus asks for metrics."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import final

PATH = "/metrics"
LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})
ANSWER_S = 10.0
"""A client that is slower is given up."""


@final
class MetricsServer:
    """Answers GET /metrics, and nothing else.

    with MetricsServer("127.0.0.1", 0, text=lambda: b"...", content_type="text/plain") as server:
        print(server.url)
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        text: Callable[[], bytes],
        content_type: str,
        token: str | None = None,
    ) -> None:
        """Listen.

        Args:
            host: Address. Beyond loopback it needs a token.
            port: 0: a free one.
            text: What is answered now; called in threads.
            content_type: Of it.
            token: What clients must send as `Authorization: Bearer TOKEN`.

        Raises:
            ValueError: There is no token for other machines, or the port is taken.
        """
        is_local = _is_loopback(host)
        if not is_local and token is None:
            raise ValueError(
                f"{host} is open to other machines: give --token-file FILE with a token that"
                " Prometheus sends, or listen at 127.0.0.1"
            )

        class Handler(BaseHTTPRequestHandler):
            timeout = ANSWER_S
            server_version, sys_version = "gato", ""

            def do_GET(self) -> None:
                given = self.headers.get("Authorization", "")
                if token is not None and not hmac.compare_digest(
                    given.encode("utf-8", "replace"), f"Bearer {token}".encode()
                ):
                    self._answer(401, "text/plain", b"the token is missing or wrong\n")
                elif token is None and not _names_local(self.headers.get("Host", "")):
                    # A page of another site that a browser here shows must not read it.
                    self._answer(403, "text/plain", b"ask by a name of this machine's loopback\n")
                elif self.path.partition("?")[0] != PATH:
                    self._answer(404, "text/plain", f"there is {PATH}\n".encode())
                else:
                    self._answer(200, content_type, text())

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is logged."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as problem:
            raise ValueError(
                f"cannot listen at {host}:{port} ({problem.strerror}); give another port, or 0 for"
                " a free one"
            ) from problem
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}{PATH}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _names_local(host: str) -> bool:
    """Whether the Host of a request, with its port or without, is loopback."""
    name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
    return name in LOCAL or _is_loopback(name)
