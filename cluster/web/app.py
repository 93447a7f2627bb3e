"""The page's HTTP: static files, runs, their curves as JSON, the stream, clips, and steering."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar, final

from aiohttp import web

from cluster.runs.folder import RunFolder
from cluster.web.follower import page_folder
from cluster.web.guard import add_headers, guarded, has_token, make_token
from cluster.web.history import to_json_text
from cluster.web.now import clips_of
from cluster.web.runs import Runs
from cluster.web.seeds import Seeds, run_names
from cluster.web.settings import flat_settings
from cluster.web.steering import steer
from cluster.web.stream import Streams

T = TypeVar("T")
STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".txt": "text/plain",
    ".svg": "image/svg+xml",
}
MOST_BODY_BYTES = 4096
MOST_POINTS = 1000
MOST_PREFIXES = 100


@final
class Page:
    """Answers for the runs of one folder.

    page = Page(Runs(folder), token_file)
    web.AppRunner(page.application())
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self.streams = Streams(runs)
        self._seeds = Seeds()

    def application(self) -> web.Application:
        """What aiohttp serves."""
        app = web.Application(middlewares=[guarded], client_max_size=MOST_BODY_BYTES)
        app.on_response_prepare.append(add_headers)
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/static/{path:.+}", self._static),
                web.get("/api/runs", self._list),
                web.get("/api/runs/{run}", self._snapshot),
                web.get("/api/runs/{run}/lines", self._lines),
                web.get("/api/runs/{run}/settings", self._settings),
                web.get("/metrics", self._metrics),
                web.get("/api/averages", self._averages),
                web.get("/api/stream", self.streams.answer),
                web.get("/clips/{run}/{task:.+}", self._clip),
                web.post("/api/runs/{run}/{word}", self._steer),
            ]
        )
        return app

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    async def _static(self, request: web.Request) -> web.StreamResponse:
        file = STATIC / request.match_info["path"]
        if file not in static_files():
            raise web.HTTPNotFound
        kind = TYPES[file.suffix]
        return web.FileResponse(file, headers={"Cache-Control": "no-cache", "Content-Type": kind})

    async def _list(self, request: web.Request) -> web.Response:
        runs = await _in_thread(self._runs.listed)
        first = self._runs.first
        return _json(to_json_text({"first": first.name, "id": first.info().id, "runs": runs}))

    async def _snapshot(self, request: web.Request) -> web.Response:
        follower = self._runs.follow(request.match_info["run"])
        return _json(await _in_thread(partial(follower.snapshot, _points(request))))

    async def _lines(self, request: web.Request) -> web.Response:
        prefixes = request.query.getall("prefix", [])[:MOST_PREFIXES]
        follower = self._runs.follow(request.match_info["run"])
        return _json(await _in_thread(partial(follower.lines, prefixes, _points(request))))

    async def _settings(self, request: web.Request) -> web.Response:
        folder = self._runs.follow(request.match_info["run"]).folder
        return _json(to_json_text(await _in_thread(partial(flat_settings, folder))))

    async def _metrics(self, request: web.Request) -> web.Response:
        """For Prometheus: the runs that this page follows now, its own first."""
        # Imported here, because most pages are never asked for it.
        from cluster.monitor.prometheus import CONTENT_TYPE, metrics_text

        summaries = [follower.summary for follower in self._runs.followed()]
        text = await _in_thread(partial(metrics_text, summaries, time.time()))
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def _averages(self, request: web.Request) -> web.Response:
        followers = [self._runs.follow(name) for name in run_names(request.query.get("runs", ""))]
        work = partial(self._seeds.averages, followers, request.query.get("x", ""))
        return _json(await _in_thread(work))

    async def _clip(self, request: web.Request) -> web.StreamResponse:
        """The newest clip of a task: a file, of which a browser asks for parts."""
        folder = self._runs.follow(request.match_info["run"]).folder.path / "clips"
        task = request.match_info["task"]
        facts = await _in_thread(partial(clips_of, folder))
        if task not in facts:
            raise web.HTTPNotFound
        file = (folder / task).parent / Path(str(facts[task]["file"])).name
        if not file.is_file() or file.suffix not in (".mp4", ".gif"):
            raise web.HTTPNotFound
        # The address holds a mark of the clip, so that what is kept is never another one.
        return web.FileResponse(file, headers={"Cache-Control": "private, max-age=3600"})

    async def _steer(self, request: web.Request) -> web.Response:
        folder = self._runs.follow(request.match_info["run"]).folder
        try:
            token = await _in_thread(partial(token_of, folder))
        except OSError as problem:
            raise ValueError(f"this run cannot be steered from here: {problem}") from problem
        if not has_token(request, token):
            return web.Response(
                status=401,
                text=f"to change a run, give its token: it is in {token_file(folder)}",
                headers={"WWW-Authenticate": "Bearer"},
            )
        word, body = request.match_info["word"], await request.read()
        said = await _in_thread(partial(steer, folder, word, body))
        return _json(to_json_text({"said": said}))


def token_file(folder: RunFolder) -> Path:
    """The file with the token of a run's page."""
    return page_folder(folder) / "token"


def token_of(folder: RunFolder) -> str:
    """The token of a run's page; it is made where there is none."""
    return make_token(token_file(folder))


def static_files() -> frozenset[Path]:
    """What is served under /static: the files of the page, and nothing else."""
    return frozenset(file for file in STATIC.rglob("*") if file.suffix in TYPES)


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _points(request: web.Request) -> int:
    """How many points a curve may have, as the page asks. Raises ValueError if it is no number."""
    text = request.query.get("points", "200")
    if not text.isdecimal() or len(text) > 4 or not 2 <= int(text) <= MOST_POINTS:
        raise ValueError(f"points={text[:20]!r} is not in 2..{MOST_POINTS}")
    return int(text)


def _json(text: str) -> web.Response:
    response = web.Response(text=text, content_type="application/json")
    response.enable_compression()
    return response
