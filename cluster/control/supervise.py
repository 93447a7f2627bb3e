"""One run from its start to its end in this process: its journal, its parts, and who watches."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import ray
from rich.console import Console

from actors.teachers.resolve import has_teacher
from cluster.control.build_run import scales_of
from cluster.control.launch import launch
from cluster.control.ray_connection import connect_ray
from cluster.control.resolve import tasks_of
from cluster.control.run_journal import open_journal
from cluster.control.scheduler import Scheduler
from cluster.control.supervisor import Ended, Supervisor
from cluster.journal.journal_file import JournalFile
from cluster.journal.records import Event
from cluster.monitor.fold import read_summary
from cluster.monitor.format import literal
from cluster.monitor.scores import Scale
from cluster.monitor.watch import render, watch_live
from cluster.runs import datasets
from cluster.runs.config import RunConfig
from cluster.runs.dataset_import import UNFILTERED, unread_lines
from cluster.runs.folder import RunFolder
from gato.serialization import to_plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """The Ray and the Redis that a run uses."""

    address: str | None
    redis_url: str | None
    redis_port: int | None


def supervise_or_fail(
    config: RunConfig, folder: RunFolder, options: Connections, console: Console
) -> None:
    try:
        _supervise(config, folder, options, console)
    except (ValueError, OSError) as problem:
        folder.set_state("failed", reason=str(problem))
        raise


def _supervise(
    config: RunConfig, folder: RunFolder, options: Connections, console: Console
) -> None:
    tasks = tasks_of(config)
    sets = [datasets.find(name) for name in config.data]
    data_returns = datasets.mean_returns(sets, config.replay.mix.min_expert_fraction)
    scales = scales_of(config, data_returns)
    folder.set_state("starting")
    with open_journal(folder, options.redis_url, options.redis_port) as journal:
        resumed = journal.last_number > 0
        journal.append(
            Event(
                kind="resumed" if resumed else "started",
                text=f"{len(tasks)} tasks: {', '.join(tasks)}",
            )
        )
        (folder.path / "scales.json").write_text(
            json.dumps({name: to_plain(scale) for name, scale in scales.items()})
        )
        console.print(
            f"run [bold]{literal(config.name)}[/bold] in {literal(folder.path)}: starting Ray,"
            " replay and the learner ...",
            highlight=False,
        )
        connect_ray(options.address, namespace=f"gato-{config.name}")
        try:
            teacher_returns = {name: scale.teacher_return for name, scale in scales.items()}
            parts = launch(
                config, folder.path, local=options.address is None, teacher_returns=teacher_returns
            )
            for data in sets:
                datasets.hand_in(data, parts.fill, console)
            if sets:
                stats = parts.replay.stats()
                for line in unread_lines(stats.left_out, stats.episodes):
                    console.print(
                        f"[yellow]not read:[/yellow] {literal(line)} ({UNFILTERED} reads all)",
                        highlight=False,
                    )
            teachable = [
                n for n, task in tasks.items() if n in config.actors.teacher_of or has_teacher(task)
            ]
            scheduler = Scheduler(
                config.actors,
                list(tasks),
                demonstration_steps=parts.replay.demonstration_steps(),
                teachable=teachable,
                has_data=list(data_returns),
                seed=config.seed,
            )
            supervisor = Supervisor(config, parts, journal, scheduler)
            folder.set_state("running")
            ended, reason = _run_watched(supervisor, journal.reader(), config.name, scales, console)
            parts.replay.close()
        finally:
            ray.shutdown()
        journal.append(
            Event(kind=ended, text=reason or f"gato resume {config.name} goes on from here")
        )
        folder.set_state(ended, reason=reason)
        console.print(
            render(read_summary(journal.reader(), config.name, scales), now_s=time.time())
        )
    if ended == "failed":
        raise ValueError(f"run {config.name} failed: {reason}")
    name = literal(config.name)
    console.print(
        f"run [bold]{name}[/bold] {ended}. Play it: gato evaluate {name} · see it again: gato watch"
        f" {name}"
    )


def _run_watched(
    supervisor: Supervisor,
    journal: JournalFile,
    run: str,
    scales: Mapping[str, Scale],
    console: Console,
) -> tuple[Ended, str]:
    """Run in this thread and show the table from another. Ctrl-C and SIGTERM ask the run to stop;
    again ends it at once."""
    watcher = threading.Thread(
        target=watch_live, args=(journal,), name="watch", daemon=True,
        kwargs={"run": run, "scales": scales, "console": console, "until_ended": True},
    )  # fmt: skip
    asked = 0

    def ask(*_: object) -> None:
        nonlocal asked
        asked += 1
        supervisor.stop()
        if asked > 1:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    watcher.start()
    try:
        return supervisor.run()
    except KeyboardInterrupt:
        return "failed", "ended at once, at the user's wish; the last checkpoint stands"
    finally:
        journal.close()
        watcher.join(timeout=3.0)
        for number, handler in previous.items():
            signal.signal(number, handler)
