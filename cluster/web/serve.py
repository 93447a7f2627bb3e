"""A page from its start to its end: in `gato watch --web`, and in a process of its own beside each
run (`python -m cluster.web.serve FOLDER`)."""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from cluster.monitor.format import printable
from cluster.runs.folder import RunFolder
from cluster.web.app import Page, token_of
from cluster.web.follower import page_folder
from cluster.web.runs import Runs

HOST = "127.0.0.1"
REAP_EVERY_S = 5.0
END_WITHIN_S = 2.0
LAST_WORDS_S = 0.7


def serve(
    folder: RunFolder,
    *,
    port: int,
    when_ready: Callable[[str], None],
    stop: threading.Event | None = None,
    last_words_s: float = LAST_WORDS_S,
) -> None:
    """Serve the page of a run, with the other runs of its folder, until SIGINT, SIGTERM or `stop`.

    Args:
        folder: The run that is shown first.
        port: On loopback; 0: the one that this run's page had last, else a free one.
        when_ready: Is told the page's address.
        stop: Ends the page when it is set, by any thread.
        last_words_s: How long open tabs still hear how the run ended.

    Raises:
        ValueError: The port is taken.
    """
    asyncio.run(_serve(folder, port, when_ready, stop or threading.Event(), last_words_s))


async def _serve(
    folder: RunFolder,
    port: int,
    when_ready: Callable[[str], None],
    stop: threading.Event,
    last_words_s: float,
) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
    with suppress(OSError):  # somebody else's run can be read all the same
        token_of(folder)
    runs = Runs(folder)
    page = Page(runs)
    runner = web.AppRunner(
        page.application(),
        access_log=None,
        shutdown_timeout=END_WITHIN_S,
        handler_cancellation=True,  # a stream ends as soon as its tab does
    )
    await runner.setup()
    try:
        actual = await _listen(runner, port, known_port(folder))
        with suppress(OSError):
            _keep_port(folder, actual)
        when_ready(f"http://{HOST}:{actual}")
        while not (ended.is_set() or stop.is_set()):
            await loop.run_in_executor(None, runs.end_unused)
            await _wait(ended, stop)
    finally:
        runs.hurry()
        await asyncio.sleep(last_words_s)
        page.streams.end()
        await runner.cleanup()
        await loop.run_in_executor(None, runs.close)


async def _wait(ended: asyncio.Event, stop: threading.Event) -> None:
    for _ in range(int(REAP_EVERY_S / 0.25)):
        if ended.is_set() or stop.is_set():
            return
        await asyncio.sleep(0.25)


async def _listen(runner: web.AppRunner, port: int, before: int) -> int:
    """Listen at `port`; if that is 0 at the one of before, else at a free one. Returns the port."""
    for wanted in dict.fromkeys((port,) if port else (before, 0)):
        try:
            await web.TCPSite(runner, HOST, wanted).start()
            return int(runner.addresses[0][1])
        except OSError as problem:
            if port or problem.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise ValueError(
                    f"cannot listen at {HOST}:{port} ({problem.strerror}); give another --port, or"
                    " none for a free one"
                ) from problem
    raise AssertionError("port 0 is always free")


def known_port(folder: RunFolder) -> int:
    """The port that the page of this run had last, 0 if it had none: open tabs find it again."""
    try:
        known: Any = json.loads((page_folder(folder) / "port.json").read_text())
        return known if type(known) is int and 1024 <= known < 65536 else 0
    except (OSError, ValueError):
        return 0


def _keep_port(folder: RunFolder, port: int) -> None:
    file = page_folder(folder) / "port.json"
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(port))
    os.replace(draft, file)


def main() -> int:
    """Serve beside a run: the page ends when its standard input does, with the run's process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    stop = threading.Event()
    os.nice(5)  # the run goes first

    def wait_for_the_run() -> None:
        sys.stdin.buffer.read()
        stop.set()

    threading.Thread(target=wait_for_the_run, daemon=True).start()
    folder = RunFolder(arguments.folder.parent, arguments.folder.name)
    try:
        serve(folder, port=arguments.port, when_ready=lambda url: print(url, flush=True), stop=stop)
    except (ValueError, OSError) as problem:
        print(f"error: {printable(problem)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
