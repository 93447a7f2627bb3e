"""Putting a run together and keeping it going: start, resume, in this process or behind it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import ray
import redis
from rich.console import Console

from actors.tasks.text_encoder import BYTES
from actors.teachers.resolve import has_teacher
from cluster.control.build_run import scales_of
from cluster.control.launch import launch
from cluster.control.ray_connection import connect_ray
from cluster.control.resolve import tasks_of
from cluster.control.scheduler import Dispatcher
from cluster.control.supervisor import Ended, Supervisor
from cluster.journal.journal import START, Journal
from cluster.journal.records import Event
from cluster.journal.redis_server import RedisServer, connect
from cluster.monitor.format import literal
from cluster.monitor.scores import Scale
from cluster.monitor.summary import read_summary
from cluster.monitor.watch import render, watch_live
from cluster.runs import datasets
from cluster.runs.config import RunConfig
from cluster.runs.dataset_import import UNFILTERED, unread_lines
from cluster.runs.folder import RunFolder, find_run, require_space, runs_root
from cluster.runs.overrides import override
from gato.serialization import to_plain


def start(
    config: RunConfig,
    *,
    address: str | None,
    redis_url: str | None,
    redis_port: int | None,
    detach: bool,
    console: Console,
) -> None:
    """Start a new run. In the foreground it is watched until it ends."""
    require_space(runs_root())
    folder = RunFolder.create(config)
    text = kept_text(config.text, folder)
    config = folder.change_config(lambda config: replace(config, text=text))
    _carry_out(
        config,
        folder,
        _Options(address=address, redis_url=redis_url, redis_port=redis_port),
        detach,
        console,
    )


def kept_text(text: str, folder: RunFolder) -> str:
    """The run keeps its encoder of text, so that it is found again wherever the run's folder is."""
    if text == BYTES:
        return text
    shutil.copyfile(text, folder.path / "text.model")
    return "text.model"


def resume(
    run: str | None,
    *,
    settings: Sequence[str],
    address: str | None,
    redis_url: str | None,
    detach: bool,
    console: Console,
) -> None:
    """Go on with a run that is not active; `settings` are kept for the next time, too."""
    folder = find_run(run)
    info = folder.info()
    if info.is_active:
        raise ValueError(
            f"run {folder.name} is {info.state}; stop it first (gato stop {folder.name}), or"
            " watch it"
        )
    require_space(folder.path)
    config = folder.change_config(
        lambda config: replace(override(config, settings), name=folder.name)
    )
    _carry_out(
        config,
        folder,
        _Options(address=address, redis_url=redis_url, redis_port=None),
        detach,
        console,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    address: str | None
    redis_url: str | None
    redis_port: int | None


def _carry_out(
    config: RunConfig, folder: RunFolder, options: _Options, detach: bool, console: Console
) -> None:
    if detach:
        _carry_out_detached(folder, options, console)
        return
    _supervise_or_say_why(config, folder, options, console)


def _supervise_or_say_why(
    config: RunConfig, folder: RunFolder, options: _Options, console: Console
) -> None:
    try:
        _supervise(config, folder, options, console)
    except redis.RedisError as problem:  # a journal without space, or a server that is gone
        reason = (
            f"the journal of run {folder.name} failed ({problem}); mend its Redis or free some"
            " space, then gato resume"
        )
        folder.set_state("failed", reason=reason)
        raise ValueError(reason) from problem
    except (ValueError, OSError) as problem:
        folder.set_state("failed", reason=str(problem))
        raise


def _carry_out_detached(folder: RunFolder, options: _Options, console: Console) -> None:
    """A process of its own, in a session of its own, whose output goes to the run's log."""
    arguments = [str(folder.path), *_pairs(options)]
    # not on the command line, which every user of the machine can read
    if options.redis_url is not None:
        _keep_url(folder, options.redis_url)
        arguments.append("--redis-kept")
    with (folder.path / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.control.detached", *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    while process.poll() is None and folder.info().state not in ("running", "failed"):
        time.sleep(0.1)
    info = folder.info()
    if info.state == "failed" or process.poll() not in (None, 0):
        raise ValueError(
            f"run {folder.name} did not start: {info.reason or f'see {folder.path}/log.txt'}"
        )
    name = literal(folder.name)
    console.print(
        f"run [bold]{name}[/bold] goes on in the background: gato watch {name} · gato stop {name}"
    )


def _pairs(options: _Options) -> list[str]:
    named = {"--address": options.address, "--redis-port": options.redis_port}
    return [
        text for name, value in named.items() if value is not None for text in (name, str(value))
    ]


def _keep_url(folder: RunFolder, url: str) -> None:
    """Keep the URL of a run's Redis, with its password, for those who may read the owner's
    files."""
    file = folder.path / "redis-url.txt"
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(url)


def supervise_detached(
    folder: RunFolder, *, address: str | None, redis_kept: bool, redis_port: int | None
) -> None:
    """What the process in the background does; `redis_kept`: with the Redis whose URL lies in the
    run's folder."""
    redis_url = (folder.path / "redis-url.txt").read_text() if redis_kept else None
    config = folder.config()
    options = _Options(address=address, redis_url=redis_url, redis_port=redis_port)
    _supervise_or_say_why(config, folder, options, Console(width=120, emoji=False))


@contextmanager
def _journal_server(folder: RunFolder, options: _Options) -> Generator[str]:
    """The URL of the run's journal: a Redis of its own while the run lasts, or the one that was
    named."""
    if options.redis_url is not None:
        _keep_url(folder, options.redis_url)
        yield options.redis_url
        return
    with RedisServer.start(folder.path / "redis", port=options.redis_port) as server:
        yield server.url


def _supervise(config: RunConfig, folder: RunFolder, options: _Options, console: Console) -> None:
    tasks = tasks_of(config)
    sets = [datasets.find(name) for name in config.data]
    data_returns = datasets.mean_returns(sets, config.replay.mix.min_expert_fraction)
    scales = scales_of(config, data_returns)
    folder.set_state("starting")
    with _journal_server(folder, options) as url:
        journal = Journal(connect(url), config.name)
        resumed = bool(journal.read(START, count=1))
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
            dispatcher = Dispatcher(
                config.actors,
                list(tasks),
                demonstration_steps=parts.replay.demonstration_steps(),
                teachable=teachable,
                has_data=list(data_returns),
                seed=config.seed,
            )
            supervisor = Supervisor(config, parts, journal, dispatcher)
            folder.set_state("running")
            ended, reason = _run_watched(supervisor, journal, config.name, scales, console)
            parts.replay.close()
        finally:
            ray.shutdown()
        journal.append(
            Event(kind=ended, text=reason or f"gato resume {config.name} goes on from here")
        )
        journal.close()
        folder.set_state(ended, reason=reason)
        console.print(render(read_summary(journal, config.name, scales), now_s=time.time()))
    if ended == "failed":
        raise ValueError(f"run {config.name} failed: {reason}")
    name = literal(config.name)
    console.print(
        f"run [bold]{name}[/bold] {ended}. Play it: gato evaluate {name} · see it again: gato watch"
        f" {name}"
    )


def _run_watched(
    supervisor: Supervisor,
    journal: Journal,
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
