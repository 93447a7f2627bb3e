"""Server-sent events: what changed in the runs that a page shows, from any entry of their journals
on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import final

from aiohttp import web

from cluster.web.follower import Follower
from cluster.web.runs import Runs

MAX_STREAMS = 32
MAX_RUNS = 8
PULSE_S = 10.0
"""A stream that says nothing for longer is closed by proxies, and its end is not noticed."""
WRITE_WITHIN_S = 30.0
RETRY_MS = 1000
GATHER_S = 0.1
"""Changes of this time go together."""
PLACE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}):(\d{1,18})")


@final
class Streams:
    """Answers `GET /api/stream?runs=a:12,b:0`: the runs, and the last entry that is known of each.

    The id of an event is the same list, so that a browser goes on where it was, also at another
    server of these runs.
    """

    def __init__(self, runs: Runs, *, most: int = MAX_STREAMS) -> None:
        self._runs = runs
        self._most = most
        self._open: set[asyncio.Event] = set()
        self._ending = False

    def end(self) -> None:
        """Close all streams; browsers come back by themselves."""
        self._ending = True
        for wake in self._open:
            wake.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Stream until the browser leaves or the server ends."""
        asked = request.headers.get("Last-Event-ID") or request.query.get("runs", "")
        places = read_places(asked)
        if len(self._open) >= self._most or self._ending:
            return web.Response(
                status=503,
                text=f"{self._most} streams are open, the most of this page; close some of its"
                " tabs in other browsers",
                headers={"Retry-After": "5"},
            )
        followers = {name: self._runs.follow(name) for name in places}
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        )
        loop, wake = asyncio.get_running_loop(), asyncio.Event()
        self._open.add(wake)

        def notify() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(wake.set)

        ends = [follower.listen(notify) for follower in followers.values()]
        try:
            await response.prepare(request)
            await response.write(f"retry: {RETRY_MS}\n\n".encode())
            await self._stream(response, followers, places, wake)
        except (ConnectionError, RuntimeError, TimeoutError):
            pass  # the browser has left or sleeps, or the loop ends
        finally:
            self._open.discard(wake)
            for end in ends:
                end()
        return response

    async def _stream(
        self,
        response: web.StreamResponse,
        followers: Mapping[str, Follower],
        places: dict[str, int],
        wake: asyncio.Event,
    ) -> None:
        told = dict.fromkeys(followers, -1)
        while not self._ending:
            wake.clear()
            said = ""
            for name, follower in followers.items():
                said += _changes(follower, name, places)
                if follower.now_text and follower.now_count != told[name]:
                    told[name] = follower.now_count
                    said += f"event: now\ndata: {follower.now_text}\n\n"
            if said:
                async with asyncio.timeout(WRITE_WITHIN_S):
                    await response.write(said.encode())
            try:
                await asyncio.wait_for(wake.wait(), PULSE_S)
            except TimeoutError:
                await response.write(b": still here\n\n")
                for name in followers:
                    self._runs.follow(name)
            await asyncio.sleep(GATHER_S)


def _changes(follower: Follower, name: str, places: dict[str, int]) -> str:
    """The event with all changes of a run since its place, which moves on; empty if there are
    none. A place that is not known any more is answered with `reset`, and moves to the end."""
    found = follower.since(places[name])
    if found is None:
        places[name] = follower.last
        return f'id: {_text(places)}\nevent: reset\ndata: {{"run":"{name}"}}\n\n'
    last, changes = found
    before, places[name] = places[name], last
    if not changes:
        return ""
    texts = ",".join(changed.text for changed in changes)
    data = f'{{"run":"{name}","after":{before},"last":{last},"changes":[{texts}]}}'
    return f"id: {_text(places)}\nevent: changes\ndata: {data}\n\n"


def _text(places: Mapping[str, int]) -> str:
    return ",".join(f"{name}:{number}" for name, number in places.items())


def read_places(text: str) -> dict[str, int]:
    """Runs and the last entry that is known of each, from `a:12,b:0`.

    Raises:
        ValueError: It is no such list, or too long.
    """
    parts = [PLACE.fullmatch(part) for part in text.split(",")]
    places = {part[1]: int(part[2]) for part in parts if part is not None}
    if len(places) != len(parts) or len(places) > MAX_RUNS:
        raise ValueError(
            f"runs={text[:80]!r} is no list of at most {MAX_RUNS} runs with the number of the last"
            " entry that is known of each, such as runs=demo:0"
        )
    return places
