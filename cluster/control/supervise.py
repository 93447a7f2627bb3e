"""One run from its start to its end in this process: its journal, its parts, and who watches."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
import redis
from rich.console import Console

from cluster.control.session import Session
from cluster.control.training import Ended
from cluster.journal.journal import START, Journal
from cluster.journal.records import Event
from cluster.journal.redis_client import connect
from cluster.journal.redis_server import RedisServer
from cluster.monitor.fold import read_summary
from cluster.monitor.format import literal
from cluster.monitor.watch import render, watch_live
from cluster.nodes.connect import connect_ray
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """The Ray and the Redis that a run uses."""

    address: str | None
    """host:port of a cluster's head; None: a Ray of the run's own, on this machine."""
    redis_url: str | None
    redis_port: int | None


def supervise_or_fail(
    config: RunConfig, folder: RunFolder, options: Connections, console: Console
) -> None:
    try:
        _supervise(config, folder, options, console)
    except redis.RedisError as problem:  # a journal without space, or a server that is gone
        reason = (
            f"the journal of run {folder.name} failed ({problem}); repair its Redis or free some"
            " space, then gato resume"
        )
        folder.set_state("failed", reason=reason)
        raise ValueError(reason) from problem
    except (ValueError, OSError) as problem:
        folder.set_state("failed", reason=str(problem))
        raise


@contextmanager
def _journal_server(folder: RunFolder, options: Connections) -> Generator[str]:
    """The URL of the run's journal: a Redis of its own while the run lasts, or the one that was
    named."""
    if options.redis_url is not None:
        keep_url(folder, options.redis_url)
        yield options.redis_url
        return
    with RedisServer.start(folder.path / "redis", port=options.redis_port) as server:
        yield server.url


def _supervise(
    config: RunConfig, folder: RunFolder, options: Connections, console: Console
) -> None:
    tasks = ", ".join(config.tasks)
    folder.set_state("starting")
    with _journal_server(folder, options) as url:
        journal = Journal(connect(url), config.name)
        session = Session(folder, journal, on_cluster=False)
        resumed = bool(journal.read(START, count=1))
        journal.append(
            Event(
                kind="resumed" if resumed else "started", text=f"{len(config.tasks)} tasks: {tasks}"
            )
        )
        session.keep_scales()
        console.print(
            f"run [bold]{literal(config.name)}[/bold] in {literal(folder.path)}: starting Ray,"
            " replay and the learner ...",
            highlight=False,
        )
        connect_ray(None, namespace=f"gato-{config.name}")
        try:
            session.prepare(console)
            folder.set_state("running")
            ended, reason = _run_watched(session, console)
        finally:
            ray.shutdown()
        journal.append(
            Event(kind=ended, text=reason or f"gato resume {config.name} goes on from here")
        )
        journal.close()
        folder.set_state(ended, reason=reason)
        summary = read_summary(journal, config.name, session.scales)
        console.print(render(summary, now_s=time.time()))
    if ended == "failed":
        raise ValueError(f"run {config.name} failed: {reason}")
    name = literal(config.name)
    console.print(
        f"run [bold]{name}[/bold] {ended}. Play it: gato evaluate {name} · see it again: gato watch"
        f" {name}"
    )


def _run_watched(session: Session, console: Console) -> tuple[Ended, str]:
    """Run in this thread and show the table from another. Ctrl-C and SIGTERM ask the run to stop;
    again ends it at once."""
    watcher = threading.Thread(
        target=watch_live, args=(session.journal,), name="watch", daemon=True,
        kwargs={
            "run": session.config.name, "scales": session.scales, "console": console,
            "until_ended": True,
        },
    )  # fmt: skip
    asked = 0

    def ask(*_: object) -> None:
        nonlocal asked
        asked += 1
        session.stop()
        if asked > 1:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    watcher.start()
    try:
        return session.run()
    except KeyboardInterrupt:
        return "failed", "ended at once, at the user's wish; the last checkpoint stands"
    finally:
        session.journal.close()
        watcher.join(timeout=3.0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def keep_url(folder: RunFolder, url: str) -> None:
    """Keep the URL of a run's Redis, with its password, for those who may read the owner's
    files."""
    file = folder.path / "redis-url.txt"
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(url)
