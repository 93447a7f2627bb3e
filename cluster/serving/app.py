"""The policy server's HTTP: paths, the token, limits, and one clear sentence for a bad request."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgpack
from aiohttp import web

from actors.envs.wire import decode, encode
from cluster.serving.sessions import RefusedError, Sessions
from gato.array_spec import Kind
from gato.serialization import to_plain
from gato.task import Task

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SPARE_BYTES = 64 * 1024
"""Of a body, beyond the largest observation."""
BODY_TIMEOUT_S = 30.0
PATHS = "GET /health, GET /tasks, POST /begin, POST /act, POST /end"


def most_body_bytes(tasks: dict[str, Task]) -> int:
    """The largest body that is read: the largest observation, in eight bytes a number if it is not
    a picture or text."""
    return SPARE_BYTES + max(
        sum(
            spec.size * (1 if spec.kind in (Kind.IMAGE, Kind.TEXT) else 8)
            for spec in task.observations.values()
        )
        for task in tasks.values()
    )


class PolicyApp:
    """Answers requests from `sessions`.

    app = PolicyApp(sessions, token, threads).application()
    """

    def __init__(self, sessions: Sessions, token: str, threads: ThreadPoolExecutor) -> None:
        """`threads`: one for each client that may wait at once."""
        self._sessions = sessions
        self._token = token
        self._threads = threads

    def application(self) -> web.Application:
        """What aiohttp serves."""
        app = web.Application(
            middlewares=[self._answer], client_max_size=most_body_bytes(self._sessions.tasks)
        )
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/tasks", self._tasks),
                web.post("/begin", self._begin),
                web.post("/act", self._act),
                web.post("/end", self._end),
            ]
        )
        return app

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The handler's answer, or the sentence that says why there is none."""
        if request.path != "/health" and not self._has_token(request):
            return web.Response(
                status=401,
                text="the token is missing or wrong; send the header Authorization: Bearer TOKEN"
                " with what is in the file that gato serve names",
                headers={"WWW-Authenticate": "Bearer"},
            )
        try:
            return await handler(request)
        except RefusedError as refused:
            return web.Response(status=refused.status, text=_line(refused))
        except ValueError as problem:
            return web.Response(status=400, text=_line(problem))
        except web.HTTPRequestEntityTooLarge:
            most = most_body_bytes(self._sessions.tasks)
            text = f"the body is too large: at most {most:,} bytes are read"
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as problem:
            return web.Response(
                status=problem.status,
                text=f"there is no {request.method} {request.path}; there are {PATHS}",
            )
        # What follows a body that was not read cannot be understood.
        return web.Response(status=413, text=text, headers={"Connection": "close"})

    def _has_token(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").encode("utf-8", "replace")
        return hmac.compare_digest(given, f"Bearer {self._token}".encode())

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _health(self, request: web.Request) -> web.Response:
        about = {"status": "ok", "clients": self._sessions.num_sessions}
        return web.json_response(about)

    async def _tasks(self, request: web.Request) -> web.Response:
        return _packed(
            {
                name: {
                    "observations": to_plain(task.observations),
                    "action": to_plain(task.action),
                    "max_steps": task.max_steps,
                }
                for name, task in self._sessions.tasks.items()
            }
        )

    async def _begin(self, request: web.Request) -> web.Response:
        body = await _body(request, required=("task",), optional=("session",))
        task, before = _text(body, "task"), _text(body, "session")
        key = await self._in_thread(
            lambda: self._sessions.begin(task, before=before, is_gone=_is_closed(request))
        )
        return _packed({"session": key})

    async def _act(self, request: web.Request) -> web.Response:
        body = await _body(request, required=("session", "observation"), optional=("reward",))
        key, reward = _text(body, "session"), body.get("reward")
        if reward is not None and (isinstance(reward, bool) or not isinstance(reward, int | float)):
            raise ValueError(f"reward is {type(reward).__name__}, expected a number")
        paid = None if reward is None else float(reward)
        action = await self._in_thread(
            lambda: self._sessions.act(
                key, body["observation"], reward=paid, is_gone=_is_closed(request)
            )
        )
        return _packed({"action": action})

    async def _end(self, request: web.Request) -> web.Response:
        body = await _body(request, required=("session",))
        key = _text(body, "session")
        await self._in_thread(lambda: self._sessions.end(key))
        return _packed({})


def _packed(value: Any) -> web.Response:
    return web.Response(body=encode(value), content_type="application/msgpack")


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())


def _is_closed(request: web.Request) -> Callable[[], bool]:
    """Whether the connection of a request has ended."""
    transport = request.transport
    return lambda: transport is None or transport.is_closing()


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} is {type(value).__name__}, expected text")
    return value


async def _body(
    request: web.Request, *, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The request's body: a map of msgpack with these keys.

    Raises:
        ValueError: It is none.
        RefusedError: It does not arrive.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            content = await request.read()
    except TimeoutError:
        raise RefusedError(408, "the body did not arrive in time") from None
    try:
        body = decode(content)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as problem:
        raise ValueError(f"the body is not msgpack ({problem}); send a map of {required}") from None
    if not isinstance(body, dict):
        raise ValueError(f"the body is {type(body).__name__}, expected a map of {required}")
    missing = [name for name in required if name not in body]
    unknown = sorted(str(name) for name in body if name not in (*required, *optional))
    if missing or unknown:
        raise ValueError(
            f"the body {'lacks' if missing else 'has'} {(missing or unknown)[0]!r}, expected"
            f" {', '.join((*required, *optional))}"
        )
    return body
