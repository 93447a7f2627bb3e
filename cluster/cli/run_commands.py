"""What the other words of the command line do: talk to a run, look at one, handle data sets and
specialists."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from shlex import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.tasks.catalog import TASKS
from actors.tasks.resolve import resolve_task
from cluster.journal.journal import ControlWord, Journal
from cluster.journal.redis_server import RedisServer, connect, find_server
from cluster.monitor.format import NONE, literal, number_text, printable
from cluster.monitor.iqm import aggregate
from cluster.monitor.scores import MEASURES, Measure, finite, read_scales, scale_of
from cluster.monitor.summary import Summary, read_summary
from cluster.monitor.watch import render, watch_live
from cluster.runs import dataset_import as importing
from cluster.runs import datasets
from cluster.runs.folder import RunFolder, find_run, require_space, runs_root
from cluster.runs.folder import list_runs as registry_runs
from gato.serialization import to_plain
from replay.formats.reader import Reading, attempt_of


@contextmanager
def _journal_of(folder: RunFolder, redis_url: str | None) -> Generator[Journal]:
    """The journal of a run: from its live server, or from a private one on its folder while it is
    read."""
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
        return read_summary(journal, folder.name, read_scales(folder.path))


def watch(run: str | None, *, once: bool, redis_url: str | None, console: Console) -> None:
    """Show a run, once or until it ends."""
    folder = find_run(run)
    with _journal_of(folder, redis_url) as journal:
        if once or not folder.info().is_active:
            console.print(
                render(
                    read_summary(journal, folder.name, read_scales(folder.path)), now_s=time.time()
                )
            )
        else:
            watch_live(
                journal,
                run=folder.name,
                scales=read_scales(folder.path),
                console=console,
                until_ended=True,
            )


def _active(run: str | None) -> RunFolder:
    folder = find_run(run)
    info = folder.info()
    if not info.is_active:
        raise ValueError(
            f"run {folder.name} is {info.state}, not running; gato resume {folder.name} goes on"
            " with it"
        )
    return folder


def stop(run: str | None, *, redis_url: str | None, console: Console) -> None:
    """Ask a run to stop and wait until it has."""
    folder = _active(run)
    with _journal_of(folder, redis_url) as journal:
        journal.post_control("stop")
    console.print(f"stopping run [bold]{literal(folder.name)}[/bold]: its learner saves ...")
    deadline = time.monotonic() + 120.0
    while folder.info().is_active and time.monotonic() < deadline:
        time.sleep(0.2)
    if folder.info().is_active:
        raise ValueError(f"run {folder.name} has not stopped after 120 s; see {folder.path}")
    console.print(
        f"run [bold]{literal(folder.name)}[/bold] stopped; gato resume {literal(folder.name)} goes"
        " on from here"
    )


def scale(run: str | None, workers: int, *, redis_url: str | None, console: Console) -> None:
    """Ask a run for another number of workers."""
    folder = _active(run)
    with _journal_of(folder, redis_url) as journal:
        journal.post_control("scale", workers)
    console.print(f"run [bold]{literal(folder.name)}[/bold] goes on with {workers} workers")


def roles(
    run: str | None, shares: Mapping[str, float], *, redis_url: str | None, console: Console
) -> None:
    """Ask a run to give its workers' roles other shares of their time; they stand when it is
    resumed, too."""
    if not shares:
        raise ValueError(
            "nothing to change; name --evaluate, --generate, --relabel or --demonstrate, each from 0 to 1"
        )
    folder = _active(run)
    config = folder.run_config()
    # ValueError for what they cannot be
    config = replace(config, actors=replace(config.actors, **shares))
    with _journal_of(folder, redis_url) as journal:
        journal.post_control("roles", json.dumps(dict(shares)))
    folder.set_config(to_plain(config))
    console.print(
        f"run [bold]{literal(folder.name)}[/bold] was asked for other shares; gato watch"
        f" {literal(folder.name)} shows who does what"
    )


def pace(
    run: str | None, word: ControlWord, *, changes: Mapping[str, float | None] | None = None, redis_url: str | None,
    console: Console,
) -> None:  # fmt: skip
    """Ask a run to pause or resume its replay's limiter, or to change some of its settings."""
    folder = _active(run)
    asked = {"replay-pause": "to hold nobody back", "replay-resume": "to hold back again"}.get(
        word, "for other settings"
    )
    config = folder.run_config()
    if word == "replay-limit":
        if not changes:
            raise ValueError(
                "nothing to change; name --reads-per-token, --slack, --warmup or --uncoupled"
            )
        limiter = replace(config.replay.limiter, **changes)  # ValueError for what it cannot be
        config = replace(config, replay=replace(config.replay, limiter=limiter))
    with _journal_of(folder, redis_url) as journal:
        journal.post_control(word, json.dumps(dict(changes)) if changes else "")
    folder.set_config(to_plain(config))  # for when the run is resumed
    console.print(
        f"run [bold]{literal(folder.name)}[/bold] was asked {asked}; gato watch"
        f" {literal(folder.name)} shows what it does"
    )


def list_runs(console: Console) -> None:
    """All runs, newest first."""
    table = Table("run", "state", "tasks", "started", box=None, header_style="bold")
    for info in registry_runs():
        try:
            started = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.created_s))
        except (ValueError, OverflowError, OSError):  # the file may say any number
            started = NONE
        tasks = info.config.get("tasks", [])
        names = ", ".join(map(str, tasks)) if isinstance(tasks, list) else str(tasks)
        table.add_row(*(Text(printable(cell)) for cell in (info.name, info.state, names, started)))
    console.print(
        table
        if table.row_count
        else f"no runs in {literal(runs_root())}; begin with: gato start demo"
    )


def evaluate(
    what: str,
    *,
    tasks: Sequence[str] | None,
    episodes: int,
    as_json: bool,
    console: Console,
    video: bool = False,
) -> None:
    """Play a checkpoint in this process, without Ray."""
    from actors.players.filming import ClipFolder
    from cluster.control.evaluate import evaluate_checkpoint, locate

    checkpoint, config, scales = locate(what)
    clips = ClipFolder(checkpoint.parent.parent / "clips" / checkpoint.name) if video else None
    wanted = [resolve_task(task).name for task in tasks] if tasks else list(config.tasks)
    untrained = [name for name in wanted if name not in config.tasks]
    if untrained and not as_json:
        console.print(
            f"[yellow]warning:[/yellow] {literal(config.name)} was never trained on"
            f" {literal(', '.join(untrained))}; it was trained on"
            f" {literal(', '.join(config.tasks))}",
            highlight=False,
            soft_wrap=True,
        )
    titles = ("task", "return", "±", "random", *(f"of {by}" for by in MEASURES), "episodes")
    table = Table(*titles, box=None, header_style="bold")
    table.columns[0].overflow = "fold"
    rows: dict[str, object] = {}
    warnings: list[tuple[str, str]] = []
    scores: dict[Measure, list[list[float]]] = {by: [] for by in MEASURES}
    for evaluation in evaluate_checkpoint(checkpoint, config, wanted, episodes, clips=clips):
        if evaluation.failed:
            raise ValueError(f"evaluation of {evaluation.task} failed: {evaluation.failed}")
        mean = sum(evaluation.returns) / len(evaluation.returns)
        std = (sum((r - mean) ** 2 for r in evaluation.returns) / len(evaluation.returns)) ** 0.5
        scale = scales.get(evaluation.task) or scale_of(resolve_task(evaluation.task), None)
        random_return = scale.random_return if scale else None
        normalised = {
            by: finite(scale.normalise(mean, by=by)) if scale else None for by in MEASURES
        }
        for by in MEASURES:
            if scale is not None and normalised[by] is not None:
                scores[by].append([scale.normalise(value, by=by) for value in evaluation.returns])
        rows[evaluation.task] = {
            "step": evaluation.learner_step, "return": mean, "return_std": std, "normalised": normalised["teacher"],
            "expert_normalised": normalised["expert"], "human_normalised": normalised["human"],
            "random_return": random_return, "trained": evaluation.task in config.tasks,
            "episodes": len(evaluation.returns), "returns": list(evaluation.returns), "warnings": list(evaluation.warnings),
        }  # fmt: skip
        warnings += [(evaluation.task, warning) for warning in evaluation.warnings]
        shares = [number_text(normalised[by]) for by in MEASURES]
        counted = str(len(evaluation.returns))
        table.add_row(
            literal(evaluation.task),
            f"{mean:,.1f}",
            f"{std:,.1f}",
            number_text(random_return),
            *shares,
            counted,
        )
    overall = {by: aggregate(scores[by]) for by in MEASURES}
    if as_json:
        over_all = {by: asdict(over) if over else None for by, over in overall.items()}
        files = {name: str(file) for name, file in clips.files.items()} if clips else {}
        answer = {
            "checkpoint": str(checkpoint),
            "tasks": rows,
            "aggregate": over_all,
            "clips": files,
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        return
    console.print(f"checkpoint {literal(checkpoint)}", highlight=False)
    console.print(table)
    for name, warning in warnings:
        console.print(
            f"[yellow]warning:[/yellow] {literal(f'{name}: {warning}')}",
            highlight=False,
            soft_wrap=True,
        )
    for file in clips.files.values() if clips else ():
        console.print(f"clip {literal(file)}", highlight=False, soft_wrap=True)
    for problem in clips.problems.values() if clips else ():
        console.print(f"no clip: {literal(problem)}", highlight=False)
    if clips and any(file.suffix == ".gif" for file in clips.files.values()):
        console.print(
            "GIFs hold the beginning alone; for MP4: pip install -e '.[video]' in the project's"
            " folder",
            highlight=False,
            markup=False,
        )
    for by, over in overall.items():
        if over is not None and over.num_tasks > 1:
            console.print(
                f"interquartile mean over {over.num_tasks} tasks: {over.iqm:.2f} of the {by}'s, 95"
                f" % interval {over.low:.2f} to {over.high:.2f} over other episodes",
                highlight=False,
            )


def import_data(
    source: str,
    *,
    task: str | None,
    name: str | None,
    allowed: Sequence[str] = (),
    console: Console,
) -> None:
    """Bring the episodes of a file or a folder into a data set here."""
    from actors.envs.gymnasium_env import keyword_defaults
    from replay.formats.detect import needless, read_source
    from replay.formats.reader import ImportOptions, Known

    chosen = resolve_task(task) if task else None
    known_tasks = {**TASKS, chosen.name: chosen} if chosen else TASKS
    options = ImportOptions(allowed=frozenset(allowed), defaults=keyword_defaults)
    require_space(runs_root())

    def opened(known: Known) -> Reading:
        reading = read_source(source, known_tasks, chosen, known=known, options=options)
        unused = needless(source, known_tasks, chosen, options=options)
        reading.report.notes += [
            f"nothing of this source needs --allow {quote(subject)}" for subject in unused
        ]
        return reading

    importing.make(
        name or datasets.name_of(source),
        opened,
        known_tasks,
        console,
        origin=source,
    )


def record(
    task: str, *, episodes: int, name: str | None, seed: int, teacher: str, console: Console
) -> None:
    """Let a teacher play and keep its episodes in a data set here."""
    from actors.envs.factory import EnvFailedError
    from actors.teachers.demonstrate import demonstrate
    from actors.teachers.resolve import teacher_for

    found = resolve_task(task)
    require_space(runs_root())
    for note in teacher_for(found, teacher).notes:
        console.print(
            f"[yellow]note:[/yellow] {literal(note.removeprefix('noted: '))}", highlight=False
        )
    played = demonstrate(found, episodes=episodes, seed=seed, teacher_spec=teacher)
    try:
        importing.make(
            name or re.sub(r"[/:]", "-", found.name),
            lambda known: Reading(map(partial(attempt_of, task=found), played), total=episodes),
            {found.name: found},
            console,
            origin=f"record {found.name}",
        )
    except EnvFailedError as problem:
        raise ValueError(
            f"{problem}; gato check {found.name} says more. Episodes before it are kept"
        ) from problem
