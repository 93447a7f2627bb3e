"""One run from its start to its end in this process: its journal, its parts, and who watches."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass

import ray
from rich.console import Console

from cluster.control.page import page_of
from cluster.control.run_journal import open_journal
from cluster.control.session import Session
from cluster.control.storage import copied
from cluster.journal.records import Event
from cluster.monitor.fold import read_summary
from cluster.monitor.format import literal
from cluster.monitor.terminal.watch import render, watch_live
from cluster.nodes.connect import connect_ray
from cluster.nodes.part_logs import keep_session
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder
from cluster.supervision.training import Ended


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
    before = signal.getsignal(signal.SIGTERM)
    try:
        _supervise(config, folder, options, console)
    except (ValueError, OSError) as problem:
        folder.set_state("failed", reason=str(problem))
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _supervise(
    config: RunConfig, folder: RunFolder, options: Connections, console: Console
) -> None:
    tasks = ", ".join(config.tasks)
    folder.set_state("starting")
    with (
        open_journal(folder, options.redis_url, options.redis_port) as journal,
        page_of(folder, config.page, console),
    ):
        session = Session(folder, journal, on_cluster=False)
        resumed = journal.last_number > 0
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
        keep_session(folder.path)
        try:
            with copied(session):
                try:
                    session.prepare(console)
                except (ValueError, OSError) as problem:
                    journal.append(Event(kind="failed", text=str(problem)))
                    raise
                folder.set_state("running")
                ended, reason = _run_watched(session, console)
        finally:
            ray.shutdown()
        journal.append(
            Event(kind=ended, text=reason or f"gato resume {config.name} goes on from here")
        )
        folder.set_state(ended, reason=reason)
        summary = read_summary(journal.reader(), config.name, session.scales)
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
    Ctrl-C again ends it at once. A SIGTERM that comes after the end is of a `gato stop` that
    waits."""
    reader = session.journal.reader()
    watcher = threading.Thread(
        target=watch_live, args=(reader,), name="watch", daemon=True,
        kwargs={
            "run": session.config.name, "scales": session.scales, "console": console,
            "until_ended": True,
        },
    )  # fmt: skip
    asked = 0

    def ask(number: int, _: object) -> None:
        nonlocal asked
        asked += number == signal.SIGINT
        session.stop()
        if asked > 1:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    watcher.start()
    try:
        return session.run()
    except KeyboardInterrupt:
        return "failed", "ended at once, as the user asked; the last checkpoint stands"
    finally:
        reader.close()
        watcher.join(timeout=3.0)
        signal.signal(signal.SIGINT, previous)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
