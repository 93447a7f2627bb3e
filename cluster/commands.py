"""What the words of the command line do: put a run together, keep it going, talk to one that runs, handle data sets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from rich.console import Console
from rich.table import Table

from cluster import datasets
from cluster.config import RunConfig, config_from_json, find_run_config, override, to_plain, with_tasks
from cluster.journal import START, Event, Journal
from cluster.redis_server import RedisServer, connect, find_server
from cluster.registry import RunFolder, find_run, require_space, runs_root
from cluster.registry import list_runs as registry_runs
from cluster.scores import Scale
from cluster.summary import Summary, fold
from cluster.watch import render, watch_live
from gato.task import Task, find_task

if TYPE_CHECKING:
    from cluster.supervisor import Supervisor

MIN_FREE_BYTES = 200 << 20
"""Below this a run is not started: it would end in the middle for want of space."""


def make_config(
    run: str, *, name: str | None, tasks: Sequence[str] | None, data: Sequence[str], settings: Sequence[str]
) -> RunConfig:
    """The named run with what the command line changes. ValueError for what it cannot be."""
    from cluster.launch import check_fits, tasks_of

    config = find_run_config(run)
    if data:
        found = [datasets.find(entry) for entry in data]
        config = replace(config, data=tuple(d.name for d in found))
        if tasks is None:
            tasks = list(dict.fromkeys(task for d in found for task in d.tasks))
    if tasks is not None:
        config = with_tasks(config, [find_task(task, _all_tasks()).name for task in tasks])
    config = override(config, settings)
    config = replace(config, name=name or config.name)
    check_fits(config, tasks_of(config))
    return config


def _all_tasks() -> Mapping[str, Task]:
    from actors.tasks import TASKS

    return TASKS


def scales_of(config: RunConfig, data_returns: Mapping[str, float]) -> dict[str, Scale]:
    """Where 0 and 1 of the normalised return are: random, and who demonstrates (or the published expert)."""
    from actors.teachers import teacher_return

    scales: dict[str, Scale] = {}
    for name in config.tasks:
        task = _all_tasks()[name]
        shipped = None if name in data_returns else teacher_return(task)
        top = data_returns.get(name, shipped if shipped is not None else task.references.expert)
        scales[name] = Scale(random_return=task.references.random, teacher_return=top)
    return scales


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
    require_space(_made(runs_root()), MIN_FREE_BYTES)
    folder = RunFolder.create(config.name, config=to_plain(config))
    config = replace(config, name=folder.name)
    _carry_out(config, folder, _Options(address=address, redis_url=redis_url, redis_port=redis_port), detach, console)


def resume(
    run: str | None,
    *,
    settings: Sequence[str],
    address: str | None,
    redis_url: str | None,
    detach: bool,
    console: Console,
) -> None:
    """Go on with a run that is not active."""
    folder = find_run(run)
    info = folder.info()
    if info.is_active:
        raise ValueError(f"run {folder.name} is {info.state}; stop it first (gato stop {folder.name}), or watch it")
    config = override(config_from_json(json.dumps(info.config)), settings)
    config = replace(config, name=folder.name)
    require_space(folder.path, MIN_FREE_BYTES)
    _carry_out(config, folder, _Options(address=address, redis_url=redis_url, redis_port=None), detach, console)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    address: str | None
    redis_url: str | None
    redis_port: int | None


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _carry_out(config: RunConfig, folder: RunFolder, options: _Options, detach: bool, console: Console) -> None:
    if detach:
        _carry_out_detached(config, folder, options, console)
        return
    _supervise_or_say_why(config, folder, options, console)


def _supervise_or_say_why(config: RunConfig, folder: RunFolder, options: _Options, console: Console) -> None:
    try:
        _supervise(config, folder, options, console)
    except redis.RedisError as problem:  # a journal without space, or a server that is gone
        reason = (
            f"the journal of run {folder.name} failed ({problem}); mend its Redis or free some space, then gato resume"
        )
        folder.set_state("failed", reason=reason)
        raise ValueError(reason) from problem
    except (ValueError, OSError) as problem:
        folder.set_state("failed", reason=str(problem))
        raise


def _carry_out_detached(config: RunConfig, folder: RunFolder, options: _Options, console: Console) -> None:
    """A process of its own, in a session of its own, whose output goes to the run's log."""
    (folder.path / "config.json").write_text(json.dumps(to_plain(config)))
    arguments = [str(folder.path), *_pairs(options)]
    with (folder.path / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.detached", *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    while process.poll() is None and folder.info().state not in ("running", "failed"):
        time.sleep(0.1)
    info = folder.info()
    if info.state == "failed" or process.poll() not in (None, 0):
        raise ValueError(f"run {folder.name} did not start: {info.reason or f'see {folder.path}/log.txt'}")
    console.print(
        f"run [bold]{folder.name}[/bold] goes on in the background: gato watch {folder.name} · gato stop {folder.name}"
    )


def _pairs(options: _Options) -> list[str]:
    named = {"--address": options.address, "--redis": options.redis_url, "--redis-port": options.redis_port}
    return [text for name, value in named.items() if value is not None for text in (name, str(value))]


def supervise_detached(
    folder: RunFolder, *, address: str | None, redis_url: str | None, redis_port: int | None
) -> None:
    """What the process in the background does."""
    config = config_from_json((folder.path / "config.json").read_text())
    options = _Options(address=address, redis_url=redis_url, redis_port=redis_port)
    _supervise_or_say_why(config, folder, options, Console(width=120))


@contextmanager
def _journal_server(folder: RunFolder, options: _Options) -> Generator[str]:
    """The URL of the run's journal: a Redis of its own while the run lasts, or the one that was named."""
    if options.redis_url is not None:
        (folder.path / "redis-url.txt").write_text(options.redis_url)
        (folder.path / "redis-url.txt").chmod(0o600)
        yield options.redis_url
        return
    with RedisServer.start(folder.path / "redis", port=options.redis_port) as server:
        yield server.url


def _supervise(config: RunConfig, folder: RunFolder, options: _Options, console: Console) -> None:
    import ray

    from actors.teachers import has_teacher
    from cluster.dispatch import Dispatcher
    from cluster.launch import connect_ray, launch, tasks_of
    from cluster.supervisor import Supervisor

    tasks = tasks_of(config)
    sets = [datasets.find(name) for name in config.data]
    data_returns = datasets.mean_returns(sets)
    scales = scales_of(config, data_returns)
    folder.set_state("starting")
    with _journal_server(folder, options) as url:
        journal = Journal(connect(url), config.name)
        resumed = bool(journal.read(START, count=1))
        journal.append(Event(kind="resumed" if resumed else "started", text=f"{len(tasks)} tasks: {', '.join(tasks)}"))
        (folder.path / "scales.json").write_text(json.dumps({name: to_plain(scale) for name, scale in scales.items()}))
        console.print(
            f"run [bold]{config.name}[/bold] in {folder.path}: starting Ray, replay and the learner ...",
            highlight=False,
        )
        connect_ray(options.address, namespace=f"gato-{config.name}")
        try:
            teacher_returns = {name: scale.teacher_return for name, scale in scales.items()}
            parts = launch(config, folder.path, local=options.address is None, teacher_returns=teacher_returns)
            for data in sets:
                datasets.hand_in(data, parts.sink, console)
            teachable = [name for name, task in tasks.items() if name not in data_returns and has_teacher(task)]
            _require_demonstrations(tasks, data_returns, teachable, resumed)
            dispatcher = Dispatcher(
                config.actors,
                list(tasks),
                demonstration_steps=ray.get(parts.replay.demonstration_steps.remote()),
                teachable=teachable,
                seed=config.seed,
            )
            supervisor = Supervisor(config, parts, journal, dispatcher)
            folder.set_state("running")
            ended, reason = _run_watched(supervisor, journal, config.name, scales, console)
            ray.get(parts.replay.close.remote(), timeout=30.0)
        finally:
            ray.shutdown()
        journal.append(Event(kind=ended, text=reason or f"gato resume {config.name} goes on from here"))
        journal.close()
        folder.set_state("failed" if ended == "failed" else "stopped", reason=reason)
        console.print(render(_read_summary(journal, config.name, scales), now_s=time.time()))
    if ended == "failed":
        raise ValueError(f"run {config.name} failed: {reason}")
    console.print(
        f"run [bold]{config.name}[/bold] {ended}. Play it: gato evaluate {config.name} · see it again: gato watch {config.name}"
    )


def _require_demonstrations(
    tasks: Mapping[str, Task], data_returns: Mapping[str, float], teachable: Sequence[str], resumed: bool
) -> None:
    without = [name for name in tasks if name not in data_returns and name not in teachable]
    if without and not resumed:
        raise ValueError(
            f"nobody demonstrates {without[0]}: it has no teacher that ships; bring data (gato import, then --data NAME) or "
            f"train one (gato teach {without[0]})"
        )


def _run_watched(
    supervisor: Supervisor, journal: Journal, run: str, scales: Mapping[str, Scale], console: Console
) -> tuple[str, str]:
    """Run in this thread and show the table from another. Ctrl-C and SIGTERM ask the run to stop; again ends it at once."""
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


def _read_summary(journal: Journal, run: str, scales: Mapping[str, Scale]) -> Summary:
    summary, last = Summary(run=run, scales=scales), START
    while entries := journal.read(last):
        for entry in entries:
            summary = fold(summary, *entry)
        last = entries[-1].id
    return summary


def _scales_in(folder: RunFolder) -> dict[str, Scale]:
    file = folder.path / "scales.json"
    plain = json.loads(file.read_text()) if file.is_file() else {}
    return {name: Scale(**scale) for name, scale in plain.items()}


@contextmanager
def _journal_of(folder: RunFolder, redis_url: str | None) -> Generator[Journal]:
    """The journal of a run: from its live server, or from a private one on its folder while it is read."""
    named = folder.path / "redis-url.txt"
    url = redis_url or (named.read_text().strip() if named.is_file() else None)
    if url is None and folder.info().is_active:
        url = find_server(folder.path / "redis")
    if url is not None:
        yield Journal(connect(url), folder.name)
        return
    if not (folder.path / "redis").is_dir():
        raise ValueError(f"run {folder.name} never got as far as a journal; start it again")
    with RedisServer.start(folder.path / "redis") as server:
        yield Journal(connect(server.url), folder.name)


def summary_of(run: str | None, *, redis_url: str | None) -> Summary:
    """How a run stands, or stood when it ended."""
    folder = find_run(run)
    with _journal_of(folder, redis_url) as journal:
        return _read_summary(journal, folder.name, _scales_in(folder))


def watch(run: str | None, *, once: bool, redis_url: str | None, console: Console) -> None:
    """Show a run, once or until it ends."""
    folder = find_run(run)
    with _journal_of(folder, redis_url) as journal:
        if once or not folder.info().is_active:
            console.print(render(_read_summary(journal, folder.name, _scales_in(folder)), now_s=time.time()))
        else:
            watch_live(journal, run=folder.name, scales=_scales_in(folder), console=console, until_ended=True)


def _active(run: str | None) -> RunFolder:
    folder = find_run(run)
    info = folder.info()
    if not info.is_active:
        raise ValueError(f"run {folder.name} is {info.state}, not running; gato resume {folder.name} goes on with it")
    return folder


def stop(run: str | None, *, redis_url: str | None, console: Console) -> None:
    """Ask a run to stop and wait until it has."""
    folder = _active(run)
    with _journal_of(folder, redis_url) as journal:
        journal.post_control("stop")
    console.print(f"stopping run [bold]{folder.name}[/bold]: its learner saves ...")
    deadline = time.monotonic() + 120.0
    while folder.info().is_active and time.monotonic() < deadline:
        time.sleep(0.2)
    if folder.info().is_active:
        raise ValueError(f"run {folder.name} has not stopped after 120 s; see {folder.path}")
    console.print(f"run [bold]{folder.name}[/bold] stopped; gato resume {folder.name} goes on from here")


def scale(run: str | None, workers: int, *, redis_url: str | None, console: Console) -> None:
    """Ask a run for another number of workers."""
    folder = _active(run)
    with _journal_of(folder, redis_url) as journal:
        journal.post_control("scale", workers)
    console.print(f"run [bold]{folder.name}[/bold] goes on with {workers} workers")


def list_runs(console: Console) -> None:
    """All runs, newest first."""
    table = Table("run", "state", "tasks", "started", box=None, header_style="bold")
    for info in registry_runs():
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.created_s))
        table.add_row(info.name, info.state, ", ".join(info.config.get("tasks", [])), started)
    console.print(table if table.row_count else f"no runs in {runs_root()}; begin with: gato start demo")


def evaluate(what: str, *, tasks: Sequence[str] | None, episodes: int, as_json: bool, console: Console) -> None:
    """Play a checkpoint in this process, without Ray."""
    from cluster.evaluation import evaluate_checkpoint, locate

    checkpoint, config, scales = locate(what)
    wanted = [find_task(task, _all_tasks()).name for task in tasks] if tasks else list(config.tasks)
    table = Table("task", "return", "±", "normalised", "episodes", box=None, header_style="bold")
    rows: dict[str, object] = {}
    for evaluation in evaluate_checkpoint(checkpoint, config, wanted, episodes):
        if evaluation.failed:
            raise ValueError(f"evaluation of {evaluation.task} failed: {evaluation.failed}")
        mean = sum(evaluation.returns) / len(evaluation.returns)
        std = (sum((r - mean) ** 2 for r in evaluation.returns) / len(evaluation.returns)) ** 0.5
        top = scales.get(evaluation.task)
        normalised = top.normalise(mean) if top else _all_tasks()[evaluation.task].normalise(mean)
        rows[evaluation.task] = {
            "step": evaluation.learner_step, "return": mean, "return_std": std, "normalised": normalised,
            "episodes": len(evaluation.returns), "returns": list(evaluation.returns),
        }  # fmt: skip
        table.add_row(evaluation.task, f"{mean:,.1f}", f"{std:,.1f}", f"{normalised:.2f}", str(len(evaluation.returns)))
    if as_json:
        sys.stdout.write(json.dumps({"checkpoint": str(checkpoint), "tasks": rows}) + "\n")
    else:
        console.print(f"checkpoint {checkpoint}", highlight=False)
        console.print(table)


def import_data(source: str, *, task: str | None, name: str | None, console: Console) -> None:
    """Bring a file's episodes into a data set here."""
    known = _all_tasks()
    from replay.importers.source import read_source

    chosen = find_task(task, known) if task else None
    require_space(_made(runs_root()), MIN_FREE_BYTES)
    episodes = read_source(source, known, chosen)
    datasets.make(name or datasets.name_of(source), episodes, known, console, origin=source)


def record(task: str, *, episodes: int, name: str | None, seed: int, console: Console) -> None:
    """Let a teacher play and keep its episodes in a data set here."""
    from actors.demonstrate import demonstrate

    found = find_task(task, _all_tasks())
    require_space(_made(runs_root()), MIN_FREE_BYTES)
    played = demonstrate(found, episodes=episodes, seed=seed)
    datasets.make(
        name or found.name.replace("/", "-"),
        played,
        _all_tasks(),
        console,
        origin=f"record {found.name}",
        total=episodes,
    )


def teach(task: str, *, steps: int | None, seed: int, out: Path | None, console: Console) -> None:
    """Train a specialist and say how good it got."""
    from rich.progress import Progress

    from actors.specialist import settings_for, train_specialist
    from actors.specialist_policy import SHIPPED

    out = out or SHIPPED
    config = settings_for(task, seed=seed, env_steps=steps)
    with Progress(console=console) as bar:
        entry = bar.add_task(f"{config.task}: return -", total=config.env_steps)

        def told(done: int, mean: float) -> None:
            bar.update(entry, completed=done, description=f"{config.task}: return {mean:,.0f}")

        made = train_specialist(config, out, progress=told)
    console.print(
        f"{config.task}: {made['return_mean']:,.1f} ± {made['return_std']:,.1f} over 20 episodes; written to {out}"
    )
