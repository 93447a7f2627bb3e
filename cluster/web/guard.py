"""Who may ask the page for what: hosts by name, the token, and the headers of every answer."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from cluster.nodes.tokens import write_private

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


def make_token(file: Path) -> str:
    """The token in `file`, which only its owner can read; a new one if there is none."""
    if file.is_file() and not file.stat().st_mode & 0o077 and (known := file.read_text().strip()):
        return known
    token = secrets.token_urlsafe(24)
    write_private(file, token)
    return token


def is_from_here(request: web.Request) -> bool:
    """Whether a request names this machine as its host and, if it says so, comes from a page of
    ours. A page of another site cannot say either, whatever its name resolves to."""
    name = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else None
    if (request.host if name is None else name) not in LOCAL_NAMES:
        return False
    origin = request.headers.get("Origin")
    return origin is None or origin == f"http://{request.host}"


def has_token(request: web.Request, token: str) -> bool:
    """Whether the header Authorization has the token. No other place counts: a page of another
    site can send forms and cookies, but not this header."""
    given = request.headers.get("Authorization", "").encode("utf-8", "replace")
    return hmac.compare_digest(given, f"Bearer {token}".encode())


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's answer, or the sentence that says why there is none."""
    if not is_from_here(request):
        return _said(403, "this page answers to 127.0.0.1 and localhost alone; for another machine,"
                     " forward the port: ssh -L 8080:127.0.0.1:PORT HOST")  # fmt: skip
    try:
        return await handler(request)
    except ValueError as problem:
        return _said(400, " ".join(str(problem).split()))
    except web.HTTPRequestEntityTooLarge:
        return _said(413, "the body is too large")
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as problem:
        return _said(problem.status, f"there is no {request.method} {request.path} here")


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """A signal for every answer, before its headers are sent."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


def _said(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)
